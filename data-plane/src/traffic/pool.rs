//! A running pool: stable from configuration to configuration, with one cell that holds what connections choose from.
//!
//! Health, admin states, addresses and ejections change the cell, never the pool; a connection reads the cell once.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use awe4lb_engine::{
    balance::{self, PeakEwma, Rules, View},
    checks::{Advice, AgentAdmin},
    health::{Health, Passive, may_eject},
};
use awe4lb_model::{
    Backend, BackendHost, Balance, EndReason, OnDown, WhenAllDown,
    placed::{Number, PlacedPool},
};
use tokio::sync::Notify;

use super::{
    departures::{Departure, Departures},
    timers::TICK,
};
use crate::control::hot::{AdminState, MemberView, PoolHandle};

/// A pool that runs.
pub(super) struct PoolState {
    cell: ArcSwap<Members>,
    book: Mutex<Book>,
    /// Goes up with every change of the members.
    edition: AtomicU64,
    shared: Arc<Shared>,
}

/// What all pools of a node share.
pub(super) struct Shared {
    /// The start of the node's clock.
    pub(super) start: Instant,
    /// Something of a member changed.
    pub(super) changed: Notify,
    /// When the next ejection ends, in milliseconds of the clock; `u64::MAX`: none.
    pub(super) next_return: AtomicU64,
    pub(super) departures: Arc<Departures>,
    /// Where the node is. Read when members change, never by connections.
    pub(super) zone: ArcSwapOption<String>,
}

/// 0 is nowhere.
static NEXT_PLACE: AtomicU64 = AtomicU64::new(1);

const TICK_MILLIS: u64 = TICK.as_millis() as u64;

/// How long flows stay at a backend that was removed, unless its pool says otherwise.
const FLOW_DRAIN: Duration = Duration::from_secs(30);

/// What a connection chooses from.
pub(super) struct Members {
    /// The pool these are of.
    pub(super) placed: Arc<PlacedPool>,
    /// In the order of the configuration.
    pub(super) list: Vec<Arc<Member>>,
    /// Of the same order.
    pub(super) view: View,
}

/// One backend.
pub(super) struct Member {
    pub(super) number: Number,
    /// This backend at this address, unlike any other there was in this process.
    pub(super) place: u64,
    /// Where it is now; empty while its name does not resolve.
    addresses: ArcSwap<Vec<IpAddr>>,
    /// `None`: the listener's.
    port: Option<u16>,
    max: u32,
    /// What an agent allows; `u32::MAX`: as configured.
    advised_max: AtomicU32,
    active: Active,
    /// Failed dials in a row; 0 spares successes the lock.
    failures: AtomicU32,
    /// How long it takes to connect, for balancing by `ewma` alone: [`PeakEwma`] of the node's clock.
    latency: AtomicU64,
    /// From when on flows are to go elsewhere, in milliseconds of the clock; `u64::MAX`: they stay.
    flows_leave: AtomicU64,
}

/// On a cache line of its own: every worker writes it.
#[repr(align(128))]
struct Active(AtomicU32);

/// The slow half: what is known of each member, behind a lock that connections do not take.
struct Book {
    /// As configured.
    configured: Arc<PlacedPool>,
    /// What sources added to it.
    discovered: Vec<(Number, Backend)>,
    /// Both together.
    placed: Arc<PlacedPool>,
    entries: Vec<Entry>,
    /// The priority of the tier in use, where it stays in use until it fails.
    held: Option<u32>,
    /// Where the node was when the members were last put together.
    zone: Option<Arc<String>>,
}

struct Entry {
    member: Arc<Member>,
    health: Health,
    reason: String,
    admin: AdminState,
    /// Of an agent. Nothing: as configured.
    advice: Advice,
    passive: Passive,
    /// When it became usable; `None`: it is not.
    usable_since: Option<u64>,
    /// Down or in maintenance, when that was last noted.
    was_gone: bool,
}

/// A place at a backend, taken when it was chosen; given back when dropped.
pub(super) struct Permit(Arc<Member>);

impl Permit {
    pub(super) fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.0.fetch_sub(1, Relaxed);
    }
}

impl Member {
    pub(super) fn active(&self) -> u32 {
        self.active.0.load(Relaxed)
    }

