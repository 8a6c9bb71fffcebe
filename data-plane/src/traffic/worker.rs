//! One worker: a thread with a runtime of its own. A connection stays on the worker that accepted it.

use std::{
    cell::{Cell, OnceCell, RefCell, RefMut},
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};

use awe4lb_model::{ACCESS_LOG_ALL, EndReason, Protocol, placed::Number};
use rand::{Rng as _, SeedableRng, rngs::SmallRng};
use rustix::net::{SocketAddrAny, SocketFlags};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::control::hot::{ConnectionFilter, ConnectionRecord};

use super::{
    AccessLogSink, bind,
    challenges::Challenges,
    compile::{Snapshot, SocketKey},
    connection,
    counters::{CounterTable, Open},
    departures::Departures,
    executor,
    journal::{Entry, Journal},
    local::{LocalListener, LocalSnapshot},
    pace::Pace,
    reactor::{Reactor, Token},
    splice::Pipes,
    timers::Timers,
    udp,
};

/// The one buffer that bytes of all connections pass through: it stays in the cache.
const SCRATCH: usize = 64 * 1024;

/// Sockets whose tasks are woken in one tick when access rules change.
const WOKEN_A_TICK: usize = 512;

/// How often a worker looks whether backends have left, and what it is busy with.
const LOOK_FOR_DEPARTED: Duration = Duration::from_millis(200);

/// What the control half tells a worker.
pub(super) enum Command {
    /// Run this from now on; sockets that are new come along. Answered when it is done.
    Apply { snapshot: Arc<Snapshot>, sockets: Vec<(SocketKey, OwnedFd)>, done: SyncSender<()> },
    /// Which connections are open, or ended lately.
    List { filter: Arc<ConnectionFilter>, reply: SyncSender<Vec<ConnectionRecord>> },
    /// End those that fit.
    Close { filter: Arc<ConnectionFilter>, reply: SyncSender<usize> },
    /// Accept nothing more.
    StopAccepting,
    /// End, and everything that is open with it.
    Stop,
}

/// What a worker shares with the other half.
pub(super) struct WorkerShared {
    pub(super) counters: CounterTable,
    /// Open connections and flows.
    pub(super) open: AtomicU64,
    pub(super) departures: Arc<Departures>,
    pub(super) challenges: Arc<Challenges>,
}

/// One worker, on its own thread.
pub(super) struct Worker {
    reactor: Rc<Reactor>,
    timers: Rc<Timers>,
    pipes: Rc<Pipes>,
    scratch: RefCell<Box<[u8]>>,
    rng: RefCell<SmallRng>,
    shared: Arc<WorkerShared>,
    local: RefCell<LocalSnapshot>,
    entrances: RefCell<BTreeMap<SocketKey, Entrance>>,
    /// Made by the first UDP listener.
    udp_scratch: OnceCell<RefCell<udp::Scratch>>,
    accepting: Cell<bool>,
    /// Goes up when access rules come into force that end open connections.
    access_state: Cell<u32>,
    journal: Journal,
    access_log: Option<AccessLogSink>,
    pace: Pace,
}

/// A socket where traffic comes in, and the task that takes it.
struct Entrance {
    /// Swapped when the configuration changes; the socket stays.
    listener: Rc<RefCell<Rc<LocalListener>>>,
    socket: Rc<ListeningSocket>,
    task: JoinHandle<()>,
}

struct ListeningSocket {
    fd: OwnedFd,
    token: Token,
    reactor: Rc<Reactor>,
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        self.reactor.forget(self.token);
    }
}

/// Counts a connection as open on the worker until it is dropped.
pub(super) struct OpenHere(Arc<WorkerShared>);

impl Drop for OpenHere {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Runs until told to stop. `each_tick` is called with the clock, ten times a second.
pub(super) fn run(
    index: usize,
    shared: Arc<WorkerShared>,
    start: Instant,
    mut commands: mpsc::Receiver<Command>,
    access_log: Option<AccessLogSink>,
    each_tick: impl FnMut(u64) + 'static,
) -> io::Result<()> {
    let reactor = Reactor::new()?;
    let worker = Rc::new(Worker {
        reactor: reactor.clone(),
        timers: Timers::new(start),
        pipes: Rc::default(),
        scratch: RefCell::new(vec![0; SCRATCH].into()),
        rng: RefCell::new(SmallRng::from_os_rng()),
        shared,
        local: RefCell::default(),
        entrances: RefCell::default(),
        udp_scratch: OnceCell::new(),
        accepting: Cell::new(true),
        access_state: Cell::new(0),
        journal: Journal::new(u32::try_from(index).unwrap_or(u32::MAX)),
        access_log,
        pace: Pace::default(),
    });
    // The end of `commands` says that the worker has ended, so it comes after that of everything open.
    let obedience = obey(&worker, &mut commands);
    let clock = worker.timers.clone().run(worker.reactor.clone(), each_tick);
    executor::run(&reactor, async {
        tokio::select! {
            ended = clock => ended,
            () = obedience => Ok(()),
            () = look_around(&worker) => Ok(()),
        }
    })?
}

/// Ends what is open at backends that leave, when its time has come.
async fn look_around(worker: &Rc<Worker>) {
    loop {
        worker.timers.sleep(LOOK_FOR_DEPARTED).await;
        worker.pace.look(worker.reactor.connection_events());
        let due = worker.shared.departures.due(worker.timers.now());
        if !due.is_empty() && worker.journal.depart(&due) > 0 {
            worker.look_again();
        }
    }
}

/// Until told to stop, or until nobody is left to tell.
async fn obey(worker: &Rc<Worker>, commands: &mut mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::Apply { snapshot, sockets, done } => {
                worker.apply(&snapshot, sockets);
                // Nobody waits any more when the node is going.
                let _ = done.send(());
            }
            Command::List { filter, reply } => {
                let _ = reply.send(worker.journal.list(worker.timers.now(), &filter));
            }
            Command::Close { filter, reply } => {
                let count = worker.journal.close(worker.timers.now(), &filter);
                if count > 0 {
                    worker.look_again();
                }
                let _ = reply.send(count);
            }
            Command::StopAccepting => worker.stop_accepting(),
            Command::Stop => {
                worker.accepting.set(false);
                return;
            }
        }
    }
}

