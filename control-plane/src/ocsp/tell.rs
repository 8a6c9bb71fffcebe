//! What operators are told: in the log, and as events.

use awe4lb_model::Name;
use serde_json::json;

use super::{answer::text, watched::Watched};
use crate::{catalog::Head, events::Events};

/// A try failed, or nobody can be asked.
pub(super) fn failed(watched: &Watched, error: &str) {
    let names = names(watched);
    let is_stapled = watched.staple(super::now()).is_some();
    if watched.leaf.must_staple && !is_stapled {
        tracing::error!(
            certificate = names,
            "clients refuse this certificate: it must be sent with an OCSP answer, and there is none: {error}"
        );
    } else if is_stapled {
        tracing::warn!(certificate = names, "no new OCSP answer, the one before still counts: {error}");
    } else {
        tracing::warn!(certificate = names, "no OCSP answer to send along: {error}");
    }
}

/// The authority took it back.
pub(super) fn revoked(watched: &Watched, at: i64) {
    tracing::error!(
        certificate = names(watched),
        "its authority revoked this certificate at {}: clients may refuse it; replace it",
        text(at)
    );
}

/// It stands otherwise than before: an event for each object.
pub(super) fn changed(events: &Events, head: &Head, watched: &Watched, now: i64) {
    for name in &watched.names {
        let Some(holder) = head.model.holder_of(name) else { continue };
        let mut event = json!({"name": holder, "what": "changed"});
        if let Some(error) = error(watched, now) {
            event["error"] = error.into();
        }
        events.publish("certificate", &event);
    }
}

fn error(watched: &Watched, now: i64) -> Option<String> {
    if let Some(at) = watched.revoked(now) {
        return Some(format!("its authority revoked it at {}: replace it", text(at)));
    }
    let error = watched.error()?;
    let must = if watched.leaf.must_staple && watched.staple(now).is_none() {
        "clients refuse it, as it must be sent with an OCSP answer: "
    } else {
        "OCSP: "
    };
    Some(format!("{must}{error}"))
}

fn names(watched: &Watched) -> String {
    watched.names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}
