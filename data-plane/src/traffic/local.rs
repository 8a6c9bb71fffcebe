//! A snapshot as one worker sees it: the shared parts, and beside them this worker's counters and turns.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use awe4lb_engine::{
    access::Judgement,
    balance::{NoCandidate, Request, Turns},
    route::{self, NameTable},
};
use awe4lb_model::{Balance, EndReason, HashOn, MIRROR_ALL, Name, Protocol, placed::Number};
use rand::{RngCore, rngs::SmallRng};

use super::{
    bandwidth::Bandwidth,
    compile::{ListenerRun, Snapshot, SocketKey},
    counters::{CounterTable, Counters},
    journal::Entry,
    pool::{Members, Permit, PoolState},
};

/// Everything this worker runs.
#[derive(Default)]
pub(super) struct LocalSnapshot {
    pub(super) sockets: BTreeMap<SocketKey, Rc<LocalListener>>,
    pools: BTreeMap<u64, Rc<LocalPool>>,
}

/// A listener and this worker's counters of it.
pub(super) struct LocalListener {
    pub(super) run: Arc<ListenerRun>,
    pub(super) counters: Arc<Counters>,
    pub(super) rules: Vec<LocalRule>,
}

/// A rule and this worker's counters of it.
pub(super) struct LocalRule {
    pub(super) counters: Arc<Counters>,
    targets: Vec<(u32, Rc<LocalPool>)>,
    sticky: Option<Name>,
    map: Option<Arc<NameTable>>,
    mirror: Option<(u32, Rc<LocalPool>)>,
}

/// A pool and this worker's counters and turns of it.
pub(super) struct LocalPool {
    pub(super) state: Arc<PoolState>,
    pub(super) counters: Arc<Counters>,
    local: RefCell<LocalMembers>,
}

struct LocalMembers {
    members: Arc<Members>,
    counters: Vec<Arc<Counters>>,
    turns: Turns,
    bandwidth: Bandwidth,
}

/// What `hash` may look at.
pub(super) struct Hashable<'a> {
    pub(super) client: SocketAddr,
    pub(super) server_name: Option<&'a str>,
    pub(super) listener: &'a str,
    /// Where the client belongs, by the seed of the backend's name, if that is remembered.
    pub(super) preferred: Option<u64>,
}

/// A chosen backend with a place taken.
pub(super) struct Chosen {
    pub(super) index: u32,
    pub(super) permit: Permit,
    pub(super) counters: Arc<Counters>,
    pub(super) members: Arc<Members>,
}

impl LocalSnapshot {
    /// Builds this worker's side; pools that stay keep their turns.
    pub(super) fn new(snapshot: &Snapshot, before: &Self, table: &CounterTable) -> Self {
        let pools: BTreeMap<u64, Rc<LocalPool>> = snapshot
            .pools
            .iter()
            .map(|(number, state)| {
                let kept =
                    before.pools.get(&number.0).filter(|pool| Arc::ptr_eq(&pool.state, state)).cloned();
                (
                    number.0,
                    kept.unwrap_or_else(|| Rc::new(LocalPool::new(state.clone(), table.of(*number), table))),
                )
            })
            .collect();
        let by_state: std::collections::HashMap<*const PoolState, Rc<LocalPool>> =
            pools.values().map(|pool| (Arc::as_ptr(&pool.state), pool.clone())).collect();
        let listeners: BTreeMap<u64, Rc<LocalListener>> = snapshot
            .listeners
            .iter()
            .map(|(number, run)| {
                let rules = run
                    .rules
                    .iter()
                    .map(|rule| LocalRule {
                        counters: table.of(rule.number),
                        sticky: rule.sticky.clone(),
                        map: rule.map.clone(),
                        mirror: rule.mirror.as_ref().and_then(|(share, state)| {
                            Some((*share, by_state.get(&Arc::as_ptr(state))?.clone()))
                        }),
                        targets: rule
                            .targets
                            .iter()
                            .filter_map(|(weight, state)| {
                                Some((*weight, by_state.get(&Arc::as_ptr(state))?.clone()))
                            })
                            .collect(),
                    })
                    .collect();
                (number.0, Rc::new(LocalListener { run: run.clone(), counters: table.of(*number), rules }))
            })
            .collect();
        let sockets = snapshot
            .sockets
            .iter()
            .filter_map(|(key, run)| Some((*key, listeners.get(&run.number.0)?.clone())))
            .collect();
        Self { sockets, pools }
    }
}

