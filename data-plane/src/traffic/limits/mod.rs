//! How much a listener, each of its clients and each connection may use, over all workers of the node. Touched when a
//! connection starts or ends, and, where bytes are limited, once a turn.

mod policer;

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Context,
    time::Duration,
};

use awe4lb_engine::rate::Rate;
use awe4lb_model::{ClientPrefix, EndReason, Limits};
use ipnet::IpNet;

use super::timers::{Timer, Timers};

pub(super) use policer::Policer;

const SHARDS: usize = 16;
/// Clients a shard remembers that have no connection; their rates are forgotten beyond.
const IDLE_CLIENTS: usize = 4096;
/// How often a shard looks for clients that it need not remember.
const SWEEP_MS: u64 = 1_000;
/// Bytes that one turn takes at a time: what it does not use goes back.
const TURN: u64 = 256 * 1024;

/// A rate that workers share.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    used: AtomicU64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, used: AtomicU64::new(0) }
    }

    /// Up to `want`; 0: none now.
    fn take(&self, want: u64, now_ms: u64) -> u64 {
        let mut granted = 0;
        let _ = self.used.fetch_update(Relaxed, Relaxed, |used| {
            let (units, next) = self.rate.take(used, now_ms, want)?;
            granted = units;
            Some(next)
        });
        granted
    }

    fn settle(&self, taken: u64, moved: u64) {
        if moved <= taken {
            // What was taken is in it.
            self.used.fetch_sub(taken - moved, Relaxed);
        } else {
            self.used.fetch_add(moved - taken, Relaxed);
        }
    }
}

/// The limits of one listener, beside its number of connections.
pub(super) struct Limiter {
    limits: Limits,
    connections: Option<Arc<Bucket>>,
    bytes: Option<Arc<Bucket>>,
    packets: Option<Arc<Bucket>>,
    clients: Option<Arc<Clients>>,
}

impl Limiter {
    /// `None`: nothing is limited. What is counted goes on from the one before.
    pub(super) fn of(limits: &Limits, before: Option<&Self>) -> Option<Arc<Self>> {
        let connections = limits.new_connections_per_second.map(connection_rate);
        let bytes = limits.bytes_per_second.map(byte_rate);
        let packets = limits.packets_per_second.map(packet_rate);
        let by_client = limits.max_connections_per_client.is_some()
            || limits.packets_per_second_per_client.is_some()
            || limits.new_per_client_per_second.is_some()
            || limits.bytes_per_second_per_client.is_some();
        if !by_client
            && connections.is_none()
            && bytes.is_none()
            && packets.is_none()
            && limits.bytes_per_second_per_connection.is_none()
        {
            return None;
        }
        let kept = |old: Option<&Arc<Bucket>>, rate| match old.filter(|old| old.rate == rate) {
            Some(old) => old.clone(),
            None => Arc::new(Bucket::new(rate)),
        };
        let clients = before.and_then(|before| before.clients.clone());
        let clients = clients.filter(|clients| clients.prefix == limits.client_prefix);
        Some(Arc::new(Self {
            limits: *limits,
            connections: connections.map(|rate| kept(before.and_then(|old| old.connections.as_ref()), rate)),
            bytes: bytes.map(|rate| kept(before.and_then(|old| old.bytes.as_ref()), rate)),
            packets: packets.map(|rate| kept(before.and_then(|old| old.packets.as_ref()), rate)),
            clients: by_client
                .then(|| clients.unwrap_or_else(|| Arc::new(Clients::new(limits.client_prefix)))),
        }))
    }

    /// One connection of whomever.
    pub(super) fn at_accept(&self, now_ms: u64) -> Result<(), EndReason> {
        match &self.connections {
            Some(bucket) if bucket.take(1, now_ms) == 0 => Err(EndReason::ListenerRate),
            _ => Ok(()),
        }
    }

    /// One connection of this client.
    pub(super) fn admit(&self, client: IpAddr, now_ms: u64) -> Result<Option<Permit>, EndReason> {
        let Some(clients) = &self.clients else { return Ok(None) };
        clients.admit(client, now_ms, &self.limits).map(Some)
    }

    /// What slows a connection's bytes, if anything does.
    pub(super) fn shaper(&self, permit: Option<&Permit>) -> Option<Shaper> {
        let own =
            self.limits.bytes_per_second_per_connection.map(|rate| Arc::new(Bucket::new(byte_rate(rate))));
        let buckets = [own, permit.and_then(|permit| permit.bytes.clone()), self.bytes.clone()];
        let is_any = buckets.iter().any(Option::is_some);
        is_any.then(|| Shaper { buckets, waiting: RefCell::default() })
    }
}

/// A second's worth may come at once.
fn connection_rate(per_second: u32) -> Rate {
    Rate::new(per_second.into(), per_second.into())
}

/// Two ticks' worth may come at once, as the clock is that coarse.
fn byte_rate(per_second: u64) -> Rate {
    Rate::new(per_second, per_second / 5)
}

/// As [`byte_rate`].
fn packet_rate(per_second: u32) -> Rate {
    Rate::new(per_second.into(), u64::from(per_second) / 5)
}

/// The clients of a listener that have connections, or had until just now.
struct Clients {
    prefix: ClientPrefix,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    clients: HashMap<IpAddr, Client>,
    swept_at: u64,
    /// Clients without a connection.
    idle: usize,
}

#[derive(Default)]
struct Client {
    open: u32,
    /// Which rate of new connections `rate` is the state of: another one counts otherwise.
    per_second: u32,
    rate: u64,
    bytes: Option<Arc<Bucket>>,
    packets: Option<Arc<Bucket>>,
}

