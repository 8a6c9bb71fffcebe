//! Files with a checksum over every byte: what was damaged is found, never half-read.

use std::path::Path;

use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::control::state_dir;

const MAGIC: &[u8; 7] = b"awe4lb\x01";
const HEADER: usize = MAGIC.len() + 1 + 8 + 32;
/// Nothing we write is larger; a damaged folder must not fill the memory.
const MAX_BYTES: u64 = 1 << 30;

/// What a file holds; part of what is checked, so that a file under another's name is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// One generation of the last good configuration.
    Snapshot = b'S',
    /// Overlays.
    Overlays = b'O',
    /// Discovered backends.
    Discovered = b'D',
    /// Where the node is.
    Place = b'Z',
    /// Manifests that were rejected.
    Rejected = b'R',
    /// What is being tried, see `crash_guard`.
    Guard = b'G',
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Too short, too long or with another header.
    #[error("is not a file of this kind, or cut off")]
    Form,
    /// Some byte is not what was written.
    #[error("is damaged: its checksum differs")]
    Checksum,
    /// The checksum fits but the content is not understood: written by another version.
    #[error("has content that this version does not know: {0}")]
    Content(String),
}

/// Writes `message` durably.
pub fn write(path: &Path, content: Content, message: &impl Message) -> std::io::Result<()> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(MAGIC);
    bytes.push(content as u8);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; 32]);
    message.encode(&mut bytes).map_err(std::io::Error::other)?;
    let sum = checksum(&bytes);
    bytes[HEADER - 32..HEADER].copy_from_slice(&sum);
    state_dir::write_durably(path, &bytes)
}

/// Reads what [`write`] wrote; `None` when there is no such file.
pub fn read<M: Message + Default>(path: &Path, content: Content) -> Result<Option<M>, Damage> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err(Damage::Form),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let bytes = bytes::Bytes::from(std::fs::read(path)?);
    open(bytes, content).map(Some)
}

fn open<M: Message + Default>(bytes: bytes::Bytes, content: Content) -> Result<M, Damage> {
    let header = bytes.get(..HEADER).ok_or(Damage::Form)?;
    if header[..MAGIC.len()] != MAGIC[..] || header[MAGIC.len()] != content as u8 {
        return Err(Damage::Form);
    }
    let length = header[8..16].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if length != (bytes.len() - HEADER) as u64 {
        return Err(Damage::Form);
    }
    if checksum(&bytes)[..] != header[HEADER - 32..] {
        return Err(Damage::Checksum);
    }
    M::decode(bytes.slice(HEADER..)).map_err(|error| Damage::Content(error.to_string()))
}

/// Over everything but the checksum itself.
fn checksum(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(&bytes[..HEADER - 32]);
    hasher.update(&bytes[HEADER..]);
    hasher.finalize().into()
}
