//! What some protocols say before their ClientHello: a request for TLS, in words of their own. Reads the client's and
//! what answers it, and asks a backend the same.
//!
//! Only protocols whose client speaks first. After a request was answered, [`crate::client_hello`] reads on.

mod backend_key;
mod ldap;
mod postgres;
#[cfg(test)]
mod tests;

pub use awe4lb_model::Preamble;
pub use backend_key::{BackendKeyScanner, MAX_GREETING_BYTES, Scan};
pub use postgres::Startup;

/// The longest first message that is waited for: the longest that PostgreSQL takes. Of LDAP only a request for TLS is
/// waited for; other messages are known by how they begin.
pub const MAX_PREAMBLE_BYTES: usize = 10_004;
/// How many requests may be answered with no on one connection: a client of PostgreSQL asks for GSSAPI and for TLS,
/// each once. [`read`] knows nothing of what was read before; callers count.
pub const MAX_REFUSALS: usize = 2;

/// What the client's bytes so far are. Lengths say how many of them this was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The start of something; never for more than [`MAX_PREAMBLE_BYTES`].
    NeedMore,
    /// The start of TLS.
    Tls,
    /// A request for TLS, and nothing behind it: a client waits for the answer.
    StartTls {
        /// All the bytes.
        length: usize,
        /// Says yes; then TLS begins.
        answer: Vec<u8>,
        /// Says no; then the client goes on without TLS, or goes away.
        refusal: Vec<u8>,
    },
    /// A request for something else that comes before, to be answered with no. Then the client goes on; at most
    /// [`MAX_REFUSALS`] times.
    Refuse {
        /// The request.
        length: usize,
        /// Says no.
        answer: Vec<u8>,
    },
    /// Not a session: a request to cancel what another one is doing. It is for the backend that gave this key.
    Cancel {
        /// The request.
        length: usize,
        /// The backend's process.
        process: u32,
        /// Proves that one may: 4 to 256 bytes.
        key: Vec<u8>,
    },
    /// The protocol itself, without TLS.
    Plain {
        /// How a session with PostgreSQL starts.
        startup: Option<Startup>,
    },
    /// None of this; why.
    Malformed(&'static str),
}

/// What a backend's bytes so far say to [`request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The start of something; never for more than [`MAX_PREAMBLE_BYTES`].
    NeedMore,
    /// Yes, and nothing behind it: now it waits for our ClientHello.
    Accepted {
        /// All the bytes.
        length: usize,
    },
    /// No.
    Refused,
    /// None of this; why.
    Malformed(&'static str),
}

/// TLS begins with a handshake record. No message of PostgreSQL is that long, and none of LDAP begins like this.
const TLS_HANDSHAKE: u8 = 22;
/// Bytes in front of TLS that were not asked for would be taken for what TLS protects (CVE-2021-23214, CVE-2021-23222).
const TOO_EARLY: &str = "something was sent between the request for TLS and its answer";

/// Looks at everything that has arrived so far from a client.
pub fn read(kind: Preamble, bytes: &[u8]) -> Read {
    match (bytes.first(), kind) {
        (None, _) => Read::NeedMore,
        (Some(&TLS_HANDSHAKE), _) => Read::Tls,
        (_, Preamble::Postgres) => postgres::read(bytes),
        (_, Preamble::Ldap) => ldap::read(bytes),
    }
}

/// What asks a backend for TLS. It is sent alone: the ClientHello follows the answer.
pub fn request(kind: Preamble) -> &'static [u8] {
    match kind {
        Preamble::Postgres => postgres::REQUEST,
        Preamble::Ldap => ldap::REQUEST,
    }
}

/// Looks at everything that has arrived so far from a backend since [`request`] was sent.
pub fn answer(kind: Preamble, bytes: &[u8]) -> Answer {
    match kind {
        Preamble::Postgres => postgres::answer(bytes),
        Preamble::Ldap => ldap::answer(bytes),
    }
}
