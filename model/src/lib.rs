//! The nouns of awe4lb, valid by construction.
//!
//! This crate owns what a configuration *is*: names, addresses, listeners, rules, pools, certificates, and how
//! a document becomes them. It knows no runtime, socket, clock, database or wire format.

pub mod access;
pub mod acme;
pub mod address;
pub mod addresses;
pub mod certificate;
mod check;
pub mod config;
pub mod discovery;
pub mod document;
mod health_check;
pub mod labels;
pub mod listener;
pub mod map;
pub mod name;
mod name_template;
pub mod placed;
pub mod pool;
pub mod reason;
pub mod rule;
pub mod udp;

pub use access::{Access, AccessRule, ClientPrefix, Verdict};
pub use address::{BackendAddress, BackendHost, BindAddress, BindHost};
pub use addresses::{AddressList, Addresses};
pub use certificate::{Certificate, FolderCertificate};
pub use check::*;
pub use config::{Config, Defaults};
pub use health_check::{HealthCheck, InitialHealth};
pub use labels::{LabelSelector, LabelSelectorError, Labels};
pub use listener::{
    ACCESS_LOG_ALL, Limits, Listener, MinTlsVersion, Preamble, Protocol, TcpTimeouts, TlsSettings,
};
pub use map::{MapKey, SniMap};
pub use name::{Name, NameError};
pub use name_template::{NameTemplate, NameTemplateError};
pub use pool::{
    Backend, Balance, Connect, HashOn, Locality, Outlier, Pool, ProxyVersion, Tiers, WhenAllDown,
};
pub use reason::{EndReason, Side};
pub use rule::{MIRROR_ALL, Match, Mirror, PortRange, Rule, RuleAction, SniPattern, SplitTarget, TlsMode};
pub use udp::{Affinity, OnDown, ProxyDatagrams, UdpSettings};