    /// Whether a flow is to go elsewhere.
    pub(super) fn is_left_by_flow(&self, begun: u64, now: u64) -> bool {
        let since = self.flows_leave.load(Relaxed);
        // `now` may be a tick behind. One that came although the backend was gone already has nowhere better to go.
        since <= now.saturating_add(TICK_MILLIS) && begun <= since
    }

    pub(super) fn is_full(&self) -> bool {
        self.active() >= self.max()
    }

    fn max(&self) -> u32 {
        self.max.min(self.advised_max.load(Relaxed))
    }

    /// What one more connection here costs, for balancing by `ewma`.
    pub(super) fn cost(&self, now: u64) -> u64 {
        PeakEwma(self.latency.load(Relaxed)).cost(now, self.active())
    }

    /// Takes a place, unless it filled up in between.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Permit> {
        if self.active.0.fetch_add(1, Relaxed) >= self.max() {
            self.active.0.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit(self.clone()))
    }

    /// Where to dial. Names with several addresses are used by turns of `random`.
    pub(super) fn address(&self, listener_port: u16, random: u64) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        let at = random.checked_rem(addresses.len() as u64)?;
        let ip = *addresses.get(at as usize)?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(listener_port)))
    }
}

impl PoolState {
    pub(super) fn new(placed: Arc<PlacedPool>, shared: Arc<Shared>) -> Arc<Self> {
        let entries = entries(&placed, &[]);
        let configured = placed.clone();
        let mut book = Book { configured, discovered: Vec::new(), placed, entries, held: None, zone: None };
        // What is there from the start has nothing to warm up from.
        book.entries.iter_mut().for_each(|entry| entry.usable_since = Some(0));
        book.zone = shared.zone.load_full();
        let members = book.members(u64::MAX);
        Arc::new(Self {
            cell: ArcSwap::from_pointee(members),
            book: Mutex::new(book),
            edition: AtomicU64::new(0),
            shared,
        })
    }

    /// Never changes.
    pub(super) fn number(&self) -> u64 {
        self.cell.load().placed.number.0
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.cell.load().placed.pool.name.as_str() == name
    }

    /// What to choose from now.
    pub(super) fn members(&self) -> Arc<Members> {
        self.cell.load_full()
    }

    /// A newer configuration of the same pool: backends that stay keep their health, counts and connections.
    pub(super) fn configure(&self, placed: Arc<PlacedPool>) {
        let mut book = self.book();
        if placed.pool.discovery.is_empty() {
            book.discovered.clear();
        }
        book.configured = placed;
        self.rearrange(&mut book);
    }

    /// Puts the members together anew, after what is configured or what was discovered has changed.
    fn rearrange(&self, book: &mut Book) {
        let placed = with_discovered(&book.configured, &book.discovered);
        let before = std::mem::take(&mut book.entries);
        book.entries = entries(&placed, &before);
        let stays: HashSet<u64> = book.entries.iter().map(|entry| entry.member.place).collect();
        for old in &before {
            // One whose address changed keeps its number, but is another place.
            if !stays.contains(&old.member.place) {
                self.part_with(&old.member, placed.pool.removed_drain);
            }
        }
        book.placed = placed;
        book.held = None;
        book.let_back(self.now());
        self.publish(book);
    }

    /// The pool is gone, and all its backends with it.
    pub(super) fn remove(&self) {
        let book = self.book();
        for entry in &book.entries {
            self.part_with(&entry.member, book.placed.pool.removed_drain);
        }
    }

    /// Whether this member is not among the pool's any more.
    pub(super) fn has_no(&self, member: &Arc<Member>) -> bool {
        !self.cell.load().list.iter().any(|one| Arc::ptr_eq(one, member))
    }

    fn part_with(&self, member: &Member, drain: Option<Duration>) {
        let now = self.now();
        let after = |time: Duration| now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let flows = after(drain.unwrap_or(FLOW_DRAIN));
        member.flows_leave.store(flows, Relaxed);
        let departure = Departure {
            reason: EndReason::BackendRemoved,
            since: now,
            connections: drain.map(after),
            flows: Some(flows),
        };
        self.shared.departures.note(member.place, departure, now);
    }

