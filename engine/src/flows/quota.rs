//! How many flows a listener and each of its clients may have, over all workers of a node.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use awe4lb_model::{ClientPrefix, UdpSettings};
use ipnet::IpNet;

const SHARDS: usize = 16;

/// Of one listener, from configuration to configuration. Touched when a flow starts or ends, never for a datagram.
#[derive(Debug, Default)]
pub struct FlowQuota {
    flows: AtomicU32,
    clients: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

/// A flow's place among the listener's and its client's; given back when dropped.
#[derive(Debug)]
pub struct FlowPermit {
    quota: Arc<FlowQuota>,
    client: IpAddr,
}

/// A place for one more flow.
#[derive(Debug)]
pub enum Place {
    /// There is one.
    Free(FlowPermit),
    /// There is one too many, unless another flow of the listener ends for it.
    InsteadOfAnother(FlowPermit),
    /// The client has all it may have.
    ClientFull,
}

impl FlowQuota {
    /// Takes a place for a flow of this client.
    pub fn take(self: &Arc<Self>, client: IpAddr, prefix: ClientPrefix, settings: &UdpSettings) -> Place {
        let client = client_of(client, prefix);
        {
            let mut shard = self.shard(client);
            let of_client = shard.entry(client).or_insert(0);
            if *of_client >= settings.max_flows_per_client {
                if *of_client == 0 {
                    shard.remove(&client);
                }
                return Place::ClientFull;
            }
            *of_client += 1;
        }
        // From here on dropping gives both places back.
        let permit = FlowPermit { quota: self.clone(), client };
        if self.flows.fetch_add(1, Relaxed) >= settings.max_flows {
            Place::InsteadOfAnother(permit)
        } else {
            Place::Free(permit)
        }
    }

    /// Flows that there are.
    pub fn len(&self) -> u32 {
        self.flows.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.clients[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network that counts as one client.
fn client_of(address: IpAddr, prefix: ClientPrefix) -> IpAddr {
    let address = address.to_canonical();
    let (bits, whole) = if address.is_ipv4() { (prefix.v4, 32) } else { (prefix.v6, 128) };
    if bits == whole {
        return address;
    }
    IpNet::new(address, bits).map_or(address, |net| net.network())
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.quota.flows.fetch_sub(1, Relaxed);
        let mut shard = self.quota.shard(self.client);
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

    fn settings(max_flows: u32, max_flows_per_client: u32) -> UdpSettings {
        UdpSettings { max_flows, max_flows_per_client, ..UdpSettings::default() }
    }

    #[test]
    fn places_are_exact_and_come_back() {
        let quota = Arc::new(FlowQuota::default());
        let take = |client, per_client| quota.take(client, ClientPrefix::default(), &settings(3, per_client));
        let free = |client| match take(client, 2) {
            Place::Free(permit) => permit,
            other => panic!("{other:?}"),
        };
        let (first, second) = (free(A), free(A));
        assert!(matches!(take(A, 2), Place::ClientFull));
        let third = free(B);
        assert!(matches!(take(B, 2), Place::InsteadOfAnother(_)));
        drop(first);
        let fourth = free(B);
        drop((second, third, fourth));
        assert!(quota.is_empty());
        assert!(quota.shard(A).is_empty() && quota.shard(B).is_empty());
        assert!(matches!(take(A, 0), Place::ClientFull));
        assert!(quota.shard(A).is_empty());
    }

    #[test]
    fn a_v6_client_is_its_network() {
        let quota = Arc::new(FlowQuota::default());
        let take =
            |client: &str| quota.take(client.parse().unwrap(), ClientPrefix::default(), &settings(9, 1));
        let Place::Free(_permit) = take("2001:db8:0:1::1") else { panic!("there is room") };
        assert!(matches!(take("2001:db8:0:1:ffff::2"), Place::ClientFull));
        assert!(matches!(take("2001:db8:0:2::1"), Place::Free(_)));
    }
}
