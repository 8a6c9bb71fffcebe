//! Which backends come first on nodes of which zone.

use std::collections::BTreeMap;

use awe4lb_engine::balance::near_leads;
use awe4lb_model::Pool;
use serde_json::{Value, json};

use crate::fleet::BackendView;

/// For each zone that nodes are in, by the engine's rule over the tier that leads. `None`: the pool prefers nobody.
pub(super) fn explain(
    pool: &Pool,
    backends: &[BackendView],
    candidate: &dyn Fn(&BackendView) -> (bool, String),
    nodes: &[(String, Option<String>)],
) -> Option<Value> {
    let locality = pool.locality?;
    let candidates: Vec<&BackendView> = backends.iter().filter(|backend| candidate(backend).0).collect();
    let tier = leading(pool, &candidates);
    let mut by_zone: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (node, zone) in nodes {
        by_zone.entry(zone.as_deref()).or_default().push(node);
    }
    let zones: Vec<Value> = by_zone
        .into_iter()
        .map(|(zone, nodes)| {
            let is_near = |backend: &BackendView| {
                zone.is_some() && backend.zone.as_deref() == zone && Some(backend.priority) == tier
            };
            let all = backends.iter().filter(|backend| is_near(backend)).count();
            let usable = candidates.iter().filter(|backend| is_near(backend)).count();
            let first = near_leads(usable, all, locality.spill_below);
            let reason = match zone {
                None => "these nodes have no label \"zone\": all zones take part".to_owned(),
                Some(_) if all == 0 => {
                    "no backend of the leading tier is here: all zones take part".to_owned()
                }
                Some(_) if first => format!("{usable} of {all} usable: they come first"),
                Some(_) => {
                    let least = locality.spill_below;
                    format!("{usable} of {all} usable, spillBelow is {least} %: all zones take part")
                }
            };
            json!({"zone": zone, "nodes": nodes, "backends": all, "candidates": usable, "first": first,
                "reason": reason})
        })
        .collect();
    Some(json!({"prefer": "zone", "spillBelow": locality.spill_below, "zones": zones}))
}

/// The priority of the tier that leads: the first with enough candidates, else the first with any.
fn leading(pool: &Pool, candidates: &[&BackendView]) -> Option<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for backend in candidates {
        *counts.entry(backend.priority).or_default() += 1;
    }
    let enough = counts.iter().find(|(_, count)| **count >= pool.tiers.min_usable as usize);
    enough.or_else(|| counts.iter().next()).map(|(priority, _)| *priority)
}
