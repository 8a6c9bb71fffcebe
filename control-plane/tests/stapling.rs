//! Certificates whose authority has an OCSP responder: what it says goes to nodes, and what is wrong with it is told.

#![allow(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{sync::Arc, time::Duration};

use awe4lb_control_plane::{catalog::Staples, ocsp::OcspView};
use awe4lb_model::placed::{NodeConfig, PlacedCertificate, ResourceId, ResourceKind, Staple};
use awe4lb_proto::{
    CAPABILITIES, Hash, STAPLING,
    manifest::{Assembler, Manifest},
    resources::encode_certificate,
    v1::{self, to_node},
};
use serde_json::{Value, json};
use support::{
    authority::{Authority, CURVE},
    *,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A port that is free now.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Answers every request with this body.
async fn answers(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    });
    port
}

/// One listener with these certificates.
fn document(authority: &Authority, names: &[&str]) -> Value {
    let certificate = |name: &&str| json!({"name": name, "chain": authority.chain(name), "key": authority.read(&format!("{name}.key"))});
    json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": ["127.0.0.1:4433"], "tls": {"certificates": names}, "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "backends": [{"address": "127.0.0.1:1"}]}],
        "certificates": names.iter().map(certificate).collect::<Vec<_>>(),
    })
}

fn placed(plane: &Plane, name: &str) -> PlacedCertificate {
    let config: Arc<NodeConfig> = plane.running.app.catalog.head().placed.clone();
    config.certificates.iter().find(|placed| placed.certificate.name.as_str() == name).unwrap().clone()
}

/// How it stands, once that is as wanted.
async fn eventually(plane: &Plane, name: &str, is_it: impl Fn(&OcspView) -> bool) -> OcspView {
    let head = plane.running.app.catalog.head();
    let entry = head.model.get(awe4lb_control_plane::catalog::Kind::Certificate, name).unwrap().clone();
    let fingerprint = &entry.certificate().unwrap().fingerprint;
    let mut last = None;
    for _ in 0..1_000 {
        last = plane.running.app.ocsp.ocsp_of(name, fingerprint);
        if let Some(view) = last.clone().filter(|view| is_it(view)) {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name}: {last:?}")
}

async fn stapled(plane: &Plane, name: &str) -> Staple {
    for _ in 0..1_000 {
        if let Some(staple) = placed(plane, name).ocsp {
            return staple;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{name} is not stapled")
}

/// All that can go wrong, beside one certificate with which all is well.
#[tokio::test]
async fn only_what_is_good_is_sent_and_the_state_says_why_the_rest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(CURVE), Authority::new("rsa:2048"));
    authority.issue("appointed", "3001", "extendedKeyUsage=OCSPSigning");
    for file in ["ca.pem", "ca.key"] {
        std::fs::copy(other.file(file), authority.file(&format!("other-{file}"))).unwrap();
    }
    std::fs::rename(authority.file("other-ca.pem"), authority.file("stranger.pem")).unwrap();
    std::fs::rename(authority.file("other-ca.key"), authority.file("stranger.key")).unwrap();
    let (well, wrong) = (free_port().await, free_port().await);
    authority.know(&[("01", false), ("02", true), ("04", false)]);
    let responders = [authority.respond(well, "appointed"), authority.respond(wrong, "stranger")];
    let issue = |name, serial, port: u16, more: &str| {
        let url = format!("authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/\n{more}");
        authority.issue(name, serial, &url);
    };
    issue("good", "01", well, "tlsfeature=status_request");
    issue("revoked", "02", well, "");
    issue("unknown", "03", well, "");
    issue("stranger-signed", "04", wrong, "");
    issue("down", "05", free_port().await, "tlsfeature=status_request");
    issue("garbage", "06", answers("garbage").await, "");
    issue("huge", "07", answers(Box::leak("x".repeat(65 * 1024).into_boxed_str())).await, "");
    authority.issue("link-local", "08", "authorityInfoAccess=OCSP;URI:http://169.254.169.254/");
    authority.issue("silent", "09", "subjectAltName=DNS:a.test");
    let names =
        ["good", "revoked", "unknown", "stranger-signed", "down", "garbage", "huge", "link-local", "silent"];
    let plane = Plane::start(dir.path(), "t").await;
    let (_, mut events) = plane.running.app.events.listen(None);
    plane.apply(&document(&authority, &names)).await;
    let good = eventually(&plane, "good", |view| view.status == "good").await;
    assert!(good.next_update.is_some() && good.error.is_none());
    stapled(&plane, "good").await;
    eventually(&plane, "revoked", |view| view.status == "revoked").await;
    eventually(&plane, "unknown", |view| view.status == "unknown" && view.error.is_some()).await;
    for (name, why) in [
        ("stranger-signed", "signature of the answer is wrong"),
        ("down", "Connection refused"),
        ("garbage", "no OCSP answer"),
        ("huge", "more than 65536 bytes"),
        ("link-local", "--allow-network"),
    ] {
        let view = eventually(&plane, name, |view| view.status == "failing").await;
        let error = view.error.unwrap();
        assert!(error.contains(why) && error.contains("http://"), "{name}: {error}");
    }
    for name in &names[1..] {
        assert_eq!(placed(&plane, name).ocsp, None, "{name}");
    }
    // It is made loud.
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if event.kind == "certificate" {
            told.push(event.data.to_string());
        }
    }
    let has = |name: &str, text: &str| told.iter().any(|event| event.contains(name) && event.contains(text));
    assert!(has("\"revoked\"", "its authority revoked it at 2025-01-01"), "{told:?}");
    assert!(has("\"down\"", "clients refuse it"), "{told:?}");
    // The metrics say the same, and what ends here begins there.
    let metrics = plane.client.get(format!("http://{}/metrics", plane.running.http)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("awe4lb_certificate_ocsp_failures_total{certificate=\"down\"} 1"), "{metrics}");
    assert!(metrics.contains("awe4lb_certificate_ocsp_next_update_seconds{certificate=\"good\"} "));
    assert!(!metrics.contains("awe4lb_certificate_ocsp_next_update_seconds{certificate=\"down\"}"));
    // It is there at once after a restart, also when nobody answers any more.
    drop(responders);
    let before = stapled(&plane, "good").await;
    plane.running.stop().await;
    let plane = Plane::start(dir.path(), "u").await;
    assert_eq!(placed(&plane, "good").ocsp, Some(before.clone()));
    // And it stays through writes of the document, but not for another certificate.
    let mut document = document(&authority, &["good"]);
    document["pools"][0]["backends"][0]["address"] = json!("127.0.0.1:2");
    plane.apply(&document).await;
    assert_eq!(placed(&plane, "good").ocsp, Some(before));
    issue("good", "0a", well, "");
    plane.apply(&self::document(&authority, &["good"])).await;
    assert_eq!(placed(&plane, "good").ocsp, None);
    plane.running.stop().await;
}

