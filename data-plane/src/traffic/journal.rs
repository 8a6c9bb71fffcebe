//! What a worker knows of its connections: those that are open, and the last ones that ended (the flight recorder).
//!
//! An entry is made with its connection and moves to the ring of ended ones when that ends; nothing is copied. Names are
//! not kept but numbers, so that an old entry holds nothing of an old configuration.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
};

use awe4lb_model::EndReason;
use slab::Slab;

use super::departures::Due;
use crate::control::hot::{ConnectionFilter, ConnectionRecord, ConnectionState};

/// Ended connections that a worker remembers.
const REMEMBERED: usize = 4_096;

/// All connections of one worker.
pub(super) struct Journal {
    worker: u32,
    next: Cell<u64>,
    open: RefCell<Slab<Rc<Entry>>>,
    ended: RefCell<VecDeque<Rc<Entry>>>,
}

/// One connection.
pub(super) struct Entry {
    number: u64,
    /// Where it is among the open ones.
    place: usize,
    /// Milliseconds of the node's clock.
    accepted: u64,
    pub(super) client: Cell<SocketAddr>,
    peer: SocketAddr,
    listener: u64,
    /// Numbers; 0: not known (yet).
    pub(super) rule: Cell<u64>,
    pub(super) pool: Cell<u64>,
    pub(super) backend: Cell<u64>,
    /// [`super::pool::Member::place`].
    pub(super) place_of_backend: Cell<u64>,
    server_name: RefCell<Option<Box<str>>>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
    /// 0: none was needed, or it did not succeed.
    pub(super) handshake_micros: Cell<u32>,
    pub(super) dial_micros: Cell<u32>,
    /// Milliseconds of the node's clock.
    ended: Cell<u64>,
    reason: Cell<Option<EndReason>>,
    pub(super) state: Cell<ConnectionState>,
    /// It is to end, and why.
    pub(super) closing: Cell<Option<EndReason>>,
    /// A flow of UDP.
    is_flow: bool,
}

impl Journal {
    pub(super) fn new(worker: u32) -> Self {
        Self { worker, next: Cell::new(1), open: RefCell::default(), ended: RefCell::default() }
    }

    /// A connection begins.
    pub(super) fn begin(&self, now: u64, peer: SocketAddr, listener: u64, is_flow: bool) -> Rc<Entry> {
        let mut open = self.open.borrow_mut();
        let place = open.vacant_entry();
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Rc::new(Entry {
            number,
            place: place.key(),
            accepted: now,
            client: Cell::new(peer),
            peer,
            listener,
            rule: Cell::new(0),
            pool: Cell::new(0),
            backend: Cell::new(0),
            place_of_backend: Cell::new(0),
            server_name: RefCell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            handshake_micros: Cell::new(0),
            dial_micros: Cell::new(0),
            ended: Cell::new(0),
            reason: Cell::new(None),
            state: Cell::new(ConnectionState::Routing),
            closing: Cell::new(None),
            is_flow,
        });
        place.insert(entry.clone());
        entry
    }

    /// It ended.
    pub(super) fn end(&self, entry: &Entry, now: u64, reason: EndReason) {
        entry.reason.set(Some(reason));
        entry.ended.set(now);
        entry.state.set(ConnectionState::Ended);
        let Some(entry) = self.open.borrow_mut().try_remove(entry.place) else { return };
        let mut ended = self.ended.borrow_mut();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(entry);
    }

    /// Those that fit, the newest first.
    pub(super) fn list(&self, now: u64, filter: &ConnectionFilter) -> Vec<ConnectionRecord> {
        let record = |entry: &Rc<Entry>| entry.record(self.worker, now);
        let fits = |record: &ConnectionRecord| filter.fits(record);
        if filter.ended {
            return self.ended.borrow().iter().rev().map(record).filter(fits).take(filter.limit).collect();
        }
        let mut found: Vec<_> =
            self.open.borrow().iter().map(|(_, entry)| record(entry)).filter(fits).collect();
        found.sort_by_key(|record| std::cmp::Reverse(record.id));
        found.truncate(filter.limit);
        found
    }

