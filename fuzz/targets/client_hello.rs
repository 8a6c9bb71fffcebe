//! The ClientHello reader: never panics, never changes its mind when more arrives, and says the same name as rustls
//! (which would otherwise route one connection and answer another).
#![no_main]

use std::cell::Cell;

use awe4lb_engine::client_hello::{Sniff, sniff};
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

fuzz_target!(|bytes: &[u8]| {
    let whole = sniff(bytes);
    if let Sniff::Hello(hello) = &whole
        && let Some(name) = hello.server_name
    {
        let name = name.as_str();
        assert!(!name.is_empty() && !name.ends_with('.') && name.len() <= 253, "{name:?}");
        assert_eq!(name, name.to_ascii_lowercase());
    }
    // A connection is looked at whenever something arrives; wherever that was cut, the answer must be the same.
    let cuts = bytes.iter().rev().take(4).map(|byte| bytes.len() * usize::from(*byte) / 256);
    for cut in cuts.chain([5.min(bytes.len()), bytes.len().saturating_sub(1)]) {
        let early = sniff(&bytes[..cut]);
        if early != Sniff::NeedMore {
            assert_eq!(early, whole, "at {cut} of {}", bytes.len());
        }
    }
    agrees_with_rustls(bytes, &whole);
});

fn agrees_with_rustls(bytes: &[u8], ours: &Sniff) {
    let mut acceptor = Acceptor::default();
    let rest = Cell::new(bytes);
    loop {
        let mut unread = rest.get();
        let Ok(count) = acceptor.read_tls(&mut unread) else { return };
        rest.set(unread);
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let theirs = accepted
                    .client_hello()
                    .server_name()
                    .map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
                match ours {
                    Sniff::Hello(hello) => {
                        let ours = hello.server_name.map(|name| name.as_str().to_owned());
                        assert!(theirs.is_none() || ours == theirs, "ours {ours:?}, theirs {theirs:?}");
                    }
                    // Ours refuses more (another version, a hello far too long): such a connection is closed.
                    Sniff::TooLarge | Sniff::Malformed => {}
                    other => panic!("rustls reads a hello with {theirs:?}, ours says {other:?}"),
                }
                return;
            }
            Ok(None) if count > 0 => {}
            Ok(None) | Err(_) => return,
        }
    }
}
