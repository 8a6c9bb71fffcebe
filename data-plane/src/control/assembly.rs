//! Puts manifests and resources together from the messages they came in. No I/O: messages in, decisions out.
//!
//! Forms, orders and sizes are checked by the protocol crate; what no control plane sends is an error that ends the
//! stream, never a panic. What is well-formed but cannot be run here becomes a rejection that names the resource.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use awe4lb_proto::{
    Collector, Hash, Noun, Problem, WireError,
    manifest::{Announced, Assembler as Parts, Manifest},
    resources::{self, Decoded},
    v1,
};
use bytes::Bytes;

/// Resources held beside those of manifests: sent ahead of their manifest.
const MAX_LOOSE: usize = 100_000;

/// A resource as it came and what it means.
#[derive(Debug)]
pub struct Resource {
    /// By which it is known.
    pub hash: Hash,
    /// As it came, for the cache.
    pub zstd: Bytes,
    /// What it means, or why this version does not run it.
    pub decoded: Result<Decoded, WireError>,
}

impl Resource {
    /// Unpacks and verifies. An error: these bytes are not the resource at all.
    pub fn open(hash: Hash, zstd: Bytes) -> Result<Self, WireError> {
        let decoded = resources::decode(&zstd, hash);
        match decoded {
            // Damaged on the way, or another's bytes: nothing is known of the resource itself.
            Err(error) if error.noun == Noun::Resource && is_damage(&error.problem) => Err(error),
            decoded => Ok(Self { hash, zstd, decoded }),
        }
    }
}

fn is_damage(problem: &Problem) -> bool {
    matches!(problem, Problem::HashMismatch | Problem::TooLarge(_))
        || matches!(problem, Problem::Malformed(text) if text.starts_with("zstd"))
}

/// The stream does not make sense; it ends, what runs keeps running, and the next one starts from what the node holds.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A message that does not hold.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The difference is to a manifest that this node does not hold.
    #[error("the manifest is a difference to {0}, which this node does not hold")]
    UnknownBase(Hash),
    /// More than any control plane sends.
    #[error("more than {MAX_LOOSE} resources that no manifest names")]
    TooMany,
}

/// A manifest with all its resources: ready to be applied.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the node is told to run.
    pub assignment: v1::Assignment,
    /// Hash of the manifest.
    pub hash: Hash,
    /// What to do with it.
    pub mode: v1::Mode,
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Its resources.
    pub resources: HashMap<Hash, Arc<Resource>>,
    /// When the last byte came.
    pub received: Instant,
}

/// What to do after a message.
#[derive(Debug)]
pub enum Progress {
    /// More must come.
    Waiting,
    /// The manifest with this hash is whole; these resources are asked for.
    Need(Hash, Vec<Hash>),
    /// All is there.
    Complete(Box<Target>),
}

/// What is held of manifests and resources, over connections.
#[derive(Debug, Default)]
pub struct Library {
    manifests: Vec<(Hash, Arc<Manifest>)>,
    resources: HashMap<Hash, Arc<Resource>>,
}

impl Library {
    /// Holds a manifest as a base of differences; of more than four the oldest is forgotten.
    pub fn add_manifest(&mut self, hash: Hash, manifest: Arc<Manifest>) {
        self.manifests.retain(|(held, _)| *held != hash);
        self.manifests.push((hash, manifest));
        if self.manifests.len() > 4 {
            self.manifests.remove(0);
        }
    }

    /// Holds a resource.
    pub fn add_resource(&mut self, resource: Arc<Resource>) {
        self.resources.insert(resource.hash, resource);
    }

    fn manifest(&self, hash: &Hash) -> Option<Arc<Manifest>> {
        self.manifests.iter().find(|(held, _)| held == hash).map(|(_, manifest)| manifest.clone())
    }

    /// Forgets resources that no held manifest names.
    fn prune(&mut self) {
        let named: BTreeSet<Hash> = self
            .manifests
            .iter()
            .flat_map(|(_, manifest)| manifest.entries().map(|(_, hash)| hash))
            .collect();
        self.resources.retain(|hash, _| named.contains(hash));
    }
}

#[derive(Debug)]
struct Pending {
    announced: Announced,
    manifest: Arc<Manifest>,
    lacking: BTreeSet<Hash>,
}

