//! An agent beside the backend: it says one line as soon as somebody connects.

use super::{
    Verdict, advice,
    talk::{Progress, Protocol, unhealthy},
};

/// Longer lines are nobody's advice.
const MAX_LINE_BYTES: usize = 1024;

pub(super) struct Agent;

impl Protocol for Agent {
    fn read(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Progress {
        let looked_at = &input[..input.len().min(MAX_LINE_BYTES)];
        match looked_at.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(end) => Progress::Break(advice::verdict(&looked_at[..end])),
            None if looked_at.len() == MAX_LINE_BYTES => unhealthy("a line is too long"),
            None => Progress::Continue(None),
        }
    }

    /// The end of the line is optional.
    fn close(&mut self, rest: &[u8]) -> Verdict {
        if rest.is_empty() {
            return Verdict::unhealthy("closed before it answered");
        }
        advice::verdict(rest)
    }
}
