//! Finds the key by which a session with PostgreSQL can be cancelled, so that a request to cancel goes to the backend
//! that gave it. Walks the server's messages; keeps nothing of them but the key.

/// How far is looked. A server greets in some hundred bytes; parameters and notices are the operator's.
pub const MAX_GREETING_BYTES: usize = 64 * 1024;

/// A message's kind and its length, which counts itself.
const HEADER_BYTES: usize = 5;
const LENGTH_BYTES: usize = 4;
const KEY_DATA: u8 = b'K';
/// Authentication, parameters, notices, another version than was asked for.
const BEFORE_THE_KEY: [u8; 4] = [b'R', b'S', b'N', b'v'];
/// The length, the process, and 4 to 256 bytes of key.
const KEY_DATA_BYTES: std::ops::RangeInclusive<usize> = LENGTH_BYTES + 4 + 4..=LENGTH_BYTES + 4 + 256;

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// The key may still come.
    NeedMore,
    /// The key came; a request to cancel will say the same.
    Key {
        /// The backend's process.
        process: u32,
        /// 4 to 256 bytes.
        key: Vec<u8>,
    },
    /// No key comes: the session has begun without, or failed, or is not one.
    Nothing,
}

/// Looks for the key in what a server says to a [`Startup`](super::Startup); not in its answer to a request for TLS.
#[derive(Debug)]
pub struct BackendKeyScanner {
    /// A header, as far as it is there; the whole message if it is the one with the key.
    message: Vec<u8>,
    /// How many bytes of an unwanted message are still to come.
    skip: usize,
    /// How many bytes messages may still have.
    budget: usize,
    is_done: bool,
}

impl Default for BackendKeyScanner {
    fn default() -> Self {
        Self { message: Vec::new(), skip: 0, budget: MAX_GREETING_BYTES, is_done: false }
    }
}

impl BackendKeyScanner {
    /// The next bytes, cut wherever. Once it said anything but [`Scan::NeedMore`], it says [`Scan::Nothing`].
    pub fn push(&mut self, bytes: &[u8]) -> Scan {
        if self.is_done {
            return Scan::Nothing;
        }
        let scan = self.walk(bytes);
        if scan != Scan::NeedMore {
            self.is_done = true;
            self.message = Vec::new();
        }
        scan
    }

    fn walk(&mut self, mut bytes: &[u8]) -> Scan {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];

            // More than a header is only kept of the message that is wanted.
            let wanted = length(&self.message).map_or(HEADER_BYTES, |length| 1 + length);
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.message.len()));
            self.message.extend_from_slice(taken);
            bytes = rest;
            if self.message.len() < wanted {
                return Scan::NeedMore;
            }
            if wanted > HEADER_BYTES {
                return key(&self.message[HEADER_BYTES..]);
            }

            let length = length(&self.message).unwrap_or_default();
            let Some(budget) = self.budget.checked_sub(length) else { return Scan::Nothing };
            self.budget = budget;
            match self.message[0] {
                KEY_DATA if KEY_DATA_BYTES.contains(&length) => {}
                kind if BEFORE_THE_KEY.contains(&kind) && length >= LENGTH_BYTES => {
                    self.skip = length - LENGTH_BYTES;
                    self.message.clear();
                }
                // An error, the end of the greeting, or no PostgreSQL.
                _ => return Scan::Nothing,
            }
        }
    }
}

/// `None` as long as the header is not there.
fn length(message: &[u8]) -> Option<usize> {
    let [_, a, b, c, d, ..] = message else { return None };
    usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()
}

fn key(body: &[u8]) -> Scan {
    body.split_first_chunk::<4>().map_or(Scan::Nothing, |(process, key)| Scan::Key {
        process: u32::from_be_bytes(*process),
        key: key.to_vec(),
    })
}
