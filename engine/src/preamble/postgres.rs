//! The first message of a PostgreSQL client: a length, a code, and what belongs to it
//! (PostgreSQL's documentation, "Message Formats").

use super::{Answer, MAX_PREAMBLE_BYTES, Read, TOO_EARLY};

const HEADER_BYTES: usize = 8;
const SSL_REQUEST: u32 = code(1234, 5679);
const GSSENC_REQUEST: u32 = code(1234, 5680);
const CANCEL_REQUEST: u32 = code(1234, 5678);
/// Of which version 3.2 allows more than the 4 bytes of 3.0.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

pub(super) const REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

const fn code(major: u16, minor: u16) -> u32 {
    (major as u32) << 16 | minor as u32
}

/// The message that starts a session. It names a user, once, and a database at most once.
#[derive(Clone, PartialEq, Eq)]
pub struct Startup {
    /// Of protocol version 3.
    minor: u16,
    /// Names and values in turn, each with a zero behind it, without the zero that ends them.
    parameters: Box<[u8]>,
}

impl Startup {
    /// The minor of the protocol version, of which the major is 3.
    pub fn minor_version(&self) -> u16 {
        self.minor
    }

    /// Who wants to log in.
    pub fn user(&self) -> &[u8] {
        self.parameter(b"user").unwrap_or_default()
    }

    /// Where to; without a name it is that of the user.
    pub fn database(&self) -> &[u8] {
        self.parameter(b"database").filter(|name| !name.is_empty()).unwrap_or(self.user())
    }

    /// The value of the first parameter of this name.
    pub fn parameter(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// Names and values, as they were sent.
    pub fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        pairs(&self.parameters)
    }
}

impl std::fmt::Debug for Startup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Parameters may hold what is nobody's business, such as settings that carry tokens.
        let user = String::from_utf8_lossy(self.user());
        let database = String::from_utf8_lossy(self.database());
        f.debug_struct("Startup").field("user", &user).field("database", &database).finish_non_exhaustive()
    }
}

pub(super) fn read(bytes: &[u8]) -> Read {
    // No message is as long as 64 KiB.
    if bytes.iter().take(2).any(|byte| *byte != 0) {
        return Read::Malformed("not a message of PostgreSQL");
    }
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Read::NeedMore };
    let Some((code, _)) = rest.split_first_chunk::<4>() else { return Read::NeedMore };
    let length = u32::from_be_bytes(*length) as usize;
    let code = u32::from_be_bytes(*code);
    let allowed = match code {
        SSL_REQUEST | GSSENC_REQUEST => HEADER_BYTES..=HEADER_BYTES,
        CANCEL_REQUEST => HEADER_BYTES + 4 + KEY_BYTES.start()..=HEADER_BYTES + 4 + KEY_BYTES.end(),
        _ if code >> 16 == 3 => HEADER_BYTES + 1..=MAX_PREAMBLE_BYTES,
        _ => return Read::Malformed("a version other than 3"),
    };
    if !allowed.contains(&length) {
        return Read::Malformed("a message of the wrong length");
    }
    let Some(body) = bytes.get(HEADER_BYTES..length) else { return Read::NeedMore };
    match code {
        SSL_REQUEST if bytes.len() > length => Read::Malformed(TOO_EARLY),
        SSL_REQUEST => Read::StartTls { length, answer: b"S".to_vec(), refusal: b"N".to_vec() },
        GSSENC_REQUEST => Read::Refuse { length, answer: b"N".to_vec() },
        CANCEL_REQUEST => cancel(length, body),
        _ => match startup((code & 0xffff) as u16, body) {
            Ok(startup) => Read::Plain { startup: Some(startup) },
            Err(reason) => Read::Malformed(reason),
        },
    }
}

fn cancel(length: usize, body: &[u8]) -> Read {
    match body.split_first_chunk::<4>() {
        Some((process, key)) => {
            Read::Cancel { length, process: u32::from_be_bytes(*process), key: key.to_vec() }
        }
        None => Read::Malformed("a message of the wrong length"),
    }
}

fn startup(minor: u16, body: &[u8]) -> Result<Startup, &'static str> {
    let Some((0, parameters)) = body.split_last() else { return Err("parameters without an end") };
    let (mut length, mut users, mut databases) = (0, 0, 0);
    for (name, value) in pairs(parameters) {
        length += name.len() + value.len() + 2;
        match name {
            b"" => return Err("a parameter without a name"),
            b"user" if value.is_empty() => return Err("no user"),
            b"user" => users += 1,
            b"database" => databases += 1,
            _ => {}
        }
    }
    if length != parameters.len() {
        return Err("a parameter without a value");
    }
    // Twice is ambiguous: what we route by must be what a backend would see.
    match (users, databases) {
        (0, _) => Err("no user"),
        (1, 0 | 1) => Ok(Startup { minor, parameters: parameters.into() }),
        _ => Err("a user or a database twice"),
    }
}

/// As long as there are whole ones.
fn pairs(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (name, rest) = text(bytes)?;
        let (value, rest) = text(rest)?;
        bytes = rest;
        Some((name, value))
    })
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

pub(super) fn answer(bytes: &[u8]) -> Answer {
    match bytes {
        [] => Answer::NeedMore,
        b"S" => Answer::Accepted { length: 1 },
        [b'S', ..] => Answer::Malformed(TOO_EARLY),
        // An error is how a server says that it has no room; its text is not to be trusted, as no one vouches for it.
        [b'N' | b'E', ..] => Answer::Refused,
        _ => Answer::Malformed("neither yes nor no"),
    }
}
