//! What the control half sees of the hot half: one seam, so that everything here is testable without sockets.

use std::{
    any::Any,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use awe4lb_engine::{checks::Advice, health::Health};
use awe4lb_model::{
    Backend, EndReason,
    placed::{NodeConfig, Number, PlacedPool, ResourceId},
};

/// How strictly a configuration is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All or nothing.
    Strict,
    /// A cold start: what cannot be bound is left out and named.
    BestEffort,
}

/// One thing that is wrong with one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub resource: ResourceId,
    /// Stable: `bind-failed`, `key-mismatch`, …
    pub code: &'static str,
    /// JSON pointer inside the resource, empty for all of it.
    pub field_path: String,
    /// For people.
    pub message: String,
}

/// A configuration that is ready to run and touches nothing live until it is committed; dropped: nothing happened.
pub struct Prepared {
    /// What the hot half made; only it knows the type.
    pub inner: Box<dyn Any + Send>,
    /// What was left out ([`Mode::BestEffort`] only).
    pub missing: Vec<Problem>,
}

/// Admin state of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdminState {
    /// Takes connections.
    #[default]
    Ready,
    /// Keeps its connections and takes no new ones.
    Drain,
    /// Takes no new ones, like `Drain`, until a person ends it; what is open is not closed yet.
    Maintenance,
}

/// What is true of a backend now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Of the backend.
    pub number: Number,
    /// By active checks.
    pub health: Health,
    /// Why, in words.
    pub reason: String,
    /// Set aside by passive checks.
    pub ejected: bool,
    /// Addresses in use; a fixed one, or what its name resolved to.
    pub addresses: Vec<IpAddr>,
    /// As set.
    pub admin: AdminState,
    /// Open connections and flows.
    pub active: u64,
}

/// A running pool: health, addresses and admin states go in, views come out.
pub trait PoolHandle: Send + Sync {
    /// What it runs: discovered backends stand after the configured ones.
    fn placed(&self) -> Arc<PlacedPool>;
    /// Goes up whenever [`Self::members`] or [`Self::placed`] may say something else, but for an ejection that is over.
    fn edition(&self) -> u64;
    /// The result of checks.
    fn set_health(&self, backend: Number, health: Health, reason: &str);
    /// What an agent beside the backend advises; what it does not mention stays as it was advised before.
    fn set_advice(&self, backend: Number, advice: Advice);
    /// What a host name means now.
    fn set_resolved(&self, backend: Number, addresses: Vec<IpAddr>);
    /// What sources add to the configured backends, in order. False: it is so already.
    fn set_discovered(&self, members: Vec<(Number, Backend)>) -> bool;
    /// From an overlay.
    fn set_admin(&self, backend: Number, state: AdminState);
    /// All members, in order.
    fn members(&self) -> Vec<MemberView>;
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// Its PROXY header or its first bytes are awaited, or its TLS handshake.
    Routing,
    /// A backend is being dialled.
    Dialling,
    /// Bytes flow.
    Open,
    /// Over.
    Ended,
}

impl ConnectionState {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Dialling => "dialling",
            Self::Open => "open",
            Self::Ended => "ended",
        }
    }
}

/// What is known of one TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Unique on this node since it started.
    pub id: u64,
    /// Milliseconds since the node started, to a tenth of a second.
    pub accepted_millis: u64,
    /// Until now, or until it ended.
    pub duration_millis: u64,
    /// As the PROXY header says, where there is one.
    pub client: SocketAddr,
    /// Of the socket.
    pub peer: SocketAddr,
    /// By number.
    pub listener: u64,
    /// By number; 0: none.
    pub rule: u64,
    /// By number; 0: none.
    pub pool: u64,
    /// By number; 0: none.
    pub backend: u64,
    /// What the ClientHello asked for, where it was read.
    pub server_name: Option<Box<str>>,
    /// Client to backend, payload delivered.
    pub bytes_in: u64,
    /// Backend to client, payload delivered.
    pub bytes_out: u64,
    /// The TLS handshake with the client; 0: none.
    pub handshake_micros: u32,
    /// The dial that succeeded; 0: none.
    pub dial_micros: u32,
    /// Where it is.
    pub state: ConnectionState,
    /// Why it ended.
    pub end: Option<EndReason>,
}

