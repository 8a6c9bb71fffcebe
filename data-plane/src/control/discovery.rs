//! Discovered backends of the pools that run: what the control plane tells, and what this node asks itself. Both are kept
//! on disk, so that a node that restarts without a control plane has the last answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use awe4lb_discovery::{Allowed, Report, discovered_number, follow, members};
use awe4lb_model::{
    Backend,
    discovery::{RunOn, Source},
    placed::{Number, PlacedPool},
};
use awe4lb_proto::{backend_from_wire, backend_to_wire, v1};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{cache::Cache, live::Live, node::unix_millis};

/// Changes of so much time are one write to the disk.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Of one pool, by source.
type Answers = BTreeMap<String, Vec<Backend>>;

/// All answers, and who is asked.
#[derive(Default)]
pub struct Discovered {
    state: Mutex<State>,
    dirty: Notify,
}

#[derive(Default)]
struct State {
    /// By name of the pool: from the control plane.
    told: BTreeMap<String, Answers>,
    /// By name of the pool: asked by this node.
    own: BTreeMap<String, Answers>,
    /// Sources that are asked.
    asked: BTreeMap<(String, String), Asked>,
}

struct Asked {
    source: Source,
    pool: Number,
    report: watch::Receiver<Report>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovered {
    /// From the cache.
    pub fn load(cache: &Cache) -> Self {
        let (told, own) = cache.discovered();
        let state = State { told: read(told), own: read(own), asked: BTreeMap::new() };
        Self { state: Mutex::new(state), dirty: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the control plane said of a pool, all its sources at once.
    pub fn told(&self, live: &Live, pool: &str, answers: &[v1::SourceAnswer]) {
        let answers = answers_of(answers);
        {
            let mut state = self.state();
            if state.told.get(pool).is_some_and(|before| *before == answers)
                || (answers.is_empty() && !state.told.contains_key(pool))
            {
                return;
            }
            state.told.insert(pool.to_owned(), answers);
        }
        self.dirty.notify_one();
        self.apply(live, Some(pool));
    }

    /// Gives the pools that run their members; all of them, or one.
    pub fn apply(&self, live: &Live, only: Option<&str>) {
        let mut is_news = false;
        for pool in live.handles(only) {
            let placed = pool.placed();
            if placed.pool.discovery.is_empty() {
                continue;
            }
            let found = self.members(&placed);
            is_news |= pool.set_discovered(found);
        }
        if is_news {
            live.members_changed();
        }
    }

    fn members(&self, placed: &PlacedPool) -> Vec<(Number, Backend)> {
        let state = self.state();
        let name = placed.pool.name.as_str();
        let (own, told) = (state.own.get(name), state.told.get(name));
        let answer = |source: &Source| {
            let answers = if source.run_on == RunOn::Node { own } else { told };
            answers.and_then(|answers| answers.get(source.id.as_str())).map(Vec::as_slice)
        };
        let configured: Vec<Backend> = configured(placed).cloned().collect();
        members(placed.number, &configured, placed.pool.discovery.iter().filter_map(answer))
    }

    /// How the sources do that this node asks.
    pub fn statuses(&self) -> Vec<v1::SourceStatus> {
        let state = self.state();
        let status = |((_, source), asked): (&(String, String), &Asked)| {
            let report = asked.report.borrow();
            v1::SourceStatus {
                pool: asked.pool.0,
                source: source.clone(),
                last_success_unix_ms: report.last_success.map(unix_millis).unwrap_or_default(),
                error: report.error.clone().unwrap_or_default(),
                backends: report
                    .backends
                    .as_ref()
                    .map_or(0, |found| u32::try_from(found.len()).unwrap_or(u32::MAX)),
                rejected: u32::try_from(report.rejected_total).unwrap_or(u32::MAX),
                next_try_unix_ms: report.next_try.map(unix_millis).unwrap_or_default(),
            }
        };
        state.asked.iter().map(status).collect()
    }
}

/// Asks the sources that are this node's to ask, for ever.
pub async fn run(discovered: Arc<Discovered>, live: Arc<Live>) {
    let mut changes = live.watch();
    let (news, mut heard) = tokio::sync::mpsc::unbounded_channel::<(String, String)>();
    loop {
        let config = changes.borrow_and_update().config.clone();
        discovered.follow(&config.pools, &news);
        discovered.apply(&live, None);
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() { return }
                    break;
                }
                Some((pool, source)) = heard.recv() => discovered.heard(&live, &pool, &source),
            }
        }
    }
}

