//! Certificates as stored: a chain and the key that fits it.

use crate::Name;

/// A certificate that listeners terminate TLS with. The key lives elsewhere (a secret), known by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Unique among certificates.
    pub name: Name,
    /// The chain, leaf first, as PEM.
    pub chain_pem: String,
}

/// A certificate whose chain and key lie in a folder of the control plane, where somebody else puts new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderCertificate {
    /// Unique among certificates.
    pub name: Name,
    /// The whole path.
    pub path: Box<str>,
}
