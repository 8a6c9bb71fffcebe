//! What is known of one certificate: what its responder said, what went wrong, when it is asked again. No I/O, no clock: times are
//! unix seconds.

use std::{collections::BTreeSet, sync::Arc};

use awe4lb_model::{Name, placed::Staple};
use serde::Serialize;

use super::{
    answer::{Answer, Status, text},
    leaf::Leaf,
    schedule,
};

/// How a certificate stands with its responder, as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OcspView {
    /// `good`, `revoked`, `unknown`: what the responder says; `pending`: it was not asked yet; `failing`: there is no answer that
    /// counts.
    pub status: &'static str,
    /// RFC 3339, of the answer that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub this_update: Option<String>,
    /// RFC 3339: until then it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_update: Option<String>,
    /// Why the last try brought nothing, also while an earlier answer still counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One certificate.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) leaf: Arc<Leaf>,
    /// On nodes.
    pub(super) names: BTreeSet<Name>,
    answer: Option<Answer>,
    error: Option<String>,
    /// In a row.
    failures: u32,
    /// Ever.
    pub(super) failures_total: u64,
    /// `None`: nobody can be asked.
    pub(super) next_try: Option<i64>,
    /// Somebody asks.
    pub(super) is_busy: bool,
}

impl Watched {
    /// Asked at once.
    pub(super) fn new(leaf: Arc<Leaf>, now: i64) -> Self {
        let error = leaf.question.as_ref().err().cloned();
        let next_try = leaf.question.is_ok().then_some(now);
        Self {
            leaf,
            names: BTreeSet::new(),
            answer: None,
            error,
            failures: 0,
            failures_total: 0,
            next_try,
            is_busy: false,
        }
    }

    /// An answer from before the process started.
    pub(super) fn recall(&mut self, answer: Answer, now: i64, jitter: f64) {
        self.next_try = Some(schedule::after_answer(now, answer.this_update, answer.until, jitter));
        // One that is due is asked for at once: nobody was asked since the start.
        let half = answer.this_update.saturating_add((answer.until - answer.this_update) / 2);
        if half <= now {
            self.next_try = Some(now);
        }
        self.answer = Some(answer);
    }

    /// What a try brought.
    pub(super) fn take(&mut self, result: Result<Answer, String>, now: i64, jitter: f64) {
        let result = result.and_then(|answer| match &self.answer {
            Some(known) if answer.this_update < known.this_update && now < known.until => {
                let (old, new) = (text(answer.this_update), text(known.this_update));
                Err(format!("the answer is of {old}, the one that is known of {new}"))
            }
            _ => Ok(answer),
        });
        match result {
            Ok(answer) if answer.status == Status::Unknown => {
                let error =
                    "the responder does not know the certificate: one that was just issued may take a while";
                self.fail(error.to_owned(), now, jitter);
                self.answer = Some(answer);
            }
            Ok(answer) => {
                self.next_try = Some(schedule::after_answer(now, answer.this_update, answer.until, jitter));
                self.failures = 0;
                self.error = None;
                self.answer = Some(answer);
            }
            Err(error) => self.fail(error, now, jitter),
        }
    }

    fn fail(&mut self, error: String, now: i64, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.failures_total += 1;
        self.error = Some(error);
        self.next_try = Some(schedule::after_failure(now, self.failures, jitter));
    }

    /// What counts.
    pub(super) fn answer(&self, now: i64) -> Option<&Answer> {
        self.answer.as_ref().filter(|answer| now < answer.until)
    }

    /// What goes along with the certificate: only what is good.
    pub(super) fn staple(&self, now: i64) -> Option<Staple> {
        let answer = self.answer(now).filter(|answer| answer.status == Status::Good)?;
        Some(Staple { der: answer.der.clone(), until: answer.until })
    }

    /// When it was revoked.
    pub(super) fn revoked(&self, now: i64) -> Option<i64> {
        match self.answer(now)?.status {
            Status::Revoked(at) => Some(at),
            Status::Good | Status::Unknown => None,
        }
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// As the API tells it.
    pub(super) fn view(&self, now: i64) -> OcspView {
        let answer = self.answer(now);
        let status = match answer.map(|answer| answer.status) {
            Some(Status::Good) => "good",
            Some(Status::Revoked(_)) => "revoked",
            Some(Status::Unknown) => "unknown",
            None if self.error.is_some() => "failing",
            None => "pending",
        };
        OcspView {
            status,
            this_update: answer.map(|answer| text(answer.this_update)),
            next_update: answer.and_then(|answer| answer.next_update).map(text),
            error: self.error.clone(),
        }
    }
}
