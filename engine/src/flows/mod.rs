//! UDP flows: which client talks to which backend, and when that ends.
//!
//! Two lists in order of last activity, one of flows that were answered and one of those that were not, make touching,
//! expiring and evicting constant. Times are milliseconds of any one clock that does not go back.
//!
//! A flow that had all the requests it may have is *detached*: its client's next datagram begins another, while it waits
//! for the answers that are still to come as one that is unanswered.

mod quota;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::{IpAddr, SocketAddr},
};

use awe4lb_model::{EndReason, UdpSettings};
use xxhash_rust::xxh3::Xxh3Default;

pub use quota::{FlowPermit, FlowQuota, Place};

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
    /// Which flow at that place; 30 bits.
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

/// What a flow makes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// Whose they are.
    pub key: FlowKey,
    /// So many of them, the first ones, may be passed on.
    pub allowed: u32,
    /// With these it has had all it may have: once they are passed on it is to be ended.
    pub is_complete: bool,
}

/// The flows of one listener on one worker.
#[derive(Debug)]
pub struct FlowTable<T> {
    by_key: HashMap<FlowKey, u32, BuildHasherDefault<Hash>>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    count: usize,
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
    requests: u32,
    responses: u32,
    answered: bool,
    detached: bool,
    value: T,
}

#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;
/// Two bits of a [`FlowId`] are left to its user.
const MAX_GENERATION: u32 = u32::MAX >> 2;