    /// Those that fit are to end; how many.
    pub(super) fn close(&self, now: u64, filter: &ConnectionFilter) -> usize {
        let open = self.open.borrow();
        let fits = |entry: &&Rc<Entry>| filter.fits(&entry.record(self.worker, now));
        open.iter()
            .map(|(_, entry)| entry)
            .filter(fits)
            .take(filter.limit)
            .map(|entry| entry.closing.set(Some(EndReason::AdminClosed)))
            .count()
    }

    /// Those at backends that leave are to end; how many.
    pub(super) fn depart(&self, due: &[Due]) -> usize {
        let open = self.open.borrow();
        let mut count = 0;
        for (_, entry) in open.iter() {
            let place = entry.place_of_backend.get();
            let fits = |due: &&Due| {
                due.place == place && due.is_flow == entry.is_flow && entry.accepted <= due.since
            };
            if let Some(due) = due.iter().find(fits) {
                entry.closing.set(Some(due.reason));
                count += 1;
            }
        }
        count
    }

    pub(super) fn record(&self, entry: &Entry, now: u64) -> ConnectionRecord {
        entry.record(self.worker, now)
    }
}

impl Entry {
    pub(super) fn set_server_name(&self, name: &str) {
        *self.server_name.borrow_mut() = Some(name.into());
    }

    fn record(&self, worker: u32, now: u64) -> ConnectionRecord {
        let until = if self.reason.get().is_some() { self.ended.get() } else { now };
        ConnectionRecord {
            id: (u64::from(worker) << 48) | self.number,
            accepted_millis: self.accepted,
            duration_millis: until.saturating_sub(self.accepted),
            client: self.client.get(),
            peer: self.peer,
            listener: self.listener,
            rule: self.rule.get(),
            pool: self.pool.get(),
            backend: self.backend.get(),
            server_name: self.server_name.borrow().clone(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            handshake_micros: self.handshake_micros.get(),
            dial_micros: self.dial_micros.get(),
            state: self.state.get(),
            end: self.reason.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(ended: bool) -> ConnectionFilter {
        ConnectionFilter { ended, limit: 10, ..ConnectionFilter::default() }
    }

    #[test]
    fn open_ones_are_listed_until_they_end_and_the_last_ended_ones_after_that() {
        let journal = Journal::new(3);
        let from = |port| SocketAddr::from(([192, 0, 2, 7], port));
        let (first, second) = (journal.begin(10, from(1), 1, false), journal.begin(20, from(2), 1, false));
        let ids =
            |ended| journal.list(50, &filter(ended)).iter().map(|one| one.client.port()).collect::<Vec<_>>();
        assert_eq!(ids(false), [2, 1]);
        journal.end(&first, 40, EndReason::Finished);
        assert_eq!((ids(false), ids(true)), (vec![2], vec![1]));
        let ended = journal.list(90, &filter(true)).remove(0);
        assert_eq!((ended.duration_millis, ended.end), (30, Some(EndReason::Finished)));
        let other =
            ConnectionFilter { client: Some("198.51.100.0/24".parse().expect("a prefix")), ..filter(false) };
        assert_eq!(journal.close(50, &other), 0);
        assert_eq!(journal.close(50, &filter(false)), 1);
        assert!(second.closing.get().is_some() && first.closing.get().is_none());
    }

    #[test]
    fn the_recorder_forgets_the_oldest() {
        let journal = Journal::new(0);
        for port in 0..u16::try_from(REMEMBERED + 5).expect("a port") {
            let entry = journal.begin(0, ([192, 0, 2, 7], port).into(), 1, false);
            journal.end(&entry, 1, EndReason::Finished);
        }
        let all = journal.list(1, &ConnectionFilter { limit: usize::MAX, ..filter(true) });
        assert_eq!(all.len(), REMEMBERED);
        assert_eq!(all.last().map(|oldest| oldest.client.port()), Some(5));
    }
}
