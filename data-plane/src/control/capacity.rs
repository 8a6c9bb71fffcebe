//! What this node has room for, computed before it is reached.

use awe4lb_model::{BindHost, Listener, Name, Protocol};

use super::{gauges, node::Node};
use crate::traffic::room;

/// UDP flows that each pool can have here, if no other pool has any: of pools that UDP listeners lead to.
pub fn flows(node: &Node) -> Vec<(Name, u64)> {
    let running = node.live.running();
    let files = gauges::read().open_files_limit;
    let udp: Vec<&Listener> = running
        .config
        .listeners
        .iter()
        .map(|placed| &placed.listener)
        .filter(|listener| listener.protocol == Protocol::Udp)
        .collect();
    let mut flows = Vec::new();
    for pool in node.live.path().pools() {
        let name = &pool.placed().pool.name;
        let leads = |listener: &&&Listener| {
            let maps =
                listener.rules.iter().any(|rule| matches!(rule.action, awe4lb_model::RuleAction::Map(_)));
            maps || listener.rules.iter().any(|rule| rule.action.pools().any(|pool| pool == name))
        };
        let sockets: usize = udp.iter().filter(leads).map(|listener| sockets(listener)).sum();
        if sockets > 0 {
            flows.push((name.clone(), room::flows(pool.members().len(), sockets * node.threads, files)));
        }
    }
    flows
}

/// Listening sockets of a worker.
fn sockets(listener: &Listener) -> usize {
    let of_bind = |host: BindHost| if host == BindHost::Any { 2 } else { 1 };
    listener.bind.iter().map(|bind| of_bind(bind.host)).sum()
}
