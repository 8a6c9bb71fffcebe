//! UDP flows: which client talks to which backend, and when that ends.
//!
//! Two lists in order of last activity, one of flows that were answered and one of those that were not, make touching,
//! expiring and evicting constant. Times are milliseconds of any one clock that does not go back.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::{IpAddr, SocketAddr},
};

use awe4lb_model::{EndReason, UdpSettings};
use xxhash_rust::xxh3::Xxh3Default;

/// A client, and the address of ours it talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Where datagrams come from.
    pub client: SocketAddr,
    /// Where they come to.
    pub local: IpAddr,
}

/// A flow's place and generation: one that ended is never mistaken for the next at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// The place.
    pub index: u32,
    /// Which flow at that place.
    pub generation: u32,
}

/// A flow that ended, and what it carried.
#[derive(Debug)]
pub struct Ended<T> {
    /// What it was.
    pub id: FlowId,
    /// Why.
    pub reason: EndReason,
    /// What the caller kept with it.
    pub value: T,
}

/// A flow that started, and the one that made room for it.
pub type Started<T> = (FlowId, Option<Ended<T>>);

/// The flows of one listener on one worker.
#[derive(Debug)]
pub struct FlowTable<T> {
    by_key: HashMap<FlowKey, u32, BuildHasherDefault<Hash>>,
    per_client: HashMap<IpAddr, u32, BuildHasherDefault<Hash>>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    answered: List,
    unanswered: List,
    settings: UdpSettings,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    flow: Option<Flow<T>>,
}

#[derive(Debug)]
struct Flow<T> {
    key: FlowKey,
    last: u64,
    previous: u32,
    next: u32,
    answered: bool,
    value: T,
}

#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;

impl<T> FlowTable<T> {
    /// Empty. The limits of `settings` are this table's: a worker gets its share.
    pub fn new(settings: UdpSettings) -> Self {
        let list = || List { head: NONE, tail: NONE };
        Self {
            by_key: HashMap::default(),
            per_client: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            answered: list(),
            unanswered: list(),
            settings,
        }
    }

    /// New settings; flows that are there stay.
    pub fn set_settings(&mut self, settings: UdpSettings) {
        self.settings = settings;
    }

    /// Flows that are there.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The flow of a client's datagram, which counts as activity.
    pub fn client_datagram(&mut self, key: &FlowKey, now: u64) -> Option<(FlowId, &mut T)> {
        let index = *self.by_key.get(key)?;
        self.touch(index, now);
        let slot = &mut self.slots[index as usize];
        let id = FlowId { index, generation: slot.generation };
        slot.flow.as_mut().map(|flow| (id, &mut flow.value))
    }

    /// A backend's datagram: activity, and from now on the flow is answered. `None` when the flow has ended.
    pub fn backend_datagram(&mut self, id: FlowId, now: u64) -> Option<(&FlowKey, &mut T)> {
        if !self.live(id) {
            return None;
        }
        if let Some(flow) = &self.slots[id.index as usize].flow
            && !flow.answered
        {
            self.unlink(id.index);
            if let Some(flow) = &mut self.slots[id.index as usize].flow {
                flow.answered = true;
            }
            self.link(id.index);
        }
        self.touch(id.index, now);
        self.slots[id.index as usize].flow.as_mut().map(|flow| (&flow.key, &mut flow.value))
    }

    /// What belongs to a flow that is there.
    pub fn value(&mut self, id: FlowId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.flow.as_mut().map(|flow| &mut flow.value)
    }