/// The messages of one stream on their way to a [`Target`]. A newer manifest takes the place of one that is not whole.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: Parts,
    pieces: Collector,
    pending: Option<Pending>,
}

impl Assembler {
    /// Takes a part of a manifest. The second of the pair is an assignment that was given up for this one.
    pub fn manifest(
        &mut self,
        message: v1::Manifest,
        library: &mut Library,
    ) -> Result<(Progress, Option<v1::Assignment>), ProtocolError> {
        let Some(announced) = self.parts.push(message)? else { return Ok((Progress::Waiting, None)) };
        let base = match announced.base {
            None => Arc::default(),
            Some(base) => library.manifest(&base).ok_or(ProtocolError::UnknownBase(base))?,
        };
        let manifest = Arc::new(announced.resolve(&base)?);
        let lacking: BTreeSet<Hash> = manifest
            .entries()
            .map(|(_, hash)| hash)
            .filter(|hash| !library.resources.contains_key(hash))
            .collect();
        let given_up = self.pending.take().map(|pending| pending.announced.assignment);
        let need = Progress::Need(announced.manifest_hash, lacking.iter().copied().collect());
        self.pending = Some(Pending { announced, manifest, lacking });
        Ok((self.complete(library).unwrap_or(need), given_up))
    }

    /// Takes a piece of a resource.
    pub fn chunk(
        &mut self,
        message: v1::ResourceChunk,
        library: &mut Library,
    ) -> Result<Progress, ProtocolError> {
        let Some((hash, zstd)) = self.pieces.push(message)? else { return Ok(Progress::Waiting) };
        if library.resources.len() >= MAX_LOOSE + awe4lb_proto::manifest::MAX_ENTRIES {
            return Err(ProtocolError::TooMany);
        }
        if !library.resources.contains_key(&hash) {
            library.add_resource(Arc::new(Resource::open(hash, zstd)?));
        }
        if let Some(pending) = &mut self.pending {
            pending.lacking.remove(&hash);
        }
        Ok(self.complete(library).unwrap_or(Progress::Waiting))
    }

