//! Statistics: exactly-once counters of all nodes, rates, and their history. In a file of their own.

mod answer;
mod file;
mod history;
mod ledger;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
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
use file::{Encoded, File};
use history::{History, STEPS};
use ledger::{Ledger, Touched};
pub use values::Values;

/// Reports within this are one transaction.
const GROUP: Duration = Duration::from_millis(100);
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
    kinds: HashMap<u64, String>,
    names: Arc<Names>,
    rates: Rates,
    /// Touched and not stored yet: more than the next group when a write has failed.
    unstored: Touched,
}

/// A second ago, and what has happened since.
#[derive(Default)]
struct Rates {
    at: Option<Instant>,
    all: HashMap<u64, Values>,
    nodes: HashMap<String, HashMap<u64, Values>>,
    points: HashMap<(Option<String>, u64), history::Point>,
}

struct Report {
    node: String,
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
            rates: Rates::default(),
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
            let due = self.tick(now(), Instant::now());
            for (step, at, points) in due {
                if let Err(error) = self.0.file.add_points(step, at, &points).await {
                    tracing::warn!("the history of {step} s is not stored: {error}");
                }
            }
            if events.has_listeners() {
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
        let names = Names::of(&head.placed);
        let new: Vec<(u64, &'static str)> = {
            let mut state = self.lock();
            let new: Vec<_> = names.kinds().filter(|(number, _)| !state.kinds.contains_key(number)).collect();
            state.kinds.extend(new.iter().map(|(number, kind)| (*number, (*kind).to_owned())));
            state.names = Arc::new(names);
            new
        };
        if !new.is_empty()
            && let Err(error) = self.0.file.add_kinds(&new).await
        {
            tracing::warn!("what new numbers are is not stored: {error}");
        }
    }

    /// One second has passed. Gives what of the history is to be stored.
    fn tick(&self, at: i64, now: Instant) -> Vec<(i64, i64, Vec<(String, history::Point)>)> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let all = state.ledger.sums(None, now);
        let names: Vec<String> = state.ledger.nodes().map(str::to_owned).collect();
        let nodes: HashMap<String, HashMap<u64, Values>> = names
            .into_iter()
            .map(|name| {
                let sums = state.ledger.sums(Some(&name), now);
                (name, sums)
            })
            .collect();
        let elapsed = state.rates.at.map(|before| now.saturating_duration_since(before).as_secs_f32());
        if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
            let mut points = HashMap::new();
            let empty = HashMap::new();
            for (number, values) in &all {
                points.insert((None, *number), answer::rate(state.rates.all.get(number), values, elapsed));
            }
            for (name, sums) in &nodes {
                let before = state.rates.nodes.get(name).unwrap_or(&empty);
                for (number, values) in sums {
                    let point = answer::rate(before.get(number), values, elapsed);
                    points.insert((Some(name.clone()), *number), point);
                }
            }
            state.rates.points = points;
            let series = answer::series(&state.rates.points, &state.kinds);
            state.history.add(at, series);
        }
        state.rates.at = Some(now);
        (state.rates.all, state.rates.nodes) = (all, nodes);
        STEPS
            .iter()
            .filter_map(|(step, _)| {
                state.history.due(*step, at).map(|(begin, points)| (*step, begin, points))
            })
            .collect()
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
            let now = Instant::now();
            for report in group {
                state.ledger.take(&report.node, report.report, now, &mut state.unstored);
                done.push(report.done);
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
        let report = Report { node: node.to_owned(), report, done };
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

/// Unix seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
