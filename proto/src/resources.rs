//! Resources: one object of a revision as bytes, known by the hash of those bytes.
//!
//! A resource is encoded and compressed once; every stream, every cache and every manifest shares the result. What
//! comes in is checked against the hash it was asked for, then unpacked under a limit, then converted.

use std::{collections::HashMap, io::Read};

use awe4lb_model::{
    AddressList, Certificate, Name, Protocol, RuleAction, SniMap,
    discovery::{RunOn, Source},
    placed::{
        NodeConfig, PlacedCertificate, PlacedListener, PlacedPool, PrivateKeyPem, ResourceId, ResourceKind,
        Staple,
    },
};
use bytes::Bytes;
use prost::Message;

use crate::{CAPABILITIES, CHALLENGES, Chunks, Hash, Noun, Problem, STAPLING, WireError, convert, v1};

/// The largest resource, unpacked.
pub const MAX_RESOURCE: usize = 32 * 1024 * 1024;

/// The largest resource as it travels.
pub const MAX_COMPRESSED: usize = 16 * 1024 * 1024;

/// Ready to send and to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResource {
    /// What it is and how it is called; a key has the name of its certificate.
    pub id: ResourceId,
    /// SHA-256 of the encoded `v1.Resource`, before compression.
    pub hash: Hash,
    /// The encoded `v1.Resource` under zstd. Shared, never copied.
    pub zstd: Bytes,
    /// What a node must be able to do to run it.
    pub requires: Vec<&'static str>,
}

impl EncodedResource {
    /// In messages of at most 64 KiB.
    pub fn chunks(&self) -> Chunks {
        Chunks::new(self.hash, self.zstd.clone())
    }
}

/// Encodes a listener.
pub fn encode_listener(placed: &PlacedListener) -> Result<EncodedResource, WireError> {
    Encoded::listener(placed).compress()
}

/// Encodes a pool.
pub fn encode_pool(placed: &PlacedPool) -> Result<EncodedResource, WireError> {
    Encoded::pool(placed).compress()
}

/// Encodes a certificate and its key: two resources, of which the first names the second by its hash.
pub fn encode_certificate(
    placed: &PlacedCertificate,
) -> Result<(EncodedResource, EncodedResource), WireError> {
    let (chain, key) = Encoded::certificate(placed);
    Ok((chain.compress()?, key.compress()?))
}

/// Encodes an address list.
pub fn encode_address_list(list: &AddressList) -> Result<EncodedResource, WireError> {
    Encoded::address_list(list).compress()
}

/// Encodes a map.
pub fn encode_map(map: &SniMap) -> Result<EncodedResource, WireError> {
    Encoded::map(map).compress()
}

/// Encoded and hashed, not yet compressed.
pub(crate) struct Encoded {
    pub(crate) id: ResourceId,
    pub(crate) hash: Hash,
    bytes: Vec<u8>,
    requires: Vec<&'static str>,
}

impl Encoded {
    pub(crate) fn listener(placed: &PlacedListener) -> Self {
        let listener = &placed.listener;
        let mut requires = match (listener.protocol, &listener.tls) {
            (Protocol::Udp, _) => vec!["udp"],
            (Protocol::Tcp, None) => vec!["tcp"],
            (Protocol::Tcp, Some(_)) => vec!["tcp", "tls"],
        };
        if listener.acme_http01 {
            requires.push(CHALLENGES);
        }
        let body = v1::resource::Body::Listener(placed.into());
        Self::new(ResourceKind::Listener, &listener.name, requires, body)
    }

    pub(crate) fn pool(placed: &PlacedPool) -> Self {
        let pool = &placed.pool;
        let is_labelled = |source: &Source| {
            let template = &source.template;
            source.run_on == RunOn::Node
                && (source.select.is_some() || template.name.is_some() || template.zone.is_some())
        };
        let mut requires = if pool.discovery.is_empty() { Vec::new() } else { vec!["discovery"] };
        if pool.locality.is_some() || pool.discovery.iter().any(is_labelled) {
            requires.push("labels");
        }
        let body = v1::resource::Body::Pool(placed.into());
        Self::new(ResourceKind::Pool, &placed.pool.name, requires, body)
    }

