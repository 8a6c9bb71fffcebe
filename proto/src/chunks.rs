//! Pieces of resources: at most 64 KiB a message, cut without copying, put together under a limit.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::{Hash, Noun, Problem, WireError, resources::MAX_COMPRESSED, v1};

/// The most data in one message: with its frame it stays below 64 KiB.
pub const MAX_MESSAGE_DATA: usize = 63 * 1024;

/// The chunks of one resource. Each shares the resource's bytes.
#[derive(Debug, Clone)]
pub struct Chunks {
    hash: Hash,
    rest: Bytes,
    part: u32,
    parts: u32,
}

impl Chunks {
    pub(crate) fn new(hash: Hash, data: Bytes) -> Self {
        let parts = u32::try_from(data.len().div_ceil(MAX_MESSAGE_DATA).max(1)).unwrap_or(u32::MAX);
        Self { hash, rest: data, part: 0, parts }
    }
}

impl Iterator for Chunks {
    type Item = v1::ResourceChunk;

    fn next(&mut self) -> Option<v1::ResourceChunk> {
        if self.part == self.parts {
            return None;
        }
        let data = self.rest.split_to(self.rest.len().min(MAX_MESSAGE_DATA));
        let chunk = v1::ResourceChunk { hash: self.hash.to_wire(), part: self.part, parts: self.parts, data };
        self.part += 1;
        Some(chunk)
    }
}

/// Collects chunks of several resources at a time.
#[derive(Debug, Default)]
pub struct Collector {
    open: HashMap<Hash, (u32, u32, BytesMut)>,
    held: usize,
}

impl Collector {
    /// The most bytes of unfinished resources.
    pub const MAX_HELD: usize = 4 * MAX_COMPRESSED;

    /// Takes one chunk; gives the compressed resource with its last one, not yet verified (that is
    /// [`crate::resources::decode`]).
    pub fn push(&mut self, chunk: v1::ResourceChunk) -> Result<Option<(Hash, Bytes)>, WireError> {
        let refuse = |problem: Problem| problem.at(Noun::Resource, "/chunk");
        let hash = Hash::from_wire(&chunk.hash, Noun::Resource, "/chunk/hash")?;
        let (part, parts) = (chunk.part, chunk.parts);
        if parts <= 1 {
            return if part == 0 && parts == 1 {
                Ok(Some((hash, chunk.data)))
            } else {
                Err(refuse(Problem::Parts { part, parts }))
            };
        }
        if part == 0 {
            self.forget(hash);
            self.open.insert(hash, (0, parts, BytesMut::new()));
        }
        let Some((next, of, data)) = self.open.get_mut(&hash) else {
            return Err(refuse(Problem::Parts { part, parts }));
        };
        if *next != part || *of != parts || part >= parts {
            self.forget(hash);
            return Err(refuse(Problem::Parts { part, parts }));
        }
        self.held += chunk.data.len();
        if data.len() + chunk.data.len() > MAX_COMPRESSED || self.held > Self::MAX_HELD {
            self.held -= chunk.data.len();
            self.forget(hash);
            return Err(refuse(Problem::TooLarge(MAX_COMPRESSED)));
        }
        data.extend_from_slice(&chunk.data);
        *next += 1;
        if *next < parts {
            return Ok(None);
        }
        let whole = self.open.remove(&hash).map(|(_, _, data)| data.freeze()).unwrap_or_default();
        self.held -= whole.len();
        Ok(Some((hash, whole)))
    }

    /// Drops what is unfinished.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn forget(&mut self, hash: Hash) {
        if let Some((_, _, data)) = self.open.remove(&hash) {
            self.held -= data.len();
        }
    }
}
