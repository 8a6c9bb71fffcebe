//! One stream of a node: hello, what it is to run, what it says about it.

mod hello;
mod reports;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use awe4lb_proto::{
    CHALLENGES, Hash, PROTOCOL, STAPLING,
    manifest::to_messages,
    v1::{self, command, from_node, to_node},
};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::{
    FleetError, Inner, acceptor::Peer, authority::PeerIdentity, challenges, now, outgoing::Outgoing, overlay,
    placement::Snapshot, registry::Orders,
};

use hello::{check_lineage, facts_of, refuse};

/// How long streams may take to say goodbye.
pub const GRACE: Duration = Duration::from_secs(2);
const HELLO: Duration = Duration::from_secs(10);
const REPORT_INTERVAL_MS: u32 = 1_000;
/// Reports that wait for the disk; a node that sends more waits.
const MAX_UNSTORED: usize = 64;
/// A node that may not connect need not ask often.
const BANNED_RETRY_MS: u32 = 60_000;

type Out = mpsc::Sender<Result<v1::ToNode, Status>>;

/// Serves a stream until it ends.
pub async fn run(
    inner: Arc<Inner>,
    node: PeerIdentity,
    peer: Peer,
    incoming: Streaming<v1::FromNode>,
    out: Out,
) {
    let name = node.name.clone();
    if let Err(error) = serve(&inner, &node, &peer, incoming, &out).await {
        tracing::warn!(node = name, peer = %peer.address, "a stream is refused: {error}");
        let _ = out.send(Err(error.into())).await;
    }
}

async fn serve(
    inner: &Arc<Inner>,
    node: &PeerIdentity,
    peer: &Peer,
    mut incoming: Streaming<v1::FromNode>,
    out: &Out,
) -> Result<(), FleetError> {
    let invalid = |why: &str| FleetError::Invalid(why.to_owned());
    let first = tokio::time::timeout(HELLO, incoming.message()).await;
    let first = first.map_err(|_| invalid("no hello within 10 s"))?;
    let first = first.map_err(|status| invalid(status.message()))?.and_then(|first| first.message);
    let Some(from_node::Message::Hello(hello)) = first else {
        return Err(invalid("the first message of a stream is hello"));
    };
    inner.registry.admit(node)?;
    let name = node.name.as_str();
    if hello.protocol != PROTOCOL {
        let why = format!("the node speaks protocol {}, this control plane {PROTOCOL}", hello.protocol);
        refuse(inner, name, "protocol", &why);
        return Err(FleetError::Invalid(why));
    }
    let running = hello.running.as_ref().and_then(|running| running.assignment.clone());
    let adopt = check_lineage(inner, name, running.as_ref())?;
    let Some((id, orders)) = inner.registry.begin_session(name) else {
        return Err(FleetError::Refused(format!("the node {name:?} is banned")));
    };
    let facts = facts_of(&hello);
    let takes_staples = hello.capabilities.iter().any(|word| word == STAPLING);
    inner.registry.update(name, id, |node| node.live.takes_staples = Some(takes_staples));
    if let Err(error) = inner.planner.welcome(name, &facts, adopt.as_ref()).await {
        inner.registry.end_session(name, id);
        inner.planner.fleet_changed();
        return Err(error);
    }
    let retried = orders.borrow().retry;
    let session = Session {
        snapshots: inner.planner.subscribe(),
        overlays: inner.overlays.subscribe(),
        challenges: inner.challenges.subscribe(),
        rejected: hello.rejected_manifests.iter().filter_map(|hash| hash_of(hash)).collect(),
        held: running.as_ref().and_then(|running| hash_of(&running.manifest_hash)),
        outgoing: Outgoing::default(),
        offered: None,
        overlays_sent: BTreeMap::new(),
        drain_sent: None,
        retried,
        unstored: FuturesOrdered::new(),
        inner,
        name,
        id,
        orders,
    };
    tracing::info!(node = name, peer = %peer.address, version = hello.version, "connected");
    session.run(hello, running, incoming, out).await;
    inner.challenges.moved();
    if inner.registry.end_session(name, id) {
        inner.planner.fleet_changed();
        tracing::info!(node = name, "disconnected");
        seen(inner, name).await;
        inner.publish_node(name);
    }
    // Whatever is left of the connection goes with its last stream.
    Ok(())
}