    /// Starts a flow for a key that has none. When the table is full, the unanswered flow that was silent for longest
    /// makes room; when there is none, or the client has its share, the datagram is refused.
    pub fn start(&mut self, key: FlowKey, now: u64, value: T) -> Result<Started<T>, (EndReason, T)> {
        debug_assert!(!self.by_key.contains_key(&key));
        let of_client = self.per_client.get(&key.client.ip()).copied().unwrap_or(0);
        if of_client >= self.settings.max_flows_per_client {
            return Err((EndReason::ClientFlowLimit, value));
        }
        let mut evicted = None;
        if self.len() >= self.settings.max_flows as usize {
            let oldest = self.unanswered.head;
            match self.end_at(oldest, EndReason::FlowEvicted) {
                Some(ended) => evicted = Some(ended),
                None => return Err((EndReason::FlowTableFull, value)),
            }
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, flow: None });
            (self.slots.len() - 1) as u32
        });
        let flow = Flow { key, last: now, previous: NONE, next: NONE, answered: false, value };
        let slot = &mut self.slots[index as usize];
        slot.flow = Some(flow);
        let id = FlowId { index, generation: slot.generation };
        self.link(index);
        self.by_key.insert(key, index);
        *self.per_client.entry(key.client.ip()).or_insert(0) += 1;
        Ok((id, evicted))
    }

    /// Ends a flow.
    pub fn end(&mut self, id: FlowId, reason: EndReason) -> Option<Ended<T>> {
        if self.live(id) { self.end_at(id.index, reason) } else { None }
    }

    /// The next flow whose time is up. Called until it gives none.
    pub fn expired(&mut self, now: u64) -> Option<Ended<T>> {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (head, timeout, reason) in [
            (self.unanswered.head, self.settings.unanswered_timeout, EndReason::Unanswered),
            (self.answered.head, self.settings.idle_timeout, EndReason::IdleTimeout),
        ] {
            let last =
                self.slots.get(head as usize).and_then(|slot| slot.flow.as_ref()).map(|flow| flow.last);
            if last.is_some_and(|last| now.saturating_sub(last) >= millis(timeout)) {
                return self.end_at(head, reason);
            }
        }
        None
    }

    /// Whether a flow would make room for a new one.
    pub fn can_evict(&self) -> bool {
        self.unanswered.head != NONE
    }

    /// Every flow, in no useful order.
    pub fn ids(&self) -> Vec<FlowId> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.flow.is_some())
            .map(|(index, slot)| FlowId { index, generation: slot.generation })
            .collect()
    }

    fn live(&self, id: FlowId) -> bool {
        self.slots
            .get(id.index as usize)
            .is_some_and(|slot| slot.generation == id.generation && slot.flow.is_some())
    }

    fn end_at(&mut self, index: u32, reason: EndReason) -> Option<Ended<T>> {
        self.slots.get(index as usize)?.flow.as_ref()?;
        self.unlink(index);
        let slot = &mut self.slots[index as usize];
        let id = FlowId { index, generation: slot.generation };
        let flow = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.by_key.remove(&flow.key);
        let client = flow.key.client.ip();
        if let Some(count) = self.per_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
        }
        Some(Ended { id, reason, value: flow.value })
    }

    fn touch(&mut self, index: u32, now: u64) {
        let Some(flow) = &mut self.slots[index as usize].flow else { return };
        // The list stays in order at a millisecond's grain, and a busy flow is not moved for each datagram.
        if flow.last == now {
            return;
        }
        flow.last = now;
        if flow.next != NONE {
            self.unlink(index);
            self.link(index);
        }
    }

    fn link(&mut self, index: u32) {
        let Some(flow) = &self.slots[index as usize].flow else { return };
        let answered = flow.answered;
        let tail = self.list(answered).tail;
        if let Some(flow) = &mut self.slots[index as usize].flow {
            flow.previous = tail;
            flow.next = NONE;
        }
        match self.slots.get_mut(tail as usize).and_then(|slot| slot.flow.as_mut()) {
            Some(last) => last.next = index,
            None => self.list(answered).head = index,
        }
        self.list(answered).tail = index;
    }

    fn unlink(&mut self, index: u32) {
        let Some(flow) = &self.slots[index as usize].flow else { return };
        let (previous, next, answered) = (flow.previous, flow.next, flow.answered);
        match self.slots.get_mut(previous as usize).and_then(|slot| slot.flow.as_mut()) {
            Some(before) => before.next = next,
            None => self.list(answered).head = next,
        }
        match self.slots.get_mut(next as usize).and_then(|slot| slot.flow.as_mut()) {
            Some(after) => after.previous = previous,
            None => self.list(answered).tail = previous,
        }
    }

    fn list(&mut self, answered: bool) -> &mut List {
        if answered { &mut self.answered } else { &mut self.unanswered }
    }
}

/// xxh3: client addresses are chosen by clients, but each of them holds few flows (`max_flows_per_client`).
#[derive(Default)]
struct Hash(Xxh3Default);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl Hasher for Hash {
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    fn settings(max_flows: u32, per_client: u32) -> UdpSettings {
        UdpSettings {
            idle_timeout: Duration::from_millis(60),
            unanswered_timeout: Duration::from_millis(10),
            max_flows,
            max_flows_per_client: per_client,
        }
    }

    fn key(client: u8, port: u16) -> FlowKey {
        FlowKey { client: SocketAddr::from(([10, 0, 0, client], port)), local: IpAddr::from([127, 0, 0, 1]) }
    }

