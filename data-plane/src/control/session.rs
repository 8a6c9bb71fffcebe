//! One stream to a control plane, from hello to its end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use awe4lb_proto::{
    CAPABILITIES, Hash, PROTOCOL,
    v1::{self, fleet_client::FleetClient, from_node, to_node},
};
use rand::SeedableRng as _;
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    apply::{self, Order, Rejections, Slot},
    assembly::{Assembler, Library, Progress},
    cache::Cache,
    challenges::Challenges,
    discovery::Discovered,
    gauges,
    identity::{Identity, PendingKey},
    live,
    node::{Draining, LinkState, Node, unix_millis},
    overlay::Overlays,
    report::Reporter,
    state_dir::StateDir,
    status::Board,
};

/// How long the control plane may take to say welcome.
const WELCOME: Duration = Duration::from_secs(10);
/// How long a message may wait to be sent before the stream counts as dead.
const SEND: Duration = Duration::from_secs(10);
/// How long the last counters may take to be acknowledged.
const FLUSH: Duration = Duration::from_secs(3);
/// Changes of backends within this are one message.
const COALESCE: Duration = Duration::from_millis(50);
/// Hashes in one message of asking.
const HASHES_A_MESSAGE: usize = 1500;

/// How a stream ended.
#[derive(Debug)]
pub enum Ended {
    /// The control plane closed on purpose.
    Goodbye {
        /// `banned`, `shutdown`, `replaced`.
        reason: String,
        /// Not before this.
        retry_after: Duration,
    },
    /// This node is going; its last counters are acknowledged, or nobody answered.
    Flushed,
}

/// What outlives a stream.
pub struct Uplink {
    /// The node.
    pub node: Arc<Node>,
    /// Its state directory.
    pub dir: Arc<StateDir>,
    /// Its cache.
    pub cache: Cache,
    /// What it holds.
    pub library: Arc<Mutex<Library>>,
    /// To the applier.
    pub slot: Arc<Slot>,
    /// From the applier.
    pub outcomes: mpsc::Receiver<v1::Result>,
    /// What was rejected.
    pub rejections: Arc<Rejections>,
    /// Overlays.
    pub overlays: Overlays,
    /// Challenges that came in part.
    pub challenges: Challenges,
    /// Discovered backends.
    pub discovered: Arc<Discovered>,
    /// Counters.
    pub reporter: Reporter,
    /// Backends.
    pub board: Board,
    /// Who this node is.
    pub identity: Option<Identity>,
    /// True: send what is left and end.
    pub flush: watch::Receiver<bool>,
    /// The node's admin address, for the fleet view.
    pub admin_address: String,
}

/// One stream.
struct Session<'a> {
    uplink: &'a mut Uplink,
    out: mpsc::Sender<v1::FromNode>,
    assembler: Assembler,
    renewal: Option<PendingKey>,
    renew_at: SystemTime,
}

/// Speaks over `channel` until one side ends it. Errors are the stream's, never the node's.
pub async fn run(uplink: &mut Uplink, channel: Channel, url: &str) -> anyhow::Result<Ended> {
    uplink.reporter.reconnected();
    uplink.board.reconnected();
    uplink.overlays.reconnected();
    uplink.challenges.reconnected();
    while uplink.outcomes.try_recv().is_ok() {}

    let (out, outgoing) = mpsc::channel(64);
    out.send(wire(from_node::Message::Hello(hello(uplink)))).await?;
    let mut client = FleetClient::new(channel).max_decoding_message_size(1 << 20);
    let attach = client.attach(ReceiverStream::new(outgoing));
    let welcome = async {
        let mut incoming = attach.await?.into_inner();
        let first = incoming.message().await?;
        Ok::<_, tonic::Status>((incoming, first))
    };
    let (incoming, first) = tokio::time::timeout(WELCOME, welcome)
        .await
        .context("the control plane does not answer the hello")?
        .map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?;
    let welcome = match first.and_then(|first| first.message) {
        Some(to_node::Message::Welcome(welcome)) => welcome,
        Some(to_node::Message::Command(command)) => match command.command {
            Some(v1::command::Command::Goodbye(goodbye)) => return Ok(ended(goodbye)),
            _ => bail!("the control plane starts with a command instead of a welcome"),
        },
        Some(_) => bail!("the control plane starts with something else than a welcome"),
        None => bail!("the control plane ends the stream instead of a welcome"),
    };
    tracing::info!(
        control_plane = url,
        node = welcome.node,
        version = welcome.version,
        up_to_date = welcome.up_to_date,
        "connected to the control plane"
    );
    uplink.node.link.send_modify(|link| {
        link.state = LinkState::Connected;
        link.control_plane = Some(url.to_owned());
        link.version = Some(welcome.version.clone());
        link.error = None;
    });

    uplink.node.live.path().set_zone(Some(welcome.zone.as_str()).filter(|zone| !zone.is_empty()));
    let (cache, zone) = (uplink.cache.clone(), welcome.zone);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || cache.save_zone(&zone)).await {
        tracing::error!(%error, "the node's zone cannot be stored on disk");
    }

    let renew_at = uplink.identity.as_ref().map_or_else(
        || SystemTime::now() + Duration::from_secs(3600),
        |identity| identity.validity.renew_at(&mut rand::rngs::StdRng::from_os_rng()),
    );
    let mut session = Session { uplink, out, assembler: Assembler::default(), renewal: None, renew_at };
    session.say_what_stands().await?;
    let interval = match welcome.report_interval_ms {
        0 => 1000,
        millis => millis.clamp(100, 60_000),
    };
    session.run(incoming, Duration::from_millis(interval.into())).await
}

