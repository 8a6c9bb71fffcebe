//! StartTLS of LDAP: an extended operation (RFC 4511 sections 4.12 and 4.14), in the part of BER that section 5.1
//! allows.

use super::{Answer, MAX_PREAMBLE_BYTES, Read, TOO_EARLY};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const CONTROLS: u8 = 0xa0;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const REQUEST_NAME: u8 = 0x80;
const RESPONSE_NAME: u8 = 0x8a;
/// Bind, unbind, search, modify, add, delete, rename, compare, abandon.
const OTHER_REQUESTS: [u8; 9] = [0x60, 0x42, 0x63, 0x66, 0x68, 0x4a, 0x6c, 0x6e, 0x50];

const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
const SUCCESS: u8 = 0;
const PROTOCOL_ERROR: u8 = 2;
const UNAVAILABLE_CRITICAL_EXTENSION: u8 = 12;

/// As OpenSSL and libldap send it.
pub(super) const REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const REQUEST_ID: u32 = 1;

/// Why reading stops before there is a result.
enum Stop {
    NeedMore,
    Malformed(&'static str),
}

pub(super) fn read(bytes: &[u8]) -> Read {
    request(bytes).unwrap_or_else(|stop| match stop {
        Stop::NeedMore => Read::NeedMore,
        Stop::Malformed(reason) => Read::Malformed(reason),
    })
}

fn request(bytes: &[u8]) -> Result<Read, Stop> {
    let (mut message, length) = message(bytes)?;
    let id = message.id()?;
    if id == 0 {
        return Err(Stop::Malformed("a message id of zero"));
    }
    let operation = message.byte()?;
    if OTHER_REQUESTS.contains(&operation) {
        return Ok(Read::Plain { startup: None });
    }
    if operation != EXTENDED_REQUEST {
        return Err(Stop::Malformed("not a request of LDAP"));
    }
    let mut request = message.element()?;
    request.expect(REQUEST_NAME, "an extended request without a name")?;
    let name = request.element()?;
    if !name.may_become(START_TLS) {
        return Ok(Read::Plain { startup: None });
    }
    if name.bytes.len() < name.left {
        return Err(Stop::NeedMore);
    }
    if length > MAX_PREAMBLE_BYTES {
        return Err(Stop::Malformed("a request for TLS that is too long"));
    }
    let Some((_, behind)) = bytes.split_at_checked(length) else { return Err(Stop::NeedMore) };
    Ok(match (request.left, message.left) {
        (0, 0) if !behind.is_empty() => Read::Malformed(TOO_EARLY),
        (0, 0) => {
            Read::StartTls { length, answer: response(id, SUCCESS), refusal: response(id, PROTOCOL_ERROR) }
        }
        // We know no controls, and must not pass over one that is critical.
        (0, _) if message.byte()? == CONTROLS => {
            Read::Refuse { length, answer: response(id, UNAVAILABLE_CRITICAL_EXTENSION) }
        }
        (0, _) => Read::Malformed("something behind a request that is no control"),
        (_, _) => Read::Refuse { length, answer: response(id, PROTOCOL_ERROR) },
    })
}

pub(super) fn answer(bytes: &[u8]) -> Answer {
    accepted(bytes).unwrap_or_else(|stop| match stop {
        Stop::NeedMore => Answer::NeedMore,
        Stop::Malformed(reason) => Answer::Malformed(reason),
    })
}

fn accepted(bytes: &[u8]) -> Result<Answer, Stop> {
    let (mut message, length) = message(bytes)?;
    if length > MAX_PREAMBLE_BYTES {
        return Err(Stop::Malformed("a response that is too long"));
    }
    match message.id()? {
        REQUEST_ID => {}
        // A notice: the server is about to hang up.
        0 => return Ok(Answer::Refused),
        _ => return Err(Stop::Malformed("a response to something else")),
    }
    message.expect(EXTENDED_RESPONSE, "not an extended response")?;
    let mut response = message.element()?;
    response.expect(ENUMERATED, "a response without a result")?;
    let mut code = response.element()?;
    if code.left != 1 {
        return Err(Stop::Malformed("a response without a result"));
    }
    if code.byte()? != SUCCESS {
        return Ok(Answer::Refused);
    }
    match bytes.len().cmp(&length) {
        std::cmp::Ordering::Less => Err(Stop::NeedMore),
        std::cmp::Ordering::Equal => Ok(Answer::Accepted { length }),
        std::cmp::Ordering::Greater => Err(Stop::Malformed(TOO_EARLY)),
    }
}

/// All lengths are below 128: one byte each.
fn response(id: u32, code: u8) -> Vec<u8> {
    // The highest bit of an integer is its sign, which ids never have.
    let id = id.to_be_bytes();
    let zeros = id.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
    let id = element(INTEGER, &[&id[zeros..]]);
    let result = [ENUMERATED, 1, code, 4, 0, 4, 0];
    let operation = element(EXTENDED_RESPONSE, &[&result, &element(RESPONSE_NAME, &[START_TLS])]);
    element(SEQUENCE, &[&id, &operation])
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, content.len() as u8], content.as_slice()].concat()
}

/// The inside of the first message, and its length with what is around that.
fn message(bytes: &[u8]) -> Result<(Reader<'_>, usize), Stop> {
    let mut reader = Reader { bytes, left: usize::MAX };
    reader.expect(SEQUENCE, "not a message of LDAP")?;
    let message = reader.element()?;
    Ok((message, usize::MAX - reader.left))
}

/// The inside of an element, of which not all may be there yet.
struct Reader<'a> {
    /// What is there, and not read.
    bytes: &'a [u8],
    /// How much is not read, there or not.
    left: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Malformed("an element that ends too soon"))?;
        let (byte, rest) = self.bytes.split_first().ok_or(Stop::NeedMore)?;
        self.bytes = rest;
        Ok(*byte)
    }

    fn expect(&mut self, tag: u8, otherwise: &'static str) -> Result<(), Stop> {
        if self.byte()? == tag { Ok(()) } else { Err(Stop::Malformed(otherwise)) }
    }

    /// Behind a tag: what is inside. The reader goes on behind it.
    fn element(&mut self) -> Result<Self, Stop> {
        let length = match self.byte()? {
            short @ ..=0x7f => usize::from(short),
            long @ 0x81..=0x84 => {
                (0x80..long).try_fold(0, |length, _| Ok(length << 8 | usize::from(self.byte()?)))?
            }
            0x80 | 0x85.. => return Err(Stop::Malformed("a length that LDAP does not allow")),
        };
        self.left =
            self.left.checked_sub(length).ok_or(Stop::Malformed("an element longer than what is around"))?;
        let (inside, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        Ok(Self { bytes: inside, left: length })
    }

    /// An integer of 0 to 2³¹ − 1.
    fn id(&mut self) -> Result<u32, Stop> {
        self.expect(INTEGER, "a message without an id")?;
        let mut id = self.element()?;
        if !(1..=4).contains(&id.left) {
            return Err(Stop::Malformed("a message id that is too long"));
        }
        let mut value = match id.byte()? {
            0x80.. => return Err(Stop::Malformed("a message id below zero")),
            first => u32::from(first),
        };
        while id.left > 0 {
            value = value << 8 | u32::from(id.byte()?);
        }
        Ok(value)
    }

    fn may_become(&self, text: &[u8]) -> bool {
        self.left == text.len() && self.bytes.iter().zip(text).all(|(one, other)| one == other)
    }
}
