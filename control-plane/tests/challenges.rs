//! Challenges before the nodes: who gets them, who has confirmed them, and who is named because they did not.

#![allow(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::time::{Duration, Instant, SystemTime};

use awe4lb_control_plane::fleet::{Challenge, ChallengeKind};
use awe4lb_proto::v1::{self, from_node, to_node};
use prost::Message as _;
use serde_json::json;
use support::*;

/// Longer than anything here takes, so that whatever needs a deadline shows.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(300);

fn http01(id: &str) -> Challenge {
    Challenge {
        id: id.to_owned(),
        kind: ChallengeKind::Http01 {
            host: "app.test".to_owned(),
            token: id.to_owned(),
            key_authorization: format!("{id}.thumbprint"),
        },
        expires_at: SystemTime::now() + LONG,
    }
}

fn tls_alpn01(id: &str, length: usize) -> Challenge {
    Challenge {
        id: id.to_owned(),
        kind: ChallengeKind::TlsAlpn01 {
            host: "app.test".to_owned(),
            chain_der: vec![vec![1; length]],
            key_der: vec![2; 138],
        },
        expires_at: SystemTime::now() + LONG,
    }
}

/// The node `name` joins.
async fn enrol(plane: &Plane, name: &str) -> Identity {
    let token = plane.join_token(&json!({"uses": 1})).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let reply = plane.join(&token, name, &key).await.unwrap();
    Identity::new(reply.certificate_der, key.serialize_der())
}

/// The next whole version of the challenges, in its parts.
async fn challenges(node: &mut Node) -> Vec<v1::Challenges> {
    let mut parts: Vec<v1::Challenges> = Vec::new();
    loop {
        if let to_node::Message::Challenges(part) = node.hear().await.unwrap().expect("the stream goes on") {
            assert!(part.encoded_len() <= 64 * 1024);
            assert_eq!(part.part as usize, parts.len());
            let is_last = part.part + 1 == part.parts;
            parts.push(part);
            if is_last {
                return parts;
            }
        }
    }
}

/// Until the challenges of this version, or of a later one.
async fn version(node: &mut Node, version: u64) -> Vec<v1::Challenge> {
    loop {
        let parts = challenges(node).await;
        if parts[0].version >= version {
            return parts.into_iter().flat_map(|part| part.challenges).collect();
        }
    }
}

fn ids(challenges: &[v1::Challenge]) -> Vec<&str> {
    challenges.iter().map(|challenge| challenge.id.as_str()).collect()
}

async fn confirm(node: &Node, version: u64) {
    node.say(from_node::Message::ChallengesHeld(v1::ChallengesHeld { version })).await;
}

