//! Writes a header for a backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    MAX_UNIQUE_ID_BYTES, MAX_V2_BYTES, Ssl, Tlv, V1_SIGNATURE, V2_FIXED_BYTES, V2_SIGNATURE, Version,
    crc32c::crc32c,
    tlv::{
        ALPN, AUTHORITY, CLIENT_CERTIFICATE_CONNECTION, CLIENT_CERTIFICATE_SESSION, CLIENT_SSL, CRC32C,
        NETNS, ONCE, SSL, SSL_CIPHER, SSL_COMMON_NAME, SSL_KEY_ALGORITHM, SSL_SIGNATURE_ALGORITHM,
        SSL_VERSION, UNIQUE_ID,
    },
};

/// The checksum with its kind and length.
const CHECKSUM_BYTES: usize = 7;

/// A header to be written.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The form.
    pub version: Version,
    /// We speak for ourselves, as health checks do. Version 1 cannot say so: it names the addresses of the socket.
    pub is_local: bool,
    /// It is about a datagram. Version 1 cannot say so: it names no addresses.
    pub is_datagram: bool,
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
    /// What else the backend is told, by version 2. With `is_local` only the checksum: receivers discard all others.
    pub tlvs: &'a [Tlv<'a>],
}

impl Outgoing<'_> {
    /// Appends the header: always one that [`parse`](super::parse) takes. Values that do not fit, unique ids that are
    /// too long, and a second authority and the like are left out as a whole.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.version {
            Version::V1 => self.write_v1(out),
            Version::V2 => self.write_v2(out),
        }
    }

    fn write_v1(&self, out: &mut Vec<u8>) {
        let (family, source, destination) = match self.addresses() {
            _ if self.is_datagram => return out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            Addresses::V4(source, destination) => ("TCP4", source.into(), destination.into()),
            Addresses::V6(source, destination) => ("TCP6", IpAddr::from(source), IpAddr::from(destination)),
        };
        let ports = (self.source.port(), self.destination.port());
        out.extend_from_slice(V1_SIGNATURE);
        out.extend_from_slice(
            format!("{family} {source} {destination} {} {}\r\n", ports.0, ports.1).as_bytes(),
        );
    }

    fn write_v2(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(V2_SIGNATURE);
        if self.is_local {
            out.extend_from_slice(&[0x20, 0, 0, 0]);
        } else {
            self.write_addresses(out);
        }
        let checksum_at = self.write_tlvs(out, start);

        let length = u16::try_from(out.len() - start - V2_FIXED_BYTES).unwrap_or_default();
        out[start + V2_FIXED_BYTES - 2..][..2].copy_from_slice(&length.to_be_bytes());
        if let Some(at) = checksum_at {
            // Its own place is still zero.
            let sum = crc32c(&[&out[start..]]);
            out[at..][..4].copy_from_slice(&sum.to_be_bytes());
        }
    }

    fn write_addresses(&self, out: &mut Vec<u8>) {
        let transport = if self.is_datagram { 2 } else { 1 };
        match self.addresses() {
            Addresses::V4(source, destination) => {
                out.extend_from_slice(&[0x21, 0x10 | transport, 0, 0]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
            Addresses::V6(source, destination) => {
                out.extend_from_slice(&[0x21, 0x20 | transport, 0, 0]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
        }
        out.extend_from_slice(&self.source.port().to_be_bytes());
        out.extend_from_slice(&self.destination.port().to_be_bytes());
    }

    /// Says where the checksum is to be put, if one is wanted.
    fn write_tlvs(&self, out: &mut Vec<u8>, start: usize) -> Option<usize> {
        let wants_checksum = self.tlvs.contains(&Tlv::Crc32c);
        let limit = start + MAX_V2_BYTES - if wants_checksum { CHECKSUM_BYTES } else { 0 };
        let mut seen = [false; 256];
        for tlv in self.tlvs.iter().filter(|_| !self.is_local) {
            let before = out.len();
            let is_whole = put_tlv(out, tlv).is_some() && out.len() <= limit;
            let kind = out.get(before).copied().unwrap_or_default();
            let is_repeated = ONCE.contains(&kind) && seen[usize::from(kind)];
            if is_whole && !is_repeated {
                seen[usize::from(kind)] = true;
            } else {
                out.truncate(before);
            }
        }
        wants_checksum.then(|| {
            out.extend_from_slice(&[CRC32C, 0, 4, 0, 0, 0, 0]);
            out.len() - 4
        })
    }

    fn addresses(&self) -> Addresses {
        match (self.source.ip().to_canonical(), self.destination.ip().to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4(source, destination),
            (source, destination) => Addresses::V6(in_v6(source), in_v6(destination)),
        }
    }
}

/// Of one family: a header has room for one, and HAProxy maps likewise.
enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn in_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// `None`: nothing of it may be sent, and some of it may have been appended.
fn put_tlv(out: &mut Vec<u8>, tlv: &Tlv<'_>) -> Option<()> {
    match tlv {
        Tlv::Alpn(protocol) => put(out, ALPN, protocol),
        Tlv::Authority(name) => put(out, AUTHORITY, name.as_bytes()),
        Tlv::UniqueId(id) if id.len() > MAX_UNIQUE_ID_BYTES => None,
        Tlv::UniqueId(id) => put(out, UNIQUE_ID, id),
        Tlv::Ssl(ssl) => put_ssl(out, ssl),
        Tlv::Netns(name) => put(out, NETNS, name.as_bytes()),
        // It comes last, when all else is there.
        Tlv::Crc32c => None,
        // These have rules, which their own variants keep.
        Tlv::Other { kind: CRC32C | SSL | UNIQUE_ID, .. } => None,
        Tlv::Other { kind, value } => put(out, *kind, value),
    }
}

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    let [high, low] = u16::try_from(value.len()).ok()?.to_be_bytes();
    out.extend_from_slice(&[kind, high, low]);
    out.extend_from_slice(value);
    Some(())
}

fn put_ssl(out: &mut Vec<u8>, ssl: &Ssl<'_>) -> Option<()> {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let client = flag(ssl.is_tls, CLIENT_SSL)
        | flag(ssl.certificate_on_connection, CLIENT_CERTIFICATE_CONNECTION)
        | flag(ssl.certificate_in_session, CLIENT_CERTIFICATE_SESSION);
    let verified = ssl.verified && (ssl.certificate_on_connection || ssl.certificate_in_session);
    let mut value = vec![client, 0, 0, 0, u8::from(!verified)];
    for (kind, text) in [
        (SSL_VERSION, ssl.version),
        (SSL_COMMON_NAME, ssl.common_name),
        (SSL_CIPHER, ssl.cipher),
        (SSL_SIGNATURE_ALGORITHM, ssl.signature_algorithm),
        (SSL_KEY_ALGORITHM, ssl.key_algorithm),
    ] {
        if let Some(text) = text {
            put(&mut value, kind, text.as_bytes())?;
        }
    }
    put(out, SSL, &value)
}
