//! SCRAM-SHA-256 as a client, without channel binding (RFC 5802, RFC 7677).

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(super) const MECHANISM: &[u8] = b"SCRAM-SHA-256";

/// PostgreSQL's default is 4096. What costs more than some tens of milliseconds stops everything else.
const MAX_ITERATIONS: u32 = 100_000;
/// No channel binding, and no other identity.
const HEADER: &str = "n,,";

type Key = [u8; 32];

pub(super) struct Scram {
    password: Vec<u8>,
    /// What the client said first, without [`HEADER`].
    first: String,
    nonce: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    /// The server has to prove itself with this.
    Answered(Key),
    Proven,
}

impl Scram {
    /// The nonce is used once, and printable without commas. PostgreSQL takes the user from its startup message.
    pub(super) fn new(user: &str, nonce: String, password: Vec<u8>) -> Self {
        Self { password, first: format!("n={user},r={nonce}"), nonce, state: State::Asked }
    }

    /// The client's first message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.first).into_bytes()
    }

    /// Answers the server's first message; `None` when it is none that one should answer.
    pub(super) fn answer(&mut self, server_first: &[u8]) -> Option<Vec<u8>> {
        let server_first = std::str::from_utf8(server_first).ok()?;
        let mut attributes = server_first.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = BASE64_STANDARD.decode(attributes.next()?.strip_prefix("s=")?).ok()?;
        let iterations: u32 = attributes.next()?.strip_prefix("i=")?.parse().ok()?;
        let is_longer = nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce);
        if self.state != State::Asked || !is_longer || !(1..=MAX_ITERATIONS).contains(&iterations) {
            return None;
        }
        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(HEADER));
        let everything = format!("{},{server_first},{without_proof}", self.first);

        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = mac(&salted, &[b"Client Key"]);
        let signature = mac(&Sha256::digest(client_key).into(), &[everything.as_bytes()]);
        let proof = xor(&client_key, &signature);
        let server_key = mac(&salted, &[b"Server Key"]);
        self.state = State::Answered(mac(&server_key, &[everything.as_bytes()]));
        Some(format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)).into_bytes())
    }

    /// Whether the server's last message proves that it knows the password, too.
    pub(super) fn verify(&mut self, server_final: &[u8]) -> bool {
        let State::Answered(signature) = self.state else { return false };
        let first = server_final.split(|byte| *byte == b',').next().unwrap_or_default();
        let theirs = first.strip_prefix(b"v=").and_then(|theirs| BASE64_STANDARD.decode(theirs).ok());
        let is_proven = theirs.is_some_and(|theirs| theirs == signature);
        if is_proven {
            self.state = State::Proven;
        }
        is_proven
    }

    pub(super) fn is_proven(&self) -> bool {
        self.state == State::Proven
    }
}

/// `Hi`: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let keyed = keyed(password);
    let next = |parts: &[&[u8]]| finish(keyed.clone(), parts);
    let mut block = next(&[salt, &1_u32.to_be_bytes()]);
    let mut salted = block;
    for _ in 1..iterations {
        block = next(&[&block]);
        salted = xor(&salted, &block);
    }
    salted
}

fn mac(key: &Key, parts: &[&[u8]]) -> Key {
    finish(keyed(key), parts)
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length will do")
}

fn finish(mut mac: Hmac<Sha256>, parts: &[&[u8]]) -> Key {
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn scram() -> Scram {
        Scram::new("user", "rOprNGfwEbeRWgbNEkqO".to_owned(), b"pencil".to_vec())
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let mut scram = scram();
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = String::from_utf8(scram.answer(SERVER_FIRST).expect("an answer")).expect("text");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(answer, expected);
        assert!(!scram.is_proven());
        assert!(scram.verify(SERVER_FINAL) && scram.is_proven());
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_not_believed() {
        assert!(!scram().verify(SERVER_FINAL), "before its first message");
        let mut scram = scram();
        scram.answer(SERVER_FIRST);
        assert!(!scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=") && !scram.is_proven());
        assert!(!scram.verify(b"e=other-error") && !scram.verify(b""));
        assert!(scram.answer(SERVER_FIRST).is_none(), "twice");
    }

    #[test]
    fn first_messages_that_are_not_answered() {
        for message in [
            &b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"[..], // no nonce of the server's
            b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=100001",
            b"r=rOprNGfwEbeRWgbNEkqOx,s=W22,i=4096",
            b"m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"",
            b"\xff",
        ] {
            assert!(scram().answer(message).is_none(), "{}", String::from_utf8_lossy(message));
        }
    }
}