    pub(crate) fn certificate(placed: &PlacedCertificate) -> (Self, Self) {
        let name = &placed.certificate.name;
        let key = v1::resource::Body::Key(convert::key_to_wire(&placed.certificate, &placed.key));
        let key = Self::new(ResourceKind::Key, name, vec!["tls"], key);
        let chain = convert::certificate_to_wire(&placed.certificate, key.hash, placed.ocsp.as_ref());
        let chain = v1::resource::Body::Certificate(chain);
        let requires = if placed.ocsp.is_some() { vec!["tls", STAPLING] } else { vec!["tls"] };
        (Self::new(ResourceKind::Certificate, name, requires, chain), key)
    }

    pub(crate) fn address_list(list: &AddressList) -> Self {
        let body = v1::resource::Body::AddressList(list.into());
        Self::new(ResourceKind::AddressList, &list.name, vec!["lists"], body)
    }

    pub(crate) fn map(map: &SniMap) -> Self {
        let body = v1::resource::Body::Map(map.into());
        Self::new(ResourceKind::Map, &map.name, vec!["maps"], body)
    }

    fn new(kind: ResourceKind, name: &Name, requires: Vec<&'static str>, body: v1::resource::Body) -> Self {
        let words = requires.iter().map(|word| (*word).to_owned()).collect();
        let bytes = v1::Resource { requires: words, body: Some(body) }.encode_to_vec();
        Self { id: ResourceId { kind, name: name.clone() }, hash: Hash::of(&bytes), bytes, requires }
    }

    fn compress(self) -> Result<EncodedResource, WireError> {
        let refuse = |problem: Problem| problem.at(noun(self.id.kind), "");
        if self.bytes.len() > MAX_RESOURCE {
            return Err(refuse(Problem::TooLarge(MAX_RESOURCE)));
        }
        let zstd = zstd::bulk::compress(&self.bytes, 3)
            .map_err(|error| refuse(Problem::Malformed(format!("zstd: {error}"))))?;
        if zstd.len() > MAX_COMPRESSED {
            return Err(refuse(Problem::TooLarge(MAX_COMPRESSED)));
        }
        Ok(EncodedResource { id: self.id, hash: self.hash, zstd: zstd.into(), requires: self.requires })
    }
}

/// Everything a node configuration consists of, in the order of its kinds and names.
pub fn encode_all(config: &NodeConfig) -> Result<Vec<EncodedResource>, WireError> {
    let mut all =
        Vec::with_capacity(config.listeners.len() + config.pools.len() + config.certificates.len() * 2);
    for listener in &config.listeners {
        all.push(encode_listener(listener)?);
    }
    for pool in &config.pools {
        all.push(encode_pool(pool)?);
    }
    for certificate in &config.certificates {
        let (chain, key) = encode_certificate(certificate)?;
        all.push(chain);
        all.push(key);
    }
    for list in &config.address_lists {
        all.push(encode_address_list(list)?);
    }
    for map in &config.maps {
        all.push(encode_map(map)?);
    }
    Ok(all)
}

/// A resource that was verified and converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A listener with its numbers.
    Listener(PlacedListener),
    /// A pool with its numbers.
    Pool(PlacedPool),
    /// A chain, the hash of the key resource that belongs to it, and what its OCSP responder says.
    Certificate(Certificate, Hash, Option<Staple>),
    /// The key of the certificate of this name.
    Key(Name, PrivateKeyPem),
    /// A list of addresses.
    AddressList(AddressList),
    /// A map from server names to pools.
    Map(SniMap),
}

impl Decoded {
    /// What it is and how it is called.
    pub fn id(&self) -> ResourceId {
        let (kind, name) = match self {
            Self::Listener(placed) => (ResourceKind::Listener, &placed.listener.name),
            Self::Pool(placed) => (ResourceKind::Pool, &placed.pool.name),
            Self::Certificate(certificate, ..) => (ResourceKind::Certificate, &certificate.name),
            Self::Key(name, _) => (ResourceKind::Key, name),
            Self::AddressList(list) => (ResourceKind::AddressList, &list.name),
            Self::Map(map) => (ResourceKind::Map, &map.name),
        };
        ResourceId { kind, name: name.clone() }
    }
}

