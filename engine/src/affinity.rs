//! Which backend a client was sent to lately, for listeners that belong together.
//!
//! Shared by all workers of a node; touched when a connection or flow begins or ends, never in between.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

const SHARDS: usize = 16;
/// Clients a shard remembers that have nothing open; beyond, the ones that left first are forgotten before their time.
const IDLE_CLIENTS: usize = 16_384;

/// The clients of one group.
#[derive(Debug, Default)]
pub struct AffinityTable {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// The latest time anybody said, in milliseconds.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    clients: HashMap<IpAddr, Remembered>,
    idle: usize,
}

#[derive(Debug)]
struct Remembered {
    /// [`crate::balance::seed`] of its name.
    backend: u64,
    open: u32,
    left: u64,
}

/// A connection or flow of a client at its backend. The time to live begins when the last is dropped.
#[derive(Debug)]
pub struct Membership {
    table: Arc<AffinityTable>,
    client: IpAddr,
    backend: u64,
}

impl AffinityTable {
    /// Where this client belongs, as far as that is remembered.
    pub fn backend_of(&self, client: IpAddr, now: u64, ttl: u64) -> Option<u64> {
        self.clock.fetch_max(now, Relaxed);
        let client = client.to_canonical();
        let shard = self.shard(client);
        let found = shard.clients.get(&client)?;
        (found.open > 0 || now.saturating_sub(found.left) < ttl).then_some(found.backend)
    }

    /// Something of this client is at this backend now, which is where it belongs from here on.
    pub fn join(self: &Arc<Self>, client: IpAddr, backend: u64, now: u64, ttl: u64) -> Membership {
        self.clock.fetch_max(now, Relaxed);
        let client = client.to_canonical();
        let mut shard = self.shard(client);
        shard.sweep(now, ttl);
        match shard.clients.get_mut(&client) {
            Some(known) if known.backend == backend => {
                let was_idle = known.open == 0;
                known.open += 1;
                shard.idle -= usize::from(was_idle);
            }
            known => {
                // What is open elsewhere no longer counts.
                let was_idle = known.is_some_and(|known| known.open == 0);
                shard.idle -= usize::from(was_idle);
                shard.clients.insert(client, Remembered { backend, open: 1, left: now });
            }
        }
        Membership { table: self.clone(), client, backend }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn sweep(&mut self, now: u64, ttl: u64) {
        if self.idle < IDLE_CLIENTS {
            return;
        }
        self.clients.retain(|_, client| client.open > 0 || now.saturating_sub(client.left) < ttl);
        self.idle = self.clients.values().filter(|client| client.open == 0).count();
        if self.idle >= IDLE_CLIENTS {
            let mut times: Vec<u64> =
                self.clients.values().filter(|client| client.open == 0).map(|client| client.left).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.clients.retain(|_, client| client.open > 0 || client.left > median);
            self.idle = self.clients.values().filter(|client| client.open == 0).count();
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut shard = self.table.shard(self.client);
        let Some(known) = shard.clients.get_mut(&self.client) else { return };
        if known.backend != self.backend || known.open == 0 {
            return;
        }
        known.open -= 1;
        if known.open == 0 {
            known.left = self.table.clock.load(Relaxed);
            shard.idle += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 100;

    fn ip(last: u32) -> IpAddr {
        IpAddr::V4((0x0A00_0000 + last).into())
    }

    #[test]
    fn a_client_is_remembered_while_something_is_open_and_for_its_time_after() {
        let table = Arc::new(AffinityTable::default());
        assert_eq!(table.backend_of(ip(1), 0, TTL), None);
        let (first, second) = (table.join(ip(1), 7, 0, TTL), table.join(ip(1), 7, 5, TTL));
        drop(first);
        assert_eq!(table.backend_of(ip(1), 5_000, TTL), Some(7), "something is open");
        drop(second);
        assert_eq!(table.backend_of(ip(1), 5_099, TTL), Some(7));
        assert_eq!(table.backend_of(ip(1), 5_100, TTL), None);
        assert_eq!(table.backend_of(ip(2), 0, TTL), None);
    }

    #[test]
    fn a_client_that_moved_belongs_to_the_new_backend() {
        let table = Arc::new(AffinityTable::default());
        let old = table.join(ip(1), 7, 0, TTL);
        let _new = table.join(ip(1), 8, 1, TTL);
        drop(old);
        assert_eq!(table.backend_of(ip(1), 1_000, TTL), Some(8));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let table = Arc::new(AffinityTable::default());
        let _stays = table.join(ip(0), 7, 0, TTL);
        for n in 1..1_000_000 {
            drop(table.join(ip(n), 7, u64::from(n / 100_000), 1_000_000));
        }
        let known: usize = table.shards.iter().map(|shard| shard.lock().unwrap().clients.len()).sum();
        assert!(known <= SHARDS * (IDLE_CLIENTS + 1), "{known}");
        assert_eq!(table.backend_of(ip(0), 10, TTL), Some(7), "what is open is never forgotten");
    }
}
