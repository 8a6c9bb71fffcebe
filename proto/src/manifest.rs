//! Manifests: the sorted list of what a node is to run, and the differences between two of them.
//!
//! A manifest's hash is SHA-256 over a canonical text, one line a resource, so that it depends on no encoder:
//!
//! ```text
//! awe4lb manifest 1
//! listener web 9f86d0…
//! pool app 60303a…
//! ```

use std::{collections::BTreeMap, fmt::Write};

use awe4lb_model::{
    Name,
    placed::{ResourceId, ResourceKind},
};
use prost::Message;

use crate::{Hash, Noun, Problem, WireError, chunks::MAX_MESSAGE_DATA, resources::EncodedResource, v1};

/// The most resources in one manifest.
pub const MAX_ENTRIES: usize = 1_000_000;

/// What a node is to run: the hash of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: BTreeMap<ResourceId, Hash>,
}

/// What leads from one manifest to another. Removed resources are named with the hash they had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// New or changed.
    pub upsert: BTreeMap<ResourceId, Hash>,
    /// Gone.
    pub remove: BTreeMap<ResourceId, Hash>,
}

impl Manifest {
    /// Of these resources.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a EncodedResource>) -> Self {
        resources.into_iter().map(|resource| (resource.id.clone(), resource.hash)).collect()
    }

    /// The resources in their order: by kind, then by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&ResourceId, Hash)> {
        self.entries.iter().map(|(id, hash)| (id, *hash))
    }

    /// How many resources.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A node that is to run nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The hash of one resource, if it is in.
    pub fn hash_of(&self, id: &ResourceId) -> Option<Hash> {
        self.entries.get(id).copied()
    }

    /// Identifies the snapshot.
    pub fn hash(&self) -> Hash {
        self.hash_under("awe4lb manifest 1")
    }

    /// What [`crate::built_hash`] gives on a node that built exactly this.
    pub fn built_hash(&self) -> Hash {
        self.hash_under("awe4lb built 1")
    }

    fn hash_under(&self, title: &str) -> Hash {
        let mut text = String::with_capacity(32 + self.entries.len() * 96);
        text.push_str(title);
        text.push('\n');
        for (ResourceId { kind, name }, hash) in &self.entries {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{} {name} {hash}", kind_word(*kind));
        }
        Hash::of(text.as_bytes())
    }

    /// What leads from `base` to `self`.
    pub fn difference_from(&self, base: &Self) -> Difference {
        let new = |(id, hash): &(&ResourceId, &Hash)| base.entries.get(*id) != Some(*hash);
        let gone = |(id, _): &(&ResourceId, &Hash)| !self.entries.contains_key(*id);
        let owned = |(id, hash): (&ResourceId, &Hash)| (id.clone(), *hash);
        Difference {
            upsert: self.entries.iter().filter(new).map(owned).collect(),
            remove: base.entries.iter().filter(gone).map(owned).collect(),
        }
    }

    /// Follows a difference. What it removes must be there as it says.
    pub fn apply(&self, difference: &Difference) -> Result<Self, WireError> {
        let mut entries = self.entries.clone();
        for (id, hash) in &difference.remove {
            if entries.remove(id) != Some(*hash) {
                return Err(Problem::Dangling(format!("{} {}", kind_word(id.kind), id.name))
                    .at(Noun::Manifest, "/remove"));
            }
        }
        entries.extend(difference.upsert.iter().map(|(id, hash)| (id.clone(), *hash)));
        Ok(Self { entries })
    }
}

impl FromIterator<(ResourceId, Hash)> for Manifest {
    fn from_iter<I: IntoIterator<Item = (ResourceId, Hash)>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

/// The messages that carry a difference (`base`: the hash of what it starts from; `None`: from nothing), each at most
/// 64 KiB. There is always at least one.
pub fn to_messages(
    assignment: &v1::Assignment,
    mode: v1::Mode,
    base: Option<Hash>,
    difference: &Difference,
) -> Vec<v1::Manifest> {
    let blank = || v1::Manifest {
        assignment: Some(assignment.clone()),
        mode: mode.into(),
        base_hash: base.map(Hash::to_wire).unwrap_or_default(),
        ..v1::Manifest::default()
    };
    let mut messages = vec![blank()];
    let mut size = messages[0].encoded_len();
    let upserts = difference.upsert.iter().map(|entry| (true, entry));
    for (upsert, (id, hash)) in upserts.chain(difference.remove.iter().map(|entry| (false, entry))) {
        let reference =
            v1::ResourceRef { kind: kind_to_wire(id.kind), name: id.name.to_string(), hash: hash.to_wire() };
        let length = reference.encoded_len() + 4;
        if size + length > MAX_MESSAGE_DATA {
            messages.push(blank());
            size = messages[0].encoded_len();
        }
        size += length;
        if let Some(last) = messages.last_mut() {
            if upsert { &mut last.upsert } else { &mut last.remove }.push(reference);
        }
    }
    let parts = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    for (part, message) in (0..).zip(&mut messages) {
        message.part = part;
        message.parts = parts;
    }
    messages
}

/// A manifest message with all its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// What it is for.
    pub assignment: v1::Assignment,
    /// [`v1::Assignment::manifest_hash`], checked.
    pub manifest_hash: Hash,
    /// Never [`v1::Mode::Unspecified`].
    pub mode: v1::Mode,
    /// The manifest it starts from; `None`: from nothing.
    pub base: Option<Hash>,
    /// What leads there.
    pub difference: Difference,
}

