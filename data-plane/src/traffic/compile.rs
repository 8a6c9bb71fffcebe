//! A configuration as the data path runs it: rules indexed, pools resolved, keys loaded. Pure but for the keys' parsing.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::AtomicU32},
};

use awe4lb_engine::{
    affinity::AffinityTable,
    flows::FlowQuota,
    route::{NameTable, PrefixSet, RuleTable, Tables},
};
use awe4lb_model::{
    BindAddress, BindHost, ClientPrefix, Name, Preamble, Protocol, RuleAction, TcpTimeouts, TlsMode,
    UdpSettings,
    placed::{NodeConfig, Number, PlacedListener, PlacedPool, ResourceId, ResourceKind},
};
use rustls::ServerConfig;

use super::{
    gate::Gate,
    lookups::Lookups,
    pool::{PoolState, Shared},
    tls,
};
use super::{transparency, udp::ConnectionIds};
use crate::control::hot::Problem;

/// A socket's key: sockets are kept while it stays, whatever listener it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SocketKey {
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
}

/// Everything a node runs, immutable.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) listeners: BTreeMap<Number, Arc<ListenerRun>>,
    pub(super) sockets: BTreeMap<SocketKey, Arc<ListenerRun>>,
    pub(super) pools: BTreeMap<Number, Arc<PoolState>>,
    lookups: Lookups,
    groups: BTreeMap<Name, Arc<AffinityTable>>,
}

/// A listener that runs.
pub(super) struct ListenerRun {
    pub(super) number: Number,
    pub(super) name: Name,
    pub(super) table: RuleTable,
    pub(super) rules: Vec<RuleRun>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Whether a client whose TLS ends here must send a server name.
    pub(super) require_sni: bool,
    pub(super) timeouts: TcpTimeouts,
    /// Which request for TLS comes before the ClientHello.
    pub(super) preamble: Option<Preamble>,
    /// Whether the questions of certificate authorities by HTTP are answered here.
    pub(super) acme_http01: bool,
    /// Of how many of a million connections the access log tells.
    pub(super) access_log: Option<u32>,
    /// Peers that send a PROXY header.
    pub(super) proxy_from: PrefixSet,
    pub(super) max_connections: u32,
    /// Access rules and limits by client and of rates, if there are any.
    pub(super) gate: Option<Box<Gate>>,
    pub(super) udp: UdpSettings,
    /// Open client connections, over all workers; the same cell from configuration to configuration.
    pub(super) open: Arc<AtomicU32>,
    /// Open flows, likewise.
    pub(super) flows: Arc<FlowQuota>,
    /// Connection ids of QUIC, likewise.
    pub(super) connection_ids: Arc<ConnectionIds>,
    /// What counts as one client of flows.
    pub(super) client_prefix: ClientPrefix,
    /// The clients of its group, and how long they are remembered in milliseconds.
    pub(super) affinity: Option<(Arc<AffinityTable>, u64)>,
}

impl ListenerRun {
    /// Whether connections are routed without their first bytes.
    pub(super) fn routes_unread(&self) -> bool {
        self.preamble.is_none() && !self.table.needs_client_hello()
    }

    /// Whether this rule, or none, sends a connection on as it comes.
    pub(super) fn passes_through(&self, rule: Option<usize>) -> bool {
        let rule = rule.and_then(|at| self.rules.get(at));
        rule.is_some_and(|rule| !rule.terminate && !rule.targets.is_empty())
    }

    /// Whether this peer must send a PROXY header, so that its own address says nothing of the client.
    pub(super) fn must_introduce(&self, peer: IpAddr) -> bool {
        !self.proxy_from.is_empty() && self.proxy_from.contains(peer)
    }
}

/// A rule that runs.
pub(super) struct RuleRun {
    pub(super) number: Number,
    pub(super) terminate: bool,
    /// Of a split by client: the rule's name, which is what sides are made of.
    pub(super) sticky: Option<Name>,
    /// Of a rule with a map: which of the targets a name leads to.
    pub(super) map: Option<Arc<NameTable>>,
    /// Pools with their weights; empty: reject.
    pub(super) targets: Vec<(u32, Arc<PoolState>)>,
    /// Who gets copies of how many of a million flows.
    pub(super) mirror: Option<(u32, Arc<PoolState>)>,
}

/// A snapshot and what its commit does to pools that stay.
pub(super) struct Compiled {
    pub(super) snapshot: Snapshot,
    pub(super) reconfigure: Vec<(Arc<PoolState>, Arc<PlacedPool>)>,
}