impl LocalSnapshot {
    /// Whether access rules came into force that end connections which are open.
    pub(super) fn revokes_access_of(&self, before: &Self) -> bool {
        let access = |listener: &Rc<LocalListener>| {
            Some((listener.run.number, listener.run.gate.as_ref()?.access.clone()?))
        };
        let closing = self.sockets.values().filter_map(access).filter(|(_, access)| access.closes_existing());
        let old: std::collections::HashMap<_, _> = before.sockets.values().filter_map(access).collect();
        closing.into_iter().any(|(number, access)| old.get(&number) != Some(&access))
    }

    /// Whether a listener's access rules end an open connection of this client.
    pub(super) fn denies_existing(&self, listener: Number, client: IpAddr) -> bool {
        let of_it = self.sockets.values().find(|of| of.run.number == listener);
        let access = of_it.and_then(|of| of.run.gate.as_ref()?.access.as_ref());
        access.is_some_and(|access| access.judge(client) == Judgement::Denied { close_existing: true })
    }
}

impl LocalSnapshot {
    /// Whether datagrams to this address would come back in: it is one that we listen on ourselves. `local`: an address
    /// of this host.
    pub(super) fn listens_on(&self, address: SocketAddr, local: IpAddr) -> bool {
        let has = |ip: IpAddr| {
            let address = SocketAddr::new(ip, address.port());
            self.sockets.contains_key(&SocketKey { protocol: Protocol::Udp, address })
        };
        let ip = address.ip();
        let any = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        has(ip) || ((ip == local || ip.is_loopback()) && has(any))
    }
}

impl LocalRule {
    /// Which pool; `None`: reject.
    pub(super) fn target(
        &self,
        client: IpAddr,
        server_name: Option<&str>,
        rng: &mut SmallRng,
    ) -> Option<&Rc<LocalPool>> {
        if let Some(map) = &self.map {
            let (_, pool) = self.targets.get(map.find(server_name?)?)?;
            return Some(pool);
        }
        match self.targets.as_slice() {
            [] => None,
            [(_, only)] => Some(only),
            several => {
                let random = match &self.sticky {
                    Some(rule) => route::sticky_side(rule.as_str(), client),
                    None => rng.next_u64(),
                };
                let side = route::choose_split(several.iter().map(|(weight, _)| *weight), random)?;
                several.get(side).map(|(_, pool)| pool)
            }
        }
    }
}

impl LocalRule {
    /// Who gets copies of a new flow; `None`: nobody, or not of this one.
    pub(super) fn mirror(&self, rng: &mut SmallRng) -> Option<&Rc<LocalPool>> {
        let (share, pool) = self.mirror.as_ref()?;
        (rng.next_u32() % MIRROR_ALL < *share).then_some(pool)
    }
}

impl LocalPool {
    fn new(state: Arc<PoolState>, counters: Arc<Counters>, table: &CounterTable) -> Self {
        let members = state.members();
        let local = LocalMembers {
            counters: counters_of(&members, table),
            members,
            turns: Turns::default(),
            bandwidth: Bandwidth::default(),
        };
        Self { state, counters, local: RefCell::new(local) }
    }

