//! The body of an answer (RFC 9112 section 6), looked at as it comes.

use std::ops::ControlFlow;

use super::{
    Verdict,
    matcher::{Matcher, find},
    talk::{Progress, healthy, line, unhealthy},
};

const MAX_LINE_BYTES: usize = 4 * 1024;
const FOUND: &str = "the body is as expected";
const NOT_FOUND: &str = "another body than expected";

/// What says where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    UntilClose,
    Length(u64),
    Chunked,
}

impl Framing {
    /// What is known after one more header. Chunked goes before a length.
    pub(super) fn with_header(self, line: &[u8]) -> ControlFlow<Verdict, Self> {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return unhealthy("a header without a name");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return ControlFlow::Continue(Self::Chunked);
            }
        }
        if !name.eq_ignore_ascii_case(b"content-length") || self == Self::Chunked {
            return ControlFlow::Continue(self);
        }
        match (self, number(value, 10)) {
            (Self::Length(before), Some(length)) if before != length => unhealthy("two lengths of one body"),
            (_, Some(length)) => ControlFlow::Continue(Self::Length(length)),
            (_, None) => unhealthy("a length that is none"),
        }
    }
}

pub(super) struct Body {
    pattern: Matcher,
    /// As much of it as is looked at.
    bytes: Vec<u8>,
    most: usize,
    reading: Reading,
}

enum Reading {
    UntilClose,
    /// As many bytes are left.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    /// The end of a line behind a chunk.
    ChunkEnd,
}

impl Body {
    pub(super) fn new(pattern: Matcher, most: usize, framing: Framing) -> Self {
        let reading = match framing {
            Framing::UntilClose => Reading::UntilClose,
            Framing::Length(length) => Reading::Length(length),
            Framing::Chunked => Reading::ChunkSize,
        };
        Self { pattern, bytes: Vec::new(), most, reading }
    }

    /// Over at once where there is nothing to read.
    pub(super) fn start(&self) -> ControlFlow<Verdict> {
        if matches!(self.reading, Reading::Length(0)) || self.most == 0 {
            return ControlFlow::Break(self.judge());
        }
        ControlFlow::Continue(())
    }

    /// As [`super::talk::Protocol::read`].
    pub(super) fn read(&mut self, input: &[u8]) -> Progress {
        match self.reading {
            Reading::UntilClose => self.take(input, u64::MAX),
            Reading::Length(left) => {
                let taken = self.take(input, left)?;
                let left = left - taken.unwrap_or_default() as u64;
                self.reading = Reading::Length(left);
                self.start()?;
                Progress::Continue(taken)
            }
            Reading::Chunk(left) => {
                let taken = self.take(input, left)?;
                let left = left - taken.unwrap_or_default() as u64;
                self.reading = if left == 0 { Reading::ChunkEnd } else { Reading::Chunk(left) };
                Progress::Continue(taken)
            }
            Reading::ChunkSize => {
                let Some((line, length)) = line(input, MAX_LINE_BYTES)? else {
                    return Progress::Continue(None);
                };
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                match number(size.trim_ascii(), 16) {
                    Some(0) => return Progress::Break(self.judge()),
                    Some(size) => self.reading = Reading::Chunk(size),
                    None => return unhealthy("a chunk without a size"),
                }
                Progress::Continue(Some(length))
            }
            Reading::ChunkEnd => {
                let length = match input {
                    [b'\n', ..] => 1,
                    [b'\r', b'\n', ..] => 2,
                    [b'\r'] => return Progress::Continue(None),
                    _ => return unhealthy("a chunk is longer than its size"),
                };
                self.reading = Reading::ChunkSize;
                Progress::Continue(Some(length))
            }
        }
    }

    pub(super) fn close(&self) -> Verdict {
        match self.reading {
            Reading::UntilClose => self.judge(),
            Reading::Length(_) | Reading::ChunkSize | Reading::Chunk(_) | Reading::ChunkEnd => {
                Verdict::unhealthy("closed within the body")
            }
        }
    }

    /// At most `left` bytes of the body. A text is found as soon as it is there; an expression is asked about the whole.
    fn take(&mut self, input: &[u8], left: u64) -> Progress {
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let searched = self.bytes.len();
        self.bytes.extend_from_slice(&input[..taken.min(self.most - searched)]);
        if let Matcher::Bytes(text) = &self.pattern
            && find(&self.bytes, text, searched).is_some()
        {
            return healthy(FOUND);
        }
        if self.bytes.len() == self.most {
            return Progress::Break(self.judge());
        }
        Progress::Continue(Some(taken))
    }

    fn judge(&self) -> Verdict {
        if self.pattern.is_in(&self.bytes) { Verdict::healthy(FOUND) } else { Verdict::unhealthy(NOT_FOUND) }
    }
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let plain = digits.iter().all(|digit| char::from(*digit).is_digit(radix));
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, radix).ok()
}
