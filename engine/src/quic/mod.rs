//! QUIC as far as somebody in the middle can read it: headers, and the ClientHello of the first packets, which are encrypted
//! with keys that everybody can derive (RFC 8999, RFC 9000, RFC 9001, RFC 9369).

mod header;
mod initial;
#[cfg(test)]
mod tests;

pub use header::{ConnectionId, destination_id, source_ids};
pub use initial::{InitialSniffer, Sniff};
