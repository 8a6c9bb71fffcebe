//! What somebody should know who puts a certificate in the place of another.

use awe4lb_model::document::Violation;

use super::{CertificateFacts, Model, uses::covers};

/// Warnings about a certificate that takes the place of `old`, or is new.
pub(super) fn warnings(
    model: &Model,
    name: &str,
    old: Option<&CertificateFacts>,
    new: &CertificateFacts,
) -> Vec<Violation> {
    let mut warnings = Vec::new();
    let mut warn = |code, detail: String| warnings.push(Violation::new("/chain", None, code, detail));
    for (wanted, listener) in model.needed_names(name) {
        if !covers(new, &wanted) {
            warn(
                "names-not-covered",
                format!("it is not for {wanted}, which a rule of listener {listener:?} asks for"),
            );
        }
    }
    let Some(old) = old.filter(|old| old.fingerprint != new.fingerprint) else { return warnings };
    let lost: Vec<&str> = old.names.iter().map(String::as_str).filter(|name| !covers(new, name)).collect();
    if !lost.is_empty() {
        warn("names-not-covered", format!("the one before was also for {}", lost.join(", ")));
    }
    if new.not_after < old.not_after {
        warn(
            "shorter-life",
            format!("it ends at {}, the one before only at {}", new.not_after, old.not_after),
        );
    }
    if new.is_self_signed() && !old.is_self_signed() {
        warn("self-signed", format!("it is signed by itself; the one before was signed by {}", old.issuer));
    } else if new.issuer != old.issuer {
        warn("other-issuer", format!("it is signed by {}, the one before by {}", new.issuer, old.issuer));
    }
    if strength(&new.key_type) < strength(&old.key_type) {
        warn("weaker-key", format!("its key is {}, that of the one before {}", new.key_type, old.key_type));
    }
    warnings
}

/// Bits of RSA that are about as hard to break (NIST SP 800-57 part 1, table 2).
fn strength(key_type: &str) -> u32 {
    match key_type {
        "ed25519" | "ecdsa-256" => 3_072,
        "ecdsa-384" => 7_680,
        "ecdsa-521" => 15_360,
        other => other.strip_prefix("rsa-").and_then(|bits| bits.parse().ok()).unwrap_or(0),
    }
}
