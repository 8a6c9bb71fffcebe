//! From backends to clients.

use std::{
    io,
    net::SocketAddr,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

use awe4lb_engine::flows::FlowId;
use awe4lb_model::EndReason;

use super::{
    carriers::Carrier,
    flow::id_of,
    runs::Way,
    send::{Fate, Scratch, is_refusal, send_all},
    server::Server,
};
use crate::sys::{
    mmsg::{Batch, Received, Source},
    options,
};

/// Backends that are read before others get their turn.
const BACKENDS: usize = 256;
/// Fewer free slots than this, and answers are sent before more are read.
const ROOM: usize = 8;
/// Errors taken from a shared socket at a time.
const ERRORS: usize = 64;

impl Server<'_> {
    /// Takes what backends answered. True: there may be more.
    pub(super) fn receive_from_backends(&mut self, scratch: &mut Scratch, now: u64) -> bool {
        if self.answers.is_empty() {
            return false;
        }
        scratch.batch.clear();
        scratch.runs.clear();
        for _ in 0..BACKENDS {
            let Some(tag) = self.answers.pop() else { break };
            if scratch.batch.room() < ROOM {
                self.send_to_clients(scratch);
            }
            let is_all = match self.carriers.of_tag(tag) {
                None => self.receive_from_backend(id_of(tag), scratch, now),
                Some(Some(carrier)) => self.receive_from_carrier(&carrier, scratch, now),
                Some(None) => true,
            };
            if !is_all {
                self.answers.push(tag);
            }
        }
        self.send_to_clients(scratch);
        !self.answers.is_empty()
    }

    /// Reads one backend's socket once. False: there may be more.
    fn receive_from_backend(&mut self, id: FlowId, scratch: &mut Scratch, now: u64) -> bool {
        // One that has ended is listed still.
        let Some(flow) = self.table.value(id) else { return true };
        let most = (flow.last_burst as usize * 2).clamp(ROOM, scratch.batch.room().max(ROOM));
        let slots = match scratch.batch.receive(flow.upstream.fd(), Source::Connected, most) {
            Ok(slots) => slots,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                if is_refusal(&error) {
                    self.refused(id);
                }
                return false;
            }
        };
        flow.last_burst = slots.len() as u32;
        let is_all = slots.len() < most;
        if let Some(total) = overflow(&scratch.batch, &slots) {
            flow.upstream.overflow().count(total, &self.listener.counters);
        }
        self.answer(id, slots, scratch, now);
        is_all
    }

    /// Reads a shared socket once. False: there may be more.
    fn receive_from_carrier(&mut self, carrier: &Rc<Carrier>, scratch: &mut Scratch, now: u64) -> bool {
        let most = scratch.batch.room();
        let slots = match scratch.batch.receive(carrier.fd(), Source::Listener, most) {
            Ok(slots) => slots,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => {
                self.take_errors(carrier);
                return false;
            }
        };
        let is_all = slots.len() < most;
        if let Some(total) = overflow(&scratch.batch, &slots) {
            carrier.overflow().count(total, &self.listener.counters);
        }
        let mut at = slots.start;
        while at < slots.end {
            let from = scratch.batch.received(at).from;
            let is_same = |slot: &u32| scratch.batch.received(*slot).from == from;
            let end = (at + 1..slots.end).take_while(is_same).last().map_or(at + 1, |last| last + 1);
            if let Some(tag) = from.and_then(|from| carrier.flow_to(from)) {
                self.answer(id_of(tag), at..end, scratch, now);
            }
            at = end;
        }
        is_all
    }

    /// What ICMP said of datagrams that a shared socket sent.
    fn take_errors(&mut self, carrier: &Rc<Carrier>) {
        for _ in 0..ERRORS {
            let Some((about, error)) = options::next_error(carrier.fd()) else { return };
            let tag = about.and_then(|about: SocketAddr| carrier.flow_to(about));
            if let Some(tag) = tag.filter(|_| is_refusal(&error)) {
                self.refused(id_of(tag));
            }
        }
    }

    /// Gathers a flow's answers for its client.
    fn answer(&mut self, id: FlowId, slots: Range<u32>, scratch: &mut Scratch, now: u64) {
        let Scratch { batch, runs, finished, .. } = scratch;
        let count = slots.clone().map(|slot| datagrams(&batch.received(slot))).sum();
        let Some(answers) = self.table.backend_datagrams(id, count, now) else { return };
        let wildcard = self.bound.is_none();
        let Some(flow) = self.table.value(id) else { return };
        if !flow.answered {
            flow.answered = true;
            flow.pool.state.dial_succeeded(flow.permit.member(), None);
        }
        let from = wildcard.then_some(answers.key.local);
        let client = answers.key.client;
        let way = Way { flow: id, to: Some(client), from, longest: flow.longest_out, v6: client.is_ipv6() };
        let mut allowed = answers.allowed;
        for slot in slots {
            let mut received = batch.received(slot);
            let of_slot = datagrams(&received);
            if of_slot > allowed {
                flow.dropped(of_slot - allowed, EndReason::DatagramSurplus);
                received.len = (allowed * received.segment).min(received.len);
            }
            let passed = of_slot.min(allowed);
            allowed -= passed;
            if passed == 0 {
                continue;
            }
            if let Some(quic) = &self.quic {
                quic.learn(flow, id, batch.payload(slot, 0, received.segment.min(received.len)));
            }
            if let Some(extras) = &mut flow.extras
                && let Err(why) = extras.gives(passed, received.len, now)
            {
                flow.dropped(passed, why);
                continue;
            }
            runs.add(&way, &received);
        }
        if answers.is_complete {
            finished.push(id);
        }
    }

    /// Sends what was gathered for clients.
    fn send_to_clients(&mut self, scratch: &mut Scratch) {
        let Scratch { batch, outbox, runs, finished, .. } = scratch;
        let table = &mut self.table;
        let socket: BorrowedFd<'_> = self.socket.as_fd();
        if !runs.is_empty() {
            let sent = send_all(outbox, socket, batch, runs, |id, fate| {
                let Some(flow) = table.value(id) else { return };
                match fate {
                    Fate::Sent { bytes, datagrams } => {
                        flow.tally.datagrams_out(u64::from(datagrams), u64::from(bytes));
                    }
                    Fate::TooLongForRun(each) => flow.longest_out = each.saturating_sub(1) as u16,
                    Fate::Refused(datagrams) | Fate::Dropped(datagrams) => {
                        flow.dropped(datagrams, EndReason::DatagramUnsent);
                    }
                }
            });
            // A listening socket tells of no refusals; if it ever did, the rest of the turn is lost as datagrams may be.
            let _ = sent;
        }
        batch.clear();
        runs.clear();
        for id in std::mem::take(finished) {
            self.end(id, EndReason::FlowComplete);
        }
    }
}

/// What the kernel says with the last of these of those that found no room.
fn overflow(batch: &Batch, slots: &Range<u32>) -> Option<u32> {
    slots.clone().next_back().and_then(|last| batch.received(last).overflow)
}

/// How many a slot holds.
pub(super) fn datagrams(received: &Received) -> u32 {
    if received.segment == 0 { 1 } else { received.len.div_ceil(received.segment).max(1) }
}
