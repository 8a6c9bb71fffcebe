//! The way of a connection: accepted, routed, dialled, copied, counted.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32, atomic::Ordering::Relaxed},
    task::Poll,
    time::Instant,
};

use awe4lb_engine::{
    client_hello::{Alpn, ClientHello, ServerName, Sniff, sniff},
    route::Facts,
};
use awe4lb_model::{EndReason, Preamble, Side};

use crate::control::hot::ConnectionState;

use super::{
    challenges,
    counters::{Counters, Open},
    dial::{Dialled, dial},
    gate::Guard,
    journal::Entry,
    local::{Hashable, LocalListener, LocalRule, Tally},
    preamble, proxy,
    pump::{self, Broken},
    sni,
    socket::Socket,
    timers::Timer,
    tls::{REFUSAL_ALERT, TlsSession},
    tls_pump,
    worker::Worker,
};

/// Serves one client until the end. Whatever the way, exactly one reason is counted.
pub(super) async fn serve(
    worker: Rc<Worker>,
    fd: OwnedFd,
    client_address: SocketAddr,
    listener_port: u16,
    listener: Rc<LocalListener>,
) {
    let _here = worker.open();
    let _open = Open::new(&listener.counters);
    let entry = worker.journal().begin(worker.timers().now(), client_address, listener.run.number.0, false);
    let ending = Ending::new(listener.counters.clone()).noted(&worker, &entry, listener.run.access_log);
    let Some(_place) = Place::take(&listener.run.open, listener.run.max_connections) else {
        return ending.because(EndReason::ListenerFull);
    };
    let Ok(socket) = Socket::accepted(fd, worker.reactor()) else {
        return ending.because(EndReason::ResourceExhausted);
    };
    let mut client =
        Client { socket, address: client_address, peer: client_address, destination: None, listener_port };
    let mut arrived = Arrived::default();
    let seen = worker.access_state();
    let must_introduce = listener.run.must_introduce(client_address.ip());
    if must_introduce {
        // Boxed: a connection without a header should not pay for the room that one needs.
        if let Err(reason) = Box::pin(learn_client(&worker, &mut client, &listener, &mut arrived)).await {
            return ending.because(reason);
        }
        entry.client.set(client.address);
    }
    let admitted = match &listener.run.gate {
        None => None,
        Some(gate) => {
            let now = worker.timers().now();
            match gate.enter(client.address.ip(), must_introduce, now, &listener.counters) {
                Ok(admitted) => admitted,
                Err(reason) => return ending.because(reason),
            }
        }
    };
    let guard = Guard::new(&worker, &listener, &entry, admitted.as_deref(), seen);
    let reason = route(&worker, &client, &listener, arrived, &ending, &guard).await;
    ending.because(reason);
}

struct Client {
    socket: Socket,
    /// Of the client itself, as the PROXY header says where there is one.
    address: SocketAddr,
    /// Of the socket.
    peer: SocketAddr,
    /// Where the client connected to, as the PROXY header says; otherwise it is asked of the socket when it matters.
    destination: Option<SocketAddr>,
    listener_port: u16,
}

/// What was read before a connection is routed, and until when that may go on.
#[derive(Default)]
struct Arrived {
    first: Vec<u8>,
    deadline: Option<Timer>,
}

/// Reads the PROXY header of a peer that must send one.
async fn learn_client(
    worker: &Rc<Worker>,
    client: &mut Client,
    listener: &LocalListener,
    arrived: &mut Arrived,
) -> Result<(), EndReason> {
    let deadline = worker.timers().arm(listener.run.timeouts.handshake);
    let header = proxy::read(worker, &client.socket, &mut arrived.first, &deadline).await?;
    client.address = header.source.unwrap_or(client.peer);
    client.destination = header.destination;
    arrived.deadline = Some(deadline);
    Ok(())
}

