//! HTTP as sources ask it: no redirects, a limited size, no address that leads to the machine's own secrets, and files with
//! secrets only from where this machine allows it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Once},
    time::Duration,
};

use awe4lb_model::discovery::ClientTls;
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

use crate::{Allowed, Failure, file::Stamp};

/// The longest part of an error's body that is told.
const TOLD: usize = 200;
/// The largest certificate or key.
const MAX_PEM: u64 = 256 * 1024;

/// A client that keeps its connections, and is made anew when the files of its certificate change.
pub struct Web {
    client: Client,
    identity: Option<(Box<str>, Box<str>)>,
    stamps: [Option<Stamp>; 2],
}

/// Refuses addresses that are not allowed, whatever name leads to them.
pub(crate) struct Guarded(pub(crate) Arc<Allowed>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                allowed.address(address.ip()).map_err(|failure| failure.0)?;
                addresses.push(address);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Web {
    /// Trusts what `tls` says, and asks nobody who is not allowed.
    pub fn new(tls: &ClientTls, allowed: &Arc<Allowed>) -> Result<Self, Failure> {
        Self::over(None, tls, allowed)
    }

    /// The same over a unix socket, which has to be allowed.
    pub(crate) fn over(
        socket: Option<&str>,
        tls: &ClientTls,
        allowed: &Arc<Allowed>,
    ) -> Result<Self, Failure> {
        let roots = tls.ca_pem.as_ref().map(|pem| Certificate::from_pem_bundle(pem.as_bytes())).transpose();
        let roots = roots.map_err(|error| Failure::new(format!("ca: {error}")))?;
        let stamps = stamps(tls.identity.as_ref());
        let mut identity = None;
        if let Some((cert, key)) = &tls.identity {
            let mut pem = secret(cert, allowed)?;
            pem.push('\n');
            pem.push_str(&secret(key, allowed)?);
            // The error may show what it read.
            let read = Identity::from_pem(pem.as_bytes()).map_err(|_| {
                Failure::new(format!("{cert} and {key} are no certificate and its key, as PEM"))
            })?;
            identity = Some(read);
        }
        let client = client(allowed, |mut builder| {
            if let Some(socket) = socket {
                builder = builder.unix_socket(std::path::Path::new(socket));
            }
            if let Some(roots) = &roots {
                builder = builder.tls_certs_only(roots.iter().cloned());
            }
            match &identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        })?;
        Ok(Self { client, identity: tls.identity.clone(), stamps })
    }

    /// Whether the certificate or its key was replaced since.
    pub(crate) fn is_outdated(&self) -> bool {
        stamps(self.identity.as_ref()) != self.stamps
    }

    /// To ask with; cheap to clone.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

/// A client like all of ours; `special` adds what it has of its own. Where this machine has no certificates of authorities, as a
/// small container may, it trusts nobody: what is asked without TLS needs none.
pub(crate) fn client(
    allowed: &Arc<Allowed>,
    special: impl Fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, Failure> {
    static TOLD_ONCE: Once = Once::new();
    let builder = || {
        let builder = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Guarded(allowed.clone())))
            .pool_idle_timeout(Duration::from_secs(60))
            .user_agent(concat!("awe4lb/", env!("CARGO_PKG_VERSION")));
        special(builder)
    };
    builder().build().or_else(|error| {
        let why = chain(&error);
        let without = builder().tls_certs_only([]).build().map_err(|_| Failure::new(why.clone()))?;
        TOLD_ONCE.call_once(|| {
            tracing::warn!(
                "no public https:// address is trusted, as this machine has no certificates of authorities: install \
                 ca-certificates, or name a file of them in SSL_CERT_FILE ({why})"
            );
        });
        Ok(without)
    })
}

fn stamps(identity: Option<&(Box<str>, Box<str>)>) -> [Option<Stamp>; 2] {
    identity.map_or([None, None], |(cert, key)| [Stamp::of(cert), Stamp::of(key)])
}

/// The client that is there, or a new one where there is none or its certificate was replaced.
pub(crate) fn fresh<'a>(
    web: &'a mut Option<Web>,
    tls: &ClientTls,
    allowed: &Arc<Allowed>,
) -> Result<&'a Web, Failure> {
    if web.as_ref().is_some_and(Web::is_outdated) {
        *web = None;
    }
    Ok(match web {
        Some(web) => web,
        none => none.insert(Web::new(tls, allowed)?),
    })
}

/// A URL whose host, where that is an address, may be asked. An address is looked up by nobody.
pub fn url(text: &str, allowed: &Allowed) -> Result<Url, Failure> {
    let url: Url = text.parse().map_err(|error| Failure::new(format!("url: {error}")))?;
    let literal = url.host_str().map(|host| host.trim_matches(['[', ']'])).and_then(|host| host.parse().ok());
    match literal {
        Some(ip) => allowed.address(ip).map(|()| url),
        None => Ok(url),
    }
}

/// Why an answer is none, in words: the status, what the server says of it, and what to look at.
pub async fn refused(response: Response, hint: &str) -> Failure {
    let status = response.status();
    if status.is_redirection() {
        return Failure::new(format!("{status}: redirects are not followed; give the address it leads to"));
    }
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(" (see {hint})"),
        _ => String::new(),
    };
    let said = match body(response, 64 * 1024).await {
        Ok(body) => words(&String::from_utf8_lossy(&body)),
        Err(_) => String::new(),
    };
    Failure::new(format!("{}{hint}", format!("{status}: {said}").trim_end_matches(": ")))
}

/// The first line of an answer for people; pages of HTML say nothing.
fn words(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim();
    if line.starts_with('<') {
        return String::new();
    }
    line.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

/// The whole body, if it is not larger than `most`.
pub async fn body(response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::new(format!("the answer has more than {most} bytes (maxBytes)"));
    read(response, most).await?.ok_or_else(too_large)
}

/// The whole body; `None`: it is larger than `most`.
pub(crate) async fn read(mut response: Response, most: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Failure::new(chain(&error)))? {
        if body.len() + piece.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body))
}

/// A small file that holds a secret, without the white space around it.
pub(crate) fn secret(file: &str, allowed: &Allowed) -> Result<String, Failure> {
    use std::io::Read as _;
    let cannot = |error: std::io::Error| Failure::new(format!("{file}: {error}"));
    allowed.file(file)?;
    if !std::fs::metadata(file).map_err(cannot)?.is_file() {
        return Err(Failure::new(format!("{file} is no file")));
    }
    let mut text = String::new();
    std::fs::File::open(file).map_err(cannot)?.take(MAX_PEM).read_to_string(&mut text).map_err(cannot)?;
    Ok(text.trim().to_owned())
}

/// The causes of an error, outermost first: the outermost alone says nothing.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Where clouds keep the credentials of their machines, beside the link-local addresses.
pub(crate) fn is_delicate(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets() == [100, 100, 100, 200],
        IpAddr::V6(ip) => {
            let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            is_link_local || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}
