//! The whole configuration.

use std::time::Duration;

use crate::{
    AddressList, Certificate, FolderCertificate, Listener, Pool, SniMap,
    acme::{AcmeAccount, AcmeCertificate},
};

/// One state of everything, valid: names are unique, references resolve, binds do not collide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// In order of name.
    pub listeners: Vec<Listener>,
    /// In order of name.
    pub pools: Vec<Pool>,
    /// In order of name.
    pub certificates: Vec<Certificate>,
    /// In order of name.
    pub address_lists: Vec<AddressList>,
    /// In order of name.
    pub maps: Vec<SniMap>,
    /// In order of name.
    pub acme_accounts: Vec<AcmeAccount>,
    /// Certificates that are issued, in order of name; no name is among `certificates`, too.
    pub acme_certificates: Vec<AcmeCertificate>,
    /// Certificates in folders, in order of name; likewise.
    pub folder_certificates: Vec<FolderCertificate>,
}

/// `defaults:` of a document: what a listener or pool uses that does not say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `connect.timeout` of pools.
    pub connect_timeout: Option<Duration>,
    /// `connect.attempts` of pools.
    pub connect_attempts: Option<u32>,
    /// `timeouts.handshake` of listeners.
    pub handshake_timeout: Option<Duration>,
    /// `timeouts.idle` of listeners; `Some(None)` is `unlimited`.
    pub idle_timeout: Option<Option<Duration>>,
    /// `timeouts.halfClose` of listeners.
    pub half_close_timeout: Option<Duration>,
    /// `timeouts.lifetime` of listeners; `Some(None)` is `unlimited`.
    pub lifetime: Option<Option<Duration>>,
}
