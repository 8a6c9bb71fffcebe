//! The protocol as a node sees it: what is sent, and above all what is not.

#![allow(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use awe4lb_proto::{
    Collector, Hash,
    manifest::{Assembler, Manifest, kind_word},
    v1::{self, command, from_node, to_node},
};
use serde_json::{Value, json};
use support::*;

fn document(pools: &[(&str, u16)]) -> Value {
    let pool = |(name, port): &(&str, u16)| json!({"name": name, "backends": [{"name": "a", "address": format!("127.0.0.1:{port}")}]});
    json!({
        "listeners": [{"name": "web", "bind": ["*:8080"], "rules": [{"name": "all", "pool": pools[0].0}]}],
        "pools": pools.iter().map(pool).collect::<Vec<_>>(),
    })
}

/// What a node holds.
#[derive(Default)]
struct Hand {
    manifests: BTreeMap<Hash, Manifest>,
    resources: HashSet<Hash>,
}

/// A manifest that was offered, and what of it came over the wire.
struct Offer {
    assignment: v1::Assignment,
    manifest: Manifest,
    /// Whether it came as a difference.
    is_difference: bool,
    /// Names of the resources that were sent.
    sent: Vec<String>,
}

impl Hand {
    /// Takes offers until one is of this revision: a node that comes while a revision is being planned gets both.
    async fn take_revision(&mut self, node: &mut Node, revision: u64) -> Offer {
        loop {
            let offer = self.take(node).await;
            if offer.assignment.revision >= revision {
                return offer;
            }
            result(node, &offer, v1::Phase::Active, "").await;
        }
    }

    /// Takes the next offer with all that it needs, as a node does.
    async fn take(&mut self, node: &mut Node) -> Offer {
        let (mut parts, mut collector) = (Assembler::default(), Collector::default());
        let (mut offer, mut missing): (Option<Offer>, HashSet<Hash>) = (None, HashSet::new());
        loop {
            match node.hear().await.unwrap().expect("the stream goes on") {
                to_node::Message::Manifest(message) => {
                    let Some(announced) = parts.push(message).unwrap() else { continue };
                    let base = announced.base.map(|base| self.manifests[&base].clone()).unwrap_or_default();
                    let manifest = announced.resolve(&base).unwrap();
                    missing = manifest
                        .entries()
                        .map(|(_, hash)| hash)
                        .filter(|hash| !self.resources.contains(hash))
                        .collect();
                    let need = v1::Need {
                        manifest_hash: announced.manifest_hash.to_wire(),
                        resource_hashes: missing.iter().map(|hash| hash.to_wire()).collect(),
                    };
                    if !missing.is_empty() {
                        node.say(from_node::Message::Need(need)).await;
                    }
                    offer = Some(Offer {
                        assignment: announced.assignment,
                        manifest,
                        is_difference: announced.base.is_some(),
                        sent: Vec::new(),
                    });
                }
                to_node::Message::Resource(chunk) => {
                    let offer = offer.as_mut().expect("a manifest comes first");
                    let Some((hash, _)) = collector.push(chunk).unwrap() else { continue };
                    assert!(missing.remove(&hash), "it was not asked for");
                    self.resources.insert(hash);
                    let (id, _) = offer.manifest.entries().find(|(_, of)| *of == hash).unwrap();
                    offer.sent.push(format!("{} {}", kind_word(id.kind), id.name));
                }
                _ => {}
            }
            if missing.is_empty()
                && let Some(offer) = offer.take_if(|_| true)
            {
                self.manifests.insert(offer.manifest.hash(), offer.manifest.clone());
                return offer;
            }
        }
    }
}

async fn result(node: &Node, offer: &Offer, phase: v1::Phase, message: &str) {
    let result = v1::Result {
        assignment: Some(offer.assignment.clone()),
        phase: phase.into(),
        built_hash: offer.manifest.built_hash().to_wire(),
        message: message.to_owned(),
        ..v1::Result::default()
    };
    node.say(from_node::Message::Result(result)).await;
}