/// Finds the rule, by the client's first bytes if any rule asks for a name.
async fn route(
    worker: &Rc<Worker>,
    client: &Client,
    listener: &Rc<LocalListener>,
    arrived: Arrived,
    ending: &Ending,
    guard: &Guard<'_>,
) -> EndReason {
    let Arrived { mut first, mut deadline } = arrived;
    let mut hello = None;
    let mut asked = None;
    if let Some(kind) = listener.run.preamble {
        let timer = deadline.take().unwrap_or_else(|| worker.timers().arm(listener.run.timeouts.handshake));
        // Boxed: few listeners have one.
        match Box::pin(preamble::take(worker, &client.socket, kind, &mut first, &timer)).await {
            Ok(has_asked) => asked = has_asked.then_some(kind),
            Err(reason) => return reason,
        }
        deadline = Some(timer);
    }
    if listener.run.acme_http01 && worker.challenges().is_asked_by_http(worker.timers().now()) {
        let timer = deadline.take().unwrap_or_else(|| worker.timers().arm(listener.run.timeouts.handshake));
        let answered = Box::pin(challenges::answer_http(worker, &client.socket, &mut first, &timer)).await;
        if let Some(reason) = answered {
            return reason;
        }
        deadline = Some(timer);
    }
    if listener.run.table.needs_client_hello() {
        let timer = deadline.take().unwrap_or_else(|| worker.timers().arm(listener.run.timeouts.handshake));
        match read_hello(worker, &client.socket, &mut first, &timer).await {
            Ok(read) => hello = read,
            Err(reason) => return reason,
        }
        let now = worker.timers().now();
        let asked = hello.as_deref().and_then(|hello| worker.challenges().of_hello(hello, now));
        if let Some(config) = asked {
            return Box::pin(challenges::answer_tls(worker, &client.socket, config, first, &timer)).await;
        }
        deadline = Some(timer);
    }
    let rule = find_rule(client, listener, hello.as_deref());
    let is_asked = listener.run.routes_unread() && worker.challenges().is_asked_by_tls(worker.timers().now());
    let overhear = is_asked && listener.run.passes_through(rule);
    if is_asked && !overhear && listener.run.tls.is_some() {
        let timer = deadline.take().unwrap_or_else(|| worker.timers().arm(listener.run.timeouts.handshake));
        match Box::pin(challenges::before_tls(worker, &client.socket, &mut first, &timer)).await {
            Ok(None) => {}
            Ok(Some(config)) => {
                return Box::pin(challenges::answer_tls(worker, &client.socket, config, first, &timer)).await;
            }
            Err(_) => return EndReason::ClientGone,
        }
        deadline = Some(timer);
    }
    let (is_tls, server_name) = (hello.is_some(), hello.and_then(|hello| hello.server_name));
    let Some((rule, run)) = rule.and_then(|at| Some((listener.rules.get(at)?, listener.run.rules.get(at)?)))
    else {
        refuse(&client.socket, is_tls);
        return EndReason::NoRule;
    };
    let _open = Open::new(&rule.counters);
    ending.also(&rule.counters);
    ending.note(|entry| {
        entry.rule.set(run.number.0);
        if let Some(name) = &server_name {
            entry.set_server_name(name.as_str());
        }
    });
    let name = server_name.as_ref().map(ServerName::as_str);
    let target = rule.target(client.address.ip(), name, &mut worker.rng()).cloned();
    let Some(pool) = target else {
        refuse(&client.socket, is_tls);
        return EndReason::RuleReject;
    };
    let _pool_open = Open::new(&pool.counters);
    ending.also(&pool.counters);
    ending.note(|entry| entry.pool.set(pool.state.number()));
    let hashable = Hashable {
        client: client.address,
        server_name: name,
        listener: listener.run.name.as_str(),
        preferred: None,
    };
    let path = Path { worker, client, listener, rule, pool: &pool, hashable, ending, guard };
    match (run.terminate, &listener.run.tls) {
        (true, Some(config)) => {
            let deadline = deadline.unwrap_or_else(|| worker.timers().arm(listener.run.timeouts.handshake));
            // Boxed: a plain connection should not pay for the room that a handshake needs.
            Box::pin(path.terminate(config.clone(), first, deadline)).await
        }
        _ => {
            drop(deadline);
            path.forward(first, is_tls, asked, overhear).await
        }
    }
}

/// The first rule that matches, by its place.
fn find_rule(client: &Client, listener: &LocalListener, hello: Option<&ClientHello>) -> Option<usize> {
    listener.run.table.route(&Facts {
        client: client.address.ip(),
        peer: client.peer.ip(),
        port: client.listener_port,
        is_tls: hello.is_some(),
        server_name: hello.and_then(|hello| hello.server_name.as_ref()).map(ServerName::as_str),
        alpn: hello.map_or(&Alpn::EMPTY, |hello| &hello.alpn),
    })
}

/// A routed connection.
struct Path<'a> {
    worker: &'a Rc<Worker>,
    client: &'a Client,
    listener: &'a LocalListener,
    rule: &'a LocalRule,
    pool: &'a super::local::LocalPool,
    hashable: Hashable<'a>,
    ending: &'a Ending,
    guard: &'a Guard<'a>,
}

