//! What all conversations over a stream share: the bytes that are not understood yet, limits, and a verdict that stays.

use std::ops::ControlFlow;

use super::{Conversation, Event, Step, Verdict};

/// The longest piece of a stream that is kept because it is not understood yet: a message, a line.
pub const MAX_BUFFERED_BYTES: usize = 64 * 1024;
/// A backend that says more than this without coming to an end is unhealthy.
pub const MAX_RECEIVED_BYTES: usize = 256 * 1024;

const TOO_MUCH: &str = "the backend says too much";

/// How reading went on: some bytes were understood, more are needed, or it is over.
pub(super) type Progress = ControlFlow<Verdict, Option<usize>>;

/// One protocol over a stream. It is given what it has not taken yet, and takes a message (a line, a frame) at a time, so
/// that it cannot see how the stream was cut.
pub(super) trait Protocol: Send {
    /// What to say first. Nothing, where the backend speaks first.
    fn open(&mut self, _out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        ControlFlow::Continue(())
    }

    /// Takes what it understands from the front of `input`, at least one byte; `None` when it needs more. What it says
    /// to that is added to `out`.
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress;

    /// The backend closed; `rest` is what was not taken.
    fn close(&mut self, _rest: &[u8]) -> Verdict {
        Verdict::unhealthy("closed before it answered")
    }

    /// As [`Conversation::goodbye`].
    fn goodbye(&self) -> &[u8] {
        &[]
    }
}

/// A protocol as a conversation.
pub(super) struct Talk<P> {
    protocol: P,
    input: Vec<u8>,
    received: usize,
    ended: Option<Verdict>,
}

impl<P: Protocol> Talk<P> {
    pub(super) fn new(protocol: P) -> Self {
        Self { protocol, input: Vec::new(), received: 0, ended: None }
    }

    fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        // No byte behind the limit is looked at: wherever the stream is cut, the same ones are.
        let bytes = &bytes[..bytes.len().min(MAX_RECEIVED_BYTES - self.received)];
        self.received += bytes.len();
        self.input.extend_from_slice(bytes);
        let mut at = 0;
        while at < self.input.len() {
            let rest = &self.input[at..];
            let window = &rest[..rest.len().min(MAX_BUFFERED_BYTES)];
            match self.protocol.read(window, out)? {
                Some(taken) if taken > 0 => at += taken.min(window.len()),
                _ if window.len() == MAX_BUFFERED_BYTES => {
                    return ControlFlow::Break(Verdict::unhealthy(TOO_MUCH));
                }
                _ => break,
            }
        }
        self.input.drain(..at);
        if self.received == MAX_RECEIVED_BYTES {
            return ControlFlow::Break(Verdict::unhealthy(TOO_MUCH));
        }
        ControlFlow::Continue(())
    }
}

impl<P: Protocol> Conversation for Talk<P> {
    fn next(&mut self, event: Event<'_>) -> Step {
        if let Some(verdict) = &self.ended {
            return Step::Done(verdict.clone());
        }
        let mut out = Vec::new();
        let flow = match event {
            Event::Connected => self.protocol.open(&mut out),
            Event::Received(bytes) => self.received(bytes, &mut out),
            Event::Closed => ControlFlow::Break(self.protocol.close(&self.input)),
        };
        match flow {
            ControlFlow::Break(verdict) => {
                self.ended = Some(verdict.clone());
                self.input = Vec::new();
                Step::Done(verdict)
            }
            ControlFlow::Continue(()) if out.is_empty() => Step::Receive,
            ControlFlow::Continue(()) => Step::Send(out),
        }
    }

    fn goodbye(&self) -> &[u8] {
        self.protocol.goodbye()
    }
}

/// Over: healthy.
pub(super) fn healthy<C>(reason: impl Into<String>) -> ControlFlow<Verdict, C> {
    ControlFlow::Break(Verdict::healthy(reason))
}

/// Over: unhealthy.
pub(super) fn unhealthy<C>(reason: impl Into<String>) -> ControlFlow<Verdict, C> {
    ControlFlow::Break(Verdict::unhealthy(reason))
}

/// The value, or over for this reason.
pub(super) fn or_unhealthy<T>(value: Option<T>, reason: &str) -> ControlFlow<Verdict, T> {
    value.map_or_else(|| unhealthy(reason), ControlFlow::Continue)
}

/// The first line without its end, and how many bytes it is with it; over when it is longer than `most`, end included.
pub(super) fn line(input: &[u8], most: usize) -> ControlFlow<Verdict, Option<(&[u8], usize)>> {
    let looked_at = &input[..input.len().min(most)];
    match looked_at.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = &looked_at[..end];
            ControlFlow::Continue(Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1)))
        }
        None if looked_at.len() == most => unhealthy("a line is too long"),
        None => ControlFlow::Continue(None),
    }
}
