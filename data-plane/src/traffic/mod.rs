//! The hot half: workers, sockets, TLS, counters. It runs what it is given and knows nothing of where that came from.
//!
//! [`Traffic`] prepares a configuration without touching anything live, then swaps it in on every worker. What crosses
//! workers is named: a backend's count of connections, a listener's. Nothing else.

mod bandwidth;
mod bind;
mod challenges;
mod compile;
mod connection;
mod counters;
mod deadlines;
mod departures;
mod dial;
mod executor;
mod gate;
mod journal;
mod limits;
mod local;
mod lookups;
mod pace;
mod pool;
mod preamble;
pub(crate) mod proxy;
mod pump;
mod reactor;
mod sni;
mod socket;
mod splice;
mod timers;
mod tls;
mod tls_pump;
pub(crate) mod transparency;
mod udp;
mod worker;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use awe4lb_model::placed::{NodeConfig, ResourceId, ResourceKind};
use tokio::sync::{Notify, mpsc};

use crate::control::hot::{
    Challenge, ConnectionFilter, ConnectionRecord, CounterSample, DataPath, Mode, PoolHandle, Prepared,
    Problem,
};
pub(crate) use udp::room;

use challenges::Challenges;
use compile::{Compiled, Snapshot, SocketKey};
use worker::{Command, WorkerShared};

/// How long a drain waits between looks at what is open.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How the hot half is started.
#[derive(Debug, Clone)]
pub struct TrafficOptions {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Replaces wildcards in `bind`, so that several nodes run on one host.
    pub bind_address: Option<IpAddr>,
    /// Where connections are told of when they end, if their listener says so. Never waited for.
    pub access_log: Option<AccessLogSink>,
}

/// The way to whoever writes the access log.
#[derive(Debug, Clone)]
pub struct AccessLogSink {
    /// Records are lost when it is full.
    pub records: SyncSender<ConnectionRecord>,
    /// How many were lost.
    pub lost: Arc<AtomicU64>,
}

/// The running workers.
pub struct Traffic {
    options: TrafficOptions,
    workers: Vec<Handle>,
    pools: Arc<pool::Shared>,
    live: Arc<ArcSwap<Snapshot>>,
    challenges: Arc<Challenges>,
    /// The sockets that are bound; one change at a time.
    bound: Mutex<BTreeSet<SocketKey>>,
}

struct Handle {
    shared: Arc<WorkerShared>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// What [`DataPath::prepare`] made.
struct Ready {
    compiled: Compiled,
    sockets: NewSockets,
}

/// Sockets that were bound for a configuration, one a worker.
type NewSockets = BTreeMap<SocketKey, Vec<OwnedFd>>;

impl Traffic {
    /// Starts the workers; nothing is listened on yet.
    pub fn start(options: TrafficOptions) -> io::Result<Arc<Self>> {
        let start = Instant::now();
        let live: Arc<ArcSwap<Snapshot>> = Arc::default();
        let pools = Arc::new(pool::Shared {
            start,
            changed: Notify::new(),
            next_return: AtomicU64::new(u64::MAX),
            departures: Arc::default(),
            zone: ArcSwapOption::empty(),
        });
        let challenges = Arc::new(Challenges::new(start));
        let workers = (0..options.threads.max(1))
            .map(|index| {
                let shared = Arc::new(WorkerShared {
                    counters: Default::default(),
                    open: AtomicU64::new(0),
                    departures: pools.departures.clone(),
                    challenges: challenges.clone(),
                });
                let (commands, receiver) = mpsc::channel(64);
                // One of them lets ejected backends back in, and old challenges go.
                let returns = (index == 0).then(|| (live.clone(), pools.clone()));
                let of_worker = shared.clone();
                let sink = options.access_log.clone();
                let thread = std::thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || run_worker(index, of_worker, start, receiver, returns, sink))?;
                Ok(Handle { shared, commands, thread: Some(thread) })
            })
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { options, workers, pools, live, challenges, bound: Mutex::default() }))
    }

    /// The answers of all workers that answer.
    fn ask_each<T>(&self, command: impl Fn(SyncSender<T>) -> Command) -> Vec<T> {
        let (reply, replies) = sync_channel(self.workers.len());
        let asked =
            self.workers.iter().filter(|worker| worker.commands.try_send(command(reply.clone())).is_ok());
        let asked = asked.count();
        (0..asked).filter_map(|_| replies.recv_timeout(Duration::from_secs(2)).ok()).collect()
    }

    fn bind_new(
        &self,
        compiled: &mut Compiled,
        mode: Mode,
    ) -> Result<(NewSockets, Vec<Problem>), Vec<Problem>> {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut sockets, mut problems) = (BTreeMap::new(), Vec::new());
        let new: Vec<SocketKey> =
            compiled.snapshot.sockets.keys().filter(|key| !bound.contains(key)).copied().collect();
        for key in new {
            let ours = bound
                .iter()
                .any(|held| held.protocol == key.protocol && held.address.port() == key.address.port());
            match bind::bind(key, self.workers.len(), !ours) {
                Ok(fds) => drop(sockets.insert(key, fds)),
                // `*` where a family does not exist is the other one.
                Err(error) if key.address.ip().is_unspecified() && bind::is_family_missing(&error) => {
                    compiled.snapshot.sockets.remove(&key);
                }
                Err(error) => {
                    let Some(run) = compiled.snapshot.sockets.remove(&key) else { continue };
                    problems.push(Problem {
                        resource: ResourceId { kind: ResourceKind::Listener, name: run.name.clone() },
                        code: "bind-failed",
                        field_path: "/bind".to_owned(),
                        message: format!("cannot bind {}: {error}", key.address),
                    });
                }
            }
        }
        match mode {
            Mode::Strict if !problems.is_empty() => Err(problems),
            Mode::Strict | Mode::BestEffort => Ok((sockets, problems)),
        }
    }
}

