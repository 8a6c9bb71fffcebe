//! The question of a certificate authority for a token: what is said of a part of a head holds for the whole.
#![no_main]

use awe4lb_engine::challenge::{MAX_HEAD_BYTES, MAX_TOKEN_BYTES, Request, read};
use libfuzzer_sys::fuzz_target;

const START: &str = "GET /.well-known/acme-challenge/";

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    let cuts = bytes.iter().rev().take(4).map(|byte| bytes.len() * usize::from(*byte) / 256);
    for cut in cuts.chain([1, 33, bytes.len().saturating_sub(1)]).filter(|cut| *cut < bytes.len()) {
        match read(&bytes[..cut]) {
            Request::NeedMore => {}
            Request::Line(token) => match whole {
                Request::Line(same) | Request::Whole(same) => assert_eq!(token, same),
                Request::Other => {}
                Request::NeedMore => panic!("the line was whole at {cut} of {}", bytes.len()),
            },
            known => assert_eq!(known, whole, "at {cut} of {}", bytes.len()),
        }
    }
    match whole {
        Request::NeedMore => {
            assert!(bytes.len() < MAX_HEAD_BYTES);
            let known = bytes.len().min(START.len());
            assert_eq!(&bytes[..known], &START.as_bytes()[..known]);
        }
        Request::Line(token) | Request::Whole(token) => {
            assert!((1..=MAX_TOKEN_BYTES).contains(&token.len()));
            assert!(bytes.starts_with(format!("{START}{token} HTTP/1.").as_bytes()));
        }
        Request::Other => {}
    }
    if let Request::Whole(_) = whole {
        let head = &bytes[..bytes.len().min(MAX_HEAD_BYTES)];
        assert!(head.windows(4).any(|four| four == b"\r\n\r\n"));
    }
});
