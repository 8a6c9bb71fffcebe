//! Pools: sets of backends, how to balance over them and how to tell which of them work.

use std::time::Duration;

use crate::{BackendAddress, HealthCheck, Name, OnDown, ProxyDatagrams, discovery::Source};

/// A named set of backends. All defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Unique among pools.
    pub name: Name,
    /// How to choose among usable backends of the leading tier.
    pub balance: Balance,
    /// What `hash` and `maglev` look at.
    pub hash_on: HashOn,
    /// When backends of another priority are used.
    pub tiers: Tiers,
    /// Whether backends near the node come first. `None`, the default: all are the same.
    pub locality: Option<Locality>,
    /// How long a backend that became usable takes to its full weight. `None`, the default: at once.
    pub slow_start: Option<Duration>,
    /// May be empty: then every connection is refused with a reason.
    pub backends: Vec<Backend>,
    /// Where more of them come from, in order.
    pub discovery: Vec<Source>,
    /// Active check, if asked for.
    pub health_check: Option<HealthCheck>,
    /// Passive check: what failed dials do. On by default.
    pub outlier: Outlier,
    /// What to do when no backend is usable.
    pub when_all_down: WhenAllDown,
    /// How a backend is dialled.
    pub connect: Connect,
    /// What tells backends who the client is, on every connection and in checks. With UDP version 2 only.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Which datagrams carry the PROXY header.
    pub proxy_datagrams: ProxyDatagrams,
    /// Whether backends see the client's own address as the sender (IP_TRANSPARENT). Default no.
    pub preserve_client_address: bool,
    /// What becomes of connections and flows when their backend goes down.
    pub on_down: OnDown,
    /// How long they may go on when it was removed. `None`, the default: connections until they end, flows for 30 s.
    pub removed_drain: Option<Duration>,
}

/// The form of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// One address in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its pool. Made from the address when the user gives none.
    pub name: Name,
    /// Where it is.
    pub address: BackendAddress,
    /// Its share among its tier. 0 gets nothing. Default 1, at most 65,535.
    pub weight: u32,
    /// Its tier: the lowest number with a usable backend leads. Default 0.
    pub priority: u32,
    /// Open connections (or flows) it may hold, per node. `None`: unlimited, the default.
    pub max_connections: Option<u32>,
    /// Where in the world it is. `None`: nobody says.
    pub zone: Option<Box<str>>,
}

/// Backends in the node's own zone come before the others of their tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locality {
    /// With a smaller share of them usable, in percent, the tier counts as one: all of it takes part. Default 70.
    pub spill_below: u8,
}

impl Default for Locality {
    fn default() -> Self {
        Self { spill_below: 70 }
    }
}

/// How to choose a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// By weight, at random.
    Random,
    /// In turn, smoothly by weight.
    RoundRobin,
    /// The fewest open connections by weight; ties at random.
    LeastConn,
    /// Weighted rendezvous hash: stable when others come and go, the same on every node.
    Hash,
    /// A hash by a table (Maglev): one look whatever the number of backends, the same on every node.
    Maglev,
    /// The fewer open connections by weight of two at random.
    P2c,
    /// The lower latency times connections by weight of two at random.
    Ewma,
    /// The fewest bytes lately, by weight.
    LeastBandwidth,
}

/// When backends of another priority are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// Whether a tier is also left when it is full. Default false: only when it is down.
    pub spill_when_full: bool,
    /// A tier with fewer usable backends is left, if another has enough. Default 1.
    pub min_usable: u32,
    /// Whether a better tier is used again as soon as it can be. Default true; otherwise when the one in use fails.
    pub auto_failback: bool,
    /// One backend a tier at a time: the first usable one. Default false.
    pub single_active: bool,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { spill_when_full: false, min_usable: 1, auto_failback: true, single_active: false }
    }
}

/// What `hash` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address, without the port.
    Client,
    /// The client's address and port.
    ClientPort,
    /// The server name of the ClientHello (the client's address where there is none).
    Sni,
    /// The listener's name: everything that comes in there goes to one backend.
    Listener,
}

/// Passive checking by failed dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Dials in a row that fail before the backend is set aside. Default 5.
    pub consecutive_failures: u32,
    /// How long it is set aside. Default 30 s.
    pub ejection: Duration,
    /// The greatest part of a pool that may be set aside, in percent. Default 50.
    pub max_ejected_percent: u8,
}

/// What to do when no backend is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAllDown {
    /// Close the client at once. The default.
    Reject,
    /// Try any of them.
    Any,
}

/// How a backend is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// Of one attempt. Default 5 s.
    pub timeout: Duration,
    /// Backends tried before the client is closed. Default 3.
    pub attempts: u32,
}
