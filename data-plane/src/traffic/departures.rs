//! Backends that went down or were removed, and when what is open at them is to end.
//!
//! Pools note them; workers look now and then, which costs a load where nothing leaves.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use awe4lb_model::EndReason;

/// For how long after its time a departure is looked at, so that every worker has seen it.
const SEEN_BY_ALL: u64 = 2_000;

/// All departures of a node. Times are milliseconds of its clock.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Until when there is something to look at.
    until: AtomicU64,
    places: Mutex<BTreeMap<u64, Departure>>,
}

/// One backend's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    pub(super) reason: EndReason,
    /// When that was: what began later has another place, or came although.
    pub(super) since: u64,
    /// When connections end; `None`: not for this.
    pub(super) connections: Option<u64>,
    /// When flows do.
    pub(super) flows: Option<u64>,
}

/// What is to end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// As [`Departures::note`] was told.
    pub(super) place: u64,
    pub(super) is_flow: bool,
    /// What began later does not leave.
    pub(super) since: u64,
    pub(super) reason: EndReason,
}

impl Departures {
    /// What is at this place leaves. A place is a backend at one address: another address is another place.
    pub(super) fn note(&self, place: u64, departure: Departure, now: u64) {
        let mut places = self.lock();
        places.retain(|_, old| old.reason == EndReason::BackendDown || old.is_of_interest(now));
        places.insert(place, departure);
        let last = departure.connections.max(departure.flows);
        if let Some(last) = last {
            self.until.fetch_max(last + SEEN_BY_ALL, Relaxed);
        }
    }

    /// It is back.
    pub(super) fn forget(&self, place: u64) {
        self.lock().remove(&place);
    }

    /// What is to end now, if anything may be.
    pub(super) fn due(&self, now: u64) -> Vec<Due> {
        if now > self.until.load(Relaxed) {
            return Vec::new();
        }
        let of = |(place, departure): (&u64, &Departure)| {
            let (place, reason, since) = (*place, departure.reason, departure.since);
            [(departure.connections, false), (departure.flows, true)]
                .into_iter()
                .filter_map(|(at, is_flow)| Some((at?, is_flow)))
                .filter(|(at, _)| (*at..=*at + SEEN_BY_ALL).contains(&now))
                .map(move |(_, is_flow)| Due { place, is_flow, since, reason })
                .collect::<Vec<_>>()
        };
        self.lock().iter().flat_map(of).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Departure>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure {
    fn is_of_interest(&self, now: u64) -> bool {
        self.connections.max(self.flows).is_some_and(|last| now <= last + SEEN_BY_ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_told_at_its_time_and_for_a_while() {
        let departures = Departures::default();
        assert!(departures.due(0).is_empty());
        let removed =
            Departure { reason: EndReason::BackendRemoved, since: 0, connections: None, flows: Some(30_000) };
        departures.note(7, removed, 0);
        let down = Departure {
            reason: EndReason::BackendDown,
            since: 100,
            connections: Some(100),
            flows: Some(100),
        };
        departures.note(8, down, 100);
        assert_eq!(departures.due(100).len(), 2);
        departures.forget(8);
        assert!(departures.due(101).is_empty());
        let due = Due { place: 7, is_flow: true, since: 0, reason: EndReason::BackendRemoved };
        assert_eq!(departures.due(30_000), [due]);
        assert!(departures.due(32_001).is_empty());
    }
}
