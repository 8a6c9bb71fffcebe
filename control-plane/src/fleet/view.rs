//! Nodes and backends as the API shows them.

use std::collections::BTreeMap;

use awe4lb_proto::{Hash, v1};
use serde::Serialize;

use super::{
    Inner,
    discovered::Found,
    overlay::Admin,
    placement::Snapshot,
    registry::{Fault, Node, Rejection},
};

/// A node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Unique.
    pub name: String,
    /// `connected`, `disconnected`, `never`, `banned`.
    pub state: &'static str,
    /// Of its software, by its last hello.
    pub version: String,
    /// From its join token.
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub connected_since: Option<String>,
    /// RFC 3339.
    pub last_seen: Option<String>,
    /// Hex; another one after each start.
    pub boot_id: String,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// Workers.
    pub threads: u32,
    /// Of its `/metrics`.
    pub admin_address: String,
    /// RFC 3339.
    pub certificate_not_after: Option<String>,
    /// Told to, or by its own local socket.
    pub draining: bool,
    /// What it is to run.
    pub wanted: Option<AssignmentView>,
    /// What it says it runs.
    pub running: Option<AssignmentView>,
    /// How far it came with what it is to run.
    pub phase: &'static str,
    /// Runs what it is to run.
    pub in_sync: bool,
    /// Built something else than it was sent.
    pub diverged: bool,
    /// Why it does not run what it is to run.
    pub rejection: Option<Rejection>,
    /// What does not work although it runs.
    pub problems: Vec<Fault>,
    /// Listeners that it could not start.
    pub missing_listeners: Vec<String>,
    /// Of the process.
    pub gauges: Option<Gauges>,
}

/// Which manifest, and under which assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentView {
    /// Of the control plane that gave it.
    pub epoch: u64,
    /// Only ever goes up.
    pub sequence: u64,
    /// Hex.
    pub manifest_hash: String,
    /// For people.
    pub revision: Option<u64>,
}

/// What a node says of its process.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gauges {
    /// User and system.
    pub cpu_seconds_total: f64,
    /// Bytes.
    pub resident_bytes: u64,
    /// Descriptors.
    pub open_files: u64,
    /// Descriptors.
    pub open_files_limit: u64,
}

/// A backend at run time.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Its pool.
    pub pool: String,
    /// Unique in the pool.
    pub name: String,
    /// Of its counters.
    pub number: u64,
    /// As configured.
    pub address: String,
    /// Where in the world it is, where somebody says.
    pub zone: Option<String>,
    /// Its tier.
    pub priority: u32,
    /// `ready`, `drain`, `maintenance`.
    pub admin: &'static str,
    /// RFC 3339: when it goes back to ready by itself.
    pub admin_until: Option<String>,
    /// The operator's words.
    pub admin_reason: String,
    /// Where it comes from.
    pub presence: &'static str,
    /// How many nodes say so.
    pub health: HealthCounts,
    /// What each connected node says.
    pub nodes: Vec<BackendOnNode>,
}

/// How many nodes see it how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HealthCounts {
    /// Answers.
    pub up: u32,
    /// Does not.
    pub down: u32,
    /// Not checked, or not yet.
    pub unknown: u32,
}

/// What one node says of a backend.
#[derive(Debug, Clone, Serialize)]
pub struct BackendOnNode {
    /// Which.
    pub node: String,
    /// `up`, `down`, `unknown`.
    pub health: &'static str,
    /// Why.
    pub reason: String,
    /// RFC 3339.
    pub since: Option<String>,
    /// Set aside after failures.
    pub ejected: bool,
    /// Addresses of a host name.
    pub resolved: String,
}

/// `up`, `down`, `unknown`.
pub fn health_word(health: i32) -> &'static str {
    match v1::Health::try_from(health) {
        Ok(v1::Health::Up) => "up",
        Ok(v1::Health::Down) => "down",
        Ok(v1::Health::Unknown | v1::Health::Unspecified) | Err(_) => "unknown",
    }
}

/// RFC 3339 of Unix milliseconds; nothing for 0 and for what is no time.
pub fn time_ms(millis: i64) -> Option<String> {
    if millis == 0 {
        return None;
    }
    jiff::Timestamp::from_millisecond(millis).ok().map(|time| time.to_string())
}

