//! Follows the head: makes each revision a snapshot, gives every node its assignment of it in one transaction, then lets
//! the streams know. Assignments are stored before anything is sent, and only ever go up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use awe4lb_proto::{Hash, manifest::Manifest, v1};
use sqlx::Row;
use tokio::{
    sync::{MutexGuard, Notify, watch},
    time::Instant,
};

use super::{
    FleetError, now,
    placement::Snapshot,
    registry::{Facts, Registry, Rejection},
};
use crate::{catalog::Head, store::Store};

/// After a revision was sent, the next ones within this are sent as one.
const COALESCE: Duration = Duration::from_millis(25);
/// Manifests that nodes may still start a difference from.
const RECENT: usize = 32;

/// Gives out assignments.
pub struct Planner {
    store: Store,
    registry: Arc<Registry>,
    current: watch::Sender<Arc<Snapshot>>,
    recent: Mutex<VecDeque<(Hash, Arc<Manifest>)>>,
    /// Held by whoever writes node records, so that memory follows the database in the same order.
    writing: tokio::sync::Mutex<()>,
    /// Nodes came or went: what all of them understand may be another.
    fleet_changed: Notify,
    /// The revision of the newest head that is assigned, or that changes nothing on nodes.
    planned: watch::Sender<u64>,
}

impl Planner {
    /// Makes the first snapshot and assigns it.
    pub async fn open(store: Store, registry: Arc<Registry>, head: &Arc<Head>) -> Result<Self, FleetError> {
        let first = encode(head.clone(), None, may_staple(&registry)).await?;
        let planner = Self {
            store,
            registry,
            recent: Mutex::new(VecDeque::from([(first.hash, first.manifest.clone())])),
            current: watch::Sender::new(first.clone()),
            writing: tokio::sync::Mutex::default(),
            fleet_changed: Notify::new(),
            planned: watch::Sender::new(head.revision),
        };
        let writing = planner.writing().await;
        planner.assign_all(&writing, first.hash).await?;
        drop(writing);
        Ok(planner)
    }

    /// What nodes are to run now, and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Until nodes are assigned this revision or a later one: before, that they run what they are assigned says nothing of it.
    pub async fn planned(&self, revision: u64) {
        let mut planned = self.planned.subscribe();
        // It ends with the planner only.
        let _ = planned.wait_for(|planned| *planned >= revision).await;
    }