    /// Tells what is open at members that went down or came back.
    fn note_gone(&self, book: &mut Book, now: u64) {
        let on_down = book.placed.pool.on_down;
        for entry in &mut book.entries {
            let is_gone = entry.is_gone();
            if is_gone == entry.was_gone {
                continue;
            }
            entry.was_gone = is_gone;
            let flows = (is_gone && on_down != OnDown::Keep).then_some(now);
            let connections = (is_gone && matches!(on_down, OnDown::Close | OnDown::Rechoose)).then_some(now);
            entry.member.flows_leave.store(flows.unwrap_or(u64::MAX), Relaxed);
            let place = entry.member.place;
            if flows.is_some() {
                let departure = Departure { reason: EndReason::BackendDown, since: now, connections, flows };
                self.shared.departures.note(place, departure, now);
            } else {
                self.shared.departures.forget(place);
            }
        }
    }

    /// A dial succeeded, and took so long where that is known.
    pub(super) fn dial_succeeded(&self, member: &Arc<Member>, micros: Option<u64>) {
        if let Some(micros) = micros
            && self.cell.load().placed.pool.balance == Balance::Ewma
        {
            // Of two workers that measure at once one measurement may be lost.
            let latency = PeakEwma(member.latency.load(Relaxed)).observe(self.now(), micros);
            member.latency.store(latency.0, Relaxed);
        }
        if member.failures.load(Relaxed) == 0 {
            return;
        }
        member.failures.store(0, Relaxed);
        if let Some(entry) = self.book().entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.member, member)) {
            entry.passive.success();
        }
    }

    /// A dial failed: too many in a row set the member aside.
    pub(super) fn dial_failed(&self, member: &Arc<Member>) {
        member.failures.fetch_add(1, Relaxed);
        let now = self.now();
        let mut book = self.book();
        let outlier = book.placed.pool.outlier;
        let ejected = book.entries.iter().filter(|entry| entry.passive.is_ejected(now)).count();
        let spare = may_eject(book.entries.len(), ejected, &outlier);
        let Some(entry) = book.entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.member, member)) else {
            return;
        };
        if entry.passive.failure(now, &outlier, spare) {
            if let Some(until) = entry.passive.ejected_until() {
                self.shared.next_return.fetch_min(until, Relaxed);
            }
            self.publish(&mut book);
        }
    }

    /// Lets members back whose ejection is over; returns when the next one is.
    pub(super) fn refresh(&self) -> Option<u64> {
        let now = self.now();
        let mut book = self.book();
        self.publish(&mut book);
        let untils = book.entries.iter().filter_map(|entry| entry.passive.ejected_until());
        untils.filter(|until| *until > now).chain(book.next_step(now)).min()
    }

    /// The node may be in another zone than before.
    pub(super) fn look_at_zone(&self) {
        let mut book = self.book();
        if book.zone != self.shared.zone.load_full() {
            self.publish(&mut book);
        }
    }

    /// Milliseconds of the node's clock.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, book: &mut Book) {
        let now = self.now();
        self.note_gone(book, now);
        book.note_usable(now);
        if let Some(step) = book.next_step(now) {
            self.shared.next_return.fetch_min(step, Relaxed);
        }
        book.zone = self.shared.zone.load_full();
        let members = book.members(now);
        if !book.placed.pool.tiers.auto_failback {
            book.held = members.view.leading_priority();
        }
        self.cell.store(Arc::new(members));
        self.edition.fetch_add(1, Relaxed);
        self.shared.changed.notify_one();
    }

    fn change(&self, number: Number, change: impl FnOnce(&mut Entry)) {
        let mut book = self.book();
        if let Some(entry) = book.entries.iter_mut().find(|entry| entry.member.number == number) {
            change(entry);
            self.publish(&mut book);
        }
    }
}

impl PoolHandle for PoolState {
    fn placed(&self) -> Arc<PlacedPool> {
        self.cell.load().placed.clone()
    }

    fn edition(&self) -> u64 {
        self.edition.load(Relaxed)
    }

    fn set_health(&self, backend: Number, health: Health, reason: &str) {
        self.change(backend, |entry| {
            entry.health = health;
            entry.reason = reason.to_owned();
        });
    }

    fn set_advice(&self, backend: Number, advice: Advice) {
        self.change(backend, |entry| {
            entry.take_advice(advice);
        });
    }

