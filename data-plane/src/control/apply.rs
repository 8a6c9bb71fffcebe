//! Makes an assignment true: validate, prepare, commit, then durable, then said. One at a time; of those that wait only the
//! latest counts.

use std::{
    cmp::Ordering,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use awe4lb_model::placed::NodeConfig;
use awe4lb_proto::{Problem as WireProblem, WireError, built_hash, manifest, resources, v1};
use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    assembly::Target,
    cache::{Cache, Snapshot, StoredResource, Trial},
    hot::{Mode, Problem},
    live::{Live, Running},
};

/// How long a new configuration is on trial: a crash within it counts against it.
pub const TRIAL: Duration = Duration::from_secs(30);
/// Crashes on trial after which a configuration is not booted again.
pub const CRASHES: u32 = 2;
/// Rejections that are remembered.
const MAX_REJECTIONS: usize = 8;

/// What the stream wants done.
#[derive(Debug)]
pub enum Order {
    /// A manifest with its resources.
    Run(Box<Target>),
    /// What was prepared is to go live.
    Activate(v1::Assignment),
}

/// The latest order. Depth one.
#[derive(Debug, Default)]
pub struct Slot {
    order: Mutex<Option<Order>>,
    filled: Notify,
}

impl Slot {
    /// Puts an order; gives back the assignment of one that it takes the place of.
    pub fn put(&self, order: Order) -> Option<v1::Assignment> {
        let before = self.order.lock().unwrap_or_else(PoisonError::into_inner).replace(order);
        self.filled.notify_one();
        match before? {
            Order::Run(target) => Some(target.assignment),
            Order::Activate(_) => None,
        }
    }

    async fn take(&self) -> Order {
        loop {
            let filled = self.filled.notified();
            if let Some(order) = self.order.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return order;
            }
            filled.await;
        }
    }
}

/// What is remembered of rejections, shared with the hello.
#[derive(Debug, Default)]
pub struct Rejections(Mutex<Vec<v1::Result>>);

impl Rejections {
    /// From the cache.
    pub fn load(cache: &Cache) -> Self {
        Self(Mutex::new(cache.rejections()))
    }

    /// As sent, oldest first.
    pub fn all(&self) -> Vec<v1::Result> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers one more; the manifest's earlier rejection is forgotten.
    pub fn add(&self, cache: &Cache, result: v1::Result) {
        let all = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|known| manifest_of(known) != manifest_of(&result));
            all.push(result);
            let excess = all.len().saturating_sub(MAX_REJECTIONS);
            all.drain(..excess);
            all.clone()
        };
        log_failure("remember a rejection", cache.save_rejections(all));
    }

    /// The manifest runs after all.
    fn remove(&self, cache: &Cache, hash: &[u8]) {
        let all = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let before = all.len();
            all.retain(|known| manifest_of(known) != hash);
            if all.len() == before {
                return;
            }
            all.clone()
        };
        log_failure("forget a rejection", cache.save_rejections(all));
    }
}

fn manifest_of(result: &v1::Result) -> &[u8] {
    result.assignment.as_ref().map_or(&[], |assignment| &assignment.manifest_hash)
}

fn log_failure(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot {what} on disk");
    }
}

/// Takes orders and makes them true.
pub struct Applier {
    live: Arc<Live>,
    cache: Cache,
    rejections: Arc<Rejections>,
    slot: Arc<Slot>,
    outcomes: mpsc::Sender<v1::Result>,
    /// The newest generation on disk.
    stored: Option<Snapshot>,
    trial_ends: Option<Instant>,
    /// With [`v1::Mode::Prepare`]: proven to be possible, waits for its word.
    waiting: Option<Box<Target>>,
}

impl Applier {
    /// `stored` is what was booted.
    pub fn new(
        live: Arc<Live>,
        cache: Cache,
        rejections: Arc<Rejections>,
        slot: Arc<Slot>,
        outcomes: mpsc::Sender<v1::Result>,
        stored: Option<Snapshot>,
    ) -> Self {
        let trial_ends = cache.trial().map(|_| Instant::now() + TRIAL);
        Self { live, cache, rejections, slot, outcomes, stored, trial_ends, waiting: None }
    }

