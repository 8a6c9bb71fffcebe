//! What a revision means for nodes: resources, encoded once, and the manifest that lists them.
//!
//! Every listener is on every node. Certificates and keys are in the manifest only when a listener uses them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use awe4lb_model::{
    AddressList, Name, RuleAction, SniMap,
    placed::{NodeConfig, PlacedCertificate, ResourceId, ResourceKind},
};
use awe4lb_proto::{
    Hash, WireError,
    manifest::Manifest,
    resources::{
        EncodedResource, encode_address_list, encode_certificate, encode_listener, encode_map, encode_pool,
    },
};

use crate::catalog::Head;

/// One state of the configuration, ready to be sent. Shared by every stream.
#[derive(Debug)]
pub struct Snapshot {
    /// Of the database.
    pub lineage: String,
    /// For people.
    pub revision: u64,
    /// What it was made from.
    pub config: Arc<NodeConfig>,
    /// The head that it is of.
    pub head: Arc<Head>,
    /// Whether what OCSP responders say is in it, where something is known.
    pub stapled: bool,
    /// What nodes are to run.
    pub manifest: Arc<Manifest>,
    /// Of [`Self::manifest`].
    pub hash: Hash,
    /// What a node reports that built all of it.
    pub built_hash: Hash,
    resources: HashMap<Hash, Arc<EncodedResource>>,
}

impl Snapshot {
    /// Encodes a head. What did not change since `before` is taken over as it is. Not `stapled`: without what OCSP responders say,
    /// for nodes that refuse what they do not know.
    pub fn of(head: &Arc<Head>, before: Option<&Self>, stapled: bool) -> Result<Self, WireError> {
        let config = head.placed.clone();
        let old = before.map(Old::of).unwrap_or_default();
        let mut all: Vec<Arc<EncodedResource>> = Vec::new();
        for placed in &config.listeners {
            all.push(match old.same(old.listeners.get(placed.listener.name.as_str()), placed) {
                Some(hash) => hash,
                None => Arc::new(encode_listener(placed)?),
            });
        }
        for placed in &config.pools {
            all.push(match old.same(old.pools.get(placed.pool.name.as_str()), placed) {
                Some(hash) => hash,
                None => Arc::new(encode_pool(placed)?),
            });
        }
        let used: BTreeSet<_> = config
            .listeners
            .iter()
            .flat_map(|placed| placed.listener.tls.iter().flat_map(|tls| &tls.certificates))
            .collect();
        for placed in config.certificates.iter().filter(|placed| used.contains(&placed.certificate.name)) {
            let (chain, key) = match stapled {
                true => encode_certificate(placed)?,
                false => encode_certificate(&PlacedCertificate { ocsp: None, ..placed.clone() })?,
            };
            all.extend([Arc::new(chain), Arc::new(key)]);
        }
        let used = lists_of(&config);
        for list in config.address_lists.iter().filter(|list| used.contains(&list.name)) {
            all.push(match old.same(old.lists.get(list.name.as_str()), list) {
                Some(hash) => hash,
                None => Arc::new(encode_address_list(list)?),
            });
        }
        let used = maps_of(&config);
        for map in config.maps.iter().filter(|map| used.contains(&map.name)) {
            all.push(match old.same(old.maps.get(map.name.as_str()), map) {
                Some(hash) => hash,
                None => Arc::new(encode_map(map)?),
            });
        }
        let manifest = Manifest::of(all.iter().map(|resource| &**resource));
        Ok(Self {
            lineage: head.lineage.clone(),
            revision: head.revision,
            hash: manifest.hash(),
            built_hash: manifest.built_hash(),
            manifest: Arc::new(manifest),
            resources: all.into_iter().map(|resource| (resource.hash, resource)).collect(),
            config,
            head: head.clone(),
            stapled,
        })
    }

    /// The resource of this hash, if the manifest has it.
    pub fn resource(&self, hash: Hash) -> Option<&Arc<EncodedResource>> {
        self.resources.get(&hash)
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }
}

/// Address lists that a listener refers to.
fn lists_of(config: &NodeConfig) -> BTreeSet<&Name> {
    config.listeners.iter().flat_map(|placed| placed.listener.lists()).collect()
}

/// Maps that a rule refers to.
fn maps_of(config: &NodeConfig) -> BTreeSet<&Name> {
    let actions = config.listeners.iter().flat_map(|placed| &placed.listener.rules).map(|rule| &rule.action);
    actions.filter_map(|action| if let RuleAction::Map(map) = action { Some(map) } else { None }).collect()
}

/// The snapshot before, by name.
#[derive(Default)]
struct Old<'a> {
    snapshot: Option<&'a Snapshot>,
    listeners: HashMap<&'a str, &'a awe4lb_model::placed::PlacedListener>,
    pools: HashMap<&'a str, &'a awe4lb_model::placed::PlacedPool>,
    lists: HashMap<&'a str, &'a AddressList>,
    maps: HashMap<&'a str, &'a SniMap>,
}

trait Placed: PartialEq {
    fn id(&self) -> awe4lb_model::placed::ResourceId;
}

impl Placed for awe4lb_model::placed::PlacedListener {
    fn id(&self) -> awe4lb_model::placed::ResourceId {
        let kind = awe4lb_model::placed::ResourceKind::Listener;
        awe4lb_model::placed::ResourceId { kind, name: self.listener.name.clone() }
    }
}

impl Placed for awe4lb_model::placed::PlacedPool {
    fn id(&self) -> awe4lb_model::placed::ResourceId {
        let kind = awe4lb_model::placed::ResourceKind::Pool;
        awe4lb_model::placed::ResourceId { kind, name: self.pool.name.clone() }
    }
}

impl Placed for AddressList {
    fn id(&self) -> ResourceId {
        ResourceId { kind: ResourceKind::AddressList, name: self.name.clone() }
    }
}

impl Placed for SniMap {
    fn id(&self) -> ResourceId {
        ResourceId { kind: ResourceKind::Map, name: self.name.clone() }
    }
}

impl<'a> Old<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let listeners = snapshot.config.listeners.iter();
        let pools = snapshot.config.pools.iter();
        Self {
            snapshot: Some(snapshot),
            listeners: listeners.map(|placed| (placed.listener.name.as_str(), placed)).collect(),
            pools: pools.map(|placed| (placed.pool.name.as_str(), placed)).collect(),
            lists: snapshot.config.address_lists.iter().map(|list| (list.name.as_str(), list)).collect(),
            maps: snapshot.config.maps.iter().map(|map| (map.name.as_str(), map)).collect(),
        }
    }

    fn same<T: Placed>(&self, before: Option<&&'a T>, now: &T) -> Option<Arc<EncodedResource>> {
        let snapshot = self.snapshot?;
        if *before? != now {
            return None;
        }
        snapshot.resource(snapshot.manifest.hash_of(&now.id())?).cloned()
    }
}
