//! Round trips, refusals and pinned values.

use awe4lb_model::placed::{NodeConfig, ResourceKind};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use crate::{
    Collector, Hash, MAX_MESSAGE_DATA, Noun, Problem, built_hash,
    manifest::{self, Assembler, Manifest},
    resources::{self, Decoded, assemble, decode, encode_all},
    strategies, v1,
};

fn assignment(manifest: &Manifest) -> v1::Assignment {
    v1::Assignment {
        lineage: "l".to_owned(),
        epoch: 1,
        sequence: 2,
        manifest_hash: manifest.hash().to_wire(),
        revision: 3,
    }
}

proptest! {
    #[test]
    fn a_configuration_survives_the_way_to_a_node(config in strategies::node_config()) {
        let encoded = encode_all(&config).unwrap();
        let manifest = Manifest::of(&encoded);
        let mut collector = Collector::default();
        let mut decoded = Vec::new();
        for resource in &encoded {
            for chunk in resource.chunks() {
                prop_assert!(chunk.encoded_len() <= 65_536);
                if let Some((hash, bytes)) = collector.push(chunk).unwrap() {
                    prop_assert_eq!(hash, resource.hash);
                    let resource = decode(&bytes, hash).unwrap();
                    prop_assert_eq!(manifest.hash_of(&resource.id()), Some(hash));
                    decoded.push((hash, resource));
                }
            }
        }
        decoded.reverse();
        let built = assemble(decoded).unwrap();
        prop_assert_eq!(built_hash(&built), manifest.built_hash());
        prop_assert_eq!(built, config);
    }

    #[test]
    fn a_difference_leads_from_any_manifest_to_any_other(a in strategies::node_config(), b in strategies::node_config()) {
        let from = Manifest::of(&encode_all(&a).unwrap());
        let to = Manifest::of(&encode_all(&b).unwrap());
        let messages = manifest::to_messages(&assignment(&to), v1::Mode::Apply, Some(from.hash()), &to.difference_from(&from));
        let mut assembler = Assembler::default();
        let mut announced = None;
        for message in messages {
            prop_assert!(announced.is_none());
            announced = assembler.push(message).unwrap();
        }
        let announced = announced.unwrap();
        prop_assert_eq!(announced.base, Some(from.hash()));
        prop_assert_eq!(announced.resolve(&from).unwrap(), to);
    }

    #[test]
    fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, Hash::of(&bytes)).is_err());
        let zstd = zstd::bulk::compress(&bytes, 1).unwrap();
        let _ = decode(&zstd, Hash::of(&bytes));
        if let Ok(message) = v1::Manifest::decode(&*bytes) {
            let _ = Assembler::default().push(message);
        }
        if let Ok(chunk) = v1::ResourceChunk::decode(&*bytes) {
            let _ = Collector::default().push(chunk);
        }
    }

    #[test]
    fn damage_anywhere_in_a_resource_is_noticed(pool in strategies::pool(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let encoded = resources::encode_pool(&pool).unwrap();
        let mut bytes = encoded.zstd.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        // A bit that zstd does not use may flip; anything else is an error, never another pool.
        if let Ok(decoded) = decode(&bytes, encoded.hash) {
            prop_assert_eq!(decoded, Decoded::Pool(pool));
        }
    }
}

fn pack(bytes: &[u8]) -> (Vec<u8>, Hash) {
    (zstd::bulk::compress(bytes, 1).unwrap(), Hash::of(bytes))
}

fn a_pool() -> v1::Pool {
    v1::Pool {
        number: 7,
        name: "app".to_owned(),
        balance: v1::Balance::Random.into(),
        hash_on: v1::HashOn::Client.into(),
        backends: vec![v1::Backend {
            number: 8,
            name: "a".to_owned(),
            ip: Bytes::from_static(&[10, 0, 0, 1]),
            port: 80,
            weight: 1,
            ..v1::Backend::default()
        }],
        outlier_consecutive_failures: 5,
        outlier_ejection_ms: 30_000,
        outlier_max_ejected_percent: 50,
        connect_timeout_ms: 5_000,
        connect_attempts: 3,
        ..v1::Pool::default()
    }
}

fn refused(resource: &v1::Resource) -> crate::WireError {
    let (zstd, hash) = pack(&resource.encode_to_vec());
    decode(&zstd, hash).unwrap_err()
}

