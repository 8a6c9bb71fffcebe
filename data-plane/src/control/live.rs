//! What the node runs now, and the only way to change it: prepare, then commit, one change at a time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_model::placed::{NodeConfig, Number, PlacedPool, ResourceKind};
use awe4lb_proto::v1;
use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::hot::{DataPath, Mode, PoolHandle, Prepared, Problem};

/// What runs.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// Goes up with each commit; 0: nothing was ever committed.
    pub commits: u64,
    /// All of it.
    pub config: Arc<NodeConfig>,
    /// By which assignment; `None` from a file.
    pub assignment: Option<v1::Assignment>,
    /// Over what was built, for the control plane.
    pub built_hash: Bytes,
    /// Listeners that could not be bound (a cold start only), and why.
    pub missing: Vec<Problem>,
    /// When it was committed.
    pub since: Option<SystemTime>,
}

impl Running {
    /// Whether anything was ever committed.
    pub fn is_configured(&self) -> bool {
        self.commits > 0
    }

    /// Names of the listeners that are not bound.
    pub fn missing_listeners(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .missing
            .iter()
            .filter(|problem| problem.resource.kind == ResourceKind::Listener)
            .map(|problem| problem.resource.name.to_string())
            .collect();
        names.dedup();
        names
    }
}

/// The hot half and what it runs.
pub struct Live {
    path: Arc<dyn DataPath>,
    running: watch::Sender<Arc<Running>>,
    memberships: watch::Sender<u64>,
    turn: Mutex<()>,
}

/// Up to where somebody has seen the configuration and the members of pools.
pub struct Seen {
    running: watch::Receiver<Arc<Running>>,
    memberships: watch::Receiver<u64>,
}

impl Seen {
    /// What runs now; counts as seen.
    pub fn config(&mut self) -> Arc<NodeConfig> {
        self.memberships.mark_unchanged();
        self.running.borrow_and_update().config.clone()
    }
}

/// The right to change what runs. Held from prepare to commit.
pub struct Turn<'a> {
    live: &'a Live,
    _guard: MutexGuard<'a, ()>,
}

/// Prepared, not yet live.
pub struct Ready {
    prepared: Prepared,
    config: Arc<NodeConfig>,
}

impl Ready {
    /// What was left out.
    pub fn missing(&self) -> &[Problem] {
        &self.prepared.missing
    }
}

impl Live {
    /// Nothing runs yet.
    pub fn new(path: Arc<dyn DataPath>) -> Self {
        Self {
            path,
            running: watch::Sender::new(Arc::default()),
            memberships: watch::Sender::new(0),
            turn: Mutex::new(()),
        }
    }

    /// The pools of what runs; all of them, or one by its name.
    pub fn handles(&self, only: Option<&str>) -> Vec<Arc<dyn PoolHandle>> {
        match only {
            Some(name) => self.path().pool(name).into_iter().collect(),
            None => self.path().pools(),
        }
    }

    /// The hot half.
    pub fn path(&self) -> &Arc<dyn DataPath> {
        &self.path
    }

    /// What runs now.
    pub fn running(&self) -> Arc<Running> {
        self.running.borrow().clone()
    }