impl Discovered {
    /// Starts what is new, ends what is gone or was changed.
    fn follow(&self, pools: &[PlacedPool], news: &tokio::sync::mpsc::UnboundedSender<(String, String)>) {
        let mut state = self.state();
        let mut wanted: BTreeMap<(String, String), (&Source, Number)> = BTreeMap::new();
        for placed in pools {
            for source in placed.pool.discovery.iter().filter(|source| source.run_on == RunOn::Node) {
                let key = (placed.pool.name.to_string(), source.id.to_string());
                wanted.insert(key, (source, placed.number));
            }
        }
        state.asked.retain(|key, asked| wanted.get(key) == Some(&(&asked.source, asked.pool)));
        let names: BTreeSet<&str> = pools.iter().map(|placed| placed.pool.name.as_str()).collect();
        let State { told, own, asked } = &mut *state;
        told.retain(|pool, _| names.contains(pool.as_str()));
        own.retain(|pool, answers| {
            answers.retain(|source, _| wanted.contains_key(&(pool.clone(), source.clone())));
            !answers.is_empty()
        });
        for (key, (source, pool)) in wanted {
            if asked.contains_key(&key) {
                continue;
            }
            let remembered = own.get(&key.0).and_then(|answers| answers.get(&key.1));
            let report =
                Report { backends: remembered.map(|found| found.as_slice().into()), ..Report::default() };
            let (sender, receiver) = watch::channel(report);
            let (mut changed, news, told_key) = (receiver.clone(), news.clone(), key.clone());
            let source = source.clone();
            let following = follow(source.clone(), Arc::new(Allowed::default()), sender);
            let task = tokio::spawn(async move {
                let telling =
                    async { while changed.changed().await.is_ok() && news.send(told_key.clone()).is_ok() {} };
                tokio::join!(following, telling);
            });
            asked.insert(key, Asked { source, pool, report: receiver, task: task.abort_handle() });
        }
    }

    /// A source was asked.
    fn heard(&self, live: &Live, pool: &str, source: &str) {
        {
            let mut state = self.state();
            let Some(asked) = state.asked.get(&(pool.to_owned(), source.to_owned())) else { return };
            let Some(backends) = asked.report.borrow().backends.clone() else { return };
            let answers = state.own.entry(pool.to_owned()).or_default();
            if answers.get(source).is_some_and(|before| before[..] == backends[..]) {
                return;
            }
            answers.insert(source.to_owned(), backends.to_vec());
        }
        self.dirty.notify_one();
        self.apply(live, Some(pool));
    }
}

/// Writes what changed to the cache, at most once a second.
pub async fn save(discovered: Arc<Discovered>, cache: Cache) {
    loop {
        discovered.dirty.notified().await;
        let (told, own) = {
            let state = discovered.state();
            (write(&state.told), write(&state.own))
        };
        let cache = cache.clone();
        match tokio::task::spawn_blocking(move || cache.save_discovered(told, own)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "discovered backends cannot be stored on disk"),
            Err(_) => {}
        }
        tokio::time::sleep(SAVE_EVERY).await;
    }
}

/// The backends that a pool's configuration names.
fn configured(placed: &PlacedPool) -> impl Iterator<Item = &Backend> {
    let both = placed.pool.backends.iter().zip(&placed.backend_numbers);
    both.filter(|(_, number)| !awe4lb_discovery::is_discovered(**number)).map(|(backend, _)| backend)
}

fn answers_of(answers: &[v1::SourceAnswer]) -> Answers {
    let backends = |answer: &v1::SourceAnswer| {
        let read = answer.backends.iter().filter_map(|backend| match backend_from_wire(backend.clone()) {
            Ok((_, backend)) => Some(backend),
            Err(error) => {
                tracing::warn!(%error, "a discovered backend cannot be used here");
                None
            }
        });
        read.collect()
    };
    answers.iter().map(|answer| (answer.source.clone(), backends(answer))).collect()
}

fn read(overlays: Vec<v1::Overlay>) -> BTreeMap<String, Answers> {
    overlays.into_iter().map(|overlay| (overlay.pool, answers_of(&overlay.answers))).collect()
}

fn write(pools: &BTreeMap<String, Answers>) -> Vec<v1::Overlay> {
    let answer = |(source, backends): (&String, &Vec<Backend>)| v1::SourceAnswer {
        source: source.clone(),
        // The number is made anew when it is read; it must not be 0.
        backends: backends
            .iter()
            .map(|backend| backend_to_wire(backend, discovered_number(Number(1), &backend.address)))
            .collect(),
    };
    pools
        .iter()
        .map(|(pool, answers)| v1::Overlay {
            pool: pool.clone(),
            answers: answers.iter().map(answer).collect(),
            ..v1::Overlay::default()
        })
        .collect()
}