    /// The target, once nothing lacks.
    fn complete(&mut self, library: &mut Library) -> Option<Progress> {
        let Pending { announced, manifest, .. } =
            self.pending.take_if(|pending| pending.lacking.is_empty())?;
        library.add_manifest(announced.manifest_hash, manifest.clone());
        library.prune();
        let resources = manifest
            .entries()
            .filter_map(|(_, hash)| Some((hash, library.resources.get(&hash)?.clone())))
            .collect();
        Some(Progress::Complete(Box::new(Target {
            assignment: announced.assignment,
            hash: announced.manifest_hash,
            mode: announced.mode,
            manifest,
            resources,
            received: Instant::now(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use awe4lb_model::{
        document::{self, Format},
        placed::{NodeConfig, number_locally},
    };
    use awe4lb_proto::{
        manifest::to_messages,
        resources::{EncodedResource, encode_all},
    };

    use super::*;

    fn config(weight: u32) -> NodeConfig {
        let text = format!(
            "listeners: [{{name: web, bind: ['127.0.0.1:8080'], rules: [{{name: all, pool: app}}]}}]\n\
             pools: [{{name: app, backends: [{{name: a, address: '127.0.0.1:1', weight: {weight}}}]}}]\n"
        );
        let compiled = document::compile(document::parse(&text, Format::Yaml).unwrap()).unwrap();
        number_locally(compiled.config, &compiled.keys)
    }

    fn assignment(sequence: u64, manifest: &Manifest) -> v1::Assignment {
        v1::Assignment {
            lineage: "l".into(),
            epoch: 1,
            sequence,
            manifest_hash: manifest.hash().to_wire(),
            revision: sequence,
        }
    }

    fn whole(sequence: u64, resources: &[EncodedResource]) -> (Manifest, Vec<v1::Manifest>) {
        let manifest = Manifest::of(resources);
        let difference = manifest.difference_from(&Manifest::default());
        let messages = to_messages(&assignment(sequence, &manifest), v1::Mode::Apply, None, &difference);
        (manifest, messages)
    }

    fn send(resources: &[EncodedResource], assembler: &mut Assembler, library: &mut Library) -> Progress {
        let mut last = Progress::Waiting;
        for chunk in resources.iter().flat_map(EncodedResource::chunks) {
            last = assembler.chunk(chunk, library).unwrap();
        }
        last
    }

    #[test]
    fn a_first_snapshot_and_then_only_what_changed() {
        let (mut assembler, mut library) = (Assembler::default(), Library::default());
        let first = encode_all(&config(1)).unwrap();
        let (base, messages) = whole(1, &first);
        let (progress, _) = assembler.manifest(messages[0].clone(), &mut library).unwrap();
        let Progress::Need(_, need) = progress else { panic!("{progress:?}") };
        assert_eq!(need.len(), 2);
        let Progress::Complete(target) = send(&first, &mut assembler, &mut library) else { panic!() };
        assert_eq!((target.assignment.sequence, target.resources.len()), (1, 2));

        let second = encode_all(&config(2)).unwrap();
        let manifest = Manifest::of(&second);
        let difference = manifest.difference_from(&base);
        let messages =
            to_messages(&assignment(2, &manifest), v1::Mode::Apply, Some(base.hash()), &difference);
        let (progress, _) = assembler.manifest(messages[0].clone(), &mut library).unwrap();
        let Progress::Need(_, need) = progress else { panic!("{progress:?}") };
        assert_eq!(need, [second[1].hash]);
        let Progress::Complete(target) = send(&second[1..], &mut assembler, &mut library) else { panic!() };
        assert_eq!(*target.manifest, manifest);
    }

    #[test]
    fn resources_may_come_before_their_manifest() {
        let (mut assembler, mut library) = (Assembler::default(), Library::default());
        let resources = encode_all(&config(1)).unwrap();
        assert!(matches!(send(&resources, &mut assembler, &mut library), Progress::Waiting));
        let (_, messages) = whole(1, &resources);
        let (progress, _) = assembler.manifest(messages[0].clone(), &mut library).unwrap();
        assert!(matches!(progress, Progress::Complete(_)));
    }

    #[test]
    fn a_newer_manifest_takes_the_place_of_an_unfinished_one() {
        let (mut assembler, mut library) = (Assembler::default(), Library::default());
        let (first, second) = (encode_all(&config(1)).unwrap(), encode_all(&config(2)).unwrap());
        assembler.manifest(whole(1, &first).1.remove(0), &mut library).unwrap();
        let (_, given_up) = assembler.manifest(whole(2, &second).1.remove(0), &mut library).unwrap();
        assert_eq!(given_up.map(|assignment| assignment.sequence), Some(1));
        let Progress::Complete(target) = send(&second, &mut assembler, &mut library) else { panic!() };
        assert_eq!(target.assignment.sequence, 2);
    }

    #[test]
    fn an_unknown_base_and_damaged_bytes_end_the_stream() {
        let (mut assembler, mut library) = (Assembler::default(), Library::default());
        let resources = encode_all(&config(1)).unwrap();
        let mut message = whole(1, &resources).1.remove(0);
        message.base_hash = vec![7; 32].into();
        assert!(matches!(assembler.manifest(message, &mut library), Err(ProtocolError::UnknownBase(_))));
        let mut message = whole(1, &resources).1.remove(0);
        message.upsert.pop();
        assert!(assembler.manifest(message, &mut library).is_err());

        let chunk = resources[0].chunks().next().unwrap();
        for at in 0..chunk.data.len() {
            let mut data = chunk.data.to_vec();
            data[at] ^= 0x10;
            let damaged = v1::ResourceChunk { data: data.into(), ..chunk.clone() };
            let mut library = Library::default();
            // A bit that zstd does not look at may be flipped without changing the content.
            if assembler.chunk(damaged, &mut library).is_ok() {
                assert!(library.resources.values().all(|resource| resource.decoded.is_ok()));
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_held_as_refused() {
        use prost::Message as _;
        let resource = v1::Resource { requires: vec!["quic".into()], body: None };
        let bytes = resource.encode_to_vec();
        let zstd = zstd::bulk::compress(&bytes, 3).unwrap();
        let opened = Resource::open(Hash::of(&bytes), zstd.into()).unwrap();
        assert_eq!(opened.decoded.unwrap_err().problem.code(), "unknown-requirement");
    }
}
