//! How a flow comes to be: by the same way as a connection, through access and limits, rule, pool and backend.

use std::{io, net::SocketAddr, rc::Rc};

use awe4lb_engine::{
    affinity::Membership,
    client_hello::{Alpn, ClientHello, ServerName},
    flows::{FlowId, FlowKey, FlowPermit, Place},
    proxy_protocol::{Outgoing, Version},
    route::Facts,
};
use awe4lb_model::{EndReason, ProxyDatagrams, UdpSettings};
use rand::RngCore;

use super::{
    super::{
        connection::Ending,
        counters::Open,
        gate::AdmittedFlow,
        local::{Chosen, Hashable, LocalListener, LocalPool, LocalRule, Tally},
        worker::Worker,
    },
    carriers::Carriers,
    extras::{Extras, Introduction, Replies},
    flow::{Flow, LONGEST_IN_RUN, tag_of},
    mirror::Mirror,
    server::Server,
    upstream::Upstream,
};
use crate::control::hot::ConnectionState;

/// Flows that make room for others, of one batch of datagrams.
const EVICTIONS: u32 = 4;

impl Server<'_> {
    /// A flow for a client that has none, with its first datagram; `None` when it was refused, and counted as such.
    pub(super) fn start(&mut self, key: FlowKey, hello: Option<&ClientHello>, now: u64) -> Option<FlowId> {
        if !self.worker.is_accepting() {
            return None;
        }
        let worker = self.worker.clone();
        let listener = self.listener.clone();
        if !can_be_answered(&worker, &key) {
            listener.counters.dropped(1, EndReason::DatagramBadSource);
            return None;
        }
        let place = match self.let_in(&listener, &key, now) {
            Ok(place) => place,
            Err(reason) => {
                // Nothing was made for it; it is counted all the same.
                let _open = Open::new(&listener.counters);
                listener.counters.end(reason);
                return None;
            }
        };
        let newcomer = Newcomer {
            worker: &worker,
            listener: &listener,
            key,
            port: self.entrance.key.address.port(),
            share: self.own_sockets >= self.own_most,
            carriers: &self.carriers,
            answers: self.answers.clone(),
            udp: self.settings,
            now,
        };
        let flow = newcomer.route(place, hello)?;
        let is_own = flow.upstream.is_own();
        let id = self.table.start(key, now, flow);
        self.own_sockets += u32::from(is_own);
        let flow = self.table.value(id)?;
        if flow.upstream.watch(worker.reactor(), &self.answers, tag_of(id)).is_err() {
            self.end(id, EndReason::ResourceExhausted);
            return None;
        }
        Some(id)
    }

    /// Access rules, rates and the number of flows, in the order of what they cost.
    fn let_in(&mut self, listener: &LocalListener, key: &FlowKey, now: u64) -> Result<Admission, EndReason> {
        let client = key.client.ip();
        let gate = listener.run.gate.as_deref();
        if let Some(gate) = gate {
            gate.at_accept(Some(client), now, &listener.counters)?;
        }
        let permit = match listener.run.flows.take(client, listener.run.client_prefix, &self.settings) {
            Place::Free(permit) => permit,
            Place::ClientFull => return Err(EndReason::ClientFlowLimit),
            Place::InsteadOfAnother(permit) => {
                // A flood may not spend our time: who waits in the queue behind it is served as well.
                self.evictions += 1;
                let may_evict = self.evictions <= EVICTIONS;
                let evicted = may_evict.then(|| self.table.evict()).flatten();
                let evicted = evicted.ok_or(EndReason::FlowTableFull)?;
                self.forget(evicted.value, evicted.reason);
                permit
            }
        };
        let admitted = match gate {
            Some(gate) => gate.enter_flow(client, now)?,
            None => None,
        };
        Ok(Admission { permit, admitted })
    }
}

/// A place for a flow.
struct Admission {
    permit: FlowPermit,
    admitted: Option<Box<AdmittedFlow>>,
}