/// RFC 3339 of Unix seconds.
pub fn time(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// The view of a node, with what is current for comparison.
pub(super) fn node_view(node: &Node, current: &Snapshot) -> NodeView {
    let (record, live) = (&node.record, &node.live);
    let is_connected = live.connected_since.is_some();
    let running = live.running.as_ref().filter(|_| is_connected).map(running_view);
    let wanted = record.manifest.map(|manifest| AssignmentView {
        epoch: record.epoch,
        sequence: record.sequence,
        manifest_hash: manifest.to_string(),
        revision: (manifest == current.hash).then_some(current.revision),
    });
    let is_rejected = record.rejected.is_some() && record.rejected == record.manifest;
    let runs_it = match (&running, &wanted) {
        (Some(running), Some(wanted)) => running.manifest_hash == wanted.manifest_hash,
        _ => false,
    };
    let phase = match live.phase {
        _ if is_rejected => "rejected",
        Some(v1::Phase::Degraded) if runs_it => "degraded",
        _ if runs_it => "active",
        Some(phase) => phase_word(phase),
        None => "pending",
    };
    let never = live.connected_since.is_none() && record.facts.boot_id.is_empty();
    let refused = live.refused.clone();
    NodeView {
        name: record.name.clone(),
        state: match () {
            () if record.banned => "banned",
            () if is_connected => "connected",
            () if never => "never",
            () => "disconnected",
        },
        version: record.facts.version.clone(),
        labels: record.labels.clone(),
        connected_since: live.connected_since.and_then(time),
        last_seen: if is_connected { time(super::now()) } else { record.last_seen.and_then(time) },
        boot_id: record.facts.boot_id.clone(),
        started_at: time_ms(record.facts.started_unix_ms),
        threads: record.facts.threads,
        admin_address: record.facts.admin_address.clone(),
        certificate_not_after: time(record.not_after),
        draining: record.draining || live.draining,
        in_sync: is_connected && runs_it && !live.diverged && phase == "active",
        wanted,
        running,
        phase,
        diverged: live.diverged,
        rejection: record.rejection.clone().filter(|_| is_rejected),
        problems: live.faults.iter().cloned().chain(refused).collect(),
        missing_listeners: live.missing_listeners.clone(),
        gauges: live.gauges.as_ref().map(|gauges| Gauges {
            cpu_seconds_total: gauges.cpu_micros_total as f64 / 1e6,
            resident_bytes: gauges.resident_bytes,
            open_files: gauges.open_files,
            open_files_limit: gauges.open_files_limit,
        }),
    }
}

fn running_view(assignment: &v1::Assignment) -> AssignmentView {
    let hash = <[u8; 32]>::try_from(&*assignment.manifest_hash).map(Hash);
    AssignmentView {
        epoch: assignment.epoch,
        sequence: assignment.sequence,
        manifest_hash: hash.map(|hash| hash.to_string()).unwrap_or_default(),
        revision: Some(assignment.revision),
    }
}

fn phase_word(phase: v1::Phase) -> &'static str {
    match phase {
        v1::Phase::Received => "received",
        v1::Phase::Validated => "validated",
        v1::Phase::Prepared => "prepared",
        v1::Phase::Active => "active",
        v1::Phase::Rejected => "rejected",
        v1::Phase::Superseded => "superseded",
        v1::Phase::Degraded => "degraded",
        v1::Phase::Unspecified => "pending",
    }
}

impl Inner {
    /// The view of one node.
    pub(super) fn node_view(&self, name: &str) -> Option<NodeView> {
        let current = self.planner.current();
        self.registry.lock().get(name).map(|node| node_view(node, &current))
    }

    /// Tells whoever listens how a node is now.
    pub(super) fn publish_node(&self, name: &str) {
        if self.events.has_listeners()
            && let Some(view) = self.node_view(name)
        {
            self.events.publish("node", &view);
        }
    }

    /// The backends of a pool, or of all.
    pub(super) fn backend_views(&self, of: Option<&str>) -> Vec<BackendView> {
        let head = self.head.borrow().clone();
        let pools = || {
            head.placed.pools.iter().filter(|placed| of.is_none_or(|name| placed.pool.name.as_str() == name))
        };
        let mut discovered = self.discovered_of(pools());
        let mut views = Vec::new();
        for placed in pools() {
            let configured = placed
                .pool
                .backends
                .iter()
                .zip(&placed.backend_numbers)
                .map(|(backend, number)| (Found::of(backend, *number), "configured"));
            let discovered = discovered
                .remove(&placed.number.0)
                .unwrap_or_default()
                .into_iter()
                .map(|found| (found, "discovered"));
            let all: Vec<_> = configured.chain(discovered).collect();
            let nodes = self.registry.lock();
            for (found, presence) in all {
                let admin = self.overlays.of(found.number);
                let mut view = BackendView {
                    pool: placed.pool.name.to_string(),
                    name: found.name,
                    number: found.number,
                    address: found.address,
                    zone: found.zone,
                    priority: found.priority,
                    admin: admin.as_ref().map_or(Admin::Ready, |state| state.admin).word(),
                    admin_until: admin.as_ref().and_then(|state| time_ms(state.until_ms)),
                    admin_reason: admin.map(|state| state.reason).unwrap_or_default(),
                    presence,
                    health: HealthCounts::default(),
                    nodes: Vec::new(),
                };
                for (name, node) in nodes.iter().filter(|(_, node)| node.live.connected_since.is_some()) {
                    let Some(said) = node.live.health.get(&view.number) else { continue };
                    let health = health_word(said.health);
                    match health {
                        "up" => view.health.up += 1,
                        "down" => view.health.down += 1,
                        _ => view.health.unknown += 1,
                    }
                    view.nodes.push(BackendOnNode {
                        node: name.clone(),
                        health,
                        reason: said.reason.clone(),
                        since: time_ms(said.since_unix_ms),
                        ejected: said.ejected,
                        resolved: said.resolved.clone(),
                    });
                }
                views.push(view);
            }
        }
        views
    }
}
