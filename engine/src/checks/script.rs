//! What is sent and expected in turn, as an operator wrote it down.

use std::ops::ControlFlow;

use awe4lb_model::{ScriptCheck, ScriptStep};

use super::{
    Refusal, Secrets, Verdict,
    matcher::{Matcher, find},
    talk::{Progress, Protocol, healthy},
};

const DONE: &str = "the script was done";

enum Step {
    Send(Vec<u8>),
    Expect(Matcher),
    End,
}

pub(super) struct Script {
    steps: Vec<Step>,
    /// What the last steps send, when nothing is waited for behind them.
    goodbye: Vec<u8>,
    /// The step that is next.
    at: usize,
    /// As many bytes of the input hold nothing that this step waits for.
    searched: usize,
}

impl Script {
    pub(super) fn new(check: &ScriptCheck, secrets: Secrets<'_>) -> Result<Self, Refusal> {
        let step = |step: &ScriptStep| {
            Ok(match step {
                ScriptStep::Send(payload) => Step::Send(secrets.payload(payload)?),
                ScriptStep::Expect(pattern) => Step::Expect(Matcher::new(pattern)?),
                ScriptStep::End => Step::End,
            })
        };
        let mut steps = check.steps.iter().map(step).collect::<Result<Vec<_>, Refusal>>()?;
        let waits = steps.iter().rposition(|step| !matches!(step, Step::Send(_))).map_or(0, |last| last + 1);
        let said = steps.split_off(waits);
        let goodbye =
            said.into_iter().flat_map(|step| if let Step::Send(bytes) = step { bytes } else { vec![] });
        Ok(Self { goodbye: goodbye.collect(), steps, at: 0, searched: 0 })
    }

    /// Says everything up to the next step that waits.
    fn say(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        while let Some(Step::Send(bytes)) = self.steps.get(self.at) {
            out.extend_from_slice(bytes);
            self.at += 1;
        }
        self.searched = 0;
        if self.at == self.steps.len() { healthy(DONE) } else { ControlFlow::Continue(()) }
    }

    fn found(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        self.at += 1;
        self.say(out)
    }

    /// How a verdict names the step that it stopped at.
    fn closed_at(&self) -> Verdict {
        Verdict::unhealthy(format!("closed at step {}", self.at + 1))
    }
}

impl Protocol for Script {
    fn open(&mut self, out: &mut Vec<u8>) -> ControlFlow<Verdict> {
        self.say(out)
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let searched = std::mem::replace(&mut self.searched, input.len());
        match self.steps.get(self.at) {
            Some(Step::Expect(Matcher::Bytes(needle))) => {
                let Some(end) = find(input, needle, searched) else { return Progress::Continue(None) };
                self.found(out)?;
                // Nothing at all is found in anything, but not in nothing.
                Progress::Continue(Some(end.max(1)))
            }
            Some(Step::Expect(Matcher::Regex(regex))) => {
                let end = input.iter().skip(searched).position(|byte| *byte == b'\n');
                let Some(end) = end.map(|end| searched + end) else { return Progress::Continue(None) };
                self.searched = 0;
                if regex.is_match(without_return(&input[..end])) {
                    self.found(out)?;
                }
                Progress::Continue(Some(end + 1))
            }
            Some(Step::End) => {
                self.searched = 0;
                Progress::Continue(Some(input.len()))
            }
            Some(Step::Send(_)) | None => healthy(DONE),
        }
    }

    fn close(&mut self, rest: &[u8]) -> Verdict {
        // The last line may have no end.
        if let Some(Step::Expect(Matcher::Regex(regex))) = self.steps.get(self.at)
            && !rest.is_empty()
            && regex.is_match(without_return(rest))
        {
            self.at += 1;
        }
        let rest = self.steps.get(self.at..).unwrap_or_default();
        if rest.iter().all(|step| matches!(step, Step::End)) {
            Verdict::healthy(DONE)
        } else {
            self.closed_at()
        }
    }

    fn goodbye(&self) -> &[u8] {
        &self.goodbye
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