/// A client's place among its connections; given back when dropped.
pub(super) struct Permit {
    clients: Arc<Clients>,
    client: IpAddr,
    bytes: Option<Arc<Bucket>>,
    packets: Option<Arc<Bucket>>,
}

impl Clients {
    fn new(prefix: ClientPrefix) -> Self {
        Self { prefix, shards: Default::default(), hasher: RandomState::new() }
    }

    fn admit(self: &Arc<Self>, address: IpAddr, now_ms: u64, limits: &Limits) -> Result<Permit, EndReason> {
        let address = self.client_of(address);
        let mut shard = self.shard(address);
        shard.sweep(now_ms, limits);
        let is_known = shard.clients.contains_key(&address);
        let client = shard.clients.entry(address).or_default();
        let was_idle = client.open == 0;
        let refused = client.refuses(now_ms, limits);
        let bytes = limits.bytes_per_second_per_client.map(byte_rate);
        let bytes = bytes.map(|rate| same_or_new(&mut client.bytes, rate));
        let packets = limits.packets_per_second_per_client.map(packet_rate);
        let packets = packets.map(|rate| same_or_new(&mut client.packets, rate));
        if let Some(reason) = refused {
            shard.idle += usize::from(!is_known);
            return Err(reason);
        }
        client.open += 1;
        shard.idle = shard.idle.saturating_sub(usize::from(was_idle && is_known));
        Ok(Permit { clients: self.clone(), client: address, bytes, packets })
    }

    /// The network that counts as one client.
    fn client_of(&self, address: IpAddr) -> IpAddr {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { self.prefix.v4 } else { self.prefix.v6 };
        IpNet::new(address, bits).map_or(address, |net| net.network())
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another rate starts anew: the states of two do not compare.
fn same_or_new(slot: &mut Option<Arc<Bucket>>, rate: Rate) -> Arc<Bucket> {
    let kept = slot.take().filter(|old| old.rate == rate);
    slot.insert(kept.unwrap_or_else(|| Arc::new(Bucket::new(rate)))).clone()
}

impl Client {
    fn refuses(&mut self, now_ms: u64, limits: &Limits) -> Option<EndReason> {
        if limits.max_connections_per_client.is_some_and(|most| self.open >= most) {
            return Some(EndReason::ClientFull);
        }
        let per_second = limits.new_per_client_per_second?;
        if self.per_second != per_second {
            (self.per_second, self.rate) = (per_second, 0);
        }
        let rate = connection_rate(per_second);
        match rate.take(self.rate, now_ms, 1) {
            Some((_, next)) => {
                self.rate = next;
                None
            }
            None => Some(EndReason::ClientRate),
        }
    }

    /// Whether forgetting it changes nothing.
    fn is_forgettable(&self, now_ms: u64, limits: &Limits) -> bool {
        let mut buckets = self.bytes.iter().chain(&self.packets);
        self.open == 0
            && (limits.new_per_client_per_second != Some(self.per_second)
                || connection_rate(self.per_second).is_idle(self.rate, now_ms))
            && buckets.all(|bucket| bucket.rate.is_idle(bucket.used.load(Relaxed), now_ms))
    }
}

impl Shard {
    fn sweep(&mut self, now_ms: u64, limits: &Limits) {
        let is_over = self.idle > IDLE_CLIENTS;
        if self.idle == 0 || (now_ms < self.swept_at + SWEEP_MS && !is_over) {
            return;
        }
        self.swept_at = now_ms;
        self.clients.retain(|_, client| !client.is_forgettable(now_ms, limits));
        self.idle = self.clients.values().filter(|client| client.open == 0).count();
        if self.idle > IDLE_CLIENTS {
            // More clients came and went within a second than are remembered: memory is worth more than their rates.
            self.clients.retain(|_, client| client.open > 0);
            self.idle = 0;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client);
        if let Some(client) = shard.clients.get_mut(&self.client) {
            client.open -= 1;
            if client.open == 0 && client.rate == 0 && client.bytes.is_none() && client.packets.is_none() {
                shard.clients.remove(&self.client);
            } else if client.open == 0 {
                shard.idle += 1;
            }
        }
    }
}

/// Slows the bytes of a connection: both directions together, by its own rate, its client's and the listener's.
pub(super) struct Shaper {
    buckets: [Option<Arc<Bucket>>; 3],
    waiting: RefCell<Option<Timer>>,
}

impl Shaper {
    /// Takes leave for some bytes; 0: wait, the task is woken at the next tick.
    pub(super) fn take(&self, timers: &Rc<Timers>, cx: &Context<'_>) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.as_ref().is_some_and(|timer| timer.poll_fired(cx).is_pending()) {
            return 0;
        }
        *waiting = None;
        let now = timers.now();
        let mut granted = TURN;
        for (at, bucket) in self.buckets.iter().enumerate() {
            let Some(bucket) = bucket else { continue };
            let less = bucket.take(granted, now);
            // Those before gave more than this one has.
            for before in self.buckets.iter().take(at).flatten() {
                before.settle(granted, less);
            }
            granted = less;
            if granted == 0 {
                break;
            }
        }
        if granted == 0 {
            let timer = timers.arm(Duration::ZERO);
            // Whoever is told to wait is woken.
            if timer.poll_fired(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            *waiting = Some(timer);
        }
        granted as usize
    }

    /// So many were moved of those that were taken.
    pub(super) fn settle(&self, taken: u64, moved: u64) {
        for bucket in self.buckets.iter().flatten() {
            bucket.settle(taken, moved);
        }
    }
}

#[cfg(test)]
mod tests;