    fn set_resolved(&self, backend: Number, addresses: Vec<IpAddr>) {
        self.change(backend, |entry| entry.member.addresses.store(Arc::new(addresses)));
    }

    fn set_discovered(&self, members: Vec<(Number, Backend)>) -> bool {
        let mut book = self.book();
        if book.discovered == members {
            return false;
        }
        book.discovered = members;
        self.rearrange(&mut book);
        true
    }

    fn set_admin(&self, backend: Number, state: AdminState) {
        self.change(backend, |entry| entry.admin = state);
    }

    fn members(&self) -> Vec<MemberView> {
        let now = self.now();
        let view = |entry: &Entry| MemberView {
            number: entry.member.number,
            health: entry.health,
            reason: entry.reason.clone(),
            ejected: entry.passive.is_ejected(now),
            addresses: entry.member.addresses.load().to_vec(),
            admin: entry.admin,
            active: u64::from(entry.member.active()),
        };
        self.book().entries.iter().map(view).collect()
    }
}

impl Book {
    /// A smaller pool spares fewer: those whose time is over first come back until no more are set aside than may be.
    fn let_back(&mut self, now: u64) {
        let most = usize::from(self.placed.pool.outlier.max_ejected_percent) * self.entries.len();
        loop {
            let ejected = || self.entries.iter().filter(|entry| entry.passive.is_ejected(now));
            if ejected().count() * 100 <= most {
                return;
            }
            let next = self.entries.iter_mut().filter(|entry| entry.passive.is_ejected(now));
            let Some(next) = next.min_by_key(|entry| entry.passive.ejected_until()) else { return };
            next.passive.success();
        }
    }

    fn members(&self, now: u64) -> Members {
        let list: Vec<_> = self.entries.iter().map(|entry| entry.member.clone()).collect();
        let zone = self.zone.as_ref().map(|zone| zone.as_str());
        let view = self
            .entries
            .iter()
            .zip(&self.placed.pool.backends)
            .map(|(entry, backend)| balance::Member {
                seed: balance::seed(backend.name.as_str()),
                weight: entry.weight(backend.weight) * entry.warmth(now, self.placed.pool.slow_start),
                priority: backend.priority,
                usable: entry.usable(now),
                near: backend.zone.is_some() && backend.zone.as_deref() == zone,
            })
            .collect();
        let pool = &self.placed.pool;
        let rules = Rules {
            balance: pool.balance,
            any_when_all_down: pool.when_all_down == WhenAllDown::Any,
            min_usable: pool.tiers.min_usable,
            spill_when_full: pool.tiers.spill_when_full,
            single_active: pool.tiers.single_active,
            held: self.held,
            // Nobody is near a node of which nobody knows where it is.
            near_first: pool.locality.filter(|_| zone.is_some()).map(|locality| locality.spill_below),
        };
        Members { placed: self.placed.clone(), list, view: View::new(view, &rules) }
    }

    /// Remembers since when each member is usable.
    fn note_usable(&mut self, now: u64) {
        for entry in &mut self.entries {
            entry.usable_since = if entry.usable(now) { entry.usable_since.or(Some(now)) } else { None };
        }
    }

    /// When the next member that warms up gets more.
    fn next_step(&self, now: u64) -> Option<u64> {
        let whole = slow_start_millis(self.placed.pool.slow_start?);
        let step = (whole / u64::from(WARM)).max(1);
        let next = |since: u64| since + ((now.saturating_sub(since)) / step + 1) * step;
        let warming = self.entries.iter().filter_map(|entry| entry.usable_since);
        warming.filter(|since| now.saturating_sub(*since) < whole && *since > 0).map(next).min()
    }
}

/// A member that is warm counts so many times its weight, a fresh one once.
const WARM: u32 = 10;

