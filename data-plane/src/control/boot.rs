//! A cold start: the last good configuration from the cache, before anything else and without anybody else.
//!
//! What crashed the node twice while it was on trial is not booted again: the one before it is, and the control plane is
//! told why.

use std::{collections::HashMap, sync::Arc, time::Instant};

use awe4lb_model::placed::ResourceId;
use awe4lb_proto::{
    Hash, Noun,
    manifest::{self, Manifest},
    v1,
};

use super::{
    apply::{self, CRASHES, Rejections},
    assembly::{Library, Resource, Target},
    cache::{Cache, Snapshot, Trial},
    hot::Mode,
    live::Live,
};

/// What was found and done.
#[derive(Debug, Default)]
pub struct Booted {
    /// What runs now.
    pub snapshot: Option<Snapshot>,
    /// What is held, for differences to come.
    pub library: Library,
}

/// Runs the newest generation that can be run.
pub async fn boot(live: &Live, cache: &Cache, rejections: &Rejections) -> Booted {
    let found = cache.load();
    for (path, damage) in &found.damaged {
        tracing::error!(file = %path.display(), "the cached configuration {damage}; falling back");
    }
    let mut snapshots = found.snapshots;
    judge_trial(cache, rejections, &mut snapshots);
    let mut booted = Booted::default();
    for snapshot in snapshots {
        let target = match target_of(&snapshot) {
            Ok(target) => target,
            Err(why) => {
                tracing::error!(generation = snapshot.generation, %why, "a cached configuration cannot be used");
                continue;
            }
        };
        match run(live, &target).await {
            Ok(()) => {
                booted.library.add_manifest(target.hash, target.manifest.clone());
                for resource in target.resources.values() {
                    booted.library.add_resource(resource.clone());
                }
                booted.snapshot = Some(snapshot);
                break;
            }
            Err(why) => {
                tracing::error!(generation = snapshot.generation, %why, "a cached configuration cannot be run");
            }
        }
    }
    booted
}

/// Counts the crash that ended a trial, and takes the configuration out of the choice when it was one too many.
fn judge_trial(cache: &Cache, rejections: &Rejections, snapshots: &mut Vec<Snapshot>) {
    let Some(trial) = cache.trial() else { return };
    let crashes = trial.crashes + 1;
    let of_it = |snapshot: &Snapshot| snapshot.manifest_hash() == trial.manifest_hash();
    let is_last_resort = !snapshots.is_empty() && snapshots.iter().all(of_it);
    if crashes < CRASHES || is_last_resort {
        tracing::warn!(
            crashes,
            "the node ended without a word shortly after a new configuration; trying it again"
        );
        if let Err(error) = cache.save_trial(&Trial { crashes, ..trial }) {
            tracing::warn!(%error, "cannot mark the trial on disk");
        }
        return;
    }
    tracing::error!(
        crashes,
        "the node crashed with this configuration again and again; the one before it is booted"
    );
    rejections.add(
        cache,
        v1::Result {
            assignment: trial.assignment.clone(),
            phase: v1::Phase::Rejected.into(),
            resources: vec![v1::ResourceStatus {
                code: "crash-loop".to_owned(),
                message: format!("the node crashed {crashes} times shortly after applying it"),
                ..Default::default()
            }],
            message: format!(
                "the node crashed {crashes} times shortly after applying it and booted the configuration before it"
            ),
            ..Default::default()
        },
    );
    for snapshot in snapshots.iter().filter(|snapshot| of_it(snapshot)) {
        if let Err(error) = cache.discard(snapshot.generation) {
            tracing::warn!(%error, "cannot remove the configuration from the cache");
        }
    }
    snapshots.retain(|snapshot| !of_it(snapshot));
    if let Err(error) = cache.end_trial() {
        tracing::warn!(%error, "cannot end the trial on disk");
    }
}

/// Everything is verified again: the cache is input as any other.
fn target_of(snapshot: &Snapshot) -> Result<Target, String> {
    let assignment = snapshot.assignment.clone().ok_or("it has no assignment")?;
    let mut entries = Vec::with_capacity(snapshot.manifest.len());
    for reference in &snapshot.manifest {
        let kind = manifest::kind_from_wire(reference.kind).ok_or("a resource of an unknown kind")?;
        let name = reference.name.parse().map_err(|error| format!("a resource's name: {error}"))?;
        let hash =
            Hash::from_wire(&reference.hash, Noun::Manifest, "/hash").map_err(|error| error.to_string())?;
        entries.push((ResourceId { kind, name }, hash));
    }
    let manifest: Manifest = entries.into_iter().collect();
    let hash = manifest.hash();
    if hash.0[..] != assignment.manifest_hash[..] {
        return Err("its manifest has another hash than its assignment".to_owned());
    }
    let mut resources = HashMap::with_capacity(snapshot.resources.len());
    for stored in &snapshot.resources {
        let hash =
            Hash::from_wire(&stored.hash, Noun::Resource, "/hash").map_err(|error| error.to_string())?;
        let resource = Resource::open(hash, stored.data.clone()).map_err(|error| error.to_string())?;
        resources.insert(hash, Arc::new(resource));
    }
    Ok(Target {
        assignment,
        hash,
        mode: v1::Mode::Apply,
        manifest: Arc::new(manifest),
        resources,
        received: Instant::now(),
    })
}

/// Best effort by listener.
async fn run(live: &Live, target: &Target) -> Result<(), String> {
    let lines = |statuses: Vec<v1::ResourceStatus>| {
        statuses
            .iter()
            .map(|status| format!("{}: {}", status.name, status.message))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let config = Arc::new(apply::assemble(target).map_err(lines)?);
    let turn = live.turn().await;
    let ready = turn.prepare(config.clone(), Mode::BestEffort).await.map_err(|problems| {
        problems.iter().map(super::file_source::describe).collect::<Vec<_>>().join("; ")
    })?;
    for problem in ready.missing() {
        tracing::error!("left out: {}", super::file_source::describe(problem));
    }
    turn.commit(ready, Some(target.assignment.clone()), bytes::Bytes::new());
    let left_out = live.running().missing_listeners();
    turn.built(apply::hash_of_built(&config, &left_out));
    tracing::info!(
        revision = target.assignment.revision,
        sequence = target.assignment.sequence,
        listeners = config.listeners.len(),
        "serving the last good configuration from the cache"
    );
    Ok(())
}
