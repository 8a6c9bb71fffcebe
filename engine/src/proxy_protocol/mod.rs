//! The PROXY protocol, version 1 and 2: who the client of a proxied connection or datagram is. Reads what came, writes
//! what goes to a backend; the source is HAProxy's `doc/proxy-protocol.txt`.
//!
//! Who may send a header is not decided here, and a header is never guessed: callers ask for one or do not.

mod crc32c;
mod parse;
#[cfg(test)]
mod tests;
mod tlv;
mod write;

pub use parse::{Parsed, parse};
pub use tlv::{MAX_UNIQUE_ID_BYTES, Ssl, Tlv, Tlvs};
pub use write::Outgoing;

use std::net::SocketAddr;

/// The longest line of version 1, with its end.
pub const MAX_V1_BYTES: usize = 107;
/// The longest header of version 2 that is read or written, of the 64 KiB that its length field could say.
pub const MAX_V2_BYTES: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, a version with a command, a family with a transport, two bytes of length.
const V2_FIXED_BYTES: usize = 16;
/// Two paths.
const UNIX_BYTES: usize = 216;

/// The two forms of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

/// A header that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The form it came in.
    pub version: Version,
    /// The proxy speaks for itself, as health checks do: the addresses of the socket are the true ones.
    pub is_local: bool,
    /// It is about a datagram.
    pub is_datagram: bool,
    /// The client. `None`: the sender does not know or does not say (`LOCAL`, `UNKNOWN`, unix sockets), then that of
    /// the socket counts. An IPv4 address in IPv6 is given as IPv4: it is the same client.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; as `source`.
    pub destination: Option<SocketAddr>,
    /// What else is known; version 1 has none.
    pub tlvs: Tlvs,
}

/// Whether `bytes` could become, or begin with, the signature.
fn agrees(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}