/// Unpacks, verifies against the hash it was asked for by, and converts. Unknown fields, unknown requirements and
/// unknown values are refused: what is not understood is not run.
pub fn decode(zstd: &[u8], hash: Hash) -> Result<Decoded, WireError> {
    let bytes = unpack(zstd)?;
    if Hash::of(&bytes) != hash {
        return Err(Problem::HashMismatch.at(Noun::Resource, ""));
    }
    decode_verified(&bytes)
}

fn unpack(zstd: &[u8]) -> Result<Vec<u8>, WireError> {
    let malformed =
        |error: std::io::Error| Problem::Malformed(format!("zstd: {error}")).at(Noun::Resource, "");
    if zstd.len() > MAX_COMPRESSED {
        return Err(Problem::TooLarge(MAX_COMPRESSED).at(Noun::Resource, ""));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(zstd).map_err(malformed)?.single_frame();
    decoder.window_log_max(25).map_err(malformed)?;
    let mut bytes = Vec::new();
    decoder.by_ref().take(MAX_RESOURCE as u64 + 1).read_to_end(&mut bytes).map_err(malformed)?;
    if bytes.len() > MAX_RESOURCE {
        return Err(Problem::TooLarge(MAX_RESOURCE).at(Noun::Resource, ""));
    }
    Ok(bytes)
}

fn decode_verified(bytes: &[u8]) -> Result<Decoded, WireError> {
    let resource = v1::Resource::decode(bytes)
        .map_err(|error| Problem::Malformed(error.to_string()).at(Noun::Resource, ""))?;
    for (index, word) in resource.requires.iter().enumerate() {
        if !CAPABILITIES.contains(&word.as_str()) {
            let problem = Problem::UnknownRequirement(word.clone());
            return Err(problem.at(Noun::Resource, format!("/requires/{index}")));
        }
    }
    // prost drops what it does not know. Encoding is canonical, so whatever was dropped shows in the bytes.
    if resource.encoded_len() != bytes.len() || resource.encode_to_vec() != bytes {
        let noun = match &resource.body {
            Some(v1::resource::Body::Listener(_)) => Noun::Listener,
            Some(v1::resource::Body::Pool(_)) => Noun::Pool,
            Some(v1::resource::Body::Certificate(_)) => Noun::Certificate,
            Some(v1::resource::Body::Key(_)) => Noun::Key,
            Some(v1::resource::Body::AddressList(_)) => Noun::AddressList,
            Some(v1::resource::Body::Map(_)) => Noun::Map,
            None => Noun::Resource,
        };
        return Err(Problem::UnknownField.at(noun, ""));
    }
    match resource.body {
        Some(v1::resource::Body::Listener(listener)) => Ok(Decoded::Listener(listener.try_into()?)),
        Some(v1::resource::Body::Pool(pool)) => Ok(Decoded::Pool(pool.try_into()?)),
        Some(v1::resource::Body::Certificate(certificate)) => {
            let (certificate, key, ocsp) = convert::certificate_from_wire(certificate)?;
            Ok(Decoded::Certificate(certificate, key, ocsp))
        }
        Some(v1::resource::Body::Key(key)) => {
            let (certificate, key) = convert::key_from_wire(key)?;
            Ok(Decoded::Key(certificate, key))
        }
        Some(v1::resource::Body::AddressList(list)) => Ok(Decoded::AddressList(list.try_into()?)),
        Some(v1::resource::Body::Map(map)) => Ok(Decoded::Map(map.try_into()?)),
        None => Err(Problem::Missing.at(Noun::Resource, "/body")),
    }
}

/// Puts the resources of one manifest together, with the hash each was sent under. References must resolve inside.
pub fn assemble(resources: impl IntoIterator<Item = (Hash, Decoded)>) -> Result<NodeConfig, WireError> {
    let mut config = NodeConfig::default();
    let mut chains = Vec::new();
    let mut keys = HashMap::new();
    for (hash, resource) in resources {
        match resource {
            Decoded::Listener(listener) => config.listeners.push(listener),
            Decoded::Pool(pool) => config.pools.push(pool),
            Decoded::Certificate(certificate, key, ocsp) => chains.push((certificate, key, ocsp)),
            Decoded::Key(name, key) => drop(keys.insert(hash, (name, key))),
            Decoded::AddressList(list) => config.address_lists.push(list),
            Decoded::Map(map) => config.maps.push(map),
        }
    }
    config.listeners.sort_by(|a, b| a.listener.name.cmp(&b.listener.name));
    config.pools.sort_by(|a, b| a.pool.name.cmp(&b.pool.name));
    chains.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    config.address_lists.sort_by(|a, b| a.name.cmp(&b.name));
    config.maps.sort_by(|a, b| a.name.cmp(&b.name));
    for (certificate, key_hash, ocsp) in chains {
        let Some((_, key)) = keys.get(&key_hash).filter(|(name, _)| *name == certificate.name) else {
            let problem = Problem::Dangling(format!("key {key_hash}"));
            return Err(problem.at(Noun::Certificate, format!("/{}/key_hash", certificate.name)));
        };
        config.certificates.push(PlacedCertificate { key: key.clone(), certificate, ocsp });
    }
    check_references(&config)?;
    Ok(config)
}

fn check_references(config: &NodeConfig) -> Result<(), WireError> {
    unique(config.listeners.iter().map(|placed| &placed.listener.name), Noun::Listener)?;
    unique(config.pools.iter().map(|placed| &placed.pool.name), Noun::Pool)?;
    unique(config.certificates.iter().map(|placed| &placed.certificate.name), Noun::Certificate)?;
    unique(config.address_lists.iter().map(|list| &list.name), Noun::AddressList)?;
    unique(config.maps.iter().map(|map| &map.name), Noun::Map)?;
    for map in &config.maps {
        for pool in map.pools() {
            if config.pools.binary_search_by(|placed| placed.pool.name.cmp(pool)).is_err() {
                let path = format!("/{}/entries", map.name);
                return Err(Problem::Dangling(format!("pool {pool}")).at(Noun::Map, path));
            }
        }
    }
    for placed in &config.listeners {
        let listener = &placed.listener;
        for list in listener.lists() {
            if config.address_lists.binary_search_by(|known| known.name.cmp(list)).is_err() {
                let path = format!("/{}", listener.name);
                return Err(Problem::Dangling(format!("address list {list}")).at(Noun::Listener, path));
            }
        }
        for rule in &listener.rules {
            for pool in rule.pools() {
                if config.pools.binary_search_by(|placed| placed.pool.name.cmp(pool)).is_err() {
                    let path = format!("/{}/rules/{}/pool", listener.name, rule.name);
                    return Err(Problem::Dangling(format!("pool {pool}")).at(Noun::Listener, path));
                }
            }
            let at_rule = || format!("/{}/rules/{}/match", listener.name, rule.name);
            if let RuleAction::Map(map) = &rule.action
                && config.maps.binary_search_by(|known| known.name.cmp(map)).is_err()
            {
                return Err(Problem::Dangling(format!("map {map}")).at(Noun::Listener, at_rule()));
            }
        }
        for name in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            if config.certificates.binary_search_by(|placed| placed.certificate.name.cmp(name)).is_err() {
                let path = format!("/{}/tls/certificates", listener.name);
                return Err(Problem::Dangling(format!("certificate {name}")).at(Noun::Listener, path));
            }
        }
    }
    Ok(())
}

fn unique<'a>(mut sorted: impl Iterator<Item = &'a Name>, noun: Noun) -> Result<(), WireError> {
    let mut last = sorted.next();
    for name in sorted {
        if last == Some(name) {
            return Err(Problem::Duplicate(name.to_string()).at(noun, ""));
        }
        last = Some(name);
    }
    Ok(())
}

fn noun(kind: ResourceKind) -> Noun {
    match kind {
        ResourceKind::Listener => Noun::Listener,
        ResourceKind::Pool => Noun::Pool,
        ResourceKind::Certificate => Noun::Certificate,
        ResourceKind::Key => Noun::Key,
        ResourceKind::AddressList => Noun::AddressList,
        ResourceKind::Map => Noun::Map,
    }
}
