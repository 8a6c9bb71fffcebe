//! What comes before a ClientHello: reading a client's request, a backend's answer, and the greeting that holds a key.
//! The first byte says which: `p`, `l` a client of PostgreSQL or LDAP, `P`, `L` a backend; `k` a greeting, cut into pieces
//! of as many bytes as the second byte says.
#![no_main]

use awe4lb_engine::preamble::{
    Answer, BackendKeyScanner, MAX_GREETING_BYTES, MAX_PREAMBLE_BYTES, Preamble, Read, Scan, answer, read,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match bytes {
        [b'p', bytes @ ..] => from_client(Preamble::Postgres, bytes),
        [b'l', bytes @ ..] => from_client(Preamble::Ldap, bytes),
        [b'P', bytes @ ..] => from_backend(Preamble::Postgres, bytes),
        [b'L', bytes @ ..] => from_backend(Preamble::Ldap, bytes),
        [b'k', size, bytes @ ..] => greeting(usize::from(*size).max(1), bytes),
        _ => {}
    }
});

/// Places to look at what has arrived.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let cuts = bytes.iter().rev().take(4).map(|byte| bytes.len() * usize::from(*byte) / 256);
    cuts.chain([1, 8, bytes.len().saturating_sub(1)]).filter(|cut| *cut < bytes.len())
}

fn from_client(kind: Preamble, bytes: &[u8]) {
    let whole = read(kind, bytes);
    for cut in cuts(bytes) {
        match read(kind, &bytes[..cut]) {
            Read::NeedMore => {}
            // A client that asks for TLS waits.
            Read::StartTls { .. } => assert!(matches!(whole, Read::Malformed(_)), "{whole:?}"),
            early => assert_eq!(early, whole, "at {cut} of {}", bytes.len()),
        }
    }
    match whole {
        Read::NeedMore => assert!(bytes.len() < MAX_PREAMBLE_BYTES),
        Read::StartTls { length, answer: yes, refusal } => {
            assert_eq!(length, bytes.len());
            // With the id that our own request has, our answers are understood by ourselves.
            if kind == Preamble::Postgres || bytes[..].starts_with(b"\x30\x1d\x02\x01\x01") {
                assert_eq!(answer(kind, &yes), Answer::Accepted { length: yes.len() });
                assert_eq!(answer(kind, &refusal), Answer::Refused);
            }
        }
        Read::Refuse { length, answer } => assert!(length <= bytes.len() && !answer.is_empty()),
        Read::Cancel { length, key, .. } => {
            assert!(length == 12 + key.len() && length <= bytes.len() && (4..=256).contains(&key.len()));
        }
        Read::Plain { startup: Some(startup) } => {
            assert_eq!(kind, Preamble::Postgres);
            assert!(!startup.user().is_empty() && !startup.database().is_empty());
            assert!(startup.parameters().all(|(name, _)| !name.is_empty()));
        }
        Read::Plain { startup: None } => assert_eq!(kind, Preamble::Ldap),
        Read::Tls => assert_eq!(bytes[0], 22),
        Read::Malformed(_) => {}
    }
}

fn from_backend(kind: Preamble, bytes: &[u8]) {
    let whole = answer(kind, bytes);
    for cut in cuts(bytes) {
        match answer(kind, &bytes[..cut]) {
            Answer::NeedMore => {}
            Answer::Accepted { .. } => assert!(matches!(whole, Answer::Malformed(_)), "{whole:?}"),
            early => assert_eq!(early, whole, "at {cut} of {}", bytes.len()),
        }
    }
    match whole {
        Answer::NeedMore => assert!(bytes.len() < MAX_PREAMBLE_BYTES),
        Answer::Accepted { length } => assert_eq!(length, bytes.len()),
        Answer::Refused | Answer::Malformed(_) => {}
    }
}

fn greeting(size: usize, bytes: &[u8]) {
    let at_once = BackendKeyScanner::default().push(bytes);
    let mut scanner = BackendKeyScanner::default();
    let in_pieces = bytes.chunks(size).map(|piece| scanner.push(piece)).find(|scan| *scan != Scan::NeedMore);
    assert_eq!(in_pieces.unwrap_or(Scan::NeedMore), at_once);
    if at_once == Scan::NeedMore {
        // Each message has one byte of kind that its length does not count.
        assert!(bytes.len() <= 2 * MAX_GREETING_BYTES);
    } else {
        assert_eq!(scanner.push(bytes), Scan::Nothing);
    }
}