    #[test]
    fn a_flow_ends_after_its_last_datagram_in_either_direction() {
        let mut table = FlowTable::new(settings(8, 8));
        let (id, _) = table.start(key(1, 1), 0, ()).expect("room");
        assert!(table.backend_datagram(id, 5).is_some());
        assert!(table.client_datagram(&key(1, 1), 50).is_some());
        assert!(table.expired(109).is_none());
        assert_eq!(table.expired(110).map(|ended| ended.reason), Some(EndReason::IdleTimeout));
        assert!(table.backend_datagram(id, 111).is_none() && table.is_empty());
    }

    #[test]
    fn unanswered_flows_end_sooner_and_make_room() {
        let mut table = FlowTable::new(settings(2, 8));
        let (first, _) = table.start(key(1, 1), 0, 'a').expect("room");
        table.start(key(2, 1), 1, 'b').expect("room");
        table.backend_datagram(first, 2);
        let (_, evicted) = table.start(key(3, 1), 3, 'c').expect("room is made");
        assert_eq!(evicted.map(|ended| (ended.value, ended.reason)), Some(('b', EndReason::FlowEvicted)));
        assert_eq!(
            table.expired(13).map(|ended| (ended.value, ended.reason)),
            Some(('c', EndReason::Unanswered))
        );
    }

    #[test]
    fn answered_flows_are_never_evicted_and_clients_have_a_share() {
        let mut table = FlowTable::new(settings(2, 1));
        for client in [1, 2] {
            let (id, _) = table.start(key(client, 1), 0, ()).expect("room");
            table.backend_datagram(id, 0);
        }
        assert_eq!(
            table.start(key(3, 1), 0, ()).map(drop).map_err(|(r, ())| r),
            Err(EndReason::FlowTableFull)
        );
        assert_eq!(
            table.start(key(1, 2), 0, ()).map(drop).map_err(|(r, ())| r),
            Err(EndReason::ClientFlowLimit)
        );
    }

    /// A model with none of the cleverness; the table must agree with it after every step, for every seed.
    fn simulate(seed: u64, steps: u32) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let settings = settings(rng.random_range(1..20), rng.random_range(1..6));
        let mut table = FlowTable::new(settings);
        let mut model: BTreeMap<(u8, u16), (FlowId, u64, bool)> = BTreeMap::new();
        let mut now = 0;
        for step in 0..steps {
            now += rng.random_range(0..4);
            let (client, port) = (rng.random_range(0..5), rng.random_range(0..6));
            match rng.random_range(0..10) {
                0..6 => match table.client_datagram(&key(client, port), now) {
                    Some((id, _)) => {
                        let flow = model.get_mut(&(client, port)).expect("the model has it");
                        assert_eq!(flow.0, id, "seed {seed} step {step}");
                        flow.1 = now;
                    }
                    None => {
                        assert!(!model.contains_key(&(client, port)), "seed {seed} step {step}");
                        if let Ok((id, evicted)) = table.start(key(client, port), now, (client, port)) {
                            if let Some(ended) = evicted {
                                let (_, _, answered) = model.remove(&ended.value).expect("the model has it");
                                assert!(!answered, "seed {seed} step {step}");
                            }
                            model.insert((client, port), (id, now, false));
                        }
                    }
                },
                6..9 => {
                    if let Some(flow) = model.get_mut(&(client, port)) {
                        assert!(table.backend_datagram(flow.0, now).is_some(), "seed {seed} step {step}");
                        (flow.1, flow.2) = (now, true);
                    }
                }
                _ => {
                    if let Some((id, ..)) = model.remove(&(client, port)) {
                        assert!(table.end(id, EndReason::BackendRemoved).is_some());
                        assert!(table.end(id, EndReason::BackendRemoved).is_none());
                    }
                }
            }
            while let Some(ended) = table.expired(now) {
                let (_, last, answered) = model.remove(&ended.value).expect("the model has it");
                assert!(now - last >= if answered { 60 } else { 10 }, "seed {seed} step {step}");
            }
            assert!(model.values().all(|(_, last, answered)| now - last < if *answered { 60 } else { 10 }));
            assert_eq!(table.len(), model.len(), "seed {seed} step {step}");
            assert!(table.len() <= settings.max_flows as usize);
            let clients: u32 = table.per_client.values().sum();
            assert_eq!(clients as usize, table.len());
            assert_eq!(table.ids().len(), table.len());
        }
    }

    #[test]
    fn simulation_agrees_with_a_plain_model() {
        match std::env::var("AWE4LB_SEED") {
            Ok(seed) => simulate(seed.parse().expect("a number"), 100_000),
            Err(_) => (0..64).for_each(|seed| simulate(seed, 2_000)),
        }
    }

    #[test]
    #[ignore = "the deep lane"]
    fn deep_simulation_of_flows() {
        for seed in 1_000..9_000 {
            simulate(seed, 4_000);
        }
    }
}
