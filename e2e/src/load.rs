//! The load generator of the bench: exact sums of what was sent and received.

use std::path::Path;

use serde_json::Value;

use crate::{process::Program, program};

/// A load that runs.
pub struct Load {
    program: Program,
    input: Option<std::process::ChildStdin>,
}

impl Load {
    /// Starts one with these flags of `awe4lb-bench load`.
    #[must_use]
    pub fn start(name: &str, folder: &Path, flags: &[&str]) -> Self {
        let arguments = std::iter::once("load").chain(flags.iter().copied());
        let mut program = Program::start(name, folder, program("awe4lb-bench"), arguments);
        let input = program.input();
        Self { program, input }
    }

    /// Ends one that runs until it is told to, and gives what it has counted.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn finish(mut self) -> Value {
        drop(self.input.take());
        self.result()
    }

    /// Waits for its end, and gives what it has counted.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn result(mut self) -> Value {
        assert!(self.program.ended(), "the load failed: {}", self.program.log());
        let text = self.program.output();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}