impl<T> FlowTable<T> {
    /// Empty. How many flows there may be is not this table's business but the [`FlowQuota`]'s.
    pub fn new(settings: UdpSettings) -> Self {
        let list = || List { head: NONE, tail: NONE };
        Self {
            by_key: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            count: 0,
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
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether each datagram of a client has to be counted on its own, as a flow takes a number of them.
    pub fn counts_requests(&self) -> bool {
        self.settings.max_requests.is_some()
    }

    /// The flow of a client's datagram, which counts as activity and as one request. With the last one that it takes it
    /// is detached.
    pub fn client_datagram(&mut self, key: &FlowKey, now: u64) -> Option<(FlowId, &mut T)> {
        let index = *self.by_key.get(key)?;
        self.touch(index, now);
        if self.settings.max_requests.is_some() {
            self.count_request(index);
        }
        let slot = self.slots.get_mut(index as usize)?;
        let id = FlowId { index, generation: slot.generation };
        slot.flow.as_mut().map(|flow| (id, &mut flow.value))
    }

    fn count_request(&mut self, index: u32) {
        let most = self.settings.max_requests.unwrap_or(u32::MAX);
        let Some(flow) = self.flow_mut(index) else { return };
        flow.requests = flow.requests.saturating_add(1);
        if flow.requests < most || flow.detached {
            return;
        }
        flow.detached = true;
        let (key, was_answered) = (flow.key, flow.answered);
        self.by_key.remove(&key);
        if was_answered {
            self.unlink(index);
            if let Some(flow) = self.flow_mut(index) {
                flow.answered = false;
            }
            self.link(index);
        }
    }

    /// Datagrams of a backend: activity, and from now on the flow is answered. `None` when the flow has ended.
    pub fn backend_datagrams(&mut self, id: FlowId, count: u32, now: u64) -> Option<Answers> {
        let most = self.settings.max_responses.unwrap_or(u32::MAX);
        let flow = self.flow_of(id)?;
        let allowed = most.saturating_sub(flow.responses).min(count);
        flow.responses = flow.responses.saturating_add(allowed);
        let answers = Answers { key: flow.key, allowed, is_complete: flow.responses >= most };
        if !flow.answered && !flow.detached {
            self.unlink(id.index);
            if let Some(flow) = self.flow_mut(id.index) {
                flow.answered = true;
            }
            self.link(id.index);
        }
        self.touch(id.index, now);
        Some(answers)
    }

    /// What belongs to a flow that is there.
    pub fn value(&mut self, id: FlowId) -> Option<&mut T> {
        self.flow_of(id).map(|flow| &mut flow.value)
    }

    /// The client of a flow that is there.
    pub fn key(&self, id: FlowId) -> Option<FlowKey> {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.flow.as_ref().map(|flow| flow.key)
    }

    /// Starts a flow for a key that has none, with its first request.
    pub fn start(&mut self, key: FlowKey, now: u64, value: T) -> FlowId {
        debug_assert!(!self.by_key.contains_key(&key));
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, flow: None });
            (self.slots.len() - 1) as u32
        });
        let flow = Flow {
            key,
            last: now,
            previous: NONE,
            next: NONE,
            requests: 0,
            responses: 0,
            answered: false,
            detached: false,
            value,
        };
        let slot = &mut self.slots[index as usize];
        slot.flow = Some(flow);
        let id = FlowId { index, generation: slot.generation };
        self.count += 1;
        self.link(index);
        self.by_key.insert(key, index);
        if self.settings.max_requests.is_some() {
            self.count_request(index);
        }
        id
    }

    /// From now on the flow is that of another key, which has none: its client's address changed on the way.
    pub fn rebind(&mut self, id: FlowId, key: FlowKey) -> bool {
        debug_assert!(!self.by_key.contains_key(&key));
        let Some(flow) = self.flow_of(id).filter(|flow| !flow.detached) else { return false };
        let before = std::mem::replace(&mut flow.key, key);
        self.by_key.remove(&before);
        self.by_key.insert(key, id.index);
        true
    }

    /// Ends a flow.
    pub fn end(&mut self, id: FlowId, reason: EndReason) -> Option<Ended<T>> {
        if self.flow_of(id).is_some() { self.end_at(id.index, reason) } else { None }
    }

    /// The next flow whose time is up. Called until it gives none.
    pub fn expired(&mut self, now: u64) -> Option<Ended<T>> {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (head, timeout, reason) in [
            (self.unanswered.head, self.settings.unanswered_timeout, EndReason::Unanswered),
            (self.answered.head, self.settings.idle_timeout, EndReason::IdleTimeout),
        ] {
            let Some(flow) = self.slots.get(head as usize).and_then(|slot| slot.flow.as_ref()) else {
                continue;
            };
            if now.saturating_sub(flow.last) >= millis(timeout) {
                // One that waits for no more than late answers has done what it was for.
                let is_done = flow.detached && flow.responses > 0;
                return self.end_at(head, if is_done { EndReason::FlowComplete } else { reason });
            }
        }
        None
    }

    /// Ends the unanswered flow that was silent for longest, if there is one: it makes room for another.
    pub fn evict(&mut self) -> Option<Ended<T>> {
        self.end_at(self.unanswered.head, EndReason::FlowEvicted)
    }

    /// Every flow, in no useful order.
    pub fn ids(&self) -> Vec<FlowId> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.flow.is_some())
            .map(|(index, slot)| FlowId { index, generation: slot.generation })
            .collect()
    }

    fn flow_mut(&mut self, index: u32) -> Option<&mut Flow<T>> {
        self.slots.get_mut(index as usize)?.flow.as_mut()
    }

    fn flow_of(&mut self, id: FlowId) -> Option<&mut Flow<T>> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.flow.as_mut()
    }

    fn end_at(&mut self, index: u32, reason: EndReason) -> Option<Ended<T>> {
        self.slots.get(index as usize)?.flow.as_ref()?;
        self.unlink(index);
        let slot = &mut self.slots[index as usize];
        let id = FlowId { index, generation: slot.generation };
        let flow = slot.flow.take()?;
        slot.generation = (slot.generation + 1) & MAX_GENERATION;
        self.free.push(index);
        self.count -= 1;
        if !flow.detached {
            self.by_key.remove(&flow.key);
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
        if let Some(flow) = self.flow_mut(index) {
            flow.previous = tail;
            flow.next = NONE;
        }
        match self.flow_mut(tail) {
            Some(last) => last.next = index,
            None => self.list(answered).head = index,
        }
        self.list(answered).tail = index;
    }

    fn unlink(&mut self, index: u32) {
        let Some(flow) = &self.slots[index as usize].flow else { return };
        let (previous, next, answered) = (flow.previous, flow.next, flow.answered);
        match self.flow_mut(previous) {
            Some(before) => before.next = next,
            None => self.list(answered).head = next,
        }
        match self.flow_mut(next) {
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