impl Worker {
    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    pub(super) fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    pub(super) fn pipes(&self) -> &Rc<Pipes> {
        &self.pipes
    }

    /// Held only between two waits.
    pub(super) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// Likewise.
    pub(super) fn udp_scratch(&self) -> RefMut<'_, udp::Scratch> {
        self.udp_scratch.get_or_init(RefCell::default).borrow_mut()
    }

    /// So many messages of UDP clients were taken at once.
    pub(super) fn took_datagrams(&self, count: usize) {
        self.pace.took(count);
    }

    /// False once the node is going.
    pub(super) fn is_accepting(&self) -> bool {
        self.accepting.get()
    }

    pub(super) fn rng(&self) -> RefMut<'_, SmallRng> {
        self.rng.borrow_mut()
    }

    pub(super) fn challenges(&self) -> &Challenges {
        &self.shared.challenges
    }

    pub(super) fn counters(&self) -> &CounterTable {
        &self.shared.counters
    }

    /// A connection or flow that is open until this is dropped.
    pub(super) fn open(&self) -> OpenHere {
        self.shared.open.fetch_add(1, Relaxed);
        OpenHere(self.shared.clone())
    }

    fn apply(self: &Rc<Self>, snapshot: &Snapshot, sockets: Vec<(SocketKey, OwnedFd)>) {
        let local = LocalSnapshot::new(snapshot, &self.local.borrow(), &self.shared.counters);
        let mut entrances = self.entrances.borrow_mut();
        for (key, listener) in &local.sockets {
            if let Some(entrance) = entrances.get(key) {
                *entrance.listener.borrow_mut() = listener.clone();
            }
        }
        for (key, fd) in sockets {
            if let Some(listener) = local.sockets.get(&key)
                && let Some(entrance) = self.enter(key, fd, listener)
            {
                entrances.insert(key, entrance);
            }
        }
        let gone: Vec<SocketKey> =
            entrances.keys().filter(|key| !local.sockets.contains_key(key)).copied().collect();
        for key in gone {
            if let Some(entrance) = entrances.remove(&key) {
                self.leave(key, &entrance);
            }
        }
        drop(entrances);
        let before = std::mem::replace(&mut *self.local.borrow_mut(), local);
        if self.local.borrow().revokes_access_of(&before) {
            self.look_again();
        }
    }

    /// Every open connection asks whether it may go on.
    fn look_again(self: &Rc<Self>) {
        self.access_state.set(self.access_state.get().wrapping_add(1));
        tokio::task::spawn_local(self.clone().wake_all());
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// A connection ended.
    pub(super) fn ended(&self, entry: &Entry, reason: EndReason, sample: Option<u32>) {
        let now = self.timers.now();
        self.journal.end(entry, now, reason);
        let (Some(sample), Some(sink)) = (sample, &self.access_log) else { return };
        if sample >= ACCESS_LOG_ALL || self.rng().random_range(0..ACCESS_LOG_ALL) < sample {
            let record = self.journal.record(entry, now);
            if sink.records.try_send(record).is_err() {
                sink.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// So that connections that nothing else wakes see that rules have changed; spread over time, as whoever is cut off
    /// comes back.
    async fn wake_all(self: Rc<Self>) {
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.reactor.wake_some(from, WOKEN_A_TICK);
            self.timers.sleep(Duration::ZERO).await;
        }
    }

    /// Changes when open connections are to ask [`Self::denies_existing`].
    pub(super) fn access_state(&self) -> u32 {
        self.access_state.get()
    }

    /// Whether what is sent there comes back to us.
    pub(super) fn listens_on(&self, address: SocketAddr, local: IpAddr) -> bool {
        self.local.borrow().listens_on(address, local)
    }

    /// Whether the rules of the listener, as they are now, end an open connection of this client.
    pub(super) fn denies_existing(&self, listener: Number, client: IpAddr) -> bool {
        self.local.borrow().denies_existing(listener, client)
    }

    fn enter(self: &Rc<Self>, key: SocketKey, fd: OwnedFd, listener: &Rc<LocalListener>) -> Option<Entrance> {
        if !self.accepting.get() {
            return None;
        }
        if key.protocol == Protocol::Tcp
            && let Err(error) = bind::listen(&fd)
        {
            // Bound, but another process began to listen on it in this moment.
            tracing::error!(address = %key.address, %error, "cannot listen on a socket that was bound");
            return None;
        }
        let registered = match key.protocol {
            Protocol::Tcp => self.reactor.register_listener(fd.as_fd()),
            Protocol::Udp => self.reactor.register_input(fd.as_fd()),
        };
        let token = match registered {
            Ok(token) => token,
            Err(error) => {
                tracing::error!(address = %key.address, %error, "cannot watch a listening socket");
                return None;
            }
        };
        let socket = Rc::new(ListeningSocket { fd, token, reactor: self.reactor.clone() });
        let listener = Rc::new(RefCell::new(listener.clone()));
        let task = match key.protocol {
            Protocol::Tcp => {
                tokio::task::spawn_local(accept(self.clone(), key, socket.clone(), listener.clone()))
            }
            Protocol::Udp => {
                let entrance = udp::Entrance { key, listener: listener.clone() };
                let (worker, socket) = (self.clone(), socket.clone());
                tokio::task::spawn_local(async move {
                    udp::serve(worker, entrance, &socket.fd, socket.token).await
                })
            }
        };
        Some(Entrance { listener, socket, task })
    }

    /// Takes what still waits in the queue, then closes.
    fn leave(self: &Rc<Self>, key: SocketKey, entrance: &Entrance) {
        entrance.task.abort();
        if key.protocol == Protocol::Tcp {
            let listener = entrance.listener.borrow().clone();
            while let Ok((fd, Some(client))) = accept_one(&entrance.socket.fd) {
                self.admit(fd, client, key, &listener);
            }
            // The task still holds the socket until it is its turn; nobody should get in meanwhile.
            let _ = rustix::net::shutdown(&entrance.socket.fd, rustix::net::Shutdown::Both);
        }
    }

    fn stop_accepting(self: &Rc<Self>) {
        self.accepting.set(false);
        let entrances = std::mem::take(&mut *self.entrances.borrow_mut());
        for (key, entrance) in entrances {
            // Flows of UDP have no connection to wait for: the task goes on until the worker stops.
            if key.protocol == Protocol::Tcp {
                self.leave(key, &entrance);
            }
        }
    }

    fn admit(self: &Rc<Self>, fd: OwnedFd, client: SocketAddr, key: SocketKey, listener: &Rc<LocalListener>) {
        if let Some(gate) = &listener.run.gate {
            let known = (!listener.run.must_introduce(client.ip())).then(|| client.ip());
            if let Err(reason) = gate.at_accept(known, self.timers.now(), &listener.counters) {
                // Nothing was made for it; it is counted all the same.
                let _open = Open::new(&listener.counters);
                return listener.counters.end(reason);
            }
        }
        tokio::task::spawn_local(connection::serve(
            self.clone(),
            fd,
            client,
            key.address.port(),
            listener.clone(),
        ));
    }
}

/// Never ends and never spins: a peer's error is ignored, a shortage backs off.
async fn accept(
    worker: Rc<Worker>,
    key: SocketKey,
    socket: Rc<ListeningSocket>,
    listener: Rc<RefCell<Rc<LocalListener>>>,
) {
    let mut shortages = 0;
    loop {
        std::future::poll_fn(|cx| worker.reactor.poll(socket.token, cx, |ready| ready.readable)).await;
        worker.reactor.clear_readable(socket.token);
        match accept_one(&socket.fd) {
            Ok((fd, client)) => {
                shortages = 0;
                if let Some(client) = client {
                    let listener = listener.borrow().clone();
                    worker.admit(fd, client, key, &listener);
                }
            }
            Err(error) if is_shortage(error) => {
                listener.borrow().counters.end(EndReason::ResourceExhausted);
                let delay = worker.rng().random_range(5..10) << shortages;
                shortages = (shortages + 1).min(7);
                tracing::warn!(address = %key.address, %error, delay_ms = delay, "cannot accept, backing off");
                // Whoever waits in the queue would be told again and again.
                let _ = worker.reactor.listen(socket.fd.as_fd(), socket.token, false);
                worker.timers.sleep(Duration::from_millis(delay)).await;
                let _ = worker.reactor.listen(socket.fd.as_fd(), socket.token, true);
            }
            // Another was faster, or that one connection is gone.
            Err(_) => {}
        }
    }
}

fn accept_one(fd: &OwnedFd) -> rustix::io::Result<(OwnedFd, Option<SocketAddr>)> {
    let (fd, from) = rustix::net::acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((fd, from.and_then(socket_address)))
}

pub(super) fn socket_address(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}

fn is_shortage(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}