    /// For ever.
    pub async fn run(mut self) {
        loop {
            let slot = self.slot.clone();
            let trial_ends = self.trial_ends;
            let end_of_trial = async {
                match trial_ends {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = slot.take() => self.follow(order).await,
                () = end_of_trial => self.end_trial().await,
            }
        }
    }

    async fn follow(&mut self, order: Order) {
        match order {
            Order::Run(target) => self.apply(target).await,
            Order::Activate(assignment) => match self.waiting.take() {
                Some(mut target) if target.assignment == assignment => {
                    target.mode = v1::Mode::Apply;
                    self.apply(target).await;
                }
                waiting => {
                    self.waiting = waiting;
                    self.say(v1::Phase::Superseded, &assignment, |result| {
                        result.message = "nothing is prepared under this assignment".to_owned();
                    });
                }
            },
        }
    }

    async fn apply(&mut self, target: Box<Target>) {
        let assignment = target.assignment.clone();
        let running = self.live.running();
        match stands_to(&running, &target) {
            Standing::Newer => {}
            Standing::Same => return self.say_active(&assignment, 0),
            Standing::Older(why) => {
                return self.say(v1::Phase::Superseded, &assignment, |result| result.message = why);
            }
            Standing::Foreign(why) => {
                tracing::error!(%why, "an assignment is refused");
                return self.say(v1::Phase::Rejected, &assignment, |result| result.message = why);
            }
        }
        let is_running =
            running.assignment.as_ref().is_some_and(|now| now.manifest_hash == assignment.manifest_hash);
        if is_running && running.missing.is_empty() && target.mode == v1::Mode::Apply {
            self.reassign(&target).await;
            return;
        }

        let config = match assemble(&target) {
            Ok(config) => Arc::new(config),
            Err(statuses) => {
                return self.reject(&assignment, statuses, "resources that this node cannot run").await;
            }
        };
        self.say(v1::Phase::Validated, &assignment, |_| {});

        self.begin_trial(assignment.clone()).await;
        // An empty hand takes what it can get; what runs is only ever replaced by something whole.
        let mode = if running.is_configured() && !is_running { Mode::Strict } else { Mode::BestEffort };
        let live = self.live.clone();
        let turn = live.turn().await;
        let ready = match turn.prepare(config.clone(), mode).await {
            Ok(ready) => ready,
            Err(problems) => {
                drop(turn);
                self.end_trial().await;
                let statuses = problems.iter().map(status).collect();
                return self.reject(&assignment, statuses, "it cannot be run on this node").await;
            }
        };
        self.say(v1::Phase::Prepared, &assignment, |_| {});
        if target.mode != v1::Mode::Apply {
            drop((ready, turn));
            self.end_trial().await;
            if target.mode == v1::Mode::Prepare {
                self.waiting = Some(target);
            }
            return;
        }
        turn.commit(ready, Some(assignment.clone()), Bytes::new());
        drop(turn);
        let apply_micros = u64::try_from(target.received.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waiting = None;
        tracing::info!(
            revision = assignment.revision,
            sequence = assignment.sequence,
            listeners = config.listeners.len(),
            pools = config.pools.len(),
            apply_micros,
            "configuration applied"
        );
        self.after_commit(&target, config, apply_micros).await;
    }

    /// The same manifest under a higher assignment: nothing to build, but durable as any other.
    async fn reassign(&mut self, target: &Target) {
        let running = self.live.running();
        self.live.turn().await.reassign(target.assignment.clone());
        self.store(target, running.built_hash.clone()).await;
        self.rejections.remove(&self.cache, &target.assignment.manifest_hash);
        self.say_active(&target.assignment, 0);
    }

    async fn after_commit(&mut self, target: &Target, config: Arc<NodeConfig>, apply_micros: u64) {
        let left_out: Vec<String> = self.live.running().missing_listeners();
        let built =
            tokio::task::spawn_blocking(move || hash_of_built(&config, &left_out)).await.unwrap_or_default();
        self.live.turn().await.built(built.clone());
        let is_durable = self.store(target, built).await;
        self.rejections.remove(&self.cache, &target.assignment.manifest_hash);
        self.trial_ends = Some(Instant::now() + TRIAL);
        if is_durable {
            self.say_active(&target.assignment, apply_micros);
        } else {
            let built_hash = self.live.running().built_hash.clone();
            self.say(v1::Phase::Degraded, &target.assignment, |result| {
                result.message = "it runs, but the cache on disk could not be written".to_owned();
                result.built_hash = built_hash;
                result.apply_micros = apply_micros;
            });
        }
    }

    /// Durable in the cache. False: it could not be written, which is logged.
    async fn store(&mut self, target: &Target, built_hash: Bytes) -> bool {
        let mut snapshot = snapshot_of(target, built_hash);
        let (cache, before) = (self.cache.clone(), self.stored.take());
        let written = tokio::task::spawn_blocking(move || {
            let result = cache.save(&mut snapshot, before.as_ref());
            (result, snapshot, before)
        })
        .await;
        match written {
            Ok((Ok(()), snapshot, _)) => {
                self.stored = Some(snapshot);
                true
            }
            Ok((Err(error), _, before)) => {
                tracing::error!(%error, "the cache on disk cannot be written: a restart would serve what was before");
                self.stored = before;
                false
            }
            Err(_) => false,
        }
    }

    async fn begin_trial(&mut self, assignment: v1::Assignment) {
        let cache = self.cache.clone();
        let written = tokio::task::spawn_blocking(move || {
            let before = cache.trial().filter(|trial| trial.manifest_hash() == &assignment.manifest_hash[..]);
            let crashes = before.map_or(0, |trial| trial.crashes);
            cache.save_trial(&Trial { assignment: Some(assignment), crashes })
        })
        .await;
        log_failure("mark the trial", written.unwrap_or(Ok(())));
    }

    async fn end_trial(&mut self) {
        self.trial_ends = None;
        let cache = self.cache.clone();
        let ended = tokio::task::spawn_blocking(move || cache.end_trial()).await;
        log_failure("end the trial", ended.unwrap_or(Ok(())));
    }

    async fn reject(
        &mut self,
        assignment: &v1::Assignment,
        resources: Vec<v1::ResourceStatus>,
        message: &str,
    ) {
        for status in &resources {
            tracing::error!(
                resource = status.name,
                code = status.code,
                field = status.field_path,
                "refused: {}",
                status.message
            );
        }
        tracing::error!(
            revision = assignment.revision,
            sequence = assignment.sequence,
            "configuration rejected, the one before keeps running: {message}"
        );
        let first = resources.first().map(|status| format!(": {}", status.message)).unwrap_or_default();
        let result = v1::Result {
            assignment: Some(assignment.clone()),
            phase: v1::Phase::Rejected.into(),
            resources,
            message: format!("{message}{first}"),
            ..v1::Result::default()
        };
        let (rejections, cache, remembered) = (self.rejections.clone(), self.cache.clone(), result.clone());
        let _ = tokio::task::spawn_blocking(move || rejections.add(&cache, remembered)).await;
        self.send(result);
    }

    /// It runs; what a cold start left out is named.
    fn say_active(&self, assignment: &v1::Assignment, apply_micros: u64) {
        let result = state_of(&self.live.running(), assignment, apply_micros);
        self.send(result);
    }

    fn say(&self, phase: v1::Phase, assignment: &v1::Assignment, more: impl FnOnce(&mut v1::Result)) {
        let mut result =
            v1::Result { assignment: Some(assignment.clone()), phase: phase.into(), ..v1::Result::default() };
        more(&mut result);
        self.send(result);
    }

    fn send(&self, result: v1::Result) {
        // Nobody listens while there is no stream; the next hello tells what runs and what was rejected.
        if self.outcomes.try_send(result).is_err() {
            tracing::debug!("a result found no stream to go out on");
        }
    }
}

/// The result that says what runs.
pub fn state_of(running: &Running, assignment: &v1::Assignment, apply_micros: u64) -> v1::Result {
    let phase = if running.missing.is_empty() { v1::Phase::Active } else { v1::Phase::Degraded };
    v1::Result {
        assignment: Some(assignment.clone()),
        phase: phase.into(),
        resources: running.missing.iter().map(status).collect(),
        built_hash: running.built_hash.clone(),
        apply_micros,
        message: running.missing.first().map(super::file_source::describe).unwrap_or_default(),
    }
}

enum Standing {
    Newer,
    Same,
    Older(String),
    Foreign(String),
}

/// A node goes up in (epoch, sequence), and stays with its lineage.
fn stands_to(running: &Running, target: &Target) -> Standing {
    let Some(now) = &running.assignment else { return Standing::Newer };
    let next = &target.assignment;
    if now.lineage != next.lineage {
        return Standing::Foreign(format!(
            "this node runs lineage {}, the control plane has {}: its database is another one, or was restored; \
             remove the folder `cache` in the node's state directory to follow it",
            now.lineage, next.lineage
        ));
    }
    match (next.epoch, next.sequence).cmp(&(now.epoch, now.sequence)) {
        Ordering::Greater => Standing::Newer,
        Ordering::Equal if now.manifest_hash == next.manifest_hash => Standing::Same,
        Ordering::Equal => Standing::Foreign(format!(
            "assignment ({}, {}) came with another manifest than the one that runs under it",
            next.epoch, next.sequence
        )),
        Ordering::Less => Standing::Older(format!(
            "assignment ({}, {}) is older than ({}, {}), which runs",
            next.epoch, next.sequence, now.epoch, now.sequence
        )),
    }
}

/// The nouns of a target, or everything about its resources that this version does not run.
pub fn assemble(target: &Target) -> Result<NodeConfig, Vec<v1::ResourceStatus>> {
    let mut refused = Vec::new();
    let mut decoded = Vec::with_capacity(target.resources.len());
    for (id, hash) in target.manifest.entries() {
        let refuse = |code: &str, field_path: String, message: String| v1::ResourceStatus {
            kind: manifest::kind_to_wire(id.kind),
            name: id.name.to_string(),
            code: code.to_owned(),
            field_path,
            message,
        };
        match target.resources.get(&hash).map(|resource| &resource.decoded) {
            Some(Ok(resource)) if resource.id() == *id => decoded.push((hash, resource.clone())),
            Some(Ok(resource)) => {
                let is = resource.id();
                let message = format!("the resource is {} {}", manifest::kind_word(is.kind), is.name);
                refused.push(refuse("name-mismatch", String::new(), message));
            }
            Some(Err(WireError { path, problem, .. })) => {
                refused.push(refuse(problem.code(), path.clone(), problem.to_string()));
            }
            None => refused.push(refuse("missing-resource", String::new(), "it did not come".to_owned())),
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    resources::assemble(decoded).map_err(|error| vec![unplaced(&error)])
}

/// Something between resources: the path says which.
fn unplaced(error: &WireError) -> v1::ResourceStatus {
    let kind = match error.noun {
        awe4lb_proto::Noun::Listener => v1::ResourceKind::Listener,
        awe4lb_proto::Noun::Pool => v1::ResourceKind::Pool,
        awe4lb_proto::Noun::Certificate => v1::ResourceKind::Certificate,
        awe4lb_proto::Noun::Key => v1::ResourceKind::Key,
        awe4lb_proto::Noun::AddressList => v1::ResourceKind::AddressList,
        awe4lb_proto::Noun::Map => v1::ResourceKind::Map,
        awe4lb_proto::Noun::Resource | awe4lb_proto::Noun::Manifest => v1::ResourceKind::Unspecified,
    };
    let mut path = error.path.trim_start_matches('/').splitn(2, '/');
    let name = match &error.problem {
        WireProblem::Duplicate(name) => name.clone(),
        _ => path.next().unwrap_or_default().to_owned(),
    };
    v1::ResourceStatus {
        kind: kind.into(),
        name,
        code: error.problem.code().to_owned(),
        field_path: path.next().map(|rest| format!("/{rest}")).unwrap_or_default(),
        message: error.problem.to_string(),
    }
}

fn status(problem: &Problem) -> v1::ResourceStatus {
    v1::ResourceStatus {
        kind: manifest::kind_to_wire(problem.resource.kind),
        name: problem.resource.name.to_string(),
        code: problem.code.to_owned(),
        field_path: problem.field_path.clone(),
        message: problem.message.clone(),
    }
}

/// Over what was really built: a listener that was left out is not in it.
pub fn hash_of_built(config: &NodeConfig, left_out: &[String]) -> Bytes {
    let hash = if left_out.is_empty() {
        built_hash(config)
    } else {
        let mut built = config.clone();
        built.listeners.retain(|placed| !left_out.iter().any(|name| name == placed.listener.name.as_str()));
        built_hash(&built)
    };
    hash.to_wire()
}

fn snapshot_of(target: &Target, built_hash: Bytes) -> Snapshot {
    Snapshot {
        generation: 0,
        assignment: Some(target.assignment.clone()),
        manifest: target
            .manifest
            .entries()
            .map(|(id, hash)| v1::ResourceRef {
                kind: manifest::kind_to_wire(id.kind),
                name: id.name.to_string(),
                hash: hash.to_wire(),
            })
            .collect(),
        resources: target
            .resources
            .values()
            .map(|resource| StoredResource { hash: resource.hash.to_wire(), data: resource.zstd.clone() })
            .collect(),
        built_hash,
    }
}
