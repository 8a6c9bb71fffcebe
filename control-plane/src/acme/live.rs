//! What is known of a certificate at this moment.

use awe4lb_engine::renewal::Window;

use super::Failure;
use crate::store::acme::StoredAttempt;

/// Of one key type of a certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    /// Failures, as stored.
    pub(super) attempt: StoredAttempt,
    /// The last of them.
    pub(super) error: Option<Failure>,
    /// What was wished when this was last looked at.
    pub(super) wish: Option<super::schedule::Wish>,
    /// When the authority wants it renewed.
    pub(super) window: Option<Window>,
    /// When the authority is asked for that again, in unix seconds; 0: never asked.
    pub(super) ask_at: i64,
    /// Somebody wants it now.
    pub(super) is_forced: bool,
    /// What is being done; `None`: nothing.
    pub(super) step: Option<String>,
}

impl Live {
    /// As it was before a restart.
    pub(super) fn of(attempt: StoredAttempt) -> Self {
        let error = serde_json::from_str(&attempt.last_error).ok();
        Self { attempt, error, ..Self::default() }
    }

    /// An order begins.
    pub(super) fn begin(&mut self) {
        self.step = Some("the account is opened".to_owned());
        self.is_forced = false;
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        self.step = None;
    }
}
