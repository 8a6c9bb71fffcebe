//! Whether a database is what it was asked to be.

use awe4lb_model::BackendRole;

use super::Verdict;

/// `found` is what the database says of itself.
pub(super) fn verdict(wanted: BackendRole, found: BackendRole) -> Verdict {
    let is_wanted = wanted == found || wanted == BackendRole::Any;
    let reason = match (found, is_wanted) {
        (BackendRole::Any, true) => "ready",
        (BackendRole::Any, false) => "neither a primary nor a replica",
        (BackendRole::Primary, true) => "a primary",
        (BackendRole::Primary, false) => "a primary, not a replica",
        (BackendRole::Replica, true) => "a replica",
        (BackendRole::Replica, false) => "a replica, not a primary",
    };
    Verdict { is_healthy: is_wanted, reason: reason.to_owned(), advice: None }
}