impl Path<'_> {
    async fn forward(
        &self,
        mut first: Vec<u8>,
        is_tls: bool,
        asked: Option<Preamble>,
        overhear: bool,
    ) -> EndReason {
        self.ending.note(|entry| entry.state.set(ConnectionState::Dialling));
        let dialled = match dial(
            self.worker,
            self.pool,
            &self.hashable,
            self.client.listener_port,
            self.listener.run.affinity.as_ref(),
        )
        .await
        {
            Ok(dialled) => dialled,
            Err(reason) => {
                refuse(&self.client.socket, is_tls);
                return reason;
            }
        };
        let _open = Open::new(&dialled.chosen.counters);
        self.ending.also(&dialled.chosen.counters);
        if let Err(reason) = self.introduce(&dialled) {
            return reason;
        }
        if let Some(kind) = asked {
            let within = self.listener.run.timeouts.handshake;
            if let Err(reason) = Box::pin(preamble::pass_on(self.worker, &dialled.socket, kind, within)).await
            {
                refuse(&self.client.socket, is_tls);
                return reason;
            }
        }
        let client = &self.client.socket;
        if overhear {
            let backend = &dialled.socket;
            match Box::pin(challenges::overhear(self.worker, client, backend, &mut first)).await {
                Ok(None) => {}
                Ok(Some(config)) => {
                    let deadline = self.worker.timers().arm(self.listener.run.timeouts.handshake);
                    let answering = challenges::answer_tls(self.worker, client, config, first, &deadline);
                    return Box::pin(answering).await;
                }
                Err(error) => return Broken::of(Side::Client, &error).pass_on(client, backend),
            }
        }
        let tally = self.tally(&dialled);
        let timeouts = &self.listener.run.timeouts;
        pump::run(self.worker, client, &dialled.socket, first, timeouts, &tally, self.guard).await
    }

    async fn terminate(
        &self,
        config: Arc<rustls::ServerConfig>,
        mut first: Vec<u8>,
        deadline: Timer,
    ) -> EndReason {
        if self.listener.run.require_sni {
            let named = sni::demand(self.worker, &self.client.socket, &mut first, &deadline).await;
            if let Err(reason) = named {
                return reason;
            }
        }
        let from = Instant::now();
        let Ok(mut session) = TlsSession::new(config) else { return EndReason::TlsHandshakeFailed };
        let rest = match handshake(self.worker, &self.client.socket, &mut session, first, &deadline).await {
            Ok(rest) => rest,
            Err(reason) => return reason,
        };
        drop(deadline);
        let micros = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.ending.note(|entry| {
            entry.handshake_micros.set(u32::try_from(micros).unwrap_or(u32::MAX));
            entry.state.set(ConnectionState::Dialling);
        });
        for counters in [&self.listener.counters, &self.rule.counters] {
            counters.handshakes.add(1);
            counters.handshake_micros.add(micros);
        }
        let dialled = match dial(
            self.worker,
            self.pool,
            &self.hashable,
            self.client.listener_port,
            self.listener.run.affinity.as_ref(),
        )
        .await
        {
            Ok(dialled) => dialled,
            Err(reason) => {
                session.close();
                let _ = session.send(|bytes| self.client.socket.try_write(bytes));
                return reason;
            }
        };
        let _open = Open::new(&dialled.chosen.counters);
        self.ending.also(&dialled.chosen.counters);
        if let Err(reason) = self.introduce(&dialled) {
            return reason;
        }
        let tally = self.tally(&dialled);
        let timeouts = &self.listener.run.timeouts;
        let client = &self.client.socket;
        let backend = &dialled.socket;
        tls_pump::run(self.worker, client, &mut session, rest, backend, timeouts, &tally, self.guard).await
    }

    /// Tells the backend who the client is, if its pool wants that.
    fn introduce(&self, dialled: &Dialled) -> Result<(), EndReason> {
        let Some(version) = dialled.chosen.members.placed.pool.proxy_protocol else { return Ok(()) };
        let destination = self.client.destination.map_or_else(|| self.client.socket.local_address(), Ok);
        let sent = destination
            .and_then(|destination| proxy::send(&dialled.socket, version, self.client.address, destination));
        // A backend that is gone at once is one that resets.
        sent.map_err(|_| EndReason::BackendReset)
    }

    fn tally(&self, dialled: &Dialled) -> Tally {
        self.ending.note(|entry| {
            entry.backend.set(dialled.chosen.permit.member().number.0);
            entry.place_of_backend.set(dialled.chosen.permit.member().place);
            entry.dial_micros.set(dialled.micros);
            entry.state.set(ConnectionState::Open);
        });
        Tally {
            listener: self.listener.counters.clone(),
            rule: self.rule.counters.clone(),
            pool: self.pool.counters.clone(),
            backend: dialled.chosen.counters.clone(),
            entry: self.ending.entry(),
        }
    }
}