async fn welcomed(node: &mut Node) {
    assert!(matches!(node.hear().await.unwrap(), Some(to_node::Message::Welcome(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn challenges_are_confirmed_when_every_node_holds_them() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let fleet = plane.running.app.fleet.clone();
    assert_eq!(fleet.challenges_confirmed(0, LONG).await, Ok(()), "nobody is there who could be asked");
    let (first, second) = (enrol(&plane, "n1").await, enrol(&plane, "n2").await);
    let mut first = Node::attach(plane.running.grpc, &first, 1).await;
    let mut second = Node::attach(plane.running.grpc, &second, 2).await;
    welcomed(&mut first).await;
    welcomed(&mut second).await;

    let added = fleet.add_challenges(vec![http01("a"), tls_alpn01("b", 500)]);
    let got = version(&mut first, added).await;
    assert_eq!(ids(&got), ["a", "b"]);
    assert!(got.iter().all(|challenge| (60_000..=120_000).contains(&challenge.lasts_ms)));
    let Some(v1::challenge::Kind::TlsAlpn01(wire)) = &got[1].kind else { panic!("{:?}", got[1]) };
    assert_eq!((wire.host.as_str(), wire.chain_der[0].len(), wire.key_der.len()), ("app.test", 500, 138));
    assert!(!format!("{got:?}").contains("key_der"), "no key in a log");

    confirm(&first, added).await;
    let waiting = fleet.clone();
    let waiting = tokio::spawn(async move { waiting.challenges_confirmed(added, LONG).await });
    assert_eq!(fleet.challenges_confirmed(added, SHORT).await, Err(vec!["n2".to_owned()]));
    confirm(&second, added).await;
    assert_eq!(waiting.await.unwrap(), Ok(()));

    // A newer version confirms the older ones, too; an older one says nothing of it.
    let next = fleet.add_challenges(vec![http01("c")]);
    assert!(next > added);
    confirm(&first, added).await;
    confirm(&second, next).await;
    assert_eq!(fleet.challenges_confirmed(next, SHORT).await, Err(vec!["n1".to_owned()]));
    confirm(&first, next + 1).await;
    assert_eq!(fleet.challenges_confirmed(next, LONG).await, Ok(()));

    fleet.remove_challenges(&["a".to_owned(), "b".to_owned(), "unknown".to_owned()]);
    assert_eq!(ids(&version(&mut first, next + 1).await), ["c"]);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_later_gets_them_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let fleet = plane.running.app.fleet.clone();
    let identity = enrol(&plane, "n1").await;
    let mut expired = http01("expired");
    expired.expires_at = SystemTime::now();
    let added = fleet.add_challenges(vec![http01("a"), expired]);
    let waiting = fleet.clone();
    let waiting = tokio::spawn(async move { waiting.challenges_confirmed(added, LONG).await });
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut node).await;
    let Some(to_node::Message::Challenges(first)) = node.hear().await.unwrap() else {
        panic!("they come right after the welcome")
    };
    assert_eq!((first.version, ids(&first.challenges)), (added, vec!["a"]));
    confirm(&node, added).await;
    assert_eq!(waiting.await.unwrap(), Ok(()), "it has just joined: it is waited for");
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_named_after_the_deadline_and_one_that_says_goodbye_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let fleet = plane.running.app.fleet.clone();
    let mut nodes = Vec::new();
    for (boot, name) in [(1, "dies"), (2, "leaves"), (3, "stays")] {
        let identity = enrol(&plane, name).await;
        let mut node = Node::attach(plane.running.grpc, &identity, boot).await;
        welcomed(&mut node).await;
        nodes.push((identity, node));
    }
    let added = fleet.add_challenges(vec![http01("a")]);
    let (_, stays) = nodes.pop().unwrap();
    confirm(&stays, added).await;
    let (_, mut leaves) = nodes.pop().unwrap();
    let last =
        v1::CounterReport { boot_id: leaves.boot.clone(), sequence: 1, r#final: true, ..Default::default() };
    leaves.say(from_node::Message::Counters(last)).await;
    while !matches!(leaves.hear().await.unwrap().unwrap(), to_node::Message::CounterAck(_)) {}
    drop(leaves);
    let (identity, dies) = nodes.pop().unwrap();
    drop(dies);
    while plane.get("/api/v1/nodes/dies").await["state"] == "connected"
        || plane.get("/api/v1/nodes/leaves").await["state"] == "connected"
    {
        tokio::task::yield_now().await;
    }
    let from = Instant::now();
    let named = fleet.challenges_confirmed(added, SHORT).await;
    assert_eq!(named, Err(vec!["dies".to_owned()]), "it may serve clients still");
    assert!(from.elapsed() >= SHORT);

    let waiting = fleet.clone();
    let waiting = tokio::spawn(async move { waiting.challenges_confirmed(added, LONG).await });
    let mut back = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut back).await;
    version(&mut back, added).await;
    confirm(&back, added).await;
    assert_eq!(waiting.await.unwrap(), Ok(()));
    // What it held on its last stream says nothing of this one.
    let mut again = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut again).await;
    assert_eq!(fleet.challenges_confirmed(added, SHORT).await, Err(vec!["dies".to_owned()]));
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_answer_is_named_without_a_wait_and_sent_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let fleet = plane.running.app.fleet.clone();
    let identity = enrol(&plane, "old").await;
    let hello = v1::Hello { capabilities: vec!["tcp".to_owned()], ..v1::Hello::default() };
    let mut node = Node::attach_with(plane.running.grpc, &identity, 1, hello).await.unwrap();
    welcomed(&mut node).await;
    let added = fleet.add_challenges(vec![tls_alpn01("a", 500)]);
    let from = Instant::now();
    assert_eq!(fleet.challenges_confirmed(added, LONG).await, Err(vec!["old".to_owned()]));
    assert!(from.elapsed() < LONG / 2);
    let report = v1::CounterReport { boot_id: node.boot.clone(), sequence: 1, ..Default::default() };
    node.say(from_node::Message::Counters(report)).await;
    loop {
        match node.hear().await.unwrap().expect("the stream goes on") {
            to_node::Message::CounterAck(_) => break,
            to_node::Message::Challenges(_) => panic!("a key for a node that knows nothing of it"),
            _ => {}
        }
    }
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_a_restarted_control_plane_has_not_seen_yet_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let identity = enrol(&plane, "n1").await;
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut node).await;
    drop(node);
    plane.running.stop().await;

    let plane = Plane::start(&dir.path().join("data"), "second").await;
    let fleet = plane.running.app.fleet.clone();
    let added = fleet.add_challenges(vec![http01("a")]);
    assert_eq!(fleet.challenges_confirmed(added, SHORT).await, Err(vec!["n1".to_owned()]));
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut node).await;
    version(&mut node, added).await;
    confirm(&node, added).await;
    assert_eq!(fleet.challenges_confirmed(added, LONG).await, Ok(()));
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_challenges_come_in_parts_and_too_many_do_not_come() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let fleet = plane.running.app.fleet.clone();
    let identity = enrol(&plane, "n1").await;
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    welcomed(&mut node).await;
    let many: Vec<Challenge> = (0..1_000).map(|number| tls_alpn01(&format!("c{number:04}"), 600)).collect();
    let added = fleet.add_challenges(many);
    let got = version(&mut node, added).await;
    assert_eq!(got.len(), 1_000);
    let more: Vec<Challenge> = (0..5_000).map(|number| http01(&format!("m{number:04}"))).collect();
    let added = fleet.add_challenges(more);
    assert_eq!(version(&mut node, added).await.len(), 4_096);
    plane.running.stop().await;
}
