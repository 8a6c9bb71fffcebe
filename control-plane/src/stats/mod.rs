//! Statistics: exactly-once counters of all nodes, rates, and their history. In a file of their own.

mod answer;
mod burst;
mod file;
mod history;
mod ledger;
#[cfg(test)]
mod load;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use awe4lb_proto::v1;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{catalog::Head, events::Events, fleet::Ingest};
pub use answer::{Names, Series};
use file::{COARSE, Encoded, File};
use history::{Chart, History, Key, Point, STEPS};
use ledger::{Ledger, Touched};
pub use values::Values;

/// Reports within this are one transaction.
const GROUP: Duration = Duration::from_millis(100);
/// Bytes of a boot's id.
const BOOT_ID: usize = 16;
/// Reports that wait for it.
const MAX_WAITING: usize = 1_024;

/// Counters and their history. Cheap to clone.
#[derive(Clone)]
pub struct Stats(Arc<Inner>);

struct Inner {
    file: File,
    state: Mutex<State>,
    reports: mpsc::Sender<Report>,
    writer: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

struct State {
    ledger: Ledger,
    history: History,
    /// What each number is, also of objects that are gone.
    kinds: HashMap<u64, Kind>,
    names: Arc<Names>,
    /// Backends that sources added: pool, number, name.
    discovered: Vec<(String, u64, String)>,
    /// Touched and not stored yet: more than the next group when a write has failed.
    unstored: Touched,
}

/// What a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A listener.
    Listener,
    /// A rule of one.
    Rule,
    /// A pool.
    Pool,
    /// A backend of one.
    Backend,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Listener, Self::Rule, Self::Pool, Self::Backend];

    fn word(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Rule => "rule",
            Self::Pool => "pool",
            Self::Backend => "backend",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl State {
    /// How a number is charted: rules are too many.
    fn chart(kinds: &HashMap<u64, Kind>, number: u64) -> Option<Chart> {
        match kinds.get(&number)? {
            Kind::Listener => Some(Chart::Listener),
            Kind::Pool | Kind::Backend => Some(Chart::Alone),
            Kind::Rule => None,
        }
    }

    /// What a series is called in the file.
    fn series_name(&self, key: Key) -> String {
        match key {
            Key::Total => "total".to_owned(),
            Key::Node(index) => format!("node {}", self.ledger.name(index).unwrap_or_default()),
            Key::Number(number) => format!("#{number}"),
        }
    }
}

struct Report {
    node: String,
    /// Unix milliseconds: when it came.
    at: i64,
    report: v1::CounterReport,
    done: oneshot::Sender<Result<(), String>>,
}

impl Stats {
    /// Opens the file and takes up where it ended.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).await?;
        let (ledger, kinds) = (file.load().await?, file.kinds().await?);
        let (reports, waiting) = mpsc::channel(MAX_WAITING);
        let state = State {
            ledger,
            history: History::default(),
            kinds,
            names: Arc::default(),
            discovered: Vec::new(),
            unstored: Touched::default(),
        };
        let this = Self(Arc::new(Inner {
            file,
            state: Mutex::new(state),
            reports,
            writer: Mutex::default(),
            stop: CancellationToken::new(),
        }));
        let writer = tokio::spawn(this.clone().write(waiting));
        *this.0.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        Ok(this)
    }

    /// Rates and history each second, until `stop`.
    pub async fn run(&self, mut head: watch::Receiver<Arc<Head>>, events: Events, stop: CancellationToken) {
        let first = head.borrow_and_update().clone();
        self.learn(&first).await;
        if let Err(error) = self.0.file.roll_up(now_ms() / 1_000).await {
            tracing::warn!("the history of the last run is not complete: {error}");
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = head.changed() => {
                    if changed.is_err() { return }
                    let newest = head.borrow_and_update().clone();
                    self.learn(&newest).await;
                    continue;
                }
                () = stop.cancelled() => return,
            }
            if let Some((at, points)) = self.tick(now_ms() / 1_000)
                && let Err(error) = self.keep(at, &points).await
            {
                tracing::warn!("the history is not stored: {error}");
            }
            if events.wants_statistics() {
                events.publish("stats", &self.event());
            }
        }
    }

    /// Waits for reports on their way, then closes the file.
    pub async fn close(&self) {
        self.0.stop.cancel();
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
        self.0.file.close().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of a new configuration, and kinds of numbers that are new.
    async fn learn(&self, head: &Head) {
        let mut names = Names::of(&head.placed);
        let new: Vec<(u64, Kind)> = {
            let mut state = self.lock();
            let new: Vec<_> = names.kinds().filter(|(number, _)| !state.kinds.contains_key(number)).collect();
            state.kinds.extend(new.iter().copied());
            names.add_discovered(&state.discovered);
            state.names = Arc::new(names);
            new
        };
        if !new.is_empty()
            && let Err(error) = self.0.file.add_kinds(&new).await
        {
            tracing::warn!("what new numbers are is not stored: {error}");
        }
    }

    /// What sources found, as pool, number and name. They come and go: what they are is not stored.
    pub fn set_discovered(&self, discovered: Vec<(String, u64, String)>) {
        let mut state = self.lock();
        let mut names = state.names.configured();
        names.add_discovered(&discovered);
        state.kinds.extend(discovered.iter().map(|(_, number, _)| (*number, Kind::Backend)));
        state.names = Arc::new(names);
        state.discovered = discovered;
    }

    /// One second has passed. Gives what of the history is to be stored.
    fn tick(&self, at: i64) -> Option<(i64, Vec<(String, Point)>)> {
        let mut guard = self.lock();
        let State { ledger, history, kinds, .. } = &mut *guard;
        history.tick(at, ledger.active(at * 1_000), |number| State::chart(kinds, number));
        let means = history.due()?;
        Some((
            means.at,
            means.points.into_iter().map(|(key, point)| (guard.series_name(key), point)).collect(),
        ))
    }

    /// Stores ten seconds of history, and five minutes when these were the last of them.
    async fn keep(&self, at: i64, points: &[(String, Point)]) -> sqlx::Result<()> {
        self.0.file.add_points(at, points).await?;
        let end = at + STEPS[0].0;
        if end % COARSE == 0 { self.0.file.roll_up(end).await } else { Ok(()) }
    }

    /// The one writer: everything that has come within a moment is one transaction.
    async fn write(self, mut waiting: mpsc::Receiver<Report>) {
        let mut group = Vec::new();
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut group, MAX_WAITING) => if count == 0 { return },
                () = self.0.stop.cancelled() => {
                    waiting.close();
                    if waiting.recv_many(&mut group, MAX_WAITING).await == 0 { return }
                }
            }
            self.commit(std::mem::take(&mut group)).await;
            if !self.0.stop.is_cancelled() {
                tokio::time::sleep(GROUP).await;
            }
        }
    }

    async fn commit(&self, group: Vec<Report>) {
        let mut done = Vec::with_capacity(group.len());
        let encoded = {
            let mut guard = self.lock();
            let state = &mut *guard;
            for Report { node, at, report, done: acknowledge } in group {
                let State { ledger, history, unstored, .. } = &mut *state;
                ledger.take(&node, &report, at, unstored, |growth| history.spread(&growth));
                done.push(acknowledge);
            }
            Encoded::of(&state.ledger, &state.unstored)
        };
        let stored = self.0.file.store(&encoded).await.map_err(|error| error.to_string());
        match &stored {
            // There is one writer: nothing was touched meanwhile.
            Ok(()) => self.lock().unstored = Touched::default(),
            Err(error) => tracing::error!("counters are not stored: {error}"),
        }
        for done in done {
            let _ = done.send(stored.clone());
        }
    }
}

impl Ingest for Stats {
    fn ingest(&self, node: &str, report: v1::CounterReport) -> BoxFuture<'static, anyhow::Result<()>> {
        let (done, stored) = oneshot::channel();
        // An id of another length is no random one: it would be taken for another boot, or for the past.
        if report.boot_id.len() != BOOT_ID {
            return Box::pin(async { anyhow::bail!("a report without the id of its boot") });
        }
        let report = Report { node: node.to_owned(), at: now_ms(), report, done };
        // In the order of the calls: the place in the queue is taken before anyone waits.
        let queued = self.0.reports.try_send(report);
        Box::pin(async move {
            queued.map_err(|_| anyhow::anyhow!("too many reports wait for the disk"))?;
            stored
                .await
                .map_err(|_| anyhow::anyhow!("the control plane is stopping"))?
                .map_err(anyhow::Error::msg)
        })
    }
}

/// Unix milliseconds.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
