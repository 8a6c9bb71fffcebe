//! One flow: how it comes to be, what it holds, how it ends.

use std::{io, net::SocketAddr, rc::Rc};

use awe4lb_engine::{
    client_hello::Alpn,
    flows::{FlowId, FlowKey},
    route::Facts,
};
use awe4lb_model::EndReason;
use rand::RngCore;

use super::{
    super::{
        connection::Ending,
        counters::Open,
        local::{Chosen, Hashable, LocalListener, LocalPool, Tally},
        pool::Permit,
        worker::{OpenHere, Worker},
    },
    limits::FlowPermit,
    upstream::Upstream,
};

/// The longest datagram that is tried in a run: most networks carry no longer ones whole.
const LONGEST_IN_RUN: u16 = 60_000;

/// A client's association with a backend.
pub(super) struct Flow {
    pub(super) upstream: Upstream,
    pub(super) pool: Rc<LocalPool>,
    pub(super) permit: Permit,
    pub(super) tally: Tally,
    pub(super) answered: bool,
    /// The round in which it was last sent to, and its place among the flows of that round.
    pub(super) round: u32,
    pub(super) place_in_round: u32,
    /// Messages that its backend had at once, the last time.
    pub(super) last_burst: u32,
    /// The longest datagram that may go out in a run to the backend, and to the client.
    pub(super) longest_in: u16,
    pub(super) longest_out: u16,
    ending: Ending,
    _open: [Open; 4],
    _open_here: OpenHere,
    _place: FlowPermit,
}

impl Flow {
    /// The reason counts when it is dropped, which is at once.
    pub(super) fn end(self, reason: EndReason) {
        self.ending.because(reason);
    }
}

/// As listed when its backend has sent something.
pub(super) fn tag_of(id: FlowId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

pub(super) fn id_of(tag: u64) -> FlowId {
    FlowId { index: tag as u32, generation: (tag >> 32) as u32 }
}

/// A client that has no flow yet, on its way to one. Counts as a refused flow when it gets none.
pub(super) struct Newcomer<'a> {
    worker: &'a Rc<Worker>,
    listener: &'a Rc<LocalListener>,
    key: FlowKey,
    ending: Ending,
    open: Open,
    open_here: OpenHere,
}

impl<'a> Newcomer<'a> {
    pub(super) fn new(worker: &'a Rc<Worker>, listener: &'a Rc<LocalListener>, key: FlowKey) -> Self {
        Self {
            worker,
            listener,
            key,
            ending: Ending::new(listener.counters.clone()),
            open: Open::new(&listener.counters),
            open_here: worker.open(),
        }
    }

    pub(super) fn refuse(self, reason: EndReason) {
        self.ending.because(reason);
    }

    /// Finds the rule, the pool and a backend, as for a connection.
    pub(super) fn route(self, place: FlowPermit, listener_port: u16) -> Option<Flow> {
        let client = self.key.client.ip();
        let run = &self.listener.run;
        let facts = Facts {
            client,
            peer: client,
            port: listener_port,
            is_tls: false,
            server_name: None,
            alpn: &Alpn::EMPTY,
        };
        let Some(rule) = run.table.route(&facts).and_then(|at| self.listener.rules.get(at)) else {
            self.refuse(EndReason::NoRule);
            return None;
        };
        let rule_open = Open::new(&rule.counters);
        self.ending.also(&rule.counters);
        let Some(pool) = rule.target(client, None, &mut self.worker.rng()).cloned() else {
            self.refuse(EndReason::RuleReject);
            return None;
        };
        let pool_open = Open::new(&pool.counters);
        self.ending.also(&pool.counters);
        let hashable = Hashable { client: self.key.client, server_name: None, listener: run.name.as_str() };
        let (chosen, upstream) = match connect(self.worker, &pool, &hashable, listener_port) {
            Ok(connected) => connected,
            Err(reason) => {
                self.refuse(reason);
                return None;
            }
        };
        let backend_open = Open::new(&chosen.counters);
        self.ending.also(&chosen.counters);
        Some(Flow {
            upstream,
            tally: Tally {
                listener: self.listener.counters.clone(),
                rule: rule.counters.clone(),
                pool: pool.counters.clone(),
                backend: chosen.counters,
                entry: None,
            },
            pool,
            permit: chosen.permit,
            answered: false,
            round: 0,
            place_in_round: 0,
            last_burst: 1,
            longest_in: LONGEST_IN_RUN,
            longest_out: LONGEST_IN_RUN,
            ending: self.ending,
            _open: [self.open, rule_open, pool_open, backend_open],
            _open_here: self.open_here,
            _place: place,
        })
    }
}

/// Candidates in the pool's order until a socket could be made to one. Whether anybody listens there shows later.
fn connect(
    worker: &Rc<Worker>,
    pool: &LocalPool,
    hashable: &Hashable<'_>,
    listener_port: u16,
) -> Result<(Chosen, Upstream), EndReason> {
    let (mut tried, mut last) = (Vec::new(), None);
    loop {
        let chosen = pool.choose(&mut tried, hashable, &mut worker.rng(), worker.counters());
        let chosen = chosen.map_err(|none| last.unwrap_or(none))?;
        let random = worker.rng().next_u64();
        let address: Option<SocketAddr> = chosen.permit.member().address(listener_port, random);
        let reason = match address.map(Upstream::connect) {
            Some(Ok(upstream)) => return Ok((chosen, upstream)),
            Some(Err(error)) => reason(&error),
            None => EndReason::NoBackend,
        };
        chosen.counters.end(reason);
        if reason != EndReason::ResourceExhausted {
            pool.state.dial_failed(chosen.permit.member());
        }
        tried.push(chosen.index);
        if tried.len() >= chosen.members.placed.pool.connect.attempts as usize {
            return Err(reason);
        }
        last = Some(reason);
    }
}

fn reason(error: &io::Error) -> EndReason {
    match error.raw_os_error() {
        Some(
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN,
        ) => EndReason::ResourceExhausted,
        _ => EndReason::DialFailed,
    }
}
