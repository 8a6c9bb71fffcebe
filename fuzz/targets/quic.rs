//! QUIC as somebody in the middle reads it: never panics, has an end, says of a hello what the reader of hellos says, and
//! finds in a header only ids that are there.
//!
//! An input is a program, as a fuzzer cannot encrypt: `d` begins a datagram, `i VERSION LENGTH FRAMES` adds an Initial with
//! these frames, `c FROM LENGTH` one with that part of a real hello, `r LENGTH BYTES` adds bytes as they are.
#![no_main]

use awe4lb_engine::quic::{InitialSniffer, Sniff, destination_id, source_ids};
use client::{HELLO, crypto, initial};
use libfuzzer_sys::fuzz_target;

#[path = "../quic.rs"]
mod client;

fuzz_target!(|bytes: &[u8]| {
    let mut sniffer = InitialSniffer::default();
    let mut last = Sniff::NeedMore;
    for datagram in datagrams(bytes) {
        look_at(&datagram);
        if last != Sniff::NeedMore {
            break;
        }
        last = sniffer.feed(&datagram);
        if let Sniff::Hello(hello) = &last
            && let Some(name) = hello.server_name
        {
            let name = name.as_str();
            assert!(!name.is_empty() && name.len() <= 253, "{name:?}");
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }
});

fn look_at(datagram: &[u8]) {
    for id in source_ids(datagram).take(64) {
        let id = id.as_bytes();
        assert!(id.is_empty() || datagram.windows(id.len()).any(|window| window == id));
    }
    for length in [0, 8, 20] {
        if let Some(id) = destination_id(datagram, length) {
            let id = id.as_bytes();
            assert!(id.is_empty() || datagram.windows(id.len()).any(|window| window == id));
        }
    }
}

fn datagrams(mut program: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut number = 0;
    while let [operation, rest @ ..] = program {
        program = rest;
        let may_begin = all.len() < 16;
        let Some(datagram) = all.last_mut().filter(|datagram| datagram.len() < 16_384) else { break };
        match (operation, rest) {
            (b'd', _) if may_begin => all.push(Vec::new()),
            (b'i', [version, length, rest @ ..]) => {
                let (frames, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                datagram.extend(initial(version % 2 == 1, number, frames));
                number += 1;
                program = rest;
            }
            (b'c', [from, length, rest @ ..]) => {
                let from = (usize::from(*from) * 8).min(HELLO.len());
                let to = (from + usize::from(*length) * 8).min(HELLO.len());
                datagram.extend(initial(false, number, &crypto(from, &HELLO[from..to])));
                number += 1;
                program = rest;
            }
            (b'r', [length, rest @ ..]) => {
                let (raw, rest) = rest.split_at(rest.len().min(usize::from(*length)));
                datagram.extend(raw);
                program = rest;
            }
            _ => {}
        }
    }
    all
}