async fn eventually(plane: &Plane, holds: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let view = plane.get("/api/v1/nodes/n1").await;
        if holds(&view) {
            return view;
        }
        assert!(started.elapsed() < PATIENCE, "{view}");
        tokio::task::yield_now().await;
    }
}

fn hello(offer: &Offer) -> v1::Hello {
    let running = v1::Running {
        assignment: Some(offer.assignment.clone()),
        built_hash: offer.manifest.built_hash().to_wire(),
    };
    v1::Hello { running: Some(running), ..v1::Hello::default() }
}

/// The welcome, and whether anything but it comes before the answer to a report.
async fn welcome(node: &mut Node, sequence: u64) -> (v1::Welcome, bool) {
    let Some(to_node::Message::Welcome(welcome)) = node.hear().await.unwrap() else {
        panic!("a welcome comes first")
    };
    let report = v1::CounterReport { boot_id: node.boot.clone(), sequence, ..v1::CounterReport::default() };
    node.say(from_node::Message::Counters(report)).await;
    let mut is_offered = false;
    loop {
        match node.hear().await.unwrap().expect("the stream goes on") {
            to_node::Message::CounterAck(_) => return (welcome, is_offered),
            to_node::Message::Manifest(_) => is_offered = true,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_sends_what_has_changed_and_a_restart_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let plane = Plane::start(&dir, "first").await;
    let identity = plane.enrol().await;
    plane.apply(&document(&[("app", 1), ("other", 2)])).await;
    let (mut node, mut hand) = (Node::attach(plane.running.grpc, &identity, 1).await, Hand::default());

    let first = hand.take_revision(&mut node, 1).await;
    assert_eq!(first.sent.len(), 3, "{:?}", first.sent);
    result(&node, &first, v1::Phase::Active, "").await;
    eventually(&plane, |view| view["inSync"] == true).await;

    plane.apply(&document(&[("app", 1), ("other", 3)])).await;
    let second = hand.take(&mut node).await;
    assert_eq!(second.sent, ["pool other"]);
    assert!(second.is_difference);
    assert!(second.assignment.sequence > first.assignment.sequence);
    result(&node, &second, v1::Phase::Active, "").await;

    // Back again: the node still has everything.
    plane.apply(&document(&[("app", 1), ("other", 2)])).await;
    let third = hand.take(&mut node).await;
    assert!(third.sent.is_empty());
    assert_eq!(third.manifest.hash(), first.manifest.hash());
    assert!(third.assignment.sequence > second.assignment.sequence, "a node only ever goes up");
    result(&node, &third, v1::Phase::Active, "").await;
    eventually(&plane, |view| view["running"]["sequence"] == third.assignment.sequence).await;
    drop(node);
    plane.running.stop().await;

    let plane = Plane::start(&dir, "second").await;
    let mut node = Node::attach_with(plane.running.grpc, &identity, 1, hello(&third)).await.unwrap();
    let (welcome, is_offered) = welcome(&mut node, 1).await;
    assert!(welcome.up_to_date && !is_offered);
    eventually(&plane, |view| view["inSync"] == true).await;
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_list_reach_nodes_without_a_revision() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let plane = Plane::start(&dir, "first").await;
    let identity = plane.enrol().await;
    let mut document = document(&[("app", 1)]);
    document["listeners"][0]["access"] =
        json!({"rules": [{"deny": [{"list": "blocked"}], "closeExisting": true}]});
    document["addressLists"] = json!([{"name": "blocked", "entries": ["192.0.2.0/24"]}, {"name": "unused", "entries": ["10.0.0.0/8"]}]);
    plane.apply(&document).await;
    let (mut node, mut hand) = (Node::attach(plane.running.grpc, &identity, 1).await, Hand::default());
    let first = hand.take_revision(&mut node, 1).await;
    assert!(first.sent.contains(&"address-list blocked".to_owned()), "{:?}", first.sent);
    assert_eq!(first.sent.len(), 3, "a list that nobody refers to stays at home: {:?}", first.sent);
    result(&node, &first, v1::Phase::Active, "").await;

    let before = plane.request(http::Method::GET, "/api/v1/config").send().await.unwrap();
    let before = before.headers()["etag"].clone();
    let entries = "/api/v1/address-lists/blocked/entries";
    let patch = plane.request(http::Method::PATCH, entries).json(&json!({"add": ["198.51.100.7"]}));
    let patched = patch.send().await.unwrap();
    assert_eq!(patched.status(), 200);
    assert_eq!(patched.headers()["etag"], "\"1.2\"");
    let answer: Value = patched.json().await.unwrap();
    assert_eq!((&answer["meta"]["entries"], &answer["entries"]), (&json!(2), &Value::Null));
    let second = hand.take(&mut node).await;
    assert_eq!(second.sent, ["address-list blocked"]);
    assert_eq!(second.assignment.revision, 1);
    assert!(second.assignment.sequence > first.assignment.sequence);
    result(&node, &second, v1::Phase::Active, "").await;
    eventually(&plane, |view| view["inSync"] == true).await;

    assert_eq!(plane.get(entries).await, json!({"total": 2, "items": ["192.0.2.0/24", "198.51.100.7"]}));
    // Who edits the document from before must not undo what a feed did meanwhile.
    let stale = plane.request(http::Method::PUT, "/api/v1/config").header("if-match", before).json(&document);
    assert_eq!(stale.send().await.unwrap().status(), 412);
    let wrong = plane.request(http::Method::PUT, entries).json(&json!(["10.0.0.0/8", "10.0.0.1/8"]));
    let wrong = wrong.send().await.unwrap();
    assert_eq!(wrong.status(), 422);
    assert_eq!(wrong.json::<Value>().await.unwrap()["errors"][0]["pointer"], "/1");

    // As many as there may be, as one write; what travels is a packed resource.
    let many: Vec<String> =
        (0..500_000u32).map(|n| std::net::Ipv4Addr::from(0x0B00_0000 + n * 16).to_string()).collect();
    let put = plane.request(http::Method::PUT, entries).json(&many).send().await.unwrap();
    assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    let third = hand.take(&mut node).await;
    assert_eq!(third.sent, ["address-list blocked"]);
    assert_eq!(plane.get("/api/v1/address-lists").await["items"][0]["meta"]["entries"], 500_000);
    assert_eq!(plane.get("/api/v1/revisions").await["total"], 1);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rejected_is_not_sent_again_until_something_changes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let plane = Plane::start(&dir, "first").await;
    let identity = plane.enrol().await;
    plane.apply(&document(&[("app", 1)])).await;
    let (mut node, mut hand) = (Node::attach(plane.running.grpc, &identity, 1).await, Hand::default());
    let first = hand.take_revision(&mut node, 1).await;
    result(&node, &first, v1::Phase::Active, "").await;
    plane.apply(&document(&[("app", 2)])).await;
    let second = hand.take(&mut node).await;
    result(&node, &second, v1::Phase::Rejected, "port 8080 is taken").await;
    let view = eventually(&plane, |view| view["phase"] == "rejected").await;
    assert_eq!(view["rejection"]["message"], "port 8080 is taken");
    assert_eq!(view["rejection"]["revision"], 2);
    assert_eq!(view["running"]["revision"], 1, "it runs what it ran");
    drop(node);

    // The node comes back, and so does the control plane: neither makes it try again.
    let mut node = Node::attach_with(plane.running.grpc, &identity, 1, hello(&first)).await.unwrap();
    assert!(!welcome(&mut node, 1).await.1);
    drop(node);
    plane.running.stop().await;
    let plane = Plane::start(&dir, "second").await;
    let mut node = Node::attach_with(plane.running.grpc, &identity, 1, hello(&first)).await.unwrap();
    assert!(!welcome(&mut node, 2).await.1);
    eventually(&plane, |view| view["phase"] == "rejected").await;

    plane.apply(&document(&[("app", 3)])).await;
    let third = hand.take(&mut node).await;
    assert_eq!(third.sent, ["pool app"]);
    result(&node, &third, v1::Phase::Active, "").await;
    eventually(&plane, |view| view["inSync"] == true && view["rejection"].is_null()).await;
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_ahead_or_of_another_database_is_refused_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let identity = plane.enrol().await;
    plane.apply(&document(&[("app", 1)])).await;
    let (mut node, mut hand) = (Node::attach(plane.running.grpc, &identity, 1).await, Hand::default());
    let offer = hand.take_revision(&mut node, 1).await;
    result(&node, &offer, v1::Phase::Active, "").await;
    eventually(&plane, |view| view["inSync"] == true).await;
    drop(node);
    eventually(&plane, |view| view["state"] == "disconnected").await;

    let refused = async |change: &dyn Fn(&mut v1::Assignment)| {
        let mut hello = hello(&offer);
        change(hello.running.as_mut().unwrap().assignment.as_mut().unwrap());
        let mut node = Node::attach_with(plane.running.grpc, &identity, 1, hello).await.unwrap();
        let status = node.hear().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
        let view = eventually(&plane, |view| view["problems"][0]["code"] == "lineage").await;
        (status.message().to_owned(), view["problems"][0]["message"].as_str().unwrap().to_owned())
    };
    let (told, shown) = refused(&|running| running.sequence += 7).await;
    assert!(told.contains("restored") && shown == told, "{told}");
    let (told, _) = refused(&|running| running.lineage = "another".to_owned()).await;
    assert!(told.contains("another database"), "{told}");
    plane.running.stop().await;
}

/// Why the stream ends.
async fn goodbye(node: &mut Node) -> String {
    loop {
        let message = node.hear().await.unwrap().expect("a goodbye comes before the end");
        if let to_node::Message::Command(v1::Command { command: Some(command::Command::Goodbye(goodbye)) }) =
            message
        {
            return goodbye.reason;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_takes_the_place_of_the_first_and_a_ban_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let identity = plane.enrol().await;
    let mut first = Node::attach(plane.running.grpc, &identity, 1).await;
    eventually(&plane, |view| view["state"] == "connected").await;
    let mut second = Node::attach(plane.running.grpc, &identity, 2).await;
    assert_eq!(goodbye(&mut first).await, "replaced");

    let started = Instant::now();
    plane
        .request(http::Method::POST, "/api/v1/nodes/n1:ban")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    assert_eq!(goodbye(&mut second).await, "banned");
    assert!(started.elapsed().as_secs() < 1);
    let mut third = Node::attach(plane.running.grpc, &identity, 3).await;
    assert_eq!(third.hear().await.unwrap_err().code(), tonic::Code::PermissionDenied);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_on_the_stream_and_both_keys_are_good_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let identity = plane.enrol().await;
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = v1::RenewRequest { csr_der: bytes::Bytes::copy_from_slice(csr.der()) };
    node.say(from_node::Message::Renew(request)).await;
    let renewed = loop {
        let message = node.hear().await.unwrap().expect("the stream goes on");
        if let to_node::Message::Renewed(reply) = message {
            break reply;
        }
    };
    let renewed = Identity::new(renewed.certificate_der, key.serialize_der());
    // The answer might have been lost: the old key still opens.
    for (boot, identity) in [(2, &identity), (3, &renewed)] {
        let mut node = Node::attach(plane.running.grpc, identity, boot).await;
        assert!(matches!(node.hear().await.unwrap(), Some(to_node::Message::Welcome(_))));
    }
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_that_comes_before_the_welcome_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let identity = plane.enrol().await;
    let app = plane.running.app.clone();
    // Before its welcome a stream stores what the node said of itself: it waits for the one writer.
    let writer = app.store.writer().acquire().await.unwrap();
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    while app.fleet.node("n1").unwrap().state != "connected" {
        tokio::task::yield_now().await;
    }
    let ban = app.fleet.ban("n1");
    tokio::pin!(ban);
    assert!(futures_util::poll!(&mut ban).is_pending(), "it waits for the same");
    drop(writer);
    assert_eq!(ban.await.unwrap().state, "banned");
    assert_eq!(goodbye(&mut node).await, "banned");
    plane.running.stop().await;
}
