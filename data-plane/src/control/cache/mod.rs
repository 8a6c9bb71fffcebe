//! The last good configuration on disk: what a node serves when its control plane is gone.
//!
//! Each generation is one file that stands alone, so that damage to one never reaches the other: the newest and the one
//! before it are kept. Beside them: overlays, rejected manifests and the crash guard, each a small file. All of it is
//! checked to the byte when read, and durable when a write returns.

mod sealed;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use awe4lb_proto::v1;
use bytes::Bytes;
use prost::Message;

use sealed::Content;
pub use sealed::Damage;

use super::state_dir;

/// A resource as it came: zstd over its encoding, known by the hash of the encoding.
#[derive(Clone, PartialEq, Message)]
pub struct StoredResource {
    /// SHA-256 of the encoded resource.
    #[prost(bytes = "bytes", tag = "1")]
    pub hash: Bytes,
    /// Compressed.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// One configuration with everything that is needed to run it.
#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    /// Which file it is; goes up.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// What the node was told.
    #[prost(message, optional, tag = "2")]
    pub assignment: Option<v1::Assignment>,
    /// The manifest.
    #[prost(message, repeated, tag = "3")]
    pub manifest: Vec<v1::ResourceRef>,
    /// Each resource of the manifest once.
    #[prost(message, repeated, tag = "4")]
    pub resources: Vec<StoredResource>,
    /// Of what was built from it.
    #[prost(bytes = "bytes", tag = "5")]
    pub built_hash: Bytes,
}

impl Snapshot {
    /// The manifest's hash, empty when there is no assignment.
    pub fn manifest_hash(&self) -> &[u8] {
        self.assignment.as_ref().map_or(&[], |assignment| &assignment.manifest_hash)
    }
}

/// All overlays, by pool.
#[derive(Clone, PartialEq, Message)]
pub struct Overlays {
    /// One a pool.
    #[prost(message, repeated, tag = "1")]
    pub overlays: Vec<v1::Overlay>,
}

/// Discovered backends, by pool.
#[derive(Clone, PartialEq, Message)]
pub struct Discovered {
    /// As the control plane told them.
    #[prost(message, repeated, tag = "1")]
    pub told: Vec<v1::Overlay>,
    /// As this node found them.
    #[prost(message, repeated, tag = "2")]
    pub own: Vec<v1::Overlay>,
}

/// Where the node is.
#[derive(Clone, PartialEq, Message)]
pub struct Place {
    /// Empty: nobody knows.
    #[prost(string, tag = "1")]
    pub zone: String,
}

/// What was rejected, oldest first.
#[derive(Clone, PartialEq, Message)]
pub struct Rejections {
    /// The results as they were sent; their assignments name the manifests.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<v1::Result>,
}

/// What is being tried and how often it went wrong.
#[derive(Clone, PartialEq, Message)]
pub struct Trial {
    /// What is being applied.
    #[prost(message, optional, tag = "1")]
    pub assignment: Option<v1::Assignment>,
    /// Crashes within the trial time.
    #[prost(uint32, tag = "2")]
    pub crashes: u32,
}