/// Stores when the node was there last. Worth nothing more than a line in the log when it fails.
async fn seen(inner: &Inner, name: &str) {
    let done = sqlx::query("UPDATE nodes SET last_seen = ? WHERE name = ?")
        .bind(now())
        .bind(name)
        .execute(inner.store.writer())
        .await;
    if let Err(error) = done {
        tracing::warn!(node = name, "when it was seen last is not stored: {error}");
    }
}

fn hash_of(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok().map(Hash)
}

struct Session<'a> {
    inner: &'a Inner,
    name: &'a str,
    id: u64,
    orders: watch::Receiver<Orders>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    overlays: watch::Receiver<overlay::State>,
    challenges: watch::Receiver<Arc<challenges::State>>,
    outgoing: Outgoing,
    /// What it was sent last.
    offered: Option<Arc<Snapshot>>,
    /// The manifest that it runs: what a difference may start from.
    held: Option<Hash>,
    rejected: HashSet<Hash>,
    overlays_sent: BTreeMap<String, u64>,
    drain_sent: Option<bool>,
    retried: u64,
    /// Reports on their way to the disk, in order.
    unstored: FuturesOrdered<BoxFuture<'static, Result<v1::CounterAck, anyhow::Error>>>,
}

impl Session<'_> {
    async fn run(
        mut self,
        hello: v1::Hello,
        running: Option<v1::Assignment>,
        mut incoming: Streaming<v1::FromNode>,
        out: &Out,
    ) {
        // Banned or replaced while its hello was looked at.
        if let Some(reason) = self.begin(&hello, running) {
            return self.dismiss(out, reason).await;
        }
        self.inner.publish_node(self.name);
        loop {
            tokio::select! {
                // A report that cannot be stored holds back those behind it, and so the node.
                message = incoming.message(), if self.unstored.len() < MAX_UNSTORED => {
                    match message {
                        Ok(Some(message)) => if !self.take(message).await { return },
                        Ok(None) => return,
                        Err(status) => {
                            tracing::debug!(node = self.name, "the stream ended: {status}");
                            return;
                        }
                    }
                }
                permit = out.reserve(), if !self.outgoing.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(message) = self.outgoing.next() {
                        permit.send(Ok(v1::ToNode { message: Some(message) }));
                    }
                }
                Some(stored) = self.unstored.next(), if !self.unstored.is_empty() => match stored {
                    Ok(ack) => self.outgoing.acknowledge(ack),
                    Err(error) => {
                        // An acknowledgement covers the reports before it, so none may follow this one. The node
                        // comes back and sends again what was not acknowledged.
                        tracing::error!(node = self.name, "counters are not stored: {error:#}");
                        return;
                    }
                },
                changed = self.snapshots.changed() => {
                    if changed.is_err() { return }
                    self.offer();
                }
                changed = self.overlays.changed() => {
                    if changed.is_err() { return }
                    self.send_overlays();
                }
                changed = self.challenges.changed() => {
                    if changed.is_err() { return }
                    self.send_challenges();
                }
                changed = self.orders.changed() => {
                    if changed.is_err() { return }
                    if let Some(reason) = self.obey() {
                        return self.dismiss(out, reason).await;
                    }
                }
                () = self.inner.stop.cancelled() => return self.goodbye(out, "shutdown", 200).await,
            }
        }
    }

    /// What comes before the loop: welcome, state, the first offer. A reason: the stream is to end already.
    fn begin(&mut self, hello: &v1::Hello, running: Option<v1::Assignment>) -> Option<&'static str> {
        let built = hello.running.as_ref().map(|running| running.built_hash.clone()).unwrap_or_default();
        let snapshot = self.snapshots.borrow_and_update().clone();
        let wanted = self.wanted(&snapshot);
        let up_to_date = running.is_some()
            && wanted.as_ref().is_some_and(|wanted| {
                let key = |of: &v1::Assignment| (of.epoch, of.sequence, of.manifest_hash.clone());
                running.as_ref().map(key) == Some(key(wanted))
            });
        self.outgoing.say(to_node::Message::Welcome(v1::Welcome {
            node: self.name.to_owned(),
            lineage: snapshot.lineage.clone(),
            report_interval_ms: REPORT_INTERVAL_MS,
            up_to_date,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.zone(),
        }));
        self.inner.registry.update(self.name, self.id, |node| {
            node.live.running = running;
            node.live.diverged = up_to_date && *built != snapshot.built_hash.0[..];
            node.live.takes_challenges = Some(hello.capabilities.iter().any(|word| word == CHALLENGES));
        });
        self.inner.challenges.moved();
        self.send_challenges();
        self.send_overlays();
        let reason = self.obey();
        if reason.is_none() && !up_to_date {
            self.offer();
        }
        reason
    }

    /// Where the node is, by its labels; empty: nobody said.
    fn zone(&self) -> String {
        let nodes = self.inner.registry.lock();
        let labels = nodes.get(self.name).map(|node| &node.record.labels);
        labels.and_then(awe4lb_model::labels::zone).unwrap_or_default().to_owned()
    }

    /// The assignment in the record, if it is of this snapshot.
    fn wanted(&self, snapshot: &Snapshot) -> Option<v1::Assignment> {
        let nodes = self.inner.registry.lock();
        let record = &nodes.get(self.name)?.record;
        (record.manifest == Some(snapshot.hash)).then(|| v1::Assignment {
            lineage: snapshot.lineage.clone(),
            epoch: record.epoch,
            sequence: record.sequence,
            manifest_hash: snapshot.hash.to_wire(),
            revision: snapshot.revision,
        })
    }

    /// Sends what is current, as the difference to what the node holds.
    fn offer(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let Some(assignment) = self.wanted(&snapshot) else { return };
        let is_known = |node: &mut super::registry::Node| {
            let same = |running: &v1::Assignment| {
                running.epoch == assignment.epoch
                    && running.sequence == assignment.sequence
                    && running.manifest_hash == assignment.manifest_hash
            };
            let was_rejected = node.record.rejected == Some(snapshot.hash);
            (node.live.running.as_ref().is_some_and(same), was_rejected)
        };
        let known = self.inner.registry.update(self.name, self.id, is_known);
        let Some((runs_it, was_rejected)) = known else { return };
        if runs_it {
            return;
        }
        if was_rejected || self.rejected.contains(&snapshot.hash) {
            tracing::debug!(node = self.name, "not sent again: the node has rejected it");
            return;
        }
        let base = self.held.and_then(|held| Some((held, self.inner.planner.manifest(held)?)));
        let (base, difference) = match &base {
            Some((hash, manifest)) => (Some(*hash), snapshot.manifest.difference_from(manifest)),
            None => (None, snapshot.manifest.difference_from(&awe4lb_proto::manifest::Manifest::default())),
        };
        self.outgoing.manifest(to_messages(&assignment, v1::Mode::Apply, base, &difference));
        self.offered = Some(snapshot);
    }

    /// Sends what was said about pools since the last time.
    fn send_overlays(&mut self) {
        let state = self.overlays.borrow_and_update();
        for (pool, version) in state.pools() {
            if self.overlays_sent.get(pool) != Some(&version) {
                self.outgoing.overlay(state.message(pool));
                self.overlays_sent.insert(pool.to_owned(), version);
            }
        }
    }

    /// Sends the challenges that are live. Those that a node has from an earlier process of ours end by themselves.
    fn send_challenges(&mut self) {
        let state = self.challenges.borrow_and_update().clone();
        let takes = |node: &mut super::registry::Node| node.live.takes_challenges;
        if state.version > 0 && self.inner.registry.update(self.name, self.id, takes) == Some(Some(true)) {
            self.outgoing.challenges(state.messages());
        }
    }

    /// Does what the operator wants. A reason: the stream is to end.
    fn obey(&mut self) -> Option<&'static str> {
        let orders = self.orders.borrow_and_update().clone();
        if orders.stop.is_some() {
            return orders.stop;
        }
        if let Some(on) = orders.drain.filter(|on| self.drain_sent != Some(*on)) {
            self.drain_sent = Some(on);
            let drain = command::Command::Drain(v1::Drain { on });
            self.outgoing.say(to_node::Message::Command(v1::Command { command: Some(drain) }));
        }
        if orders.retry != self.retried {
            self.retried = orders.retry;
            self.rejected.clear();
            self.offer();
        }
        None
    }

    /// Ends the stream as was ordered.
    async fn dismiss(self, out: &Out, reason: &str) {
        let wait = if reason == "banned" { BANNED_RETRY_MS } else { 1_000 };
        self.goodbye(out, reason, wait).await;
    }

    async fn goodbye(mut self, out: &Out, reason: &str, retry_after_ms: u32) {
        // What the node sent before is stored and acknowledged, so that nothing is sent twice.
        let settle = async {
            while let Some(Ok(ack)) = self.unstored.next().await {
                self.outgoing.acknowledge(ack);
            }
        };
        let _ = tokio::time::timeout(GRACE / 2, settle).await;
        let goodbye = v1::Goodbye { reason: reason.to_owned(), retry_after_ms };
        let command = v1::Command { command: Some(command::Command::Goodbye(goodbye)) };
        let mut last = Outgoing::default();
        last.say(to_node::Message::Command(command));
        let send = async {
            for message in std::iter::from_fn(|| self.outgoing.next_urgent()).chain(last.next()) {
                if out.send(Ok(v1::ToNode { message: Some(message) })).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(GRACE / 2, send).await;
    }

    /// False: the node breaks the protocol, or has been replaced.
    async fn take(&mut self, message: v1::FromNode) -> bool {
        match message.message {
            Some(from_node::Message::Need(need)) => self.need(&need),
            Some(from_node::Message::Result(result)) => return self.result(result).await,
            Some(from_node::Message::Status(status)) => return self.status(status),
            Some(from_node::Message::Counters(report)) => self.counters(report),
            Some(from_node::Message::Renew(request)) => {
                if let Err(error) = self.renew(&request.csr_der).await {
                    tracing::error!(node = self.name, "its certificate is not renewed: {error}");
                }
            }
            Some(from_node::Message::ChallengesHeld(held)) => {
                self.inner.registry.update(self.name, self.id, |node| node.live.challenges = held.version);
                self.inner.challenges.moved();
            }
            Some(from_node::Message::Hello(_)) => {
                tracing::warn!(node = self.name, "a second hello: the stream ends");
                return false;
            }
            // A newer node: it has been told what this version is.
            None => tracing::debug!(node = self.name, "a message that this version does not know"),
        }
        true
    }

    /// Asked for: resources of what was offered last. Those of an older offer are of no use to anyone.
    fn need(&mut self, need: &v1::Need) {
        let Some(offered) =
            self.offered.as_ref().filter(|offered| offered.hash.0[..] == need.manifest_hash[..])
        else {
            return;
        };
        for hash in &need.resource_hashes {
            let resource = hash_of(hash).and_then(|hash| offered.resource(hash));
            match resource {
                Some(resource) if self.outgoing.resources() <= offered.len() => {
                    self.outgoing.resource(resource.clone());
                }
                _ => tracing::warn!(node = self.name, "asks for a resource that is not in what it was sent"),
            }
        }
    }
}
