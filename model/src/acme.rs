//! Certificates that a certificate authority issues by ACME (RFC 8555), and the accounts there.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::Name;

/// Names of one certificate: what public authorities take.
pub const MAX_DOMAINS: usize = 100;

/// A secret of an account or of a hook. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An account with a certificate authority. Its key is made by the control plane and never leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeAccount {
    /// Unique among accounts.
    pub name: Name,
    /// Where the authority's directory is: a URL with https.
    pub directory: Box<str>,
    /// URLs, mostly `mailto:`.
    pub contact: Vec<Box<str>>,
    /// The id of the key that binds the account to one that the authority knows already (RFC 8555 7.3.4); the key itself
    /// is a secret.
    pub external_key_id: Option<Box<str>>,
    /// Certificates (PEM) that are trusted instead of those of the system.
    pub ca_pem: Option<Box<str>>,
    /// Orders that the authority takes on the average; up to three hours' worth at once.
    pub orders_per_hour: u32,
}

/// What is to be issued, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// Unique among certificates, also those with a chain.
    pub name: Name,
    /// Whose.
    pub account: Name,
    /// Lower case, at least one; `*.example.com` needs dns-01.
    pub domains: Vec<Box<str>>,
    /// In order of preference: the next one is tried where one fails.
    pub challenges: Vec<AcmeChallenge>,
    /// One chain for each.
    pub key_types: Vec<KeyType>,
    /// Of the authority, where it has several.
    pub profile: Option<Box<str>>,
    /// How long before the end; `None`: a third of the life.
    pub renew_before: Option<Duration>,
    /// How records get into the zone, for dns-01.
    pub dns: Option<AcmeDns>,
}

impl AcmeCertificate {
    /// What the chain of a key type is called on nodes: the first has the certificate's own name.
    pub fn placed_name(&self, key_type: KeyType) -> Option<Name> {
        if self.key_types.first() == Some(&key_type) {
            return Some(self.name.clone());
        }
        format!("{}-{}", self.name, key_type.word()).parse().ok()
    }
}

/// How an authority convinces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// RFC 8555 8.3, at port 80.
    Http01,
    /// RFC 8737, at port 443.
    TlsAlpn01,
    /// RFC 8555 8.4, in the zone.
    Dns01,
}

impl AcmeChallenge {
    /// As in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }

    /// By [`Self::word`].
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Http01, Self::TlsAlpn01, Self::Dns01].into_iter().find(|one| one.word() == word)
    }
}

/// The key of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyType {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits.
    Rsa2048,
}

impl KeyType {
    /// As in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
        }
    }

    /// By [`Self::word`].
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::Rsa2048].into_iter().find(|one| one.word() == word)
    }
}

/// Who puts records into the zone, and how long to wait until they are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeDns {
    /// Who.
    pub hook: DnsHook,
    /// Who is asked whether the record is there; empty: the name servers of the zone.
    pub servers: Vec<SocketAddr>,
    /// Whether anybody is asked.
    pub is_checked: bool,
    /// How long the record may take.
    pub timeout: Duration,
}

/// Puts records into a zone, and takes them out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsHook {
    /// Dynamic updates (RFC 2136), signed by TSIG (RFC 8945) where there is a key.
    Rfc2136 {
        /// The primary server of the zone.
        server: SocketAddr,
        /// The zone; `None`: the server is asked.
        zone: Option<Box<str>>,
        /// Name and algorithm of the key; its secret lies elsewhere.
        key: Option<(Box<str>, TsigAlgorithm)>,
    },
    /// A program: `ARGV… present|cleanup NAME VALUE`.
    Exec {
        /// The program by its whole path, and its first arguments.
        argv: Vec<Box<str>>,
    },
    /// Two URLs, `URL/present` and `URL/cleanup`, that take `{"fqdn", "value"}`.
    Http {
        /// Without a slash at its end.
        url: Box<str>,
        /// Certificates (PEM) that are trusted instead of those of the system.
        ca_pem: Option<Box<str>>,
    },
}

impl DnsHook {
    /// As in documents.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Rfc2136 { .. } => "rfc2136",
            Self::Exec { .. } => "exec",
            Self::Http { .. } => "http",
        }
    }

    /// What a secret belongs to: another key has another secret.
    pub fn secret_of(&self) -> Option<&str> {
        match self {
            Self::Rfc2136 { key: Some((name, _)), .. } => Some(name),
            Self::Http { url, .. } => Some(url),
            Self::Rfc2136 { key: None, .. } | Self::Exec { .. } => None,
        }
    }
}

/// Of TSIG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`.
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}
