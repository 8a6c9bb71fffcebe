//! Which flow a connection id of QUIC belongs to, over all workers of a listener: a client whose port a NAT has changed is known
//! by the id that it calls its server by.
//!
//! Ids are learnt from what servers say in long headers, which is all that can be read. An id that a server gives later,
//! inside encryption, is not known here: a client that moves on to another network uses such a one, and begins another flow.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Waker,
};

use awe4lb_engine::{
    flows::{FlowId, FlowKey},
    quic::{ConnectionId, destination_id},
};

const SHARDS: usize = 16;
/// Ids of a flow that are remembered: servers say one or two.
const OF_A_FLOW: usize = 4;
/// Datagrams that may wait for another worker.
const LETTERS: usize = 4_096;

/// Of one listener, from configuration to configuration.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds {
    shards: [Mutex<HashMap<ConnectionId, Owner>>; SHARDS],
    hasher: RandomState,
    /// The lengths of ids that were learnt, as bits: short headers do not say how long theirs is.
    lengths: AtomicU32,
}

/// Whose an id is.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) flow: FlowId,
}

/// What other workers pass on to a server.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    waker: Mutex<Option<Waker>>,
}

/// A datagram that came in elsewhere.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) flow: FlowId,
    pub(super) key: FlowKey,
    pub(super) payload: Box<[u8]>,
}

/// The ids of a flow; forgotten when dropped.
pub(super) struct Learnt {
    ids: Vec<ConnectionId>,
    table: Arc<ConnectionIds>,
}

impl ConnectionIds {
    /// The flow that a datagram of an unknown client belongs to.
    pub(super) fn owner(&self, datagram: &[u8]) -> Option<Owner> {
        let lengths = self.lengths.load(Relaxed);
        let mut lengths = (1..=20usize).filter(|length| lengths & (1 << length) != 0);
        lengths.find_map(|length| {
            let id = destination_id(datagram, length)?;
            self.shard(&id).get(&id).cloned()
        })
    }

    fn shard(&self, id: &ConnectionId) -> MutexGuard<'_, HashMap<ConnectionId, Owner>> {
        let at = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learnt {
    pub(super) fn new(table: &Arc<ConnectionIds>) -> Self {
        Self { ids: Vec::new(), table: table.clone() }
    }

    /// A server wants to be called so.
    pub(super) fn learn(&mut self, id: ConnectionId, mailbox: &Arc<Mailbox>, flow: FlowId) {
        let length = id.as_bytes().len();
        if length == 0 || self.ids.len() >= OF_A_FLOW || self.ids.contains(&id) {
            return;
        }
        // An id that is another flow's stays so: else one backend could draw others' clients to itself.
        if let Entry::Vacant(place) = self.table.shard(&id).entry(id) {
            place.insert(Owner { mailbox: mailbox.clone(), flow });
            self.ids.push(id);
            self.table.lengths.fetch_or(1 << length, Relaxed);
        }
    }
}

impl Drop for Learnt {
    fn drop(&mut self) {
        for id in &self.ids {
            self.table.shard(id).remove(id);
        }
    }
}

impl Mailbox {
    /// Passes a datagram on. False: there is no room.
    pub(super) fn post(&self, letter: Letter) -> bool {
        {
            let mut letters = lock(&self.letters);
            if letters.len() >= LETTERS {
                return false;
            }
            letters.push_back(letter);
        }
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
        true
    }

    pub(super) fn take(&self) -> VecDeque<Letter> {
        std::mem::take(&mut *lock(&self.letters))
    }

    /// Who is woken by the next letter. False: one has come already.
    pub(super) fn wake_with(&self, waker: &Waker) -> bool {
        *lock(&self.waker) = Some(waker.clone());
        lock(&self.letters).is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_one_flow_until_that_ends() {
        let (table, mailbox) = (Arc::<ConnectionIds>::default(), Arc::<Mailbox>::default());
        let flow = |index| FlowId { index, generation: 0 };
        let id = ConnectionId::new(&[1, 2, 3, 4]).expect("short");
        let datagram = [0x40, 1, 2, 3, 4, 99, 99];
        assert!(table.owner(&datagram).is_none());
        let (mut first, mut second) = (Learnt::new(&table), Learnt::new(&table));
        first.learn(id, &mailbox, flow(1));
        second.learn(id, &mailbox, flow(2));
        assert_eq!(table.owner(&datagram).map(|owner| owner.flow), Some(flow(1)));
        drop(second);
        assert_eq!(
            table.owner(&datagram).map(|owner| owner.flow),
            Some(flow(1)),
            "it never was the second's"
        );
        drop(first);
        assert!(table.owner(&datagram).is_none());
    }
}