/// Which connections are meant: all that fit everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// By number.
    pub listener: Option<u64>,
    /// By number.
    pub pool: Option<u64>,
    /// By number.
    pub backend: Option<u64>,
    /// The client's address.
    pub client: Option<ipnet::IpNet>,
    /// Exactly this name.
    pub server_name: Option<String>,
    /// Exactly this connection.
    pub id: Option<u64>,
    /// Those that ended, instead of those that are open.
    pub ended: bool,
    /// Only with this reason.
    pub reason: Option<EndReason>,
    /// At most so many, of each worker.
    pub limit: usize,
}

impl ConnectionFilter {
    /// Whether a connection is meant.
    pub fn fits(&self, record: &ConnectionRecord) -> bool {
        self.listener.is_none_or(|number| number == record.listener)
            && self.pool.is_none_or(|number| number == record.pool)
            && self.backend.is_none_or(|number| number == record.backend)
            && self.client.is_none_or(|net| net.contains(&record.client.ip().to_canonical()))
            && self.id.is_none_or(|id| id == record.id)
            && (self.reason.is_none() || self.reason == record.end)
            && self.server_name.as_deref().is_none_or(|name| record.server_name.as_deref() == Some(name))
    }
}

/// What a certificate authority may ask, and what is answered.
#[derive(Clone)]
pub struct Challenge {
    /// How it asks.
    pub kind: ChallengeKind,
    /// From now on; then it is as if it had never been.
    pub lasts: Duration,
}

/// How a certificate authority asks.
#[derive(Clone)]
pub enum ChallengeKind {
    /// By HTTP, for this token (RFC 8555 section 8.3).
    Http01 {
        /// base64url.
        token: String,
        /// The body of the answer.
        key_authorization: String,
    },
    /// By TLS, for this name (RFC 8737).
    TlsAlpn01 {
        /// Lower case.
        host: String,
        /// Leaf first.
        chain_der: Vec<Vec<u8>>,
        /// PKCS#8.
        key_der: Vec<u8>,
    },
}

/// Cumulative since the process started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterSample {
    /// Of a listener, rule, pool or backend.
    pub number: u64,
    /// Client to backend, payload delivered.
    pub bytes_in: u64,
    /// Backend to client, payload delivered.
    pub bytes_out: u64,
    /// Accepted, routed or dialled here, ever.
    pub connections_total: u64,
    /// Now.
    pub connections_active: u64,
    /// How they ended: pairs of reason and count, without zeros, in order of reason.
    pub ends: Vec<(EndReason, u64)>,
    /// UDP, client to backend.
    pub datagrams_in: u64,
    /// UDP, backend to client.
    pub datagrams_out: u64,
    /// Sum over successful dials.
    pub dial_micros_total: u64,
    /// Successful dials.
    pub dials_total: u64,
    /// Sum over TLS handshakes with clients.
    pub handshake_micros_total: u64,
    /// TLS handshakes with clients.
    pub handshakes_total: u64,
}

/// The hot half.
pub trait DataPath: Send + Sync + 'static {
    /// Compiles, binds, loads keys; touches nothing live. May take a while: call it off the control thread.
    fn prepare(&self, config: Arc<NodeConfig>, mode: Mode) -> Result<Prepared, Vec<Problem>>;
    /// Makes it live. Cannot fail.
    fn commit(&self, prepared: Prepared);
    /// The pools of the live configuration.
    fn pools(&self) -> Vec<Arc<dyn PoolHandle>>;
    /// One of them.
    fn pool(&self, name: &str) -> Option<Arc<dyn PoolHandle>>;
    /// Where the node is, for pools that prefer what is near. `None`: nobody knows.
    fn set_zone(&self, zone: Option<&str>);
    /// All counters, including those of removed objects until [`Self::forget_counters`].
    fn counters(&self) -> Vec<CounterSample>;
    /// These numbers of removed objects were reported to the end.
    fn forget_counters(&self, numbers: &[u64]);
    /// Resolves when a member's state may have changed since the last call.
    fn pools_changed<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// TCP connections that are open, or the last ones that ended, newest first. Waits for the workers: call it off the
    /// control thread.
    fn connections(&self, filter: &ConnectionFilter) -> Vec<ConnectionRecord>;
    /// Closes the open ones that fit; how many. Waits likewise.
    fn close_connections(&self, filter: &ConnectionFilter) -> usize;
    /// The challenges that are live, in place of those before: every connection that is accepted from now on meets them.
    /// What cannot be answered is left out, and said.
    fn set_challenges(&self, challenges: Vec<Challenge>) -> Result<(), String>;
    /// Open client connections and flows.
    fn active_connections(&self) -> u64;
    /// No new connections from now on.
    fn stop_accepting(&self);
    /// Resolves when all connections ended, or were closed at the deadline.
    fn drain<'a>(&'a self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
