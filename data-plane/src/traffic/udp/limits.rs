//! How many flows a listener and each of its clients may have, over all workers of the node.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

const SHARDS: usize = 16;

/// Of one listener, from configuration to configuration. Touched when a flow starts or ends, never for a datagram.
#[derive(Debug, Default)]
pub(crate) struct FlowLimits {
    flows: AtomicU32,
    clients: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

/// A flow's place among the listener's and its client's; given back when dropped.
#[derive(Debug)]
pub(super) struct FlowPermit {
    limits: Arc<FlowLimits>,
    client: IpAddr,
}

/// A place for one more flow.
#[derive(Debug)]
pub(super) enum Place {
    /// There is one.
    Free(FlowPermit),
    /// There is one too many, unless another flow of the listener ends for it.
    InsteadOfAnother(FlowPermit),
    /// The client has all it may have.
    ClientFull,
}

impl FlowLimits {
    /// Takes a place for a flow of this client.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr, max_flows: u32, max_per_client: u32) -> Place {
        {
            let mut shard = self.shard(client);
            let of_client = shard.entry(client).or_insert(0);
            if *of_client >= max_per_client {
                if *of_client == 0 {
                    shard.remove(&client);
                }
                return Place::ClientFull;
            }
            *of_client += 1;
        }
        // From here on dropping gives both places back.
        let permit = FlowPermit { limits: self.clone(), client };
        if self.flows.fetch_add(1, Relaxed) >= max_flows {
            Place::InsteadOfAnother(permit)
        } else {
            Place::Free(permit)
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.clients[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.limits.flows.fetch_sub(1, Relaxed);
        let mut shard = self.limits.shard(self.client);
        if let Some(count) = shard.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn places_are_exact_and_come_back() {
        let limits = Arc::new(FlowLimits::default());
        let free = |client| match limits.take(client, 3, 2) {
            Place::Free(permit) => permit,
            other => panic!("{other:?}"),
        };
        let (first, second) = (free(A), free(A));
        assert!(matches!(limits.take(A, 3, 2), Place::ClientFull));
        let third = free(B);
        assert!(matches!(limits.take(B, 3, 2), Place::InsteadOfAnother(_)));
        drop(first);
        let fourth = free(B);
        drop((second, third, fourth));
        assert_eq!(limits.flows.load(Relaxed), 0);
        assert!(limits.shard(A).is_empty() && limits.shard(B).is_empty());
        assert!(matches!(limits.take(A, 3, 0), Place::ClientFull));
        assert!(limits.shard(A).is_empty());
    }
}
