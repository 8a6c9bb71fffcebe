//! Discovery: the sources that the control plane asks for the whole fleet. Their answers go to nodes as overlays, without a
//! revision, and are kept for the next start.

mod preview;
mod stored;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use awe4lb_discovery::{
    Allowed, Answer, Report,
    follow::{Push, follow, follow_pushes},
};
use awe4lb_model::{
    Backend,
    discovery::{RunOn, Source, SourceKind},
    placed::{NodeConfig, Number, PlacedPool},
};
use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Head,
    events::Events,
    fleet::{Fleet, SourceOnNode},
    store::Store,
};

/// News of so much time go to the nodes together.
const GATHER: Duration = Duration::from_millis(20);
/// Answers of so much time are one write to the disk.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// Number of a pool, and id of a source.
type Key = (u64, String);

/// The sources of the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    store: Store,
    fleet: Fleet,
    events: Events,
    allowed: Arc<Allowed>,
    followed: Mutex<HashMap<Key, Followed>>,
    /// From the store, until somebody asks for them.
    remembered: Mutex<HashMap<Key, stored::Remembered>>,
    news: mpsc::UnboundedSender<Key>,
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<Key>>,
    unstored: Mutex<BTreeSet<Key>>,
    dirty: Notify,
}

struct Followed {
    source: Source,
    report: watch::Receiver<Report>,
    pushes: Option<mpsc::Sender<Push>>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A source as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// Of the pool.
    pub pool: String,
    /// Of the source, unique in its pool.
    pub id: String,
    /// `dns`, `http`, …
    pub r#type: &'static str,
    /// `controlPlane` or `node`.
    pub run_on: &'static str,
    /// `ok`, `failing`, `pending` (nothing came yet).
    pub state: &'static str,
    /// In the last good answer; of sources that nodes ask: the most on any node.
    pub backends: usize,
    /// When that was; of nodes the oldest.
    pub last_success: Option<String>,
    /// Seconds since then.
    pub age_seconds: Option<i64>,
    /// Why the last try failed; empty: it did not.
    pub error: String,
    /// Items of the last answer that are no backends.
    pub rejected: usize,
    /// Some of them, and why.
    pub rejected_items: Vec<String>,
    /// When it is asked again.
    pub next_try: Option<String>,
    /// What connected nodes say, where they ask.
    pub nodes: Vec<SourceOnNode>,
}

/// Why a push is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Nobody is there to be told.
    #[error("the pool {0:?} has no source {1:?} of type push")]
    NoSource(String, String),
    /// The answer does not count.
    #[error("{0}")]
    Refused(String),
}

impl Discovery {
    /// Loads what is remembered.
    pub async fn open(store: Store, fleet: Fleet, events: Events, allowed: Allowed) -> anyhow::Result<Self> {
        let remembered = stored::load(&store).await?;
        let (news, heard) = mpsc::unbounded_channel();
        Ok(Self(Arc::new(Inner {
            store,
            fleet,
            events,
            allowed: Arc::new(allowed),
            followed: Mutex::default(),
            remembered: Mutex::new(remembered),
            news,
            heard: tokio::sync::Mutex::new(heard),
            unstored: Mutex::default(),
            dirty: Notify::new(),
        })))
    }

