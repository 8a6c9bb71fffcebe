//! Dynamic updates of a zone (RFC 2136), signed by TSIG (RFC 8945), over TCP.

use std::{net::SocketAddr, time::SystemTime};

use awe4lb_model::acme::{Secret, TsigAlgorithm};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hickory_proto::{
    op::{Message, ResponseCode, update_message},
    rr::{Name, RData, RecordSet, RecordType, TSigner, rdata::TXT, rdata::tsig},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Record;

/// Records of challenges are asked for once.
const TTL: u32 = 60;
/// How far clocks may differ, in seconds (RFC 8945 10).
const FUDGE: u16 = 300;

/// Name, algorithm and secret.
pub(super) type TsigKey<'a> = (&'a str, TsigAlgorithm, Option<&'a Secret>);

/// Adds a record to a zone, or takes it out.
pub(super) async fn send(
    server: SocketAddr,
    zone: &str,
    key: Option<TsigKey<'_>>,
    is_added: bool,
    record: &Record,
) -> Result<(), String> {
    let mut message = message(zone, is_added, record)?;
    let mut verifier = None;
    if let Some(key) = key {
        let signer = signer(key)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        verifier = message.finalize(&signer, now.as_secs()).map_err(|error| error.to_string())?;
    }
    let request = message.to_vec().map_err(|error| error.to_string())?;
    let answer = exchange(server, &request).await.map_err(|error| format!("{server}: {error}"))?;
    let response = Message::from_vec(&answer).map_err(|error| format!("{server}: {error}"))?;
    if response.id != message.id {
        return Err(format!("{server} answered another question"));
    }
    match response.response_code {
        // Who is not the server could say "done", so that the authority fails afterwards; that is noticed.
        ResponseCode::NoError => match verifier {
            Some(mut verifier) => verifier
                .verify(&answer)
                .map(drop)
                .map_err(|error| format!("{server}: its signature: {error}")),
            None => Ok(()),
        },
        code => Err(format!("{server} says {code}{}", meaning(code))),
    }
}

fn meaning(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NotAuth | ResponseCode::BADSIG | ResponseCode::BADKEY => {
            ": does it know this key by this name and algorithm, and is it the zone's primary server?"
        }
        ResponseCode::Refused => ": it does not allow this key to change the zone",
        ResponseCode::NotZone => ": the name is in no zone of that server",
        ResponseCode::BADTIME => ": the clocks differ",
        _ => "",
    }
}

fn message(zone: &str, is_added: bool, record: &Record) -> Result<Message, String> {
    let name = |text: &str| Name::from_ascii(format!("{text}.")).map_err(|error| format!("{text}: {error}"));
    let (zone, name) = (name(zone)?, name(&record.name)?);
    if !zone.zone_of(&name) {
        return Err(format!("{name} is not within the zone {zone}"));
    }
    let mut set = RecordSet::with_ttl(name, RecordType::TXT, TTL);
    set.add_rdata(RData::TXT(TXT::new(vec![record.value.clone()])));
    Ok(if is_added {
        update_message::append(set, zone, false, false)
    } else {
        update_message::delete_by_rdata(set, zone, false)
    })
}

fn signer((name, algorithm, secret): TsigKey<'_>) -> Result<TSigner, String> {
    let secret = secret.ok_or("the secret of the key is not stored")?;
    let key = BASE64_STANDARD.decode(secret.0.trim()).map_err(|_| "the secret of the key is no base64")?;
    let algorithm = match algorithm {
        TsigAlgorithm::HmacSha256 => tsig::TsigAlgorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => tsig::TsigAlgorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => tsig::TsigAlgorithm::HmacSha512,
    };
    let name = Name::from_ascii(format!("{name}.")).map_err(|error| format!("{name}: {error}"))?;
    TSigner::new(key, algorithm, name, FUDGE).map_err(|error| error.to_string())
}

/// One message there and back, each with its length before it (RFC 1035 4.2.2).
async fn exchange(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
