//! What a certificate authority asks, to see that a name is ours: by HTTP for a token (RFC 8555 section 8.3), or by TLS
//! with a protocol of its own (RFC 8737).
//!
//! Works on what has arrived so far. Everything that is not exactly such a question is somebody else's, byte for byte.

/// The application protocol of a validation by TLS, offered alone.
pub const ACME_TLS: &str = "acme-tls/1";

/// The longest head of a request that is waited for.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The longest token: authorities send 43 characters.
pub const MAX_TOKEN_BYTES: usize = 256;

const START: &[u8] = b"GET /.well-known/acme-challenge/";
const VERSION: &[u8] = b" HTTP/1.";

/// What the first bytes of a connection are. What is said of a part holds for the whole, but that a part of a head says
/// nothing of its rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// The start of what may become a question for a token; never for more than [`MAX_HEAD_BYTES`].
    NeedMore,
    /// A request line that asks for this token; the head goes on.
    Line(&'a str),
    /// A whole head that asks for this token.
    Whole(&'a str),
    /// Anything else.
    Other,
}

/// Looks at everything that has arrived so far.
pub fn read(bytes: &[u8]) -> Request<'_> {
    let head = bytes.get(..MAX_HEAD_BYTES).unwrap_or(bytes);
    let request = match line(head) {
        Some((token, headers)) => match rest(headers) {
            Rest::Open => Request::Line(token),
            Rest::Ended => Request::Whole(token),
            Rest::Wrong => Request::Other,
        },
        None if may_become_line(head) => Request::NeedMore,
        None => Request::Other,
    };
    match request {
        Request::NeedMore | Request::Line(_) if bytes.len() >= MAX_HEAD_BYTES => Request::Other,
        known => known,
    }
}

/// A whole request line: its token, and what stands behind it.
fn line(head: &[u8]) -> Option<(&str, &[u8])> {
    let after = head.strip_prefix(START)?;
    let length = after.iter().take_while(|byte| is_of_token(**byte)).count();
    let (token, after) = after.split_at_checked(length)?;
    let token =
        std::str::from_utf8(token).ok().filter(|token| (1..=MAX_TOKEN_BYTES).contains(&token.len()))?;
    match after.strip_prefix(VERSION)? {
        [b'0' | b'1', b'\r', b'\n', headers @ ..] => Some((token, headers)),
        _ => None,
    }
}

/// Whether more bytes could make a request line of it.
fn may_become_line(head: &[u8]) -> bool {
    let Some(after) = head.strip_prefix(START) else { return START.starts_with(head) };
    let length = after.iter().take_while(|byte| is_of_token(**byte)).count();
    let after = after.get(length..).unwrap_or_default();
    if length > MAX_TOKEN_BYTES || (length == 0 && !after.is_empty()) {
        return false;
    }
    match after.strip_prefix(VERSION) {
        Some(end) => matches!(end, [] | [b'0' | b'1'] | [b'0' | b'1', b'\r']),
        None => VERSION.starts_with(after),
    }
}

/// base64url without padding.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

enum Rest {
    Open,
    Ended,
    Wrong,
}

/// Header fields as RFC 9112 has them, without continuations, until the empty line. Bodies belong to no question.
fn rest(mut headers: &[u8]) -> Rest {
    loop {
        let end = headers.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let Some(end) = end else {
            return if is_start_of_field(headers) { Rest::Open } else { Rest::Wrong };
        };
        let (field, after) = headers.split_at(end);
        if !field.is_empty() && !is_field(field) {
            return Rest::Wrong;
        }
        match after {
            [b'\r', b'\n', ..] if field.is_empty() => return Rest::Ended,
            [b'\r', b'\n', next @ ..] => headers = next,
            [b'\r'] => return Rest::Open,
            _ => return Rest::Wrong,
        }
    }
}

fn is_field(field: &[u8]) -> bool {
    let Some(colon) = field.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = field.split_at(colon);
    let has_body = ["content-length", "transfer-encoding", "upgrade"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word.as_bytes()));
    !name.is_empty()
        && !has_body
        && name.iter().all(|byte| is_of_name(*byte))
        && value.iter().all(is_of_value)
}

fn is_start_of_field(field: &[u8]) -> bool {
    match field.iter().position(|byte| *byte == b':') {
        Some(_) => is_field(field),
        None => field.iter().all(|byte| is_of_name(*byte)),
    }
}

