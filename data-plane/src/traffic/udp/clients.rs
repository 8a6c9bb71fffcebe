//! From clients to backends.

use std::{io, ops::Range, os::fd::AsFd};

use awe4lb_engine::flows::{FlowId, FlowKey};
use awe4lb_model::EndReason;

use super::{
    backends::datagrams,
    quic::ClientRun,
    runs::Way,
    send::{Fate, Scratch, is_refusal, send_all},
    server::Server,
};
use crate::sys::mmsg::{self, Ecn, Received, SLOTS, Source};

/// Batches before others get their turn.
const BATCHES: usize = 4;

impl Server<'_> {
    /// Takes what clients sent. True: there may be more.
    pub(super) fn receive_from_clients(&mut self, scratch: &mut Scratch, now: u64) -> bool {
        for _ in 0..BATCHES {
            if !self.worker.reactor().ready(self.token).readable {
                return false;
            }
            scratch.batch.clear();
            match scratch.batch.receive(self.socket.as_fd(), Source::Listener, SLOTS) {
                Ok(slots) => {
                    if slots.len() < SLOTS {
                        self.worker.reactor().clear_readable(self.token);
                    }
                    self.worker.took_datagrams(slots.len());
                    self.sort_by_flow(scratch, slots, now);
                    self.send_to_backends(scratch, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.worker.reactor().clear_readable(self.token);
                }
                // An error that waited in the socket is gone by being told.
                Err(_) => {}
            }
        }
        true
    }

    /// Finds or starts the flow of each datagram, and brings those of one flow together, in their order.
    fn sort_by_flow(&mut self, scratch: &mut Scratch, slots: Range<u32>, now: u64) {
        self.round = self.round.wrapping_add(1);
        self.evictions = 0;
        // Where each datagram is a flow, all are newcomers.
        self.newcomers.next_batch(slots.len() == SLOTS && !self.table.counts_requests());
        let Scratch { batch, items, flows, .. } = scratch;
        items.clear();
        flows.clear();
        let mut last: Option<(FlowKey, u32)> = None;
        let mut in_order = true;
        let each_counts = self.table.counts_requests();
        for slot in slots {
            let received = batch.received(slot);
            let Some(key) = self.key_of(&received) else { continue };
            let place = match last {
                Some((of, place)) if of == key && !each_counts => place,
                _ => {
                    let run = || ClientRun {
                        bytes: batch.payload(slot, 0, received.len),
                        each: received.segment as usize,
                    };
                    let Some(place) = self.place_in_round(key, run, flows, now) else { continue };
                    last = Some((key, place));
                    place
                }
            };
            in_order &= items.last().is_none_or(|(before, _)| *before <= place);
            items.push((place, slot));
        }
        if !in_order {
            items.sort_by_key(|(place, _)| *place);
        }
    }

    /// Whose datagram it is; `None`: nobody's that could be answered.
    fn key_of(&mut self, received: &Received) -> Option<FlowKey> {
        if let Some(total) = received.overflow {
            self.overflow.count(total, &self.listener.counters);
        }
        if received.truncated {
            self.listener.counters.dropped(1, EndReason::DatagramTruncated);
            return None;
        }
        let (client, local) = (received.from?, self.bound.or(received.local)?);
        Some(FlowKey { client, local })
    }

    /// Finds the flow and its place among those of this round.
    fn place_in_round<'b>(
        &mut self,
        key: FlowKey,
        run: impl FnOnce() -> ClientRun<'b>,
        flows: &mut Vec<FlowId>,
        now: u64,
    ) -> Option<u32> {
        let round = self.round;
        let next = flows.len() as u32;
        let id = match self.flow_of(&key, now) {
            Some(id) => id,
            None => self.begin_or_wait(key, run, now)?,
        };
        let flow = self.table.value(id)?;
        if flow.round != round {
            (flow.round, flow.place_in_round) = (round, next);
            flows.push(id);
        }
        Some(flow.place_in_round)
    }

    /// A client's flow, if it has one that may go on where it is.
    pub(super) fn flow_of(&mut self, key: &FlowKey, now: u64) -> Option<FlowId> {
        let (id, flow) = self.table.client_datagram(key, now)?;
        if !flow.is_to_leave(now) {
            return Some(id);
        }
        let removed = flow.pool.state.has_no(flow.permit.member());
        self.end(id, if removed { EndReason::BackendRemoved } else { EndReason::BackendDown });
        None
    }

    /// Sends what was sorted.
    fn send_to_backends(&mut self, scratch: &mut Scratch, now: u64) {
        let items = std::mem::take(&mut scratch.items);
        for group in items.chunk_by(|a, b| a.0 == b.0) {
            let Some(id) = group.first().and_then(|(place, _)| scratch.flows.get(*place as usize).copied())
            else {
                continue;
            };
            if let Err(sent) = self.send_to_backend(id, group, scratch, now) {
                self.refused(id);
                // The client's next flow may find a backend that is there; the datagrams at hand still can go to it.
                self.send_anew(&group[sent.min(group.len())..], scratch, now);
            }
        }
        scratch.items = items;
    }

    /// Sends the datagrams of one flow. `Err`: the backend refuses, and how many had been sent.
    fn send_to_backend(
        &mut self,
        id: FlowId,
        group: &[(u32, u32)],
        scratch: &mut Scratch,
        now: u64,
    ) -> Result<(), usize> {
        let Some(flow) = self.table.value(id) else { return Ok(()) };
        if flow.extras.is_some() {
            return self.send_with_extras(id, group, scratch, now);
        }
        let Scratch { batch, outbox, runs, .. } = scratch;
        let to = flow.upstream.to();
        if let ([(_, slot)], None) = (group, to) {
            let received = batch.received(*slot);
            if received.segment == received.len && received.ecn == 0 {
                return match mmsg::send_one(flow.upstream.fd(), batch.payload(*slot, 0, received.len)) {
                    Ok(()) => {
                        flow.tally.datagrams_in(1, u64::from(received.len));
                        Ok(())
                    }
                    Err(error) if is_refusal(&error) => Err(0),
                    // Lost on our side, as UDP may.
                    Err(_) => {
                        flow.dropped(1, EndReason::DatagramUnsent);
                        Ok(())
                    }
                };
            }
        }
        runs.clear();
        let v6 = flow.upstream.is_v6();
        let way = Way { flow: id, to, from: None, longest: flow.longest_in, v6 };
        for (_, slot) in group {
            runs.add(&way, &batch.received(*slot));
        }
        let (upstream, tally, longest) = (&flow.upstream, &flow.tally, &mut flow.longest_in);
        let mut unsent = 0;
        let result = send_all(outbox, upstream.fd(), batch, runs, |_, fate| match fate {
            Fate::Sent { bytes, datagrams } => tally.datagrams_in(u64::from(datagrams), u64::from(bytes)),
            Fate::TooLongForRun(each) => *longest = each.saturating_sub(1) as u16,
            Fate::Dropped(datagrams) => unsent += datagrams,
            Fate::Refused(_) => {}
        });
        if unsent > 0 {
            flow.dropped(unsent, EndReason::DatagramUnsent);
        }
        result.map_err(|at| {
            // Pieces of a run are at most one a slot, but a slot may be several pieces: what was sent is not sent again.
            let first_left = runs.runs()[at].first_piece as usize;
            let slot = runs.pieces()[first_left].slot;
            group.iter().position(|(_, of)| *of == slot).unwrap_or(group.len())
        })
    }

    /// The same for a flow with limits, or whose backend is told who the client is: one by one.
    fn send_with_extras(
        &mut self,
        id: FlowId,
        group: &[(u32, u32)],
        scratch: &mut Scratch,
        now: u64,
    ) -> Result<(), usize> {
        let Some(flow) = self.table.value(id) else { return Ok(()) };
        let Some(mut extras) = flow.extras.take() else { return Ok(()) };
        let mut result = Ok(());
        'slots: for (at, (_, slot)) in group.iter().enumerate() {
            let received = scratch.batch.received(*slot);
            let each = received.segment.max(1);
            for number in 0..datagrams(&received) {
                let len = (received.len - number * each).min(each.max(received.segment));
                if let Err(why) = extras.takes(1, len, flow.answered, now) {
                    flow.dropped(1, why);
                    continue;
                }
                let head = extras.head();
                let payload = scratch.batch.payload(*slot, number * each, len);
                let ecn = Ecn { bits: received.ecn, v6: flow.upstream.is_v6() };
                match mmsg::send_parts(flow.upstream.fd(), flow.upstream.to(), head, payload, ecn) {
                    Ok(()) => {
                        flow.tally.datagrams_in(1, u64::from(len));
                        extras.was_sent(payload);
                    }
                    Err(error) if is_refusal(&error) => {
                        result = Err(at);
                        break 'slots;
                    }
                    Err(_) => flow.dropped(1, EndReason::DatagramUnsent),
                }
            }
        }
        flow.extras = Some(extras);
        result
    }

    fn send_anew(&mut self, group: &[(u32, u32)], scratch: &mut Scratch, now: u64) {
        let Some((_, slot)) = group.first() else { return };
        let Some(key) = self.key_of(&scratch.batch.received(*slot)) else { return };
        if self.table.client_datagram(&key, now).is_none()
            && let Some(id) = self.start(key, None, now)
        {
            let _ = self.send_to_backend(id, group, scratch, now);
        }
    }
}