fn of_pool(change: impl FnOnce(&mut v1::Pool)) -> v1::Resource {
    let mut pool = a_pool();
    change(&mut pool);
    v1::Resource { requires: Vec::new(), body: Some(v1::resource::Body::Pool(pool)) }
}

#[test]
fn every_refusal_names_its_field() {
    let cases: Vec<(v1::Resource, &str, &str)> = vec![
        (of_pool(|pool| pool.number = 0), "/number", "missing-field"),
        (of_pool(|pool| pool.name = "Böse".to_owned()), "/name", "bad-name"),
        (of_pool(|pool| pool.balance = 99), "/balance", "unknown-value"),
        (of_pool(|pool| pool.balance = 0), "/balance", "missing-field"),
        (of_pool(|pool| pool.connect_attempts = 0), "/connect_attempts", "missing-field"),
        (
            of_pool(|pool| pool.outlier_max_ejected_percent = 101),
            "/outlier_max_ejected_percent",
            "out-of-range",
        ),
        (of_pool(|pool| pool.backends[0].ip = Bytes::from_static(b"12345")), "/backends/0/ip", "bad-address"),
        (of_pool(|pool| pool.backends[0].port = 65_536), "/backends/0/port", "out-of-range"),
        (of_pool(|pool| pool.backends[0].ip = Bytes::new()), "/backends/0/ip", "missing-field"),
    ];
    for (resource, path, code) in cases {
        let error = refused(&resource);
        assert_eq!((error.path.as_str(), error.problem.code()), (path, code));
        assert_eq!(error.noun, Noun::Pool);
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut resource = of_pool(|_| ());
    resource.requires = vec!["teleport".to_owned()];
    assert_eq!(refused(&resource).problem, Problem::UnknownRequirement("teleport".to_owned()));
    assert_eq!(refused(&v1::Resource::default()).problem.code(), "missing-field");

    // Field 999 at the top, then inside the pool: both would be dropped silently by the decoder.
    let mut bytes = of_pool(|_| ()).encode_to_vec();
    bytes.extend([0xb8, 0x3e, 0x01]);
    let (zstd, hash) = pack(&bytes);
    assert_eq!(decode(&zstd, hash).unwrap_err().problem, Problem::UnknownField);
    let mut pool = a_pool().encode_to_vec();
    pool.extend([0xb8, 0x3e, 0x01]);
    let mut bytes = vec![0x1a, u8::try_from(pool.len()).unwrap()];
    bytes.extend(pool);
    let (zstd, hash) = pack(&bytes);
    let error = decode(&zstd, hash).unwrap_err();
    assert_eq!((error.noun, error.problem), (Noun::Pool, Problem::UnknownField));
}

#[test]
fn the_content_must_have_the_hash_that_was_asked_for() {
    let (zstd, _) = pack(&of_pool(|_| ()).encode_to_vec());
    assert_eq!(decode(&zstd, Hash([0; 32])).unwrap_err().problem, Problem::HashMismatch);
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let bomb = zstd::bulk::compress(&vec![0; resources::MAX_RESOURCE + 1], 1).unwrap();
    assert!(bomb.len() < 100_000);
    let error = decode(&bomb, Hash([0; 32])).unwrap_err();
    assert_eq!(error.problem, Problem::TooLarge(resources::MAX_RESOURCE));
}

#[test]
fn references_must_resolve_inside() {
    let (zstd, hash) = pack(&of_pool(|_| ()).encode_to_vec());
    let pool = decode(&zstd, hash).unwrap();
    let again = assemble([(hash, pool.clone()), (hash, pool)]).unwrap_err();
    assert_eq!(again.problem.code(), "duplicate");
    let chain = Decoded::Certificate(
        awe4lb_model::Certificate { name: "c".parse().unwrap(), chain_pem: "x".to_owned() },
        Hash([1; 32]),
        None,
    );
    assert_eq!(assemble([(hash, chain)]).unwrap_err().problem.code(), "dangling");
}

#[test]
fn long_manifests_come_in_parts_and_strays_are_refused() {
    let entries = (0..5_000).map(|index| {
        let name = format!("p{index}").parse().unwrap();
        let id = awe4lb_model::placed::ResourceId { kind: ResourceKind::Pool, name };
        (id, Hash::of(format!("{index}").as_bytes()))
    });
    let manifest: Manifest = entries.collect();
    let difference = manifest.difference_from(&Manifest::default());
    let messages = manifest::to_messages(&assignment(&manifest), v1::Mode::Apply, None, &difference);
    assert!(messages.len() > 2);
    assert!(messages.iter().all(|message| message.encoded_len() <= MAX_MESSAGE_DATA + 64));
    let mut assembler = Assembler::default();
    assembler.push(messages[0].clone()).unwrap();
    assert_eq!(assembler.push(messages[2].clone()).unwrap_err().problem.code(), "parts");
    let mut whole = None;
    for message in messages {
        whole = assembler.push(message).unwrap();
    }
    assert_eq!(whole.unwrap().resolve(&Manifest::default()).unwrap(), manifest);
}

#[test]
fn hashes_are_pinned() {
    let empty = Manifest::of(&encode_all(&NodeConfig::default()).unwrap());
    assert_eq!(empty.hash(), Hash::of(b"awe4lb manifest 1\n"));
    let (_, hash) = pack(&of_pool(|_| ()).encode_to_vec());
    let id = awe4lb_model::placed::ResourceId { kind: ResourceKind::Pool, name: "app".parse().unwrap() };
    let manifest: Manifest = [(id, hash)].into_iter().collect();
    assert_eq!(manifest.hash(), Hash::of(format!("awe4lb manifest 1\npool app {hash}\n").as_bytes()));
    assert_eq!(hash.to_string(), "7536805e445b89f5533154e361e47ebf0ad44229c2968eb1aceb55acc4f46dcd");
    assert_ne!(manifest.hash(), manifest.built_hash());
}

/// What an OCSP responder says changes the certificate's resource alone, and asks for nodes that know of it; without it the bytes
/// are those of before there was any.
#[test]
fn a_staple_is_a_change_of_the_chain_alone() {
    use awe4lb_model::placed::{PlacedCertificate, PrivateKeyPem, Staple};
    let mut placed = PlacedCertificate {
        certificate: awe4lb_model::Certificate { name: "c".parse().unwrap(), chain_pem: "chain".to_owned() },
        key: PrivateKeyPem("key".to_owned()),
        ocsp: None,
    };
    let (plain, key) = resources::encode_certificate(&placed).unwrap();
    assert_eq!(plain.hash.to_string(), "8f4d9ae5bcf6c80ae8b759a7e7c8f4a7fdd474fb936ddea817c12403ab5bf4ed");
    placed.ocsp = Some(Staple { der: [0x30, 3, 10, 1, 6][..].into(), until: 1_900_000_000 });
    let (stapled, same_key) = resources::encode_certificate(&placed).unwrap();
    assert_eq!(stapled.hash.to_string(), "3246f22b50ed9cb544955dd068bebdc56d960a562c2a76648a015a949b187e5c");
    assert_eq!(key, same_key);
    assert_eq!(stapled.requires, ["tls", "stapling"]);
    let decoded = decode(&stapled.zstd, stapled.hash).unwrap();
    let Decoded::Certificate(_, _, ocsp) = &decoded else { panic!("{decoded:?}") };
    assert_eq!(*ocsp, placed.ocsp);
}

#[test]
fn half_a_staple_is_refused() {
    let refused = |ocsp: &'static [u8], ocsp_until: i64| {
        let certificate = v1::Certificate {
            name: "c".to_owned(),
            chain_pem: "chain".to_owned(),
            key_hash: Hash([1; 32]).to_wire(),
            ocsp: ocsp.into(),
            ocsp_until,
        };
        let body = Some(v1::resource::Body::Certificate(certificate));
        let (zstd, hash) = pack(&v1::Resource { requires: Vec::new(), body }.encode_to_vec());
        decode(&zstd, hash).unwrap_err().path
    };
    assert_eq!(refused(b"x", 0), "/ocsp_until");
    assert_eq!(refused(b"x", -1), "/ocsp_until");
    assert_eq!(refused(b"", 7), "/ocsp");
}

#[test]
fn a_key_shows_nowhere() {
    let key = v1::Key { certificate: "c".to_owned(), key_pem: "SECRET".to_owned() };
    let resource = v1::Resource { requires: Vec::new(), body: Some(v1::resource::Body::Key(key)) };
    assert!(!format!("{resource:?}").contains("SECRET"));
}