/// A `tchar`.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_of_value(byte: &u8) -> bool {
    *byte == b'\t' || *byte >= b' ' && *byte != 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: &[u8] =
        b"GET /.well-known/acme-challenge/abc-_9 HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n";

    #[test]
    fn one_byte_at_a_time() {
        let line = ASKED.windows(2).position(|two| two == b"\r\n").expect("a line") + 2;
        for length in 0..ASKED.len() {
            let wanted = if length < line { Request::NeedMore } else { Request::Line("abc-_9") };
            assert_eq!(read(&ASKED[..length]), wanted, "after {length} bytes");
        }
        assert_eq!(read(ASKED), Request::Whole("abc-_9"));
    }

    #[test]
    fn what_comes_behind_the_head_does_not_matter() {
        assert_eq!(read(&[ASKED, ASKED].concat()), Request::Whole("abc-_9"));
        assert_eq!(read(&[ASKED, &[0xff; 20_000]].concat()), Request::Whole("abc-_9"));
    }

    #[test]
    fn what_authorities_send_is_understood() {
        let go = "GET /.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0 HTTP/1.1\r\n\
                  Host: example.org\r\nUser-Agent: Mozilla/5.0 (compatible; Let's Encrypt validation server; \
                  +https://www.letsencrypt.org)\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
        assert_eq!(read(go.as_bytes()), Request::Whole("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"));
        assert_eq!(read(b"GET /.well-known/acme-challenge/a HTTP/1.0\r\n\r\n"), Request::Whole("a"));
    }

    #[test]
    fn everything_else_is_somebody_elses_at_the_first_byte_that_says_so() {
        let start = "GET /.well-known/acme-challenge/";
        for (text, known_after) in [
            ("POST /", 1),
            ("\x16\x03\x01", 1),
            ("GET /index.html HTTP/1.1\r\n\r\n", 6),
            ("get /.well-known", 1),
            ("GET  /.well-known", 5),
            ("GET http://a.example/.well-known/acme-challenge/a HTTP/1.1\r\n\r\n", 5),
            (&format!("{start} HTTP/1.1\r\n\r\n"), 33),
            (&format!("{start}a/b HTTP/1.1\r\n\r\n"), 34),
            (&format!("{start}a?b HTTP/1.1\r\n\r\n"), 34),
            (&format!("{start}a.b HTTP/1.1\r\n\r\n"), 34),
            (&format!("{start}%61 HTTP/1.1\r\n\r\n"), 33),
            (&format!("{start}a HTTP/2.0\r\n\r\n"), 40),
            (&format!("{start}a HTTP/1.2\r\n\r\n"), 42),
            (&format!("{start}a\r\n"), 34),
            (&format!("{start}a HTTP/1.1\n"), 43),
            (&format!("{start}a HTTP/1.1\r\nHost : a\r\n\r\n"), 49),
            (&format!("{start}a HTTP/1.1\r\n folded\r\n\r\n"), 45),
            (&format!("{start}a HTTP/1.1\r\nHost: a\nb: c\r\n\r\n"), 52),
            (&format!("{start}a HTTP/1.1\r\nHost: a\x00\r\n\r\n"), 52),
            (&format!("{start}a HTTP/1.1\r\nno colon\r\n\r\n"), 47),
            (&format!("{start}a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), 59),
            (&format!("{start}a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), 62),
        ] {
            let first = (0..=text.len()).find(|length| read(&text.as_bytes()[..*length]) == Request::Other);
            assert_eq!(first, Some(known_after), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_waited_for_without_end() {
        let token = "a".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(read(format!("GET /.well-known/acme-challenge/{token}").as_bytes()), Request::Other);
        let mut endless = b"GET /.well-known/acme-challenge/a HTTP/1.1\r\nx: ".to_vec();
        endless.resize(MAX_HEAD_BYTES - 1, b'x');
        assert_eq!(read(&endless), Request::Line("a"));
        endless.push(b'x');
        assert_eq!(read(&endless), Request::Other);
    }

    proptest! {
        #[test]
        fn what_is_said_of_a_part_is_never_taken_back(
            at in 0usize..82, byte in any::<u8>(), cut in 0usize..90, tail in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let mut bytes = ASKED.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.extend(tail);
            let (part, whole) = (read(&bytes[..cut.min(bytes.len())]), read(&bytes));
            match part {
                Request::NeedMore => {}
                Request::Line(token) => {
                    prop_assert!(matches!(whole, Request::Line(same) | Request::Whole(same) if same == token)
                        || whole == Request::Other);
                }
                known => prop_assert_eq!(known, whole),
            }
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }
    }
}