/// Compiles `config`, taking over what stays from `before`. Nothing that is live is touched.
pub(super) fn compile(
    config: &NodeConfig,
    before: &Snapshot,
    shared: &Arc<Shared>,
    bind_address: Option<IpAddr>,
) -> Result<Compiled, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut keys = HashMap::new();
    for placed in &config.certificates {
        match tls::load(placed) {
            Ok(key) => drop(keys.insert(placed.certificate.name.clone(), key)),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(transparency::check(config));
    let mut snapshot = Snapshot { lookups: Lookups::compile(config, &before.lookups), ..Snapshot::default() };
    let mut reconfigure = Vec::new();
    let mut by_name = HashMap::new();
    for placed in &config.pools {
        let placed_pool = Arc::new(placed.clone());
        let state = match before.pools.get(&placed.number) {
            Some(state) => {
                reconfigure.push((state.clone(), placed_pool));
                state.clone()
            }
            None => PoolState::new(placed_pool, shared.clone()),
        };
        by_name.insert(placed.pool.name.clone(), state.clone());
        snapshot.pools.insert(placed.number, state);
    }
    for affinity in config.listeners.iter().filter_map(|placed| placed.listener.affinity.as_ref()) {
        let group = before.groups.get(&affinity.group).cloned().unwrap_or_default();
        snapshot.groups.entry(affinity.group.clone()).or_insert(group);
    }
    for placed in &config.listeners {
        match listener(placed, before, &by_name, &keys, &snapshot) {
            Ok(run) => {
                let run = Arc::new(run);
                for bind in &placed.listener.bind {
                    for address in addresses(*bind, bind_address) {
                        let key = SocketKey { protocol: placed.listener.protocol, address };
                        snapshot.sockets.insert(key, run.clone());
                    }
                }
                snapshot.listeners.insert(placed.number, run);
            }
            // A certificate that did not load is said once, above.
            Err(message) if problems.is_empty() => problems.push(Problem {
                resource: ResourceId { kind: ResourceKind::Listener, name: placed.listener.name.clone() },
                code: "dangling-reference",
                field_path: String::new(),
                message,
            }),
            Err(_) => {}
        }
    }
    if problems.is_empty() { Ok(Compiled { snapshot, reconfigure }) } else { Err(problems) }
}

fn listener(
    placed: &PlacedListener,
    before: &Snapshot,
    pools: &HashMap<Name, Arc<PoolState>>,
    keys: &HashMap<Name, Arc<tls::Loaded>>,
    snapshot: &Snapshot,
) -> Result<ListenerRun, String> {
    let listener = &placed.listener;
    let tables: &Tables = &snapshot.lookups.tables;
    let pool = |name: &Name| pools.get(name).cloned().ok_or_else(|| format!("there is no pool {name:?}"));
    let mut rules = Vec::with_capacity(listener.rules.len());
    for (number, rule) in placed.rule_numbers.iter().zip(&listener.rules) {
        let map = match &rule.action {
            RuleAction::Map(name) => Some(tables.map(name)),
            RuleAction::Pool(_) | RuleAction::Split(_) | RuleAction::Reject => None,
        };
        let targets = match &rule.action {
            RuleAction::Map(_) => map
                .iter()
                .flat_map(|map| map.pools())
                .map(|name| Ok((1, pool(name)?)))
                .collect::<Result<_, String>>()?,
            RuleAction::Pool(name) => vec![(1, pool(name)?)],
            RuleAction::Split(targets) => targets
                .iter()
                .map(|target| Ok((target.weight, pool(&target.pool)?)))
                .collect::<Result<_, String>>()?,
            RuleAction::Reject => Vec::new(),
        };
        rules.push(RuleRun {
            number: *number,
            terminate: rule.tls == TlsMode::Terminate,
            sticky: rule.sticky.then(|| rule.name.clone()),
            map,
            targets,
            mirror: match &rule.mirror {
                Some(mirror) => Some((mirror.share, pool(&mirror.pool)?)),
                None => None,
            },
        });
    }
    let tls = listener.tls.as_ref().map(|settings| tls::server_config(settings, keys)).transpose()?;
    Ok(ListenerRun {
        number: placed.number,
        name: listener.name.clone(),
        table: RuleTable::compile(listener, tables),
        rules,
        tls,
        require_sni: listener.tls.as_ref().is_some_and(|tls| tls.require_sni),
        timeouts: listener.timeouts,
        access_log: listener.access_log,
        preamble: listener.preamble,
        acme_http01: listener.acme_http01,
        proxy_from: listener.proxy_from.iter().collect(),
        max_connections: listener.limits.max_connections.unwrap_or(u32::MAX),
        gate: Gate::compile(
            listener,
            tables,
            before.listeners.get(&placed.number).and_then(|old| old.gate.as_deref()),
        ),
        udp: listener.udp,
        client_prefix: listener.limits.client_prefix,
        affinity: listener.affinity.as_ref().and_then(|affinity| {
            let ttl = u64::try_from(affinity.ttl.as_millis()).unwrap_or(u64::MAX);
            Some((snapshot.groups.get(&affinity.group)?.clone(), ttl))
        }),
        open: before.listeners.get(&placed.number).map(|old| old.open.clone()).unwrap_or_default(),
        flows: before.listeners.get(&placed.number).map(|old| old.flows.clone()).unwrap_or_default(),
        connection_ids: before
            .listeners
            .get(&placed.number)
            .map(|old| old.connection_ids.clone())
            .unwrap_or_default(),
    })
}

/// The sockets of a bind. `*` is both families, unless the node replaces wildcards with an address of its own.
fn addresses(bind: BindAddress, replacement: Option<IpAddr>) -> Vec<SocketAddr> {
    let ips = match (bind.host, replacement) {
        (BindHost::Any, Some(ip)) => vec![ip],
        (BindHost::Any, None) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        (BindHost::Ip(ip), Some(own)) if ip.is_unspecified() && ip.is_ipv4() == own.is_ipv4() => vec![own],
        (BindHost::Ip(ip), _) => vec![ip],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, bind.port)).collect()
}