impl Announced {
    /// The manifest that is meant. `base` is the one with the hash [`Self::base`], or an empty one.
    pub fn resolve(&self, base: &Manifest) -> Result<Manifest, WireError> {
        let manifest = base.apply(&self.difference)?;
        if manifest.hash() == self.manifest_hash {
            Ok(manifest)
        } else {
            Err(Problem::HashMismatch.at(Noun::Manifest, "/assignment/manifest_hash"))
        }
    }
}

/// Puts the parts of a manifest together. A new first part drops what was unfinished: latest wins.
#[derive(Debug, Default)]
pub struct Assembler {
    open: Option<(Announced, u32, u32)>,
}

impl Assembler {
    /// Takes one message; gives the whole with its last part.
    pub fn push(&mut self, message: v1::Manifest) -> Result<Option<Announced>, WireError> {
        let (part, parts) = (message.part, message.parts);
        let misplaced = || Problem::Parts { part, parts }.at(Noun::Manifest, "/part");
        let assignment =
            message.assignment.ok_or_else(|| Problem::Missing.at(Noun::Manifest, "/assignment"))?;
        if part == 0 {
            let manifest_hash =
                Hash::from_wire(&assignment.manifest_hash, Noun::Manifest, "/assignment/manifest_hash")?;
            let base = match &*message.base_hash {
                [] => None,
                bytes => Some(Hash::from_wire(bytes, Noun::Manifest, "/base_hash")?),
            };
            let mode = match v1::Mode::try_from(message.mode) {
                Ok(v1::Mode::Unspecified) => return Err(Problem::Missing.at(Noun::Manifest, "/mode")),
                Ok(mode) => mode,
                Err(_) => return Err(Problem::UnknownValue(message.mode).at(Noun::Manifest, "/mode")),
            };
            let difference = Difference::default();
            let announced = Announced { assignment, manifest_hash, mode, base, difference };
            self.open = Some((announced, 0, parts));
        } else if self.open.as_ref().is_none_or(|(open, ..)| open.assignment != assignment) {
            self.open = None;
            return Err(misplaced());
        }
        let (mut open, next, of) = self.open.take().ok_or_else(misplaced)?;
        if next != part || of != parts || part >= parts {
            return Err(misplaced());
        }
        references(message.upsert, &mut open.difference.upsert, "upsert")?;
        references(message.remove, &mut open.difference.remove, "remove")?;
        if part + 1 == parts {
            return Ok(Some(open));
        }
        self.open = Some((open, next + 1, of));
        Ok(None)
    }

    /// Drops what is unfinished.
    pub fn clear(&mut self) {
        self.open = None;
    }
}

fn references(
    wire: Vec<v1::ResourceRef>,
    into: &mut BTreeMap<ResourceId, Hash>,
    field: &str,
) -> Result<(), WireError> {
    for (index, reference) in wire.into_iter().enumerate() {
        let path = |name: &str| format!("/{field}/{index}/{name}");
        let kind = kind_from_wire(reference.kind)
            .ok_or_else(|| Problem::UnknownValue(reference.kind).at(Noun::Manifest, path("kind")))?;
        let name: Name =
            reference.name.parse().map_err(|error| Problem::Name(error).at(Noun::Manifest, path("name")))?;
        let hash = Hash::from_wire(&reference.hash, Noun::Manifest, &path("hash"))?;
        let id = ResourceId { kind, name };
        if into.len() >= MAX_ENTRIES {
            return Err(Problem::TooLarge(MAX_ENTRIES).at(Noun::Manifest, path("")));
        }
        if into.insert(id, hash).is_some() {
            return Err(Problem::Duplicate(reference.name).at(Noun::Manifest, path("name")));
        }
    }
    Ok(())
}

/// The word of a kind in canonical texts, results and the API.
pub fn kind_word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Listener => "listener",
        ResourceKind::Pool => "pool",
        ResourceKind::Certificate => "certificate",
        ResourceKind::Key => "key",
        ResourceKind::AddressList => "address-list",
        ResourceKind::Map => "map",
    }
}

/// A kind as a field.
pub fn kind_to_wire(kind: ResourceKind) -> i32 {
    match kind {
        ResourceKind::Listener => v1::ResourceKind::Listener,
        ResourceKind::Pool => v1::ResourceKind::Pool,
        ResourceKind::Certificate => v1::ResourceKind::Certificate,
        ResourceKind::Key => v1::ResourceKind::Key,
        ResourceKind::AddressList => v1::ResourceKind::AddressList,
        ResourceKind::Map => v1::ResourceKind::Map,
    }
    .into()
}

/// A field as a kind; `None`: unspecified or unknown.
pub fn kind_from_wire(wire: i32) -> Option<ResourceKind> {
    match v1::ResourceKind::try_from(wire).ok()? {
        v1::ResourceKind::Unspecified => None,
        v1::ResourceKind::Listener => Some(ResourceKind::Listener),
        v1::ResourceKind::Pool => Some(ResourceKind::Pool),
        v1::ResourceKind::Certificate => Some(ResourceKind::Certificate),
        v1::ResourceKind::Key => Some(ResourceKind::Key),
        v1::ResourceKind::AddressList => Some(ResourceKind::AddressList),
        v1::ResourceKind::Map => Some(ResourceKind::Map),
    }
}