impl DataPath for Traffic {
    fn prepare(&self, config: Arc<NodeConfig>, mode: Mode) -> Result<Prepared, Vec<Problem>> {
        let before = self.live.load_full();
        let mut compiled = compile::compile(&config, &before, &self.pools, self.options.bind_address)?;
        let (sockets, missing) = self.bind_new(&mut compiled, mode)?;
        Ok(Prepared { inner: Box::new(Ready { compiled, sockets }), missing })
    }

    fn commit(&self, prepared: Prepared) {
        let inner: Box<dyn Any> = prepared.inner;
        let Ok(ready) = inner.downcast::<Ready>() else {
            tracing::error!("what was to be committed was not prepared here");
            return;
        };
        let Ready { compiled, sockets } = *ready;
        for (state, placed) in compiled.reconfigure {
            state.configure(placed);
        }
        let snapshot = Arc::new(compiled.snapshot);
        let before = self.live.swap(snapshot.clone());
        for (number, pool) in &before.pools {
            if !snapshot.pools.contains_key(number) {
                pool.remove();
            }
        }
        // It may have moved while this was prepared.
        snapshot.pools.values().for_each(|pool| pool.look_at_zone());
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner) =
            snapshot.sockets.keys().copied().collect();

        let mut shares: Vec<Vec<(SocketKey, OwnedFd)>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (key, fds) in sockets {
            for (share, fd) in shares.iter_mut().zip(fds) {
                share.push((key, fd));
            }
        }
        let (done, all_done) = sync_channel(self.workers.len());
        let mut waiting = 0;
        for (worker, sockets) in self.workers.iter().zip(shares) {
            let command = Command::Apply { snapshot: snapshot.clone(), sockets, done: done.clone() };
            waiting += usize::from(worker.commands.try_send(command).is_ok());
        }
        // Workers answer between two polls: this is a matter of microseconds.
        for _ in 0..waiting {
            let _ = all_done.recv_timeout(Duration::from_secs(10));
        }
        self.pools.changed.notify_one();
    }

    fn pools(&self) -> Vec<Arc<dyn PoolHandle>> {
        self.live.load().pools.values().map(|pool| pool.clone() as Arc<dyn PoolHandle>).collect()
    }

    fn pool(&self, name: &str) -> Option<Arc<dyn PoolHandle>> {
        let live = self.live.load();
        let pool = live.pools.values().find(|pool| pool.is_called(name))?;
        Some(pool.clone() as Arc<dyn PoolHandle>)
    }

    fn set_zone(&self, zone: Option<&str>) {
        self.pools.zone.store(zone.map(|zone| Arc::new(zone.to_owned())));
        self.live.load().pools.values().for_each(|pool| pool.look_at_zone());
    }

    fn counters(&self) -> Vec<CounterSample> {
        counters::sum(self.workers.iter().map(|worker| &worker.shared.counters))
    }

    fn forget_counters(&self, numbers: &[u64]) {
        for worker in &self.workers {
            worker.shared.counters.forget(numbers);
        }
    }

    fn pools_changed<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.pools.changed.notified())
    }

    fn connections(&self, filter: &ConnectionFilter) -> Vec<ConnectionRecord> {
        let filter = Arc::new(filter.clone());
        let mut all: Vec<ConnectionRecord> = self
            .ask_each(|reply| Command::List { filter: filter.clone(), reply })
            .into_iter()
            .flatten()
            .collect();
        all.sort_by_key(|record| std::cmp::Reverse(record.accepted_millis));
        all.truncate(filter.limit);
        all
    }

    fn close_connections(&self, filter: &ConnectionFilter) -> usize {
        let filter = Arc::new(filter.clone());
        self.ask_each(|reply| Command::Close { filter: filter.clone(), reply }).into_iter().sum()
    }

    fn set_challenges(&self, challenges: Vec<Challenge>) -> Result<(), String> {
        self.challenges.set(challenges)
    }

    fn active_connections(&self) -> u64 {
        self.workers.iter().map(|worker| worker.shared.open.load(Relaxed)).sum()
    }

    fn stop_accepting(&self) {
        for worker in &self.workers {
            let _ = worker.commands.try_send(Command::StopAccepting);
        }
    }

    fn drain<'a>(&'a self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let ends = tokio::time::Instant::now() + deadline;
            while self.active_connections() > 0 && tokio::time::Instant::now() < ends {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            for worker in &self.workers {
                // What is still open ends with the worker, and is counted.
                let _ = worker.commands.send(Command::Stop).await;
                worker.commands.closed().await;
            }
        })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.commands.try_send(Command::Stop);
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

type Returns = Option<(Arc<ArcSwap<Snapshot>>, Arc<pool::Shared>)>;

fn run_worker(
    index: usize,
    shared: Arc<WorkerShared>,
    start: Instant,
    commands: mpsc::Receiver<Command>,
    returns: Returns,
    sink: Option<AccessLogSink>,
) {
    let challenges = shared.challenges.clone();
    let each_tick = move |_| {
        if let Some((live, pools)) = &returns {
            let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            challenges.forget_old(now);
            if now >= pools.next_return.load(Relaxed) {
                pools.next_return.store(u64::MAX, Relaxed);
                let next = live.load().pools.values().filter_map(|pool| pool.refresh()).min();
                pools.next_return.fetch_min(next.unwrap_or(u64::MAX), Relaxed);
            }
        }
    };
    if let Err(error) = worker::run(index, shared, start, commands, sink, each_tick) {
        tracing::error!(%error, "a worker ended");
    }
}