impl Trial {
    /// Of the manifest on trial.
    pub fn manifest_hash(&self) -> &[u8] {
        self.assignment.as_ref().map_or(&[], |assignment| &assignment.manifest_hash)
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// What the folder held.
#[derive(Debug, Default)]
pub struct Found {
    /// Usable generations, newest first.
    pub snapshots: Vec<Snapshot>,
    /// Files that could not be used.
    pub damaged: Vec<(PathBuf, Damage)>,
}

impl Cache {
    /// Makes the folder.
    pub fn open(state_dir: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folder = state_dir.join("cache");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// Reads all generations.
    pub fn load(&self) -> Found {
        let mut found = Found::default();
        for generation in self.generations().into_iter().rev() {
            let path = self.snapshot_path(generation);
            match sealed::read::<Snapshot>(&path, Content::Snapshot) {
                Ok(Some(snapshot)) if snapshot.generation == generation && snapshot.assignment.is_some() => {
                    found.snapshots.push(snapshot);
                }
                Ok(Some(_)) => found.damaged.push((path, Damage::Form)),
                Ok(None) => {}
                Err(damage) => found.damaged.push((path, damage)),
            }
        }
        found
    }

    /// Makes `snapshot` the newest generation and keeps `before`, the one that ran until now, as the one to fall back to.
    /// A snapshot of the same manifest takes the place of `before`, so that the spare is always another. Sets the
    /// generation.
    pub fn save(&self, snapshot: &mut Snapshot, before: Option<&Snapshot>) -> std::io::Result<()> {
        let generations = self.generations();
        let newest = generations.last().copied().unwrap_or(0);
        let same = before.filter(|before| {
            before.manifest_hash() == snapshot.manifest_hash() && before.generation == newest
        });
        snapshot.generation = same.map_or(newest + 1, |before| before.generation);
        sealed::write(&self.snapshot_path(snapshot.generation), Content::Snapshot, snapshot)?;
        for old in generations.into_iter().filter(|old| *old != snapshot.generation) {
            let is_spare = same.is_some() || before.is_none_or(|before| before.generation == old);
            if !is_spare {
                state_dir::remove_durably(&self.snapshot_path(old))?;
            }
        }
        Ok(())
    }

    /// Removes a generation that must not be booted again.
    pub fn discard(&self, generation: u64) -> std::io::Result<()> {
        state_dir::remove_durably(&self.snapshot_path(generation))
    }

    /// The stored overlays.
    pub fn overlays(&self) -> Vec<v1::Overlay> {
        self.small::<Overlays>("overlays", Content::Overlays).overlays
    }

    /// Stores overlays.
    pub fn save_overlays(&self, overlays: Vec<v1::Overlay>) -> std::io::Result<()> {
        sealed::write(&self.folder.join("overlays"), Content::Overlays, &Overlays { overlays })
    }

    /// The stored backends that were discovered: those that were told, and this node's own.
    pub fn discovered(&self) -> (Vec<v1::Overlay>, Vec<v1::Overlay>) {
        let stored = self.small::<Discovered>("discovered", Content::Discovered);
        (stored.told, stored.own)
    }

    /// Stores them.
    pub fn save_discovered(&self, told: Vec<v1::Overlay>, own: Vec<v1::Overlay>) -> std::io::Result<()> {
        sealed::write(&self.folder.join("discovered"), Content::Discovered, &Discovered { told, own })
    }

    /// Where the control plane said that the node is.
    pub fn zone(&self) -> Option<String> {
        Some(self.small::<Place>("zone", Content::Place).zone).filter(|zone| !zone.is_empty())
    }

    /// Stores it, where it is another one.
    pub fn save_zone(&self, zone: &str) -> std::io::Result<()> {
        if self.zone().as_deref().unwrap_or_default() == zone {
            return Ok(());
        }
        sealed::write(&self.folder.join("zone"), Content::Place, &Place { zone: zone.to_owned() })
    }

    /// The stored rejections.
    pub fn rejections(&self) -> Vec<v1::Result> {
        self.small::<Rejections>("rejected", Content::Rejected).results
    }

    /// Stores rejections.
    pub fn save_rejections(&self, results: Vec<v1::Result>) -> std::io::Result<()> {
        sealed::write(&self.folder.join("rejected"), Content::Rejected, &Rejections { results })
    }

    /// What is being tried.
    pub fn trial(&self) -> Option<Trial> {
        let trial = self.small::<Trial>("trial", Content::Guard);
        trial.assignment.is_some().then_some(trial)
    }

    /// Stores what is being tried.
    pub fn save_trial(&self, trial: &Trial) -> std::io::Result<()> {
        sealed::write(&self.folder.join("trial"), Content::Guard, trial)
    }

    /// Nothing is being tried any more.
    pub fn end_trial(&self) -> std::io::Result<()> {
        state_dir::remove_durably(&self.folder.join("trial"))
    }

    /// A small file; a damaged one counts as empty, and says so.
    fn small<M: Message + Default>(&self, name: &str, content: Content) -> M {
        let path = self.folder.join(name);
        match sealed::read(&path, content) {
            Ok(message) => message.unwrap_or_default(),
            Err(damage) => {
                tracing::warn!(file = %path.display(), "{damage}; starting without it");
                M::default()
            }
        }
    }

    fn snapshot_path(&self, generation: u64) -> PathBuf {
        self.folder.join(format!("snapshot-{generation:016x}"))
    }

    /// Numbers of the files that are there, lowest first.
    fn generations(&self) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let mut generations: Vec<u64> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let hex = name.to_str()?.strip_prefix("snapshot-")?;
                (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?
            })
            // A made-up name at the end of the range must not stop counting.
            .filter(|generation| *generation < u64::MAX / 2)
            .collect();
        generations.sort_unstable();
        generations
    }
}