/// Reads until it is clear what the client speaks. `None`: not TLS. Boxed: half a kilobyte that every connection would
/// otherwise keep room for as long as it lasts.
pub(super) async fn read_hello(
    worker: &Rc<Worker>,
    socket: &Socket,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> Result<Option<Box<ClientHello>>, EndReason> {
    loop {
        match sniff(first) {
            Sniff::NeedMore => {}
            Sniff::Hello(hello) => return Ok(Some(Box::new(hello))),
            Sniff::NotTls => return Ok(None),
            Sniff::Malformed | Sniff::TooLarge => return Err(EndReason::BadClientHello),
        }
        let mut scratch = wait_and_read(worker, socket, deadline).await?;
        first.append(&mut scratch);
    }
}

/// The next bytes of the client, before the deadline.
pub(super) async fn wait_and_read(
    worker: &Rc<Worker>,
    socket: &Socket,
    deadline: &Timer,
) -> Result<Vec<u8>, EndReason> {
    poll_fn(|cx| {
        while socket.poll_readable(cx).is_ready() {
            let mut scratch = worker.scratch();
            match socket.try_read(&mut scratch) {
                Ok(0) => return Poll::Ready(Err(EndReason::ClientGone)),
                Ok(length) => return Poll::Ready(Ok(scratch[..length].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(EndReason::ClientGone)),
            }
        }
        deadline.poll_fired(cx).map(|()| Err(EndReason::HandshakeTimeout))
    })
    .await
}

/// Until both sides have said everything. Returns ciphertext that came after that and had no room in the session.
pub(super) async fn handshake(
    worker: &Rc<Worker>,
    socket: &Socket,
    session: &mut TlsSession,
    first: Vec<u8>,
    deadline: &Timer,
) -> Result<Vec<u8>, EndReason> {
    let mut bytes = first;
    loop {
        let taken = session.receive(&bytes);
        // An alert goes out before the end, too.
        send(socket, session, deadline).await?;
        let rest = match taken {
            Ok(taken) => bytes.split_off(taken),
            Err(_) => return Err(EndReason::TlsHandshakeFailed),
        };
        if !session.is_handshaking() {
            return Ok(rest);
        }
        if !rest.is_empty() {
            return Err(EndReason::TlsHandshakeFailed);
        }
        bytes = wait_and_read(worker, socket, deadline).await?;
    }
}

pub(super) async fn send(
    socket: &Socket,
    session: &mut TlsSession,
    deadline: &Timer,
) -> Result<(), EndReason> {
    poll_fn(|cx| {
        while session.wants_send() {
            if socket.poll_writable(cx).is_pending() {
                return deadline.poll_fired(cx).map(|()| Err(EndReason::HandshakeTimeout));
            }
            match session.send(|bytes| socket.try_write(bytes)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(EndReason::ClientGone)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// A client of TLS sees an alert rather than a bare end.
fn refuse(socket: &Socket, is_tls: bool) {
    if is_tls {
        let _ = socket.try_write(&REFUSAL_ALERT);
    }
}

/// A place among the listener's connections.
struct Place(Arc<AtomicU32>);

impl Place {
    fn take(open: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        // Taken before it is looked at, so that two workers cannot take the last one.
        let place = Self(open.clone());
        (open.fetch_add(1, Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Counts how a connection ended, wherever it was counted as begun. One that is dropped on the way ended by shutdown.
pub(super) struct Ending {
    reason: Cell<EndReason>,
    listener: Arc<Counters>,
    others: [Cell<Option<Arc<Counters>>>; 3],
    noted: Option<Noted>,
}

/// Where a connection or flow is noted, and of how many of a million the access log tells.
struct Noted {
    worker: Rc<Worker>,
    entry: Rc<Entry>,
    access_log: Option<u32>,
}

impl Ending {
    pub(super) fn new(listener: Arc<Counters>) -> Self {
        Self { reason: Cell::new(EndReason::Shutdown), listener, others: Default::default(), noted: None }
    }

    pub(super) fn noted(mut self, worker: &Rc<Worker>, entry: &Rc<Entry>, access_log: Option<u32>) -> Self {
        self.noted = Some(Noted { worker: worker.clone(), entry: entry.clone(), access_log });
        self
    }

    pub(super) fn note(&self, note: impl FnOnce(&Entry)) {
        if let Some(noted) = &self.noted {
            note(&noted.entry);
        }
    }

    pub(super) fn entry(&self) -> Option<Rc<Entry>> {
        self.noted.as_ref().map(|noted| noted.entry.clone())
    }

    /// The reason counts here, too.
    pub(super) fn also(&self, counters: &Arc<Counters>) {
        for slot in &self.others {
            let taken = slot.take();
            let free = taken.is_none();
            slot.set(taken.or_else(|| Some(counters.clone())));
            if free {
                return;
            }
        }
    }

    pub(super) fn because(&self, reason: EndReason) {
        self.reason.set(reason);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let reason = self.reason.get();
        self.listener.end(reason);
        for counters in self.others.iter().filter_map(Cell::take) {
            counters.end(reason);
        }
        if let Some(Noted { worker, entry, access_log }) = &self.noted {
            worker.ended(entry, reason, *access_log);
        }
    }
}
