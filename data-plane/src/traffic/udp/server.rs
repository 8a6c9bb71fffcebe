//! One listening socket on one worker, and the flows that came in through it.

use std::{
    io,
    net::IpAddr,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use awe4lb_engine::flows::{FlowId, FlowKey, FlowTable};
use awe4lb_model::{EndReason, UdpSettings};

use super::{
    super::{
        local::LocalListener,
        reactor::{ReadyList, Token},
        timers::{TICK, Timer},
        worker::Worker,
    },
    Entrance,
    flow::{Flow, Newcomer, id_of, tag_of},
    limits::Place,
    runs::Way,
    send::{Fate, Scratch, is_refusal, send_all},
};
use crate::sys::mmsg::{self, SLOTS, Source};

/// Batches from clients, and backends that are read, before others get their turn.
const BATCHES: usize = 4;
const BACKENDS: usize = 256;
/// Fewer free slots than this, and answers are sent before more are read.
const ROOM: usize = 8;
/// How often flows are looked at for their end.
const SWEEP: Duration = Duration::from_millis(500);
/// While the node goes, a flow that was silent for this long holds it up no more.
const DRAIN_IDLE: Duration = Duration::from_secs(2);

pub(super) struct Server<'a> {
    worker: Rc<Worker>,
    entrance: Entrance,
    listener: Rc<LocalListener>,
    socket: &'a OwnedFd,
    token: Token,
    /// Flows by the address of ours that clients chose: the only one, unless the socket is bound to all.
    bound: Option<IpAddr>,
    table: FlowTable<Flow>,
    settings: UdpSettings,
    answers: Rc<ReadyList>,
    sweep: Option<Timer>,
    round: u32,
}

impl<'a> Server<'a> {
    pub(super) fn new(worker: Rc<Worker>, entrance: Entrance, socket: &'a OwnedFd, token: Token) -> Self {
        let ip = entrance.key.address.ip();
        let bound = (!ip.is_unspecified()).then_some(ip);
        if bound.is_none()
            && let Err(error) = mmsg::ask_for_local_address(socket.as_fd(), ip.is_ipv6())
        {
            tracing::error!(address = %entrance.key.address, %error, "answers may leave from another address than was asked");
        }
        // Without it datagrams come one by one, which is only slower.
        let _ = mmsg::ask_for_runs(socket.as_fd());
        let listener = entrance.listener.borrow().clone();
        let settings = listener.run.udp;
        Self {
            worker,
            entrance,
            listener,
            socket,
            token,
            bound,
            table: FlowTable::new(settings),
            settings,
            answers: Rc::default(),
            sweep: None,
            round: 0,
        }
    }