fn slow_start_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Entry {
    /// By how much its weight counts: all the same without a slow start.
    fn warmth(&self, now: u64, slow_start: Option<Duration>) -> u32 {
        let Some(time) = slow_start else { return 1 };
        // From the start on, or not usable at all: nothing to wait for.
        let Some(since) = self.usable_since.filter(|since| *since > 0) else { return WARM };
        let steps = now.saturating_sub(since).saturating_mul(WARM.into()) / slow_start_millis(time);
        u32::try_from(steps).unwrap_or(WARM).saturating_add(1).min(WARM)
    }

    /// What was advised before holds for what is not mentioned now; nothing at all takes everything back.
    fn take_advice(&mut self, advice: Advice) {
        let before = if advice == Advice::default() { Advice::default() } else { self.advice };
        self.advice = Advice {
            weight_percent: advice.weight_percent.or(before.weight_percent),
            admin: advice.admin.or(before.admin),
            health: advice.health.or(before.health),
            max_connections: advice.max_connections.or(before.max_connections),
        };
        // An agent that says 0 means no limit of its own, as with HAProxy.
        let max = self.advice.max_connections.filter(|max| *max > 0).unwrap_or(u32::MAX);
        self.member.advised_max.store(max, Relaxed);
    }

    /// The configured weight by what is advised; a part of something is never nothing.
    fn weight(&self, configured: u32) -> u32 {
        match self.advice.weight_percent {
            None => configured,
            Some(0) => 0,
            Some(percent) => {
                let weight = u64::from(configured) * u64::from(percent) / 100;
                u32::try_from(weight).unwrap_or(u32::MAX).max(configured.min(1))
            }
        }
    }

    /// Whether what is open here has nobody to talk to, as far as that is known.
    fn is_gone(&self) -> bool {
        self.admin == AdminState::Maintenance
            || self.advice.admin == Some(AgentAdmin::Maint)
            || self.health == Health::Down
    }

    /// Three facts: admin state, health (unknown is usable), and whether there is an address.
    fn usable(&self, now: u64) -> bool {
        self.admin == AdminState::Ready
            && !matches!(self.advice.admin, Some(AgentAdmin::Drain | AgentAdmin::Maint))
            && self.health != Health::Down
            && !self.passive.is_ejected(now)
            && !self.member.addresses.load().is_empty()
    }
}

/// A pool with the backends that were discovered after those that are configured.
fn with_discovered(configured: &Arc<PlacedPool>, discovered: &[(Number, Backend)]) -> Arc<PlacedPool> {
    if discovered.is_empty() {
        return configured.clone();
    }
    let mut placed = PlacedPool::clone(configured);
    placed.backend_numbers.extend(discovered.iter().map(|(number, _)| *number));
    placed.pool.backends.extend(discovered.iter().map(|(_, backend)| backend.clone()));
    Arc::new(placed)
}

/// The members of a pool, those that stay taken over from `before`. A backend whose address or limit changed is the same
/// backend, but what was known of the old address is not.
fn entries(placed: &PlacedPool, before: &[Entry]) -> Vec<Entry> {
    let backends = placed.backend_numbers.iter().zip(&placed.pool.backends);
    let before: HashMap<Number, &Entry> = before.iter().map(|entry| (entry.member.number, entry)).collect();
    backends
        .map(|(number, backend)| {
            let max = backend.max_connections.unwrap_or(u32::MAX);
            let old = before.get(number).copied();
            let fixed = match &backend.address.host {
                BackendHost::Ip(ip) => Some(*ip),
                BackendHost::Name(_) => None,
            };
            if let Some(old) = old
                && old.member.max == max
                && old.member.port == backend.address.port
                && fixed.is_none_or(|ip| **old.member.addresses.load() == [ip])
            {
                return Entry {
                    member: old.member.clone(),
                    health: old.health,
                    reason: old.reason.clone(),
                    admin: old.admin,
                    advice: old.advice,
                    passive: old.passive,
                    usable_since: old.usable_since,
                    was_gone: old.was_gone,
                };
            }
            let addresses = fixed.map(|ip| vec![ip]).unwrap_or_default();
            Entry {
                member: Arc::new(Member {
                    number: *number,
                    place: NEXT_PLACE.fetch_add(1, Relaxed),
                    addresses: ArcSwap::from_pointee(addresses),
                    port: backend.address.port,
                    max,
                    advised_max: AtomicU32::new(u32::MAX),
                    active: Active(AtomicU32::new(0)),
                    failures: AtomicU32::new(0),
                    latency: AtomicU64::new(0),
                    flows_leave: AtomicU64::new(u64::MAX),
                }),
                health: Health::Unknown,
                reason: String::new(),
                admin: old.map(|old| old.admin).unwrap_or_default(),
                advice: Advice::default(),
                passive: Passive::default(),
                usable_since: None,
                was_gone: false,
            }
        })
        .collect()
}