/// Nobody is at these addresses, or everybody, or we are: an answer there would come back as a question, for ever.
fn can_be_answered(worker: &Worker, key: &FlowKey) -> bool {
    is_a_host(key.client) && !worker.listens_on(key.client, key.local)
}

fn is_a_host(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// A client that has no flow yet, on its way to one. Counts as a refused flow when it gets none.
struct Newcomer<'a> {
    worker: &'a Rc<Worker>,
    listener: &'a Rc<LocalListener>,
    key: FlowKey,
    port: u16,
    /// Whether its flow shares a socket with others.
    share: bool,
    carriers: &'a Carriers,
    answers: Rc<super::super::reactor::ReadyList>,
    udp: UdpSettings,
    now: u64,
}

impl Newcomer<'_> {
    /// Finds the rule, the pool and a backend, as for a connection.
    fn route(self, place: Admission, hello: Option<&ClientHello>) -> Option<Flow> {
        let (worker, run) = (self.worker, &self.listener.run);
        let client = self.key.client.ip();
        let entry = worker.journal().begin(self.now, self.key.client, run.number.0, true);
        let ending = Ending::new(self.listener.counters.clone()).noted(worker, &entry, run.access_log);
        let open = Open::new(&self.listener.counters);
        let name = hello.and_then(|hello| hello.server_name.as_ref()).map(ServerName::as_str);
        if let Some(name) = name {
            entry.set_server_name(name);
        }
        let facts = Facts {
            client,
            peer: client,
            port: self.port,
            is_tls: hello.is_some(),
            server_name: name,
            alpn: hello.map_or(&Alpn::EMPTY, |hello| &hello.alpn),
        };
        let rule = run.table.route(&facts);
        let Some((rule, of)) = rule.and_then(|at| Some((self.listener.rules.get(at)?, run.rules.get(at)?)))
        else {
            ending.because(EndReason::NoRule);
            return None;
        };
        entry.rule.set(of.number.0);
        let rule_open = Open::new(&rule.counters);
        ending.also(&rule.counters);
        let Some(pool) = rule.target(client, name, &mut worker.rng()).cloned() else {
            ending.because(EndReason::RuleReject);
            return None;
        };
        entry.pool.set(pool.state.number());
        entry.state.set(ConnectionState::Dialling);
        let pool_open = Open::new(&pool.counters);
        ending.also(&pool.counters);
        let (chosen, upstream, membership) = match self.connect(&pool, name) {
            Ok(connected) => connected,
            Err(reason) => {
                ending.because(reason);
                return None;
            }
        };
        entry.backend.set(chosen.permit.member().number.0);
        entry.place_of_backend.set(chosen.permit.member().place);
        entry.state.set(ConnectionState::Open);
        let backend_open = Open::new(&chosen.counters);
        ending.also(&chosen.counters);
        let extras = Extras {
            admitted: place.admitted,
            introduction: self.introduction(&chosen),
            replies: self.udp.max_reply_ratio.map(Replies::new),
            membership,
            mirror: self.mirror(rule, name).map(Box::new),
        };
        Some(Flow {
            upstream,
            tally: Tally {
                listener: self.listener.counters.clone(),
                rule: rule.counters.clone(),
                pool: pool.counters.clone(),
                backend: chosen.counters,
                entry: Some(entry),
            },
            pool,
            permit: chosen.permit,
            extras: extras.boxed(),
            learnt: None,
            begun: self.now,
            answered: false,
            round: 0,
            place_in_round: 0,
            last_burst: 1,
            longest_in: LONGEST_IN_RUN,
            longest_out: LONGEST_IN_RUN,
            ending,
            _open: [open, rule_open, pool_open, backend_open],
            _open_here: worker.open(),
            _place: place.permit,
        })
    }

    /// Candidates in the pool's order until a socket could be made to one. Whether anybody listens there shows later.
    fn connect(
        &self,
        pool: &LocalPool,
        server_name: Option<&str>,
    ) -> Result<(Chosen, Upstream, Option<Membership>), EndReason> {
        let (worker, run) = (self.worker, &self.listener.run);
        let client = self.key.client.ip();
        let group = run.affinity.as_ref();
        let hashable = Hashable {
            client: self.key.client,
            server_name,
            listener: run.name.as_str(),
            preferred: group.and_then(|(group, ttl)| group.backend_of(client, self.now, *ttl)),
        };
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let chosen = pool.choose(&mut tried, &hashable, &mut worker.rng(), worker.counters());
            let chosen = chosen.map_err(|none| last.unwrap_or(none))?;
            let settings = &chosen.members.placed.pool;
            let random = worker.rng().next_u64();
            let address = chosen.permit.member().address(self.port, random);
            let reason = match address.map(|to| self.upstream(to, settings.preserve_client_address)) {
                Some(Ok(upstream)) => {
                    let seed = chosen.members.view.seed_of(chosen.index as usize);
                    let membership =
                        group.zip(seed).map(|((group, ttl), seed)| group.join(client, seed, self.now, *ttl));
                    return Ok((chosen, upstream, membership));
                }
                Some(Err(error)) => reason(&error),
                None => EndReason::NoBackend,
            };
            chosen.counters.end(reason);
            if reason != EndReason::ResourceExhausted {
                pool.state.dial_failed(chosen.permit.member());
            }
            tried.push(chosen.index);
            if tried.len() >= settings.connect.attempts as usize {
                return Err(reason);
            }
            last = Some(reason);
        }
    }

    /// Copies for another pool, if the rule says so, this flow is one of the sample, and anybody is there.
    fn mirror(&self, rule: &LocalRule, server_name: Option<&str>) -> Option<Mirror> {
        let (worker, run) = (self.worker, &self.listener.run);
        let pool = rule.mirror(&mut worker.rng())?;
        let hashable =
            Hashable { client: self.key.client, server_name, listener: run.name.as_str(), preferred: None };
        let chosen = pool.choose(&mut Vec::new(), &hashable, &mut worker.rng(), worker.counters());
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(reason) => {
                pool.counters.dropped(1, reason);
                return None;
            }
        };
        let to = chosen.permit.member().address(self.port, worker.rng().next_u64());
        let to = to.filter(|to| is_a_host(*to) && !worker.listens_on(*to, self.key.local))?;
        let introduction = self.introduction(&chosen);
        let counters = chosen.counters.clone();
        let mirror = Mirror::to(to, pool.clone(), chosen, introduction);
        mirror.map_err(|error| counters.dropped(1, reason(&error))).ok()
    }

    fn upstream(&self, to: SocketAddr, as_client: bool) -> io::Result<Upstream> {
        if !is_a_host(to) || self.worker.listens_on(to, self.key.local) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if self.share && !as_client {
            let lane = self.carriers.lane(to, self.udp.ecn, self.worker.reactor(), &self.answers)?;
            return Ok(Upstream::Shared(lane));
        }
        // A run of answers is one message: where answers are counted they have to be told apart.
        let runs = self.udp.max_responses.is_none();
        Upstream::connect(to, as_client.then_some(self.key.client), runs, self.udp.ecn)
    }

    fn introduction(&self, chosen: &Chosen) -> Option<Introduction> {
        let pool = &chosen.members.placed.pool;
        pool.proxy_protocol?;
        let mut header = Vec::with_capacity(64);
        Outgoing {
            version: Version::V2,
            is_local: false,
            is_datagram: true,
            source: self.key.client,
            destination: SocketAddr::new(self.key.local, self.port),
            tlvs: &[],
        }
        .write(&mut header);
        let every = pool.proxy_datagrams == ProxyDatagrams::Every;
        Some(Introduction { header, every, was_sent: false })
    }
}

fn reason(error: &io::Error) -> EndReason {
    match error.raw_os_error() {
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAGAIN,
        ) => EndReason::ResourceExhausted,
        _ => EndReason::DialFailed,
    }
}