    /// Never ready.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.load_configuration();
        let worker = self.worker.clone();
        let now = worker.timers().now();
        let scratch = &mut *worker.udp_scratch();
        let more_answers = self.receive_from_backends(scratch, now);
        let more_questions = self.receive_from_clients(scratch, now);
        self.sweep(now, cx);
        if more_answers || more_questions {
            cx.waker().wake_by_ref();
        } else {
            worker.reactor().wake_with(self.token, cx);
            self.answers.wake_with(cx);
        }
        Poll::Pending
    }

    /// Flows that are there keep what they started with; their limits are those of now.
    fn load_configuration(&mut self) {
        let listener = self.entrance.listener.borrow();
        if !Rc::ptr_eq(&listener, &self.listener) {
            self.listener = listener.clone();
        }
        let mut settings = self.listener.run.udp;
        if !self.worker.is_accepting() {
            settings.idle_timeout = settings.idle_timeout.min(DRAIN_IDLE);
            settings.unanswered_timeout = settings.unanswered_timeout.min(DRAIN_IDLE);
        }
        if settings != self.settings {
            self.settings = settings;
            self.table.set_settings(settings);
        }
    }

    /// Takes what clients sent. True: there may be more.
    fn receive_from_clients(&mut self, scratch: &mut Scratch, now: u64) -> bool {
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
        let Scratch { batch, items, flows, .. } = scratch;
        items.clear();
        flows.clear();
        let mut last: Option<(FlowKey, u32)> = None;
        let mut in_order = true;
        for slot in slots {
            let received = batch.received(slot);
            let Some(client) = received.from.filter(|from| from.port() != 0 && !received.truncated) else {
                continue;
            };
            let Some(local) = self.bound.or(received.local) else { continue };
            let key = FlowKey { client, local };
            let place = match last {
                Some((of, place)) if of == key => place,
                _ => {
                    let Some(place) = self.place_in_round(key, flows, now) else { continue };
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

    fn place_in_round(&mut self, key: FlowKey, flows: &mut Vec<FlowId>, now: u64) -> Option<u32> {
        let round = self.round;
        let next = flows.len() as u32;
        if let Some((id, flow)) = self.table.client_datagram(&key, now) {
            if flow.round != round {
                (flow.round, flow.place_in_round) = (round, next);
                flows.push(id);
            }
            return Some(flow.place_in_round);
        }
        let id = self.start(key, now)?;
        if let Some(flow) = self.table.value(id) {
            (flow.round, flow.place_in_round) = (round, next);
        }
        flows.push(id);
        Some(next)
    }

    /// A flow for a client that has none; `None` when it was refused, and counted as such.
    fn start(&mut self, key: FlowKey, now: u64) -> Option<FlowId> {
        if !self.worker.is_accepting() {
            return None;
        }
        let worker = self.worker.clone();
        let listener = self.listener.clone();
        let newcomer = Newcomer::new(&worker, &listener, key);
        let udp = self.settings;
        let (place, max_flows) =
            match listener.run.flows.take(key.client.ip(), udp.max_flows, udp.max_flows_per_client) {
                Place::Free(place) => (place, udp.max_flows),
                // The table makes room by the same rule as when it were full itself.
                Place::InsteadOfAnother(place) if self.table.can_evict() => (place, self.table.len() as u32),
                Place::InsteadOfAnother(_) => {
                    newcomer.refuse(EndReason::FlowTableFull);
                    return None;
                }
                Place::ClientFull => {
                    newcomer.refuse(EndReason::ClientFlowLimit);
                    return None;
                }
            };
        let flow = newcomer.route(place, self.entrance.key.address.port())?;
        self.table.set_settings(UdpSettings { max_flows, ..udp });
        let started = self.table.start(key, now, flow);
        self.table.set_settings(udp);
        let id = match started {
            Ok((id, evicted)) => {
                if let Some(evicted) = evicted {
                    evicted.value.end(evicted.reason);
                }
                id
            }
            Err((reason, flow)) => {
                flow.end(reason);
                return None;
            }
        };
        let flow = self.table.value(id)?;
        if flow.upstream.watch(worker.reactor(), &self.answers, tag_of(id)).is_err() {
            self.end(id, EndReason::ResourceExhausted);
            return None;
        }
        Some(id)
    }

    fn end(&mut self, id: FlowId, reason: EndReason) {
        if let Some(ended) = self.table.end(id, reason) {
            ended.value.end(reason);
        }
    }

    /// Sends what was sorted.
    fn send_to_backends(&mut self, scratch: &mut Scratch, now: u64) {
        let items = std::mem::take(&mut scratch.items);
        for group in items.chunk_by(|a, b| a.0 == b.0) {
            let Some(id) = group.first().and_then(|(place, _)| scratch.flows.get(*place as usize).copied())
            else {
                continue;
            };
            if let Err(sent) = self.send_to_backend(id, group, scratch) {
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
    ) -> Result<(), usize> {
        let Some(flow) = self.table.value(id) else { return Ok(()) };
        let Scratch { batch, outbox, runs, .. } = scratch;
        if let [(_, slot)] = group {
            let received = batch.received(*slot);
            if received.segment == received.len {
                return match mmsg::send_one(flow.upstream.fd(), batch.payload(*slot, 0, received.len)) {
                    Ok(()) => {
                        flow.tally.datagrams_in(1, u64::from(received.len));
                        Ok(())
                    }
                    Err(error) if is_refusal(&error) => Err(0),
                    // Lost on our side, as UDP may.
                    Err(_) => Ok(()),
                };
            }
        }
        runs.clear();
        let way = Way { flow: id, to: None, from: None, longest: flow.longest_in };
        for (_, slot) in group {
            runs.add(&way, &batch.received(*slot));
        }
        let (upstream, tally, longest) = (&flow.upstream, &flow.tally, &mut flow.longest_in);
        let mut sent_slots = 0;
        let result = send_all(outbox, upstream.fd(), batch, runs, |_, fate| match fate {
            Fate::Sent { bytes, datagrams } => tally.datagrams_in(u64::from(datagrams), u64::from(bytes)),
            Fate::TooLongForRun(each) => *longest = each.saturating_sub(1) as u16,
            Fate::Refused | Fate::Dropped => {}
        });
        if let Err(at) = result {
            // Pieces of a run are at most one a slot, but a slot may be several pieces: what was sent is not sent again.
            let first_left = runs.runs()[at].first_piece as usize;
            let slot = runs.pieces()[first_left].slot;
            sent_slots = group.iter().position(|(_, of)| *of == slot).unwrap_or(group.len());
        }
        result.map_err(|_| sent_slots)
    }

    fn send_anew(&mut self, group: &[(u32, u32)], scratch: &mut Scratch, now: u64) {
        let Some((_, slot)) = group.first() else { return };
        let received = scratch.batch.received(*slot);
        let (Some(client), Some(local)) = (received.from, self.bound.or(received.local)) else { return };
        if let Some(id) = self.start(FlowKey { client, local }, now) {
            let _ = self.send_to_backend(id, group, scratch);
        }
    }

    /// Takes what backends answered. True: there may be more.
    fn receive_from_backends(&mut self, scratch: &mut Scratch, now: u64) -> bool {
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
            if !self.receive_from_backend(tag, scratch, now) {
                self.answers.push(tag);
            }
        }
        self.send_to_clients(scratch);
        !self.answers.is_empty()
    }

    /// Reads one backend's socket once. False: there may be more.
    fn receive_from_backend(&mut self, tag: u64, scratch: &mut Scratch, now: u64) -> bool {
        let id = id_of(tag);
        // One that has ended is listed still.
        let Some(flow) = self.table.value(id) else { return true };
        let most = (flow.last_burst as usize * 2).clamp(ROOM, scratch.batch.room());
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
        let wildcard = self.bound.is_none();
        if let Some((key, flow)) = self.table.backend_datagram(id, now) {
            flow.last_burst = slots.len() as u32;
            if !flow.answered {
                flow.answered = true;
                flow.pool.state.dial_succeeded(flow.permit.member(), None);
            }
            let from = wildcard.then_some(key.local);
            let way = Way { flow: id, to: Some(key.client), from, longest: flow.longest_out };
            for slot in slots.clone() {
                scratch.runs.add(&way, &scratch.batch.received(slot));
            }
        }
        slots.len() < most
    }

    /// Sends what was gathered for clients.
    fn send_to_clients(&mut self, scratch: &mut Scratch) {
        let Scratch { batch, outbox, runs, .. } = scratch;
        let table = &mut self.table;
        let socket: BorrowedFd<'_> = self.socket.as_fd();
        let mut left = Ok(());
        if !runs.is_empty() {
            left = send_all(outbox, socket, batch, runs, |id, fate| {
                let Some(flow) = table.value(id) else { return };
                match fate {
                    Fate::Sent { bytes, datagrams } => {
                        flow.tally.datagrams_out(u64::from(datagrams), u64::from(bytes));
                    }
                    Fate::TooLongForRun(each) => flow.longest_out = each.saturating_sub(1) as u16,
                    Fate::Refused | Fate::Dropped => {}
                }
            });
        }
        let _ = left;
        batch.clear();
        runs.clear();
    }

    /// The backend's host says that nobody listens: it counts against the backend, and the client gets another one with
    /// its next datagram.
    fn refused(&mut self, id: FlowId) {
        if let Some(flow) = self.table.value(id) {
            flow.pool.state.dial_failed(flow.permit.member());
            let reason = if flow.answered { EndReason::BackendReset } else { EndReason::DialFailed };
            self.end(id, reason);
        }
    }

    /// Ends flows whose time is up, now and then while there are any.
    fn sweep(&mut self, now: u64, cx: &Context<'_>) {
        while let Some(timer) = &self.sweep {
            if timer.poll_fired(cx).is_pending() {
                return;
            }
            self.sweep = None;
            // A datagram may have come up to a tick after the clock that its flow was stamped with.
            let until = now.saturating_sub(u64::try_from(TICK.as_millis()).unwrap_or(0));
            while let Some(ended) = self.table.expired(until) {
                ended.value.end(ended.reason);
            }
            self.arm();
        }
        self.arm();
        if let Some(timer) = &self.sweep {
            // Armed just now: it cannot have fired, and it must know whom to wake.
            let _ = timer.poll_fired(cx);
        }
    }

    fn arm(&mut self) {
        if !self.table.is_empty() {
            let shortest = self.settings.idle_timeout.min(self.settings.unanswered_timeout);
            self.sweep = Some(self.worker.timers().arm((shortest / 4).min(SWEEP)));
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let reason =
            if self.worker.is_accepting() { EndReason::ListenerRemoved } else { EndReason::Shutdown };
        for id in self.table.ids() {
            self.end(id, reason);
        }
    }
}