    /// Asks, until `stop`.
    pub async fn run(&self, mut head: watch::Receiver<Arc<Head>>, stop: CancellationToken) {
        let work = async {
            let mut heard = self.0.heard.lock().await;
            loop {
                let config = head.borrow_and_update().placed.clone();
                self.follow(&config);
                let with_sources = config.pools.iter().filter(|placed| !placed.pool.discovery.is_empty());
                self.tell(with_sources.collect());
                loop {
                    tokio::select! {
                        changed = head.changed() => {
                            if changed.is_err() { return }
                            break;
                        }
                        Some(key) = heard.recv() => {
                            tokio::time::sleep(GATHER).await;
                            let mut keys = BTreeSet::from([key]);
                            while let Ok(key) = heard.try_recv() {
                                keys.insert(key);
                            }
                            self.news(&config, keys);
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.store_forever() => {}
            () = stop.cancelled() => {}
        }
        self.lock().clear();
        self.store_now().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Followed>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is new, ends what is gone or was changed; what was known of a changed source stays until it answers.
    fn follow(&self, config: &NodeConfig) {
        let mut wanted: HashMap<Key, &Source> = HashMap::new();
        for placed in &config.pools {
            let own = placed.pool.discovery.iter().filter(|source| source.run_on == RunOn::ControlPlane);
            wanted.extend(own.map(|source| ((placed.number.0, source.id.to_string()), source)));
        }
        let mut followed = self.lock();
        let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|key, one| {
            let wanted = wanted.get(key);
            let is_same = wanted.is_some_and(|source| **source == one.source);
            if !is_same && wanted.is_some() {
                let report = one.report.borrow();
                if let Some(backends) = &report.backends {
                    let remember = stored::Remembered { backends: backends.clone(), at: report.last_success };
                    remembered.insert(key.clone(), remember);
                }
            }
            is_same
        });
        for (key, source) in wanted {
            if followed.contains_key(&key) {
                continue;
            }
            let (backends, last_success) = match remembered.remove(&key) {
                Some(remembered) => (Some(remembered.backends), remembered.at),
                None => (None, None),
            };
            let (sender, report) = watch::channel(Report { backends, last_success, ..Report::default() });
            let (source, allowed) = (source.clone(), self.0.allowed.clone());
            let mut pushes = None;
            let following: futures_util::future::BoxFuture<'static, ()> = match &source.kind {
                SourceKind::Push(push) => {
                    let (sender_of_pushes, receiver) = mpsc::channel(16);
                    pushes = Some(sender_of_pushes);
                    Box::pin(follow_pushes(source.clone(), push.ttl, receiver, sender))
                }
                _ => Box::pin(follow(source.clone(), allowed, sender)),
            };
            let (news, of, mut changed) = (self.0.news.clone(), key.clone(), report.clone());
            let task = tokio::spawn(async move {
                let telling =
                    async { while changed.changed().await.is_ok() && news.send(of.clone()).is_ok() {} };
                tokio::join!(following, telling);
            });
            followed.insert(key, Followed { source, report, pushes, task: task.abort_handle() });
        }
    }

    /// Some sources were asked.
    fn news(&self, config: &NodeConfig, keys: BTreeSet<Key>) {
        let numbers: BTreeSet<u64> = keys.iter().map(|(pool, _)| *pool).collect();
        let pools: Vec<&PlacedPool> =
            config.pools.iter().filter(|placed| numbers.contains(&placed.number.0)).collect();
        if self.0.events.has_listeners() {
            for placed in &pools {
                for view in self.of_pool(placed) {
                    if keys.contains(&(placed.number.0, view.id.clone())) {
                        self.0.events.publish("source", &view);
                    }
                }
            }
        }
        self.0.unstored.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.0.dirty.notify_one();
        self.tell(pools);
    }

    /// Sends the nodes what is true of these pools now, where that is new.
    fn tell(&self, pools: Vec<&PlacedPool>) {
        let told = {
            let followed = self.lock();
            let answers = |placed: &PlacedPool| -> Vec<(String, Vec<Backend>)> {
                let own = placed.pool.discovery.iter().filter(|source| source.run_on == RunOn::ControlPlane);
                own.filter_map(|source| {
                    let one = followed.get(&(placed.number.0, source.id.to_string()))?;
                    let backends = one.report.borrow().backends.clone()?;
                    Some((source.id.to_string(), backends.to_vec()))
                })
                .collect()
            };
            pools.into_iter().map(|placed| (placed, answers(placed))).collect()
        };
        self.0.fleet.tell_answers(told);
    }

    /// All sources of all pools, or of one.
    pub fn sources(&self, config: &NodeConfig, pool: Option<&str>) -> Vec<SourceView> {
        let pools =
            config.pools.iter().filter(|placed| pool.is_none_or(|pool| pool == placed.pool.name.as_str()));
        pools.flat_map(|placed| self.of_pool(placed)).collect()
    }

    fn of_pool(&self, placed: &PlacedPool) -> Vec<SourceView> {
        placed.pool.discovery.iter().map(|source| self.view(placed, source)).collect()
    }

    fn view(&self, placed: &PlacedPool, source: &Source) -> SourceView {
        let id = source.id.to_string();
        let blank = SourceView {
            pool: placed.pool.name.to_string(),
            id: id.clone(),
            r#type: source.kind.word(),
            run_on: "controlPlane",
            state: "pending",
            backends: 0,
            last_success: None,
            age_seconds: None,
            error: String::new(),
            rejected: 0,
            rejected_items: Vec::new(),
            next_try: None,
            nodes: Vec::new(),
        };
        if source.run_on == RunOn::Node {
            return self.on_nodes(placed.number, &id, blank);
        }
        let followed = self.lock();
        let Some(one) = followed.get(&(placed.number.0, id)) else { return blank };
        let report = one.report.borrow();
        SourceView {
            state: match (&report.error, &report.backends) {
                (Some(_), _) => "failing",
                (None, Some(_)) => "ok",
                (None, None) => "pending",
            },
            backends: report.backends.as_ref().map_or(0, |backends| backends.len()),
            last_success: report.last_success.and_then(time),
            age_seconds: report.last_success.and_then(age),
            error: report.error.clone().unwrap_or_default(),
            rejected: report.rejected_total,
            rejected_items: report.rejected.clone(),
            next_try: report.next_try.and_then(time),
            ..blank
        }
    }

    fn on_nodes(&self, pool: Number, id: &str, blank: SourceView) -> SourceView {
        let nodes = self.0.fleet.source_on_nodes(pool, id);
        let failing = nodes.iter().find(|node| !node.error.is_empty());
        let oldest = nodes.iter().map(|node| node.last_success.clone()).min().flatten();
        let seconds = |text: &String| {
            let at: jiff::Timestamp = text.parse().ok()?;
            Some(jiff::Timestamp::now().as_second() - at.as_second())
        };
        SourceView {
            run_on: "node",
            state: match (failing, &oldest) {
                (Some(_), _) => "failing",
                (None, Some(_)) => "ok",
                (None, None) => "pending",
            },
            backends: nodes.iter().map(|node| node.backends as usize).max().unwrap_or(0),
            age_seconds: oldest.as_ref().and_then(seconds),
            last_success: oldest,
            error: failing.map(|node| format!("{}: {}", node.node, node.error)).unwrap_or_default(),
            rejected: nodes.iter().map(|node| node.rejected as usize).max().unwrap_or(0),
            nodes,
            ..blank
        }
    }

    /// Somebody tells which backends a source has. How many count now.
    pub async fn push(&self, pool: &PlacedPool, id: &str, answer: Answer) -> Result<usize, PushError> {
        let none = || PushError::NoSource(pool.pool.name.to_string(), id.to_owned());
        let pushes = {
            let followed = self.lock();
            let one = followed.get(&(pool.number.0, id.to_owned()));
            one.and_then(|one| one.pushes.clone()).ok_or_else(none)?
        };
        let (done, result) = oneshot::channel();
        pushes.send(Push { answer, done }).await.map_err(|_| none())?;
        let count = result.await.map_err(|_| none())?.map_err(PushError::Refused)?;
        // Acknowledged means durable.
        self.store_now().await;
        Ok(count)
    }

    async fn store_forever(&self) {
        loop {
            self.0.dirty.notified().await;
            tokio::time::sleep(STORE_EVERY).await;
            self.store_now().await;
        }
    }

    /// Stores the answers that are new, all in one transaction.
    async fn store_now(&self) {
        let keys = std::mem::take(&mut *self.0.unstored.lock().unwrap_or_else(PoisonError::into_inner));
        let answers: Vec<stored::Answered> = {
            let followed = self.lock();
            let answer = |key: &Key| {
                let report = followed.get(key)?.report.borrow();
                Some((key.clone(), report.backends.clone()?, report.last_success))
            };
            keys.iter().filter_map(answer).collect()
        };
        if let Err(error) = stored::save(&self.0.store, &answers).await {
            tracing::warn!("discovered backends are not stored: {error}");
            self.0.unstored.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        }
    }
}

fn time(at: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(at).ok().map(|at| at.to_string())
}

fn age(at: SystemTime) -> Option<i64> {
    i64::try_from(at.elapsed().unwrap_or_default().as_secs()).ok()
}