/// What a node is offered next: the hash of the certificate `c`.
async fn offered(node: &mut Node) -> Hash {
    let mut assembler = Assembler::default();
    loop {
        if let Some(to_node::Message::Manifest(part)) = node.hear().await.unwrap()
            && let Some(target) = assembler.push(part).unwrap()
        {
            let id = ResourceId { kind: ResourceKind::Certificate, name: "c".parse().unwrap() };
            // The first may be from before the document.
            if let Some(hash) = target.resolve(&Manifest::default()).unwrap().hash_of(&id) {
                return hash;
            }
        }
    }
}

/// A node of before there was stapling refuses what it does not know, and a whole configuration with it.
#[tokio::test]
async fn while_a_node_does_not_know_of_it_nobody_is_sent_any() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(CURVE);
    authority.issue("c", "01", "subjectAltName=DNS:a.test");
    let plane = Plane::start(dir.path(), "t").await;
    plane.apply(&document(&authority, &["c"])).await;
    let without = placed(&plane, "c");
    let staple = Staple { der: [1, 2, 3][..].into(), until: i64::MAX };
    let catalog = &plane.running.app.catalog;
    catalog.staple(Staples::of([(&without.certificate, staple.clone())])).await;
    let with = placed(&plane, "c");
    assert_eq!(with.ocsp, Some(staple));
    assert_eq!(catalog.head().revision, 1, "no revision");
    let (with, without) =
        (encode_certificate(&with).unwrap().0.hash, encode_certificate(&without).unwrap().0.hash);
    assert_ne!(with, without);

    let join = async |name: &str| {
        let token = plane.join_token(&json!({"uses": 1})).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let reply = plane.join(&token, name, &key).await.unwrap();
        Identity::new(reply.certificate_der, key.serialize_der())
    };
    let (new, old) = (join("n1").await, join("n2").await);
    let mut new = Node::attach(plane.running.grpc, &new, 1).await;
    while offered(&mut new).await != with {}
    let known = CAPABILITIES.iter().filter(|word| **word != STAPLING);
    let hello =
        v1::Hello { capabilities: known.map(|word| (*word).to_owned()).collect(), ..v1::Hello::default() };
    let mut old = Node::attach_with(plane.running.grpc, &old, 2, hello).await.unwrap();
    assert_eq!(offered(&mut old).await, without);
    assert_eq!(offered(&mut new).await, without);
    drop(old);
    assert_eq!(offered(&mut new).await, with);
    plane.running.stop().await;
}