    /// What runs now, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Arc<Running>> {
        self.running.subscribe()
    }

    /// The pools that run, with what was discovered.
    pub fn pools(&self) -> Vec<Arc<PlacedPool>> {
        self.path.pools().iter().map(|pool| pool.placed()).collect()
    }

    /// Sources said something new.
    pub fn members_changed(&self) {
        self.memberships.send_modify(|changes| *changes += 1);
    }

    /// Resolves when the configuration or the members of pools are others. Members come and go in bursts: those of a
    /// twentieth of a second are one change. False: there will be no more.
    pub async fn changed(&self, seen: &mut Seen) -> bool {
        tokio::select! {
            changed = seen.running.changed() => return changed.is_ok(),
            changed = seen.memberships.changed() => if changed.is_err() { return false },
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen.memberships.mark_unchanged();
        true
    }

    /// For [`Self::changed`].
    pub fn seen(&self) -> Seen {
        Seen { running: self.watch(), memberships: self.memberships.subscribe() }
    }

    /// Waits until nobody else is changing.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { live: self, _guard: self.turn.lock().await }
    }

    /// Tries again to bind what a cold start left out. True when something came back.
    pub async fn retry_missing(&self) -> bool {
        let turn = self.turn().await;
        let before = self.running();
        if before.missing.is_empty() {
            return false;
        }
        let Ok(ready) = turn.prepare(before.config.clone(), Mode::BestEffort).await else { return false };
        if ready.missing().len() >= before.missing.len() {
            return false;
        }
        let left_out: Vec<String> =
            ready.missing().iter().map(|problem| problem.resource.name.to_string()).collect();
        turn.commit(ready, before.assignment.clone(), Bytes::new());
        if before.assignment.is_some() {
            turn.built(super::apply::hash_of_built(&before.config, &left_out));
        }
        true
    }
}

impl Turn<'_> {
    /// Compiles, binds and loads off this thread.
    pub async fn prepare(&self, config: Arc<NodeConfig>, mode: Mode) -> Result<Ready, Vec<Problem>> {
        let path = self.live.path.clone();
        let of = config.clone();
        let prepared = tokio::task::spawn_blocking(move || path.prepare(of, mode)).await;
        match prepared {
            Ok(result) => result.map(|prepared| Ready { prepared, config }),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Makes it live.
    pub fn commit(&self, ready: Ready, assignment: Option<v1::Assignment>, built_hash: Bytes) {
        let missing = ready.prepared.missing.clone();
        self.live.path.commit(ready.prepared);
        self.live.running.send_modify(|running| {
            *running = Arc::new(Running {
                commits: running.commits + 1,
                config: ready.config,
                assignment,
                built_hash,
                missing,
                since: Some(SystemTime::now()),
            });
        });
    }

    /// The same configuration runs under a higher assignment.
    pub fn reassign(&self, assignment: v1::Assignment) {
        self.amend(|running| running.assignment = Some(assignment));
    }

    /// What was built has this hash.
    pub fn built(&self, hash: Bytes) {
        self.amend(|running| running.built_hash = hash);
    }

    fn amend(&self, change: impl FnOnce(&mut Running)) {
        self.live.running.send_modify(|running| {
            let mut next = Running::clone(running);
            change(&mut next);
            *running = Arc::new(next);
        });
    }
}

/// Keeps trying to bind what is missing, every few seconds.
pub async fn retry_missing_forever(live: Arc<Live>) {
    let mut changes = live.watch();
    loop {
        if changes.wait_for(|running| !running.missing.is_empty()).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        if live.retry_missing().await {
            let missing = live.running().missing_listeners();
            tracing::info!(?missing, "listeners that could not be bound are bound now");
        }
    }
}

/// The names behind a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A listener.
    Listener(String),
    /// A rule of a listener.
    Rule(String, String),
    /// A pool.
    Pool(String),
    /// A backend of a pool.
    Backend(String, String),
}

/// Names by number, of everything that runs.
pub fn names(live: &Live) -> HashMap<u64, Named> {
    let mut names = HashMap::new();
    let mut add = |Number(number): Number, named| {
        names.insert(number, named);
    };
    for placed in &live.running().config.listeners {
        let listener = placed.listener.name.to_string();
        for (number, rule) in placed.rule_numbers.iter().zip(&placed.listener.rules) {
            add(*number, Named::Rule(listener.clone(), rule.name.to_string()));
        }
        add(placed.number, Named::Listener(listener));
    }
    for placed in live.pools() {
        let pool = placed.pool.name.to_string();
        for (number, backend) in placed.backend_numbers.iter().zip(&placed.pool.backends) {
            add(*number, Named::Backend(pool.clone(), backend.name.to_string()));
        }
        add(placed.number, Named::Pool(pool));
    }
    names
}
