//! Blocks of PEM in a form whose content a fuzzer can reach: a letter for the label, the length in two bytes, DER.
#![allow(dead_code, reason = "each program uses some of it")]

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// Of everything that is encrypted.
pub const PASSWORD: &str = "secret";

/// By their letters.
const LABELS: [(u8, &str); 5] = [
    (b'c', "CERTIFICATE"),
    (b'k', "PRIVATE KEY"),
    (b'r', "RSA PRIVATE KEY"),
    (b'e', "EC PRIVATE KEY"),
    (b'x', "ENCRYPTED PRIVATE KEY"),
];

/// As PEM. What is cut short ends there.
pub fn text(mut blocks: &[u8]) -> String {
    let mut text = String::new();
    while let [letter, high, low, rest @ ..] = blocks {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (der, others) = rest.split_at(length);
        let label = LABELS.iter().find(|(known, _)| known == letter).map_or("UNKNOWN", |(_, label)| label);
        let body = BASE64_STANDARD.encode(der);
        text.push_str(&format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"));
        blocks = others;
    }
    text
}

/// As blocks.
pub fn take_apart(text: &str) -> Vec<u8> {
    let mut blocks = Vec::new();
    for part in text.split("-----BEGIN ").skip(1) {
        let (label, rest) = part.split_once("-----").expect("a label");
        let body: String = rest.split("-----").next().expect("a body").split_whitespace().collect();
        let der = BASE64_STANDARD.decode(body).expect("base64");
        let letter = LABELS.iter().find(|(_, known)| *known == label).map_or(b'u', |(letter, _)| *letter);
        blocks.push(letter);
        blocks.extend(u16::try_from(der.len()).expect("short").to_be_bytes());
        blocks.extend(der);
    }
    blocks
}