fn hello(uplink: &Uplink) -> v1::Hello {
    let running = uplink.node.live.running();
    v1::Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        capabilities: CAPABILITIES.iter().map(|word| (*word).to_owned()).collect(),
        boot_id: uplink.node.boot_id.to_vec().into(),
        running: running.assignment.clone().map(|assignment| v1::Running {
            assignment: Some(assignment),
            built_hash: running.built_hash.clone(),
        }),
        rejected_manifests: uplink
            .rejections
            .all()
            .into_iter()
            .filter_map(|result| Some(result.assignment?.manifest_hash))
            .collect(),
        threads: u32::try_from(uplink.node.threads).unwrap_or(u32::MAX),
        started_unix_ms: unix_millis(uplink.node.started),
        admin_address: uplink.admin_address.clone(),
    }
}

fn wire(message: from_node::Message) -> v1::FromNode {
    v1::FromNode { message: Some(message) }
}

fn ended(goodbye: v1::Goodbye) -> Ended {
    Ended::Goodbye {
        reason: goodbye.reason,
        retry_after: Duration::from_millis(goodbye.retry_after_ms.min(600_000).into()),
    }
}

impl Session<'_> {
    async fn run(mut self, mut incoming: Streaming<v1::ToNode>, interval: Duration) -> anyhow::Result<Ended> {
        let node = self.uplink.node.clone();
        let mut running = node.live.watch();
        let mut draining = node.draining.subscribe();
        let mut flush = self.uplink.flush.clone();
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What is awaited here is never lost when another branch is first: streams and channels keep their messages.
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        if let Some(ended) = self.take(message).await? {
                            return Ok(ended);
                        }
                    }
                    Ok(None) => bail!("the control plane ended the stream"),
                    Err(status) => bail!("{:?}: {}", status.code(), status.message()),
                },
                outcome = self.uplink.outcomes.recv() => {
                    let outcome = outcome.context("the applier is gone")?;
                    self.send(from_node::Message::Result(outcome)).await?;
                }
                _ = tick.tick() => {
                    self.report(false).await?;
                    self.status().await?;
                    self.renew_when_due().await?;
                }
                () = async { drop(flush.wait_for(|flush| *flush).await) } => return self.flush(incoming).await,
                () = changed(&node, &mut running, &mut draining) => self.status().await?,
            }
        }
    }

    /// What the control plane may not know from the hello: a cold start that left something out, and why manifests were
    /// rejected.
    async fn say_what_stands(&mut self) -> anyhow::Result<()> {
        let running = self.uplink.node.live.running();
        if let Some(assignment) = running.assignment.as_ref().filter(|_| !running.missing.is_empty()) {
            self.send(from_node::Message::Result(apply::state_of(&running, assignment, 0))).await?;
        }
        let place = |assignment: &v1::Assignment| (assignment.epoch, assignment.sequence);
        let now = running.assignment.as_ref().map(place);
        for result in self.uplink.rejections.all() {
            if result.assignment.as_ref().map(place) <= now {
                continue;
            }
            self.send(from_node::Message::Result(result)).await?;
        }
        Ok(())
    }

    async fn take(&mut self, message: v1::ToNode) -> anyhow::Result<Option<Ended>> {
        match message.message {
            Some(to_node::Message::Manifest(manifest)) => {
                let (progress, given_up) =
                    self.assembler.manifest(manifest, &mut lock(&self.uplink.library))?;
                if let Some(assignment) = given_up {
                    self.superseded(assignment).await?;
                }
                self.proceed(progress).await?;
            }
            Some(to_node::Message::Resource(chunk)) => {
                let progress = self.assembler.chunk(chunk, &mut lock(&self.uplink.library))?;
                self.proceed(progress).await?;
            }
            Some(to_node::Message::Overlay(overlay)) => self.overlay(overlay).await,
            Some(to_node::Message::Challenges(challenges)) => self.challenges(challenges).await?,
            Some(to_node::Message::CounterAck(ack)) => self.uplink.reporter.acknowledge(&ack),
            Some(to_node::Message::Renewed(reply)) => self.renewed(reply),
            Some(to_node::Message::Command(command)) => return Ok(self.command(command)),
            Some(to_node::Message::Welcome(_)) => bail!("a second welcome"),
            // A message of a newer control plane: it was told what this node can do, so this is nothing it needs.
            None => tracing::warn!("the control plane sent a message that this version does not know"),
        }
        Ok(None)
    }

    async fn proceed(&mut self, progress: Progress) -> anyhow::Result<()> {
        match progress {
            Progress::Waiting => {}
            Progress::Need(manifest, hashes) => {
                for chunk in hashes.chunks(HASHES_A_MESSAGE) {
                    let need = v1::Need {
                        manifest_hash: manifest.to_wire(),
                        resource_hashes: chunk.iter().map(|hash| Hash::to_wire(*hash)).collect(),
                    };
                    self.send(from_node::Message::Need(need)).await?;
                }
            }
            Progress::Complete(target) => {
                let received = v1::Result {
                    assignment: Some(target.assignment.clone()),
                    phase: v1::Phase::Received.into(),
                    ..Default::default()
                };
                let given_up = self.uplink.slot.put(Order::Run(target));
                self.send(from_node::Message::Result(received)).await?;
                if let Some(assignment) = given_up {
                    self.superseded(assignment).await?;
                }
            }
        }
        Ok(())
    }

    async fn superseded(&mut self, assignment: v1::Assignment) -> anyhow::Result<()> {
        let result = v1::Result {
            assignment: Some(assignment),
            phase: v1::Phase::Superseded.into(),
            ..Default::default()
        };
        self.send(from_node::Message::Result(result)).await
    }

    async fn overlay(&mut self, overlay: v1::Overlay) {
        let (pool, answers) = (overlay.pool.clone(), overlay.answers.clone());
        let had_states = self.uplink.overlays.has_states(&pool);
        if !self.uplink.overlays.accept(overlay) {
            return;
        }
        let live = &self.uplink.node.live;
        self.uplink.discovered.told(live, &pool, &answers);
        self.uplink.overlays.apply(live, Some(&pool), SystemTime::now());
        if !had_states && !self.uplink.overlays.has_states(&pool) {
            return;
        }
        let (cache, all) = (self.uplink.cache.clone(), self.uplink.overlays.all());
        match tokio::task::spawn_blocking(move || cache.save_overlays(all)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "admin states cannot be stored on disk"),
            Err(_) => {}
        }
    }

    /// Confirms a version once the data path meets it. One that holds what cannot be answered here is not confirmed: the
    /// rest of it is answered all the same.
    async fn challenges(&mut self, message: v1::Challenges) -> anyhow::Result<()> {
        let Some(whole) = self.uplink.challenges.take(message) else { return Ok(()) };
        let (version, mut refused) = (whole.version, whole.refused);
        let path = self.uplink.node.live.path().clone();
        match tokio::task::spawn_blocking(move || path.set_challenges(whole.challenges)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => refused.push(why),
            Err(_) => return Ok(()),
        }
        if !refused.is_empty() {
            tracing::error!(version, "challenges that this node cannot answer: {}", refused.join("; "));
            return Ok(());
        }
        tracing::debug!(version, "challenges are in place");
        self.send(from_node::Message::ChallengesHeld(v1::ChallengesHeld { version })).await
    }

    fn command(&mut self, command: v1::Command) -> Option<Ended> {
        match command.command {
            Some(v1::command::Command::Drain(drain)) => {
                tracing::warn!(on = drain.on, "the control plane tells this node to drain");
                self.uplink.node.draining.send_modify(|draining| draining.commanded = drain.on);
                None
            }
            Some(v1::command::Command::Activate(activate)) => {
                if let Some(assignment) = activate.assignment {
                    self.uplink.slot.put(Order::Activate(assignment));
                }
                None
            }
            Some(v1::command::Command::Goodbye(goodbye)) => Some(ended(goodbye)),
            None => {
                tracing::warn!("the control plane sent a command that this version does not know");
                None
            }
        }
    }

    /// Counters. A stream that is slow is not filled with them: they are cumulative, the next ones say it all.
    async fn report(&mut self, last: bool) -> anyhow::Result<()> {
        let node = &self.uplink.node;
        if !last && self.out.capacity() < self.out.max_capacity() / 2 {
            return Ok(());
        }
        let samples = node.live.path().counters();
        // Of a hundred thousand backends it takes its time, and mostly nobody asks.
        let names = std::cell::OnceCell::new();
        let is_known = |number: u64| names.get_or_init(|| live::names(&node.live)).contains_key(&number);
        let finished = self.uplink.reporter.finished(&samples, is_known);
        if !finished.is_empty() {
            node.live.path().forget_counters(&finished);
        }
        for message in self.uplink.reporter.report(samples, gauges::read(), Instant::now(), last) {
            self.send(from_node::Message::Counters(message)).await?;
        }
        Ok(())
    }

    async fn status(&mut self) -> anyhow::Result<()> {
        self.uplink.overlays.remind(&self.uplink.node.live, SystemTime::now());
        let draining = self.uplink.node.draining.borrow().is_on();
        let sources = self.uplink.discovered.statuses();
        let messages =
            self.uplink.board.changes(&self.uplink.node.live, draining, sources, SystemTime::now());
        for message in messages {
            self.send(from_node::Message::Status(message)).await?;
        }
        Ok(())
    }

    async fn renew_when_due(&mut self) -> anyhow::Result<()> {
        if SystemTime::now() < self.renew_at || self.uplink.identity.is_none() {
            return Ok(());
        }
        // Asked again in a minute when there is no answer.
        self.renew_at = SystemTime::now() + Duration::from_secs(60);
        let pending = PendingKey::generate(self.uplink.node.name().as_deref())?;
        let request = v1::RenewRequest { csr_der: pending.csr_der.clone().into() };
        self.renewal = Some(pending);
        self.send(from_node::Message::Renew(request)).await
    }

    fn renewed(&mut self, reply: v1::RenewReply) {
        let (Some(pending), Some(before)) = (self.renewal.take(), &self.uplink.identity) else { return };
        let next = Identity::new(
            before.name.clone(),
            before.ca.to_vec(),
            reply.certificate_der.to_vec(),
            pending.key_pem,
            before.control_planes.clone(),
        );
        match next.and_then(|next| next.store(&self.uplink.dir).map(|()| next)) {
            Ok(next) => {
                self.renew_at = next.validity.renew_at(&mut rand::rng());
                tracing::info!(not_after = reply.not_after_unix, "the node's certificate was renewed");
                self.uplink.node.link.send_modify(|link| {
                    link.certificate_not_after = u64::try_from(reply.not_after_unix).ok()
                });
                self.uplink.identity = Some(next);
            }
            Err(error) => tracing::error!("the renewed certificate is of no use: {error:#}"),
        }
    }

    /// The last word: final counters, and patience until they are acknowledged.
    async fn flush(mut self, mut incoming: Streaming<v1::ToNode>) -> anyhow::Result<Ended> {
        self.report(true).await?;
        let acknowledged = async {
            while !self.uplink.reporter.is_settled() {
                match incoming.message().await {
                    Ok(Some(message)) => {
                        if let Some(to_node::Message::CounterAck(ack)) = message.message {
                            self.uplink.reporter.acknowledge(&ack);
                        }
                    }
                    Ok(None) | Err(_) => return false,
                }
            }
            true
        };
        if !tokio::time::timeout(FLUSH, acknowledged).await.unwrap_or(false) {
            tracing::warn!("the last counters were not acknowledged");
        }
        Ok(Ended::Flushed)
    }

    async fn send(&mut self, message: from_node::Message) -> anyhow::Result<()> {
        match tokio::time::timeout(SEND, self.out.send(wire(message))).await {
            Ok(sent) => sent.context("the stream is gone"),
            Err(_) => bail!("the control plane takes nothing any more"),
        }
    }
}

/// Something that the status tells changed; several changes at once are one.
async fn changed(
    node: &Node,
    running: &mut watch::Receiver<Arc<live::Running>>,
    draining: &mut watch::Receiver<Draining>,
) {
    tokio::select! {
        _ = running.changed() => {}
        _ = draining.changed() => {}
        () = node.live.path().pools_changed() => {}
    }
    tokio::time::sleep(COALESCE).await;
}

fn lock(library: &Mutex<Library>) -> std::sync::MutexGuard<'_, Library> {
    library.lock().unwrap_or_else(PoisonError::into_inner)
}
