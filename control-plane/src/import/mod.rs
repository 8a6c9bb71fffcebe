//! Certificates by hand: chain and key from what people have, PEM of every common kind in any order or PKCS#12, put in order
//! and looked at.

mod chain;
mod read;
#[cfg(test)]
mod tests;

use awe4lb_model::placed::PrivateKeyPem;

pub use chain::{name_of, pem_of};

/// The largest file.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Certificates in one.
const MAX_CERTIFICATES: usize = 100;

/// A chain in order with its key, ready to be stored.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// PEM, leaf first, without a root.
    pub chain_pem: String,
    /// PEM, in the clear.
    pub key: PrivateKeyPem,
    /// What looks wrong but can be used.
    pub warnings: Vec<Oddity>,
}

/// What looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Oddity {
    /// As errors of documents have it.
    pub code: &'static str,
    /// What.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Why nothing can be made of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unreadable {
    /// As errors of documents have it.
    pub code: &'static str,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub hint: &'static str,
}

impl Unreadable {
    fn new(code: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { code, detail: detail.into(), hint }
    }
}

/// Reads PEM and PKCS#12, one or both, and finds the leaf by the key.
pub fn read(pem: &str, pkcs12: Option<&[u8]>, password: Option<&str>) -> Result<Bundle, Unreadable> {
    let mut parts = read::Parts::default();
    if !pem.trim().is_empty() {
        parts.add_pem(pem, password)?;
    }
    if let Some(archive) = pkcs12 {
        parts.add_pkcs12(archive, password)?;
    }
    if parts.certificates.len() > MAX_CERTIFICATES {
        let detail = format!(
            "{} certificates, and an import has at most {MAX_CERTIFICATES}",
            parts.certificates.len()
        );
        return Err(Unreadable::new("too-large", detail, "send the chain of one certificate"));
    }
    chain::order(parts)
}
