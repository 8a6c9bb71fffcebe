//! QUIC without ending it: flows by the server name of the first packets, and flows that follow their client.

use std::{collections::HashMap, sync::Arc};

use awe4lb_engine::{
    flows::{FlowId, FlowKey},
    quic::{InitialSniffer, Sniff, source_ids},
};
use awe4lb_model::EndReason;

use super::{
    super::counters::Open,
    connection_ids::{ConnectionIds, Learnt, Letter, Mailbox},
    flow::Flow,
    send::is_refusal,
    server::Server,
};
use crate::sys::mmsg::{self, Ecn};

/// Clients of a socket and worker whose hello is not complete.
const PENDING: usize = 1_024;
/// Datagrams that wait with it: a hello of post-quantum size is two, and early data comes along.
const DATAGRAMS: usize = 8;
/// How long they wait, in milliseconds: a client repeats what was not answered within a second.
const PATIENCE: u64 = 3_000;

/// What a server knows of QUIC.
pub(super) struct Quic {
    ids: Arc<ConnectionIds>,
    pub(super) mailbox: Arc<Mailbox>,
    pending: HashMap<FlowKey, Pending>,
    /// Whether rules ask for what a hello says.
    pub(super) reads_hellos: bool,
}

struct Pending {
    sniffer: InitialSniffer,
    datagrams: Vec<Box<[u8]>>,
    since: u64,
}

/// Datagrams of a client that came as one; a hello of two is often such a run.
#[derive(Clone, Copy)]
pub(super) struct ClientRun<'a> {
    pub(super) bytes: &'a [u8],
    /// How long each is, but for the last.
    pub(super) each: usize,
}

impl<'a> ClientRun<'a> {
    fn first(self) -> &'a [u8] {
        self.bytes.get(..self.each).unwrap_or(self.bytes)
    }

    pub(super) fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.each.max(1))
    }
}

/// What a run of a client without a flow comes to.
pub(super) enum Arrival {
    /// It belongs to this flow, and goes the way of all datagrams.
    Of(FlowId),
    /// It was dealt with.
    Done,
    /// A flow of its own.
    New,
}

impl Quic {
    pub(super) fn new(ids: &Arc<ConnectionIds>, reads_hellos: bool) -> Self {
        Self { ids: ids.clone(), mailbox: Arc::default(), pending: HashMap::new(), reads_hellos }
    }

    /// Notes the ids that a backend says in its first answers.
    pub(super) fn learn(&self, flow: &mut Flow, id: FlowId, datagram: &[u8]) {
        if datagram.first().is_some_and(|first| first & 0x80 != 0) {
            let learnt = flow.learnt.get_or_insert_with(|| Box::new(Learnt::new(&self.ids)));
            source_ids(datagram).for_each(|source| learnt.learn(source, &self.mailbox, id));
        }
    }
}

impl Server<'_> {
    /// A QUIC listener's datagrams of a client that has no flow.
    pub(super) fn arrive(&mut self, key: FlowKey, run: ClientRun<'_>, now: u64) -> Arrival {
        let Some(quic) = &mut self.quic else { return Arrival::New };
        if let Some(owner) = quic.ids.owner(run.first()) {
            if !Arc::ptr_eq(&owner.mailbox, &quic.mailbox) {
                // The kernel gives the client's new port to another worker: its flow stays where it is.
                let letter = |datagram: &[u8]| Letter { flow: owner.flow, key, payload: datagram.into() };
                let lost = run.datagrams().filter(|datagram| !owner.mailbox.post(letter(datagram))).count();
                self.listener.counters.dropped(lost as u64, EndReason::DatagramUnsent);
                return Arrival::Done;
            }
            if self.table.rebind(owner.flow, key) {
                return Arrival::Of(owner.flow);
            }
        }
        let Some(quic) = &mut self.quic else { return Arrival::New };
        if !quic.reads_hellos {
            return Arrival::New;
        }
        let mut pending = quic.pending.remove(&key).unwrap_or_else(|| Pending {
            sniffer: InitialSniffer::default(),
            datagrams: Vec::new(),
            since: now,
        });
        let more = |sniff: &Sniff| *sniff == Sniff::NeedMore;
        let mut fed = run.datagrams().map(|datagram| pending.sniffer.feed(datagram)).skip_while(more);
        match fed.next().unwrap_or(Sniff::NeedMore) {
            Sniff::Hello(hello) => self.begin(key, Some(&hello), pending.datagrams, now),
            Sniff::NotQuic => self.begin(key, None, pending.datagrams, now),
            Sniff::NeedMore if pending.datagrams.len() < DATAGRAMS && quic.pending.len() < PENDING => {
                // Early data beyond that is sent again by its client.
                let room = DATAGRAMS - pending.datagrams.len();
                pending.datagrams.extend(run.datagrams().take(room).map(Box::from));
                quic.pending.insert(key, pending);
                Arrival::Done
            }
            Sniff::NeedMore | Sniff::Malformed | Sniff::TooLarge => {
                let _open = Open::new(&self.listener.counters);
                self.listener.counters.end(EndReason::BadInitial);
                Arrival::Done
            }
        }
    }

    /// A flow by what the hello says; what waited for it goes first.
    fn begin(
        &mut self,
        key: FlowKey,
        hello: Option<&awe4lb_engine::client_hello::ClientHello>,
        waiting: Vec<Box<[u8]>>,
        now: u64,
    ) -> Arrival {
        let Some(id) = self.start(key, hello, now) else { return Arrival::Done };
        for datagram in waiting {
            self.send_single(id, &datagram, now);
        }
        Arrival::Of(id)
    }

    /// Datagrams that came in at other workers and belong to flows of this one.
    pub(super) fn receive_letters(&mut self, now: u64) {
        let Some(quic) = &self.quic else { return };
        for Letter { flow, key, payload } in quic.mailbox.take() {
            if self.table.key(flow).is_some_and(|of| of != key) {
                self.table.rebind(flow, key);
            }
            self.table.client_datagram(&key, now);
            self.send_single(flow, &payload, now);
        }
    }

    /// Sends one datagram of a flow, by itself.
    pub(super) fn send_single(&mut self, id: FlowId, payload: &[u8], now: u64) {
        let Some(flow) = self.table.value(id) else { return };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if let Some(extras) = &mut flow.extras
            && let Err(why) = extras.takes(1, length, flow.answered, now)
        {
            return flow.dropped(1, why);
        }
        let head = flow.extras.as_mut().map(|extras| extras.head()).unwrap_or_default();
        match mmsg::send_parts(flow.upstream.fd(), flow.upstream.to(), head, payload, Ecn::default()) {
            Ok(()) => {
                flow.tally.datagrams_in(1, u64::from(length));
                if let Some(extras) = &mut flow.extras {
                    extras.was_sent(payload);
                }
            }
            Err(error) if is_refusal(&error) => self.refused(id),
            Err(_) => flow.dropped(1, EndReason::DatagramUnsent),
        }
    }

    /// Hellos that will not be completed any more.
    pub(super) fn forget_pending(&mut self, now: u64) {
        let Some(quic) = &mut self.quic else { return };
        let before = quic.pending.len();
        quic.pending.retain(|_, pending| now.saturating_sub(pending.since) < PATIENCE);
        for _ in quic.pending.len()..before {
            let _open = Open::new(&self.listener.counters);
            self.listener.counters.end(EndReason::BadInitial);
        }
    }

    /// Whether a sweep has to come although there is no flow.
    pub(super) fn has_pending(&self) -> bool {
        self.quic.as_ref().is_some_and(|quic| !quic.pending.is_empty())
    }
}
