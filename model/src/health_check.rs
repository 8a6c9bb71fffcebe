//! How often a backend is checked, where, and how many results make a change. What is asked is [`CheckKind`]'s to say.

use std::{net::IpAddr, time::Duration};

use crate::CheckKind;

/// An active health check. All defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Between the starts of two checks. Default 5 s.
    pub interval: Duration,
    /// The same after a first failure, until the backend is up or down for sure. `None`, the default: as `interval`.
    pub fast_interval: Option<Duration>,
    /// How long one check may take. Default 2 s.
    pub timeout: Duration,
    /// Consecutive successes that make a backend up. Default 2.
    pub rise: u32,
    /// Consecutive failures that make it down. Default 3.
    pub fall: u32,
    /// What a backend counts as before its first result.
    pub initial: InitialHealth,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// Another address than the backend's.
    pub address: Option<IpAddr>,
    /// Whether checks introduce themselves with a PROXY header. `None`, the default: where the pool does.
    pub proxy_protocol: Option<bool>,
}

/// What a backend counts as before its first result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialHealth {
    /// Usable, and the very first result decides. The default.
    #[default]
    Check,
    /// Up: it takes `fall` failures to change that.
    Up,
    /// Down: it takes `rise` successes to change that.
    Down,
}
