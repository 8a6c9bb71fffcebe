//! What somebody should know who puts a certificate in the place of another.

use awe4lb_model::document::Violation;

use super::{Kind, Model, uses::covers};

/// What is worse in `after` with the certificate of this name. Pointers begin with `pointer`.
pub(super) fn warnings(before: &Model, after: &Model, name: &str, pointer: &str) -> Vec<Violation> {
    let new =
        after.get(Kind::Certificate, name).filter(|new| new.issued().is_none() && new.folder().is_none());
    let Some(new) = new.and_then(|new| new.certificate()) else { return Vec::new() };
    let mut warnings = Vec::new();
    let mut warn = |code, detail: String| {
        warnings.push(Violation::new(format!("{pointer}/chain"), None, code, detail));
    };
    for (wanted, listener) in after.needed_names(name) {
        if !covers(new, &wanted) {
            warn(
                "names-not-covered",
                format!("it is not for {wanted}, which a rule of listener {listener:?} asks for"),
            );
        }
    }
    let old = before.get(Kind::Certificate, name).filter(|old| !old.is_placeholder());
    let old = old.and_then(|old| old.certificate()).filter(|old| old.fingerprint != new.fingerprint);
    let Some(old) = old else { return warnings };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_by_what_they_withstand() {
        let order = ["rsa-1024", "rsa-2048", "ecdsa-256", "rsa-4096", "ecdsa-384", "ecdsa-521"];
        for pair in order.windows(2) {
            assert!(strength(pair[0]) < strength(pair[1]), "{pair:?}");
        }
    }
}