    /// The next candidate that is not among `tried`, with a place taken.
    pub(super) fn choose(
        &self,
        tried: &mut Vec<u32>,
        hashable: &Hashable<'_>,
        rng: &mut SmallRng,
        table: &CounterTable,
    ) -> Result<Chosen, EndReason> {
        let current = self.state.members();
        let mut local = self.local.borrow_mut();
        if !Arc::ptr_eq(&current, &local.members) {
            local.counters = counters_of(&current, table);
            local.turns = Turns::default();
            local.bandwidth = Bandwidth::default();
            local.members = current;
        }
        let LocalMembers { members, counters, turns, bandwidth } = &mut *local;
        let pool = &members.placed.pool;
        let key = hash_key(pool.hash_on, hashable);
        // Only where it matters: a clock is not free.
        let now = match pool.balance {
            Balance::Ewma | Balance::LeastBandwidth => self.state.now(),
            _ => 0,
        };
        if pool.balance == Balance::LeastBandwidth {
            bandwidth.sample(now, counters);
        }
        let load = |index: usize| match pool.balance {
            Balance::LeastBandwidth => bandwidth.load(index),
            Balance::Ewma => members.list.get(index).map_or(0, |member| member.cost(now)),
            _ => members.list.get(index).map_or(0, |member| u64::from(member.active()) + 1),
        };
        if let Some(index) = hashable.preferred.and_then(|seed| members.view.usable_place_of(seed))
            && !tried.contains(&(index as u32))
            && let Some(permit) = members.list.get(index).and_then(|member| member.reserve())
            && let Some(counters) = counters.get(index)
        {
            let (index, counters) = (index as u32, counters.clone());
            return Ok(Chosen { index, permit, counters, members: members.clone() });
        }
        loop {
            let request = Request {
                balance: pool.balance,
                key: key.as_bytes(),
                tried,
                load: &load,
                full: &|index| members.list.get(index).is_none_or(|member| member.is_full()),
            };
            let index = members.view.pick(&request, turns, rng).map_err(|none| match none {
                NoCandidate::NoneUsable => EndReason::NoBackend,
                NoCandidate::AllFull => EndReason::BackendsFull,
            })?;
            // Another worker may have taken the last place in between: then the next one.
            let permit = members.list.get(index).and_then(|member| member.reserve());
            match (permit, counters.get(index)) {
                (Some(permit), Some(counters)) => {
                    bandwidth.picked(index);
                    let index = index as u32;
                    return Ok(Chosen {
                        index,
                        permit,
                        counters: counters.clone(),
                        members: members.clone(),
                    });
                }
                _ => tried.push(index as u32),
            }
        }
    }
}

fn counters_of(members: &Members, table: &CounterTable) -> Vec<Arc<Counters>> {
    members.list.iter().map(|member| table.of(member.number)).collect()
}

/// At most a name of 253 bytes; on the stack.
struct HashKey {
    bytes: [u8; 253],
    length: usize,
}

impl HashKey {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = (self.length + bytes.len()).min(self.bytes.len());
        let fits = end - self.length;
        self.bytes[self.length..end].copy_from_slice(&bytes[..fits]);
        self.length = end;
    }
}

fn hash_key(on: HashOn, hashable: &Hashable<'_>) -> HashKey {
    let mut key = HashKey { bytes: [0; 253], length: 0 };
    let address = |key: &mut HashKey| match hashable.client.ip().to_canonical() {
        IpAddr::V4(ip) => key.push(&ip.octets()),
        IpAddr::V6(ip) => key.push(&ip.octets()),
    };
    match (on, hashable.server_name) {
        (HashOn::Sni, Some(name)) => key.push(name.as_bytes()),
        (HashOn::Client | HashOn::Sni, _) => address(&mut key),
        (HashOn::ClientPort, _) => {
            address(&mut key);
            key.push(&hashable.client.port().to_be_bytes());
        }
        (HashOn::Listener, _) => key.push(hashable.listener.as_bytes()),
    }
    key
}

/// Where the bytes of one connection are counted. The pointers are found once, when it is routed.
pub(super) struct Tally {
    pub(super) listener: Arc<Counters>,
    pub(super) rule: Arc<Counters>,
    pub(super) pool: Arc<Counters>,
    pub(super) backend: Arc<Counters>,
    /// In the journal.
    pub(super) entry: Option<Rc<Entry>>,
}

impl Tally {
    fn each(&self) -> [&Arc<Counters>; 4] {
        [&self.listener, &self.rule, &self.pool, &self.backend]
    }

    pub(super) fn add_in(&self, bytes: u64) {
        if bytes > 0 {
            self.each().into_iter().for_each(|counters| counters.bytes_in.add(bytes));
            if let Some(entry) = &self.entry {
                entry.bytes_in.set(entry.bytes_in.get() + bytes);
            }
        }
    }

    pub(super) fn add_out(&self, bytes: u64) {
        if bytes > 0 {
            self.each().into_iter().for_each(|counters| counters.bytes_out.add(bytes));
            if let Some(entry) = &self.entry {
                entry.bytes_out.set(entry.bytes_out.get() + bytes);
            }
        }
    }

    /// UDP: datagrams that were delivered together, and their bytes.
    pub(super) fn datagrams_in(&self, datagrams: u64, bytes: u64) {
        self.add_in(bytes);
        self.each().into_iter().for_each(|counters| counters.datagrams_in.add(datagrams));
    }

    /// As [`Self::datagrams_in`], to the client.
    pub(super) fn datagrams_out(&self, datagrams: u64, bytes: u64) {
        self.add_out(bytes);
        self.each().into_iter().for_each(|counters| counters.datagrams_out.add(datagrams));
    }
}
