//! Discovered backends: what the control plane's sources told, and what nodes say of those they found themselves.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use awe4lb_discovery::members;
use awe4lb_model::{
    Backend,
    placed::{Number, PlacedPool},
};
use awe4lb_proto::{backend_to_wire, v1};
use serde::Serialize;

use super::{Fleet, Inner, view::time_ms};

/// Last good answers of the sources of a pool, in their order.
pub type Answers = Vec<(String, Vec<Backend>)>;

/// What is known of discovered backends.
#[derive(Default)]
pub(super) struct Discovered {
    told: Mutex<BTreeMap<String, Vec<(Number, Backend)>>>,
    /// Goes up whenever somebody comes or goes.
    version: AtomicU64,
}

/// How a source does on a node that asks it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceOnNode {
    /// Of the node.
    pub node: String,
    /// When the last good answer came.
    pub last_success: Option<String>,
    /// Why the last try failed; empty: it did not.
    pub error: String,
    /// In the last good answer.
    pub backends: u32,
    /// Items that are no backends.
    pub rejected: u32,
    /// When it is asked again.
    pub next_try: Option<String>,
}

impl Discovered {
    /// Members that sources of the control plane told of a pool.
    pub(super) fn told(&self, pool: &str) -> Vec<(Number, Backend)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(pool).cloned().unwrap_or_default()
    }

    /// Somebody came or went.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Relaxed);
    }
}

impl Fleet {
    /// Takes the answers of the control plane's own sources of some pools, and sends them to the nodes.
    pub fn tell_answers(&self, pools: Vec<(&PlacedPool, Answers)>) {
        let mut messages = Vec::with_capacity(pools.len());
        {
            let mut told = self.0.discovered.told.lock().unwrap_or_else(PoisonError::into_inner);
            for (placed, answers) in pools {
                let name = placed.pool.name.to_string();
                let of = answers.iter().map(|(_, backends)| backends.as_slice());
                let found = members(placed.number, &placed.pool.backends, of);
                if found.is_empty() {
                    told.remove(&name)
                } else {
                    told.insert(name.clone(), found)
                };
                let wire = |backend: &Backend| {
                    let number = awe4lb_discovery::discovered_number(placed.number, &backend.address);
                    backend_to_wire(backend, number)
                };
                let answers = answers
                    .into_iter()
                    .map(|(source, backends)| v1::SourceAnswer {
                        source,
                        backends: backends.iter().map(wire).collect(),
                    })
                    .collect();
                messages.push((name, answers));
            }
        }
        self.0.discovered.changed();
        self.0.overlays.set_answers(messages);
    }

    /// Changes whenever [`Self::discovered`] may have.
    pub fn discovered_version(&self) -> u64 {
        self.0.discovered.version.load(Relaxed)
    }

    /// All discovered backends: pool, number, name.
    pub fn discovered(&self) -> Vec<(String, u64, String)> {
        let inner = &self.0;
        let config = inner.head.borrow().placed.clone();
        let mut of_pools = inner.discovered_of(config.pools.iter());
        let named = |placed: &PlacedPool| {
            let found = of_pools.remove(&placed.number.0).unwrap_or_default();
            let pool = placed.pool.name.to_string();
            found.into_iter().map(move |found| (pool.clone(), found.number, found.name))
        };
        config.pools.iter().flat_map(named).collect()
    }

    /// How nodes do that ask a source of a pool themselves.
    pub fn source_on_nodes(&self, pool: Number, source: &str) -> Vec<SourceOnNode> {
        let nodes = self.0.registry.lock();
        let connected = nodes.iter().filter(|(_, node)| node.live.connected_since.is_some());
        connected
            .filter_map(|(name, node)| {
                let status = node.live.sources.get(&(pool.0, source.to_owned()))?;
                Some(SourceOnNode {
                    node: name.clone(),
                    last_success: time_ms(status.last_success_unix_ms),
                    error: status.error.clone(),
                    backends: status.backends,
                    rejected: status.rejected,
                    next_try: time_ms(status.next_try_unix_ms),
                })
            })
            .collect()
    }
}

/// A backend that sources added to a pool.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) zone: Option<String>,
    pub(super) priority: u32,
}

impl Found {
    pub(super) fn of(backend: &Backend, number: Number) -> Self {
        Self {
            number: number.0,
            name: backend.name.to_string(),
            address: backend.address.to_string(),
            zone: backend.zone.as_deref().map(str::to_owned),
            priority: backend.priority,
        }
    }
}

impl Inner {
    /// Discovered backends of some pools, by the pool's number; each in order of name. All pools in one go: nodes tell of their
    /// backends in no order.
    pub(super) fn discovered_of<'a>(
        &self,
        pools: impl Iterator<Item = &'a PlacedPool>,
    ) -> HashMap<u64, Vec<Found>> {
        let mut of_pools: HashMap<u64, BTreeMap<u64, Found>> = pools
            .filter(|placed| !placed.pool.discovery.is_empty())
            .map(|placed| {
                let told = self.discovered.told(placed.pool.name.as_str());
                let found = told.iter().map(|(number, backend)| (number.0, Found::of(backend, *number)));
                (placed.number.0, found.collect())
            })
            .collect();
        if of_pools.is_empty() {
            return HashMap::new();
        }
        let nodes = self.registry.lock();
        for node in nodes.values().filter(|node| node.live.connected_since.is_some()) {
            for (number, said) in &node.live.health {
                let Some(discovered) = &said.discovered else { continue };
                let Some(found) = of_pools.get_mut(&discovered.pool) else { continue };
                found.entry(*number).or_insert_with(|| Found {
                    number: *number,
                    name: discovered.name.clone(),
                    address: discovered.address.clone(),
                    zone: Some(discovered.zone.clone()).filter(|zone| !zone.is_empty()),
                    priority: discovered.priority,
                });
            }
        }
        drop(nodes);
        let by_name = |found: BTreeMap<u64, Found>| {
            let mut found: Vec<Found> = found.into_values().collect();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            found
        };
        of_pools.into_iter().map(|(pool, found)| (pool, by_name(found))).collect()
    }
}
