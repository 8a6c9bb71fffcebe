//! SHA-256 as a type of its own, so that no other 32 bytes are taken for one.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{Noun, Problem, WireError};

/// A SHA-256 value. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// From a field of a message.
    pub fn from_wire(bytes: &[u8], noun: Noun, path: &str) -> Result<Self, WireError> {
        let refused = || Problem::Malformed(format!("a hash of {} bytes", bytes.len())).at(noun, path);
        Ok(Self(bytes.try_into().map_err(|_| refused())?))
    }

    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// For a field of a message.
    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
