//! What one node is to run: objects together with their numbers.
//!
//! Every listener, rule, pool and configured backend has a number that is never reused (a rename is a new object),
//! given by the control plane; counters travel by it. A node that runs from a file numbers for itself.

use std::sync::Arc;

use crate::{AddressList, Certificate, Listener, Name, Pool, SniMap};

/// The number of a listener, rule, pool or backend: unique over all kinds, never 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(pub u64);

/// A listener and its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedListener {
    /// Of the listener.
    pub number: Number,
    /// Of its rules, in their order: as long as `listener.rules`.
    pub rule_numbers: Vec<Number>,
    /// What to run.
    pub listener: Listener,
}

/// A pool and its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedPool {
    /// Of the pool.
    pub number: Number,
    /// Of its backends, in their order: as long as `pool.backends`.
    pub backend_numbers: Vec<Number>,
    /// What to run.
    pub pool: Pool,
}

/// A private key, PEM. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyPem(pub String);

impl std::fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKeyPem(…)")
    }
}

/// A certificate together with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedCertificate {
    /// The chain.
    pub certificate: Certificate,
    /// The key that fits the leaf.
    pub key: PrivateKeyPem,
    /// What its authority says of it, if that is known and good.
    pub ocsp: Option<Staple>,
}

/// The answer of an OCSP responder (RFC 6960), which a server sends along with its certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Staple {
    /// The whole answer, DER; never empty.
    pub der: Arc<[u8]>,
    /// Until when it may be sent, in unix seconds; positive.
    pub until: i64,
}

impl std::fmt::Debug for Staple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staple({} bytes, until {})", self.der.len(), self.until)
    }
}

/// Everything one node is to run. References resolve inside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// In order of name.
    pub listeners: Vec<PlacedListener>,
    /// In order of name.
    pub pools: Vec<PlacedPool>,
    /// In order of name.
    pub certificates: Vec<PlacedCertificate>,
    /// In order of name.
    pub address_lists: Vec<AddressList>,
    /// In order of name.
    pub maps: Vec<SniMap>,
}

/// Identifies a resource in errors and results.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Name,
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A [`PlacedListener`].
    Listener,
    /// A [`PlacedPool`].
    Pool,
    /// The chain of a certificate.
    Certificate,
    /// The key of a certificate.
    Key,
    /// A list of addresses.
    AddressList,
    /// A map from server names to pools.
    Map,
}

/// Numbers everything by its order, for a node that runs from a file. `keys` are by certificate name; a certificate
/// without a key is left out.
pub fn number_locally(config: crate::Config, keys: &[(Name, PrivateKeyPem)]) -> NodeConfig {
    let mut last = 0;
    let mut next = || {
        last += 1;
        Number(last)
    };
    let listeners = config
        .listeners
        .into_iter()
        .map(|listener| PlacedListener {
            number: next(),
            rule_numbers: listener.rules.iter().map(|_| next()).collect(),
            listener,
        })
        .collect();
    let pools = config
        .pools
        .into_iter()
        .map(|pool| PlacedPool {
            number: next(),
            backend_numbers: pool.backends.iter().map(|_| next()).collect(),
            pool,
        })
        .collect();
    let key_of = |name: &Name| keys.iter().find(|(of, _)| of == name).map(|(_, key)| key.clone());
    let certificates = config
        .certificates
        .into_iter()
        .filter_map(|certificate| {
            Some(PlacedCertificate { key: key_of(&certificate.name)?, certificate, ocsp: None })
        })
        .collect();
    let (address_lists, maps) = (config.address_lists, config.maps);
    NodeConfig { listeners, pools, certificates, address_lists, maps }
}
