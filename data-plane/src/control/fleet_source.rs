//! Configurations from a control plane: the cache first, then one stream after the other.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use anyhow::Context as _;
use awe4lb_proto::v1;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    apply::{Applier, Rejections, Slot},
    boot,
    cache::Cache,
    challenges::Challenges,
    discovery::{self, Discovered},
    identity::Identity,
    node::{LinkState, Node},
    options::RunArgs,
    overlay::Overlays,
    report::Reporter,
    session::Uplink,
    state_dir::StateDir,
    status::Board,
    token::JoinToken,
    uplink::{self, CannotJoin, Joining},
};

/// Results that wait for a stream; more are of no interest: the next hello tells what runs.
const OUTCOMES: usize = 64;

/// What runs in the background, to be ended in order.
pub struct FleetSource {
    link: Link,
    applier: JoinHandle<()>,
    discovery: [JoinHandle<()>; 2],
    cache: Cache,
}

/// The uplink alone: nothing is applied any more, counters still go out.
pub struct Link {
    task: JoinHandle<Result<(), CannotJoin>>,
    flush: watch::Sender<bool>,
    /// The stream ends when nobody can have results for it.
    _outcomes: mpsc::Sender<v1::Result>,
}

/// Serves what the cache holds, then starts the applier and the uplink.
pub async fn start(
    args: &RunArgs,
    node: &Arc<Node>,
    dir: &Arc<StateDir>,
    admin_address: String,
) -> anyhow::Result<FleetSource> {
    let identity = Identity::load(dir)?;
    let joining = joining(args, identity.as_ref())?;
    let cache = Cache::open(dir.path()).context("the cache")?;
    let rejections = Arc::new(Rejections::load(&cache));
    let overlays = Overlays::load(&cache);
    node.live.path().set_zone(cache.zone().as_deref());
    let booted = boot::boot(&node.live, &cache, &rejections).await;
    let discovered = Arc::new(Discovered::load(&cache));
    discovered.apply(&node.live, None);
    overlays.apply(&node.live, None, SystemTime::now());
    let asking = tokio::spawn(discovery::run(discovered.clone(), node.live.clone()));
    let saving = tokio::spawn(discovery::save(discovered.clone(), cache.clone()));

    let (flush, flushed) = watch::channel(false);
    let (outcomes, incoming) = mpsc::channel(OUTCOMES);
    let slot = Arc::new(Slot::default());
    let applier = Applier::new(
        node.live.clone(),
        cache.clone(),
        rejections.clone(),
        slot.clone(),
        outcomes.clone(),
        booted.snapshot,
    );
    node.link.send_modify(|link| link.state = LinkState::Joining);
    let uplink = Uplink {
        node: node.clone(),
        dir: dir.clone(),
        cache: cache.clone(),
        library: Arc::new(Mutex::new(booted.library)),
        slot,
        outcomes: incoming,
        rejections,
        overlays,
        challenges: Challenges::default(),
        discovered,
        reporter: Reporter::new(node.boot_id),
        board: Board::default(),
        identity,
        flush: flushed,
        admin_address,
    };
    if let Some(identity) = &uplink.identity {
        uplink::know(&uplink, identity);
    }
    let applier = tokio::spawn(applier.run());
    let task = tokio::spawn(uplink::run(uplink, joining));
    let link = Link { task, flush, _outcomes: outcomes };
    Ok(FleetSource { link, applier, discovery: [asking, saving], cache })
}

/// What can be known to be wrong before anything is tried.
fn joining(args: &RunArgs, identity: Option<&Identity>) -> anyhow::Result<Joining> {
    let known = identity.is_some_and(|identity| !identity.control_planes.is_empty());
    anyhow::ensure!(
        known || !args.control_plane.is_empty(),
        "no control plane is known: give --control-plane URL, or --snapshot-file FILE to run without one"
    );
    let token = match args.join_token()? {
        None => None,
        Some(text) => match JoinToken::parse(&text) {
            Ok(token) => Some(token),
            // A node that has joined does not need it.
            Err(why) if identity.is_some() => {
                tracing::warn!("the join token is not one and not needed: {why}");
                None
            }
            Err(why) => anyhow::bail!("the join token is not one: {why}"),
        },
    };
    anyhow::ensure!(
        identity.is_some() || token.is_some(),
        "this node has not joined yet: give a join token with --join-token-file or AWE4LB_JOIN_TOKEN"
    );
    Ok(Joining { control_planes: args.control_plane.clone(), token, name: args.name.clone() })
}

impl FleetSource {
    /// Returns only when this node cannot become one, with the reason.
    pub async fn cannot_go_on(&mut self) -> anyhow::Error {
        match (&mut self.link.task).await {
            Ok(Ok(())) => std::future::pending().await,
            Ok(Err(error)) => error.into(),
            Err(error) => anyhow::anyhow!("the uplink ended: {error}"),
        }
    }

    /// Nothing is applied from here on. What was on trial did not crash: it is stopped on purpose.
    pub async fn freeze(self) -> Link {
        self.applier.abort();
        self.discovery.iter().for_each(JoinHandle::abort);
        let _ = self.applier.await;
        let cache = self.cache;
        let ended = tokio::task::spawn_blocking(move || cache.end_trial()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "cannot end the trial on disk");
        }
        self.link
    }
}

impl Link {
    /// Sends what is left and waits until it is acknowledged, or nobody answers.
    pub async fn flush(self) {
        if self.task.is_finished() {
            return;
        }
        let _ = self.flush.send(true);
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "the uplink");
        }
    }
}