    /// What nodes are to run now.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// A manifest of the recent past.
    pub fn manifest(&self, hash: Hash) -> Option<Arc<Manifest>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().find(|(known, _)| *known == hash).map(|(_, manifest)| manifest.clone())
    }

    /// To be held over every write of node records together with its change in memory.
    pub async fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// For ever, or until there are no more heads.
    pub async fn follow(&self, mut head: watch::Receiver<Arc<Head>>) {
        // A head may have come between the first snapshot and now.
        head.mark_changed();
        loop {
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return },
                () = self.fleet_changed.notified() => {}
            }
            let started = Instant::now();
            let newest = head.borrow_and_update().clone();
            // Entries of address lists change without a revision.
            let is_current = {
                let current = self.current.borrow();
                Arc::ptr_eq(&newest.placed, &current.config) && current.stapled == may_staple(&self.registry)
            };
            let taken = match is_current {
                true => Ok(()),
                false => self.take(newest.clone()).await,
            };
            if let Err(error) = taken {
                tracing::error!(revision = newest.revision, "a revision cannot be sent to nodes: {error}");
                // The database may be back soon; a newer revision ends the wait.
                let _ = tokio::time::timeout(Duration::from_secs(1), head.changed()).await;
                head.mark_changed();
            } else {
                self.planned.send_replace(newest.revision);
            }
            tokio::time::sleep_until(started + COALESCE).await;
        }
    }

    async fn take(&self, head: Arc<Head>) -> Result<(), FleetError> {
        let started = Instant::now();
        let mut next = encode(head.clone(), Some(self.current()), may_staple(&self.registry)).await?;
        let encoded = started.elapsed();
        let writing = self.writing().await;
        // A node may have come since.
        let stapled = may_staple(&self.registry);
        if next.stapled != stapled {
            next = encode(head, Some(self.current()), stapled).await?;
        }
        let assigned = self.publish(&writing, &next).await?;
        drop(writing);
        tracing::debug!(
            revision = next.revision,
            resources = next.len(),
            nodes = assigned,
            encode_ms = encoded.as_millis(),
            total_ms = started.elapsed().as_millis(),
            "revision planned"
        );
        Ok(())
    }

    /// Assigns a snapshot to all nodes, and lets the streams know.
    async fn publish(&self, writing: &MutexGuard<'_, ()>, next: &Arc<Snapshot>) -> Result<usize, FleetError> {
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.retain(|(known, _)| *known != next.hash);
            recent.push_back((next.hash, next.manifest.clone()));
            if recent.len() > RECENT {
                recent.pop_front();
            }
        }
        let assigned = self.assign_all(writing, next.hash).await?;
        self.current.send_replace(next.clone());
        Ok(assigned)
    }

    /// Nodes came or went.
    pub fn fleet_changed(&self) {
        self.fleet_changed.notify_one();
    }

    /// All nodes in one transaction; those that are assigned it already keep their assignment.
    async fn assign_all(&self, _writing: &MutexGuard<'_, ()>, manifest: Hash) -> Result<usize, FleetError> {
        let rows = sqlx::query(
            "UPDATE nodes SET sequence = sequence + 1, manifest = ?1, rejected = NULL, rejection = NULL \
             WHERE banned = 0 AND manifest IS NOT ?1 RETURNING name, sequence",
        )
        .bind(&manifest.0[..])
        .fetch_all(self.store.writer())
        .await?;
        let mut nodes = self.registry.lock();
        for row in &rows {
            let name: String = row.try_get("name")?;
            let sequence: i64 = row.try_get("sequence")?;
            if let Some(node) = nodes.get_mut(&name) {
                node.record.sequence = sequence.unsigned_abs();
                node.record.manifest = Some(manifest);
                node.record.rejected = None;
                node.record.rejection = None;
                node.live.phase = None;
            }
        }
        Ok(rows.len())
    }

    /// A node said hello: what it said of itself is stored, and it gets its assignment of what is current. `adopt`: the
    /// assignment it runs, when the record knows of none.
    pub async fn welcome(
        &self,
        name: &str,
        facts: &Facts,
        adopt: Option<&v1::Assignment>,
    ) -> Result<(), FleetError> {
        let writing = self.writing().await;
        let is_same = self.registry.lock().get(name).is_some_and(|node| node.record.facts == *facts);
        if !is_same || adopt.is_some() {
            let mut tx = self.store.writer().begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("UPDATE nodes SET facts = ?, last_seen = ? WHERE name = ?")
                .bind(serde_json::to_string(facts).unwrap_or_default())
                .bind(now())
                .bind(name)
                .execute(&mut *tx)
                .await?;
            if let Some(adopt) = adopt {
                sqlx::query("UPDATE nodes SET epoch = ?, sequence = ?, manifest = ? WHERE name = ?")
                    .bind(i64::try_from(adopt.epoch).unwrap_or(i64::MAX))
                    .bind(i64::try_from(adopt.sequence).unwrap_or(i64::MAX))
                    .bind(&adopt.manifest_hash[..])
                    .bind(name)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            self.registry.reload(&self.store, name).await?;
        }
        let current = self.current();
        let current = match may_staple(&self.registry) {
            // It would refuse what all others understand.
            false if current.stapled => {
                let next = encode(current.head.clone(), Some(current), false).await?;
                self.publish(&writing, &next).await?;
                next.hash
            }
            _ => current.hash,
        };
        let is_assigned =
            self.registry.lock().get(name).is_none_or(|node| node.record.manifest == Some(current));
        if !is_assigned {
            self.assign_all(&writing, current).await?;
        }
        Ok(())
    }

    /// A node rejected what it is assigned: it is not sent again.
    pub async fn rejected(
        &self,
        name: &str,
        manifest: Hash,
        rejection: &Rejection,
    ) -> Result<bool, FleetError> {
        let _writing = self.writing().await;
        let done =
            sqlx::query("UPDATE nodes SET rejected = ?1, rejection = ?2 WHERE name = ?3 AND manifest = ?1")
                .bind(&manifest.0[..])
                .bind(serde_json::to_string(rejection).unwrap_or_default())
                .bind(name)
                .execute(self.store.writer())
                .await?;
        self.registry.reload(&self.store, name).await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Whether every node that is connected knows of OCSP answers. One that is of an older version refuses a whole configuration with
/// them; they wait until it is gone or replaced.
fn may_staple(registry: &Registry) -> bool {
    let nodes = registry.lock();
    nodes.values().all(|node| node.live.connected_since.is_none() || node.live.takes_staples != Some(false))
}

/// Off the threads that serve: a large configuration takes a while.
async fn encode(
    head: Arc<Head>,
    before: Option<Arc<Snapshot>>,
    stapled: bool,
) -> Result<Arc<Snapshot>, FleetError> {
    let encoding = tokio::task::spawn_blocking(move || Snapshot::of(&head, before.as_deref(), stapled));
    let snapshot =
        encoding.await.map_err(|error| FleetError::Conflict(format!("encoding ended: {error}")))?;
    Ok(Arc::new(snapshot?))
}

#[cfg(test)]
mod tests {
    use awe4lb_model::document::{self, Format};
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        catalog::{Catalog, Origin, Precondition, Write, WriteWhat},
        store::data_dir::DataDir,
    };

    async fn apply(catalog: &Catalog, text: &str) -> u64 {
        let document = document::parse(text, Format::Yaml).expect("a document");
        let what = WriteWhat::Document { document, prune: true };
        let origin = Origin { author: "ada".into(), source: "api".into(), message: String::new() };
        let write = Write { origin, what, expected_head: Precondition::None, dry_run: false };
        assert!(catalog.write(write).await.expect("written").changed);
        catalog.head().revision
    }

    /// Nodes that run what they are assigned listened as the revision before said, and an authority was refused.
    #[tokio::test]
    async fn a_revision_is_planned_when_nodes_are_assigned_it_not_when_it_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let data_dir = DataDir::open(dir.path()).expect("a folder");
        let store = Store::open(data_dir, None).await.expect("a store");
        let catalog = Catalog::open(store.clone()).await.expect("a catalog");
        let registry = Arc::new(Registry::open(&store).await.expect("a registry"));
        let head = catalog.head();
        let planner = Planner::open(store, registry, &head).await.expect("a planner");
        planner.planned(head.revision).await;

        let listening =
            apply(&catalog, "listeners: [{name: a, bind: ['127.0.0.1:1'], rules: [{reject: {}}]}]").await;
        assert!(planner.planned(listening).now_or_never().is_none(), "only written");
        let follow = planner.follow(catalog.subscribe());
        let follow = async {
            tokio::select! {
                () = follow => panic!("it ended"),
                () = planner.planned(listening) => assert_eq!(planner.current().revision, listening),
            }
            // Nothing on nodes uses it.
            let text = "listeners: [{name: a, bind: ['127.0.0.1:1'], rules: [{reject: {}}]}]\npools: []\naddressLists: [{name: l}]";
            let unused = apply(&catalog, text).await;
            tokio::select! {
                () = planner.follow(catalog.subscribe()) => panic!("it ended"),
                () = planner.planned(unused) => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(20), follow).await.expect("planned");
    }
}
