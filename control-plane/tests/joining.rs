//! Who may become a node, and how often.

#![allow(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use awe4lb_proto::v1::{self, fleet_client::FleetClient};
use rcgen::KeyPair;
use serde_json::json;
use support::*;
use tonic::Code;

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_as_many_as_it_says_and_the_same_key_again() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let token = plane.join_token(&json!({"uses": 1, "labels": {"site": "a"}})).await;
    let (one, other) = (key(), key());

    // Two at once for the last use: one of them gets it.
    let (first, second) = tokio::join!(plane.join(&token, "n1", &one), plane.join(&token, "n2", &other));
    let (name, key, reply, refused) = match (first, second) {
        (Ok(reply), Err(refused)) => ("n1", one, reply, refused),
        (Err(refused), Ok(reply)) => ("n2", other, reply, refused),
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("used up"), "{refused}");
    assert_eq!(plane.get(&format!("/api/v1/nodes/{name}")).await["labels"], json!({"site": "a"}));

    // The answer was lost: the same key asks again, and gets the same.
    let again = plane.join(&token, name, &key).await.unwrap();
    assert_eq!(again.certificate_der, reply.certificate_der);
    let tokens = plane.get("/api/v1/join-tokens").await;
    assert_eq!(tokens["items"][0]["used"], 1, "{tokens}");

    // Not once the token's life is over.
    let writer = plane.running.app.store.writer();
    sqlx::query("UPDATE join_tokens SET expires_at = created_at - 1").execute(writer).await.unwrap();
    let late = plane.join(&token, name, &key).await.unwrap_err();
    assert_eq!(late.code(), Code::PermissionDenied);
    assert!(late.message().contains("expired"), "{late}");
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_of_this_cluster_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let token = plane.join_token(&json!({})).await;
    let (head, secret) = token.rsplit_once('_').unwrap();
    let flipped = if secret.starts_with('0') { "1" } else { "0" };
    let tokens = [
        (String::new(), Code::InvalidArgument),
        ("awj_".to_owned(), Code::InvalidArgument),
        (head.to_owned(), Code::InvalidArgument),
        (format!("{head}_"), Code::PermissionDenied),
        (format!("{head}_{flipped}{}", &secret[1..]), Code::PermissionDenied),
        (format!("awj_elsewhere_{}_{secret}", "0".repeat(64)), Code::PermissionDenied),
        ("x".repeat(1 << 20), Code::OutOfRange),
    ];
    for (token, code) in tokens {
        let refused = plane.join(&token, "n1", &key()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(!refused.message().contains(secret), "the secret is not repeated");
    }
    let refused = plane.join(&token, "not a name", &key()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // None of these used it up.
    plane.join(&token, "n1", &key()).await.unwrap();
    assert_eq!(plane.get("/api/v1/nodes").await["items"].as_array().unwrap().len(), 1);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_enough_to_take_the_place_of_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let token = plane.join_token(&json!({"uses": 5})).await;
    plane.join(&token, "n1", &key()).await.unwrap();
    let thief = plane.join(&token, "n1", &key()).await.unwrap_err();
    assert_eq!(thief.code(), Code::FailedPrecondition, "{thief}");

    // A name that nobody wished for is made.
    let unnamed = plane.join(&token, "", &key()).await.unwrap();
    assert!(unnamed.name.starts_with("node-"), "{}", unnamed.name);

    // Forgotten, its name is free again, and what it had opens nothing.
    let mine = key();
    let reply = plane.join(&token, "n2", &mine).await.unwrap();
    let old = Identity::new(reply.certificate_der, mine.serialize_der());
    let forget = plane.request(http::Method::POST, "/api/v1/nodes/n2:forget");
    let forget = forget.send().await.unwrap();
    assert!(forget.status().is_success(), "{}", forget.status());
    plane.join(&token, "n2", &key()).await.unwrap();
    let mut node = Node::attach(plane.running.grpc, &old, 1).await;
    assert_eq!(node.hear().await.unwrap_err().code(), Code::PermissionDenied);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_there_is_no_stream() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(&dir.path().join("data"), "first").await;
    let mut client = FleetClient::new(channel(plane.running.grpc, None).await);
    let refused = client.attach(tokio_stream::pending::<v1::FromNode>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    plane.running.stop().await;
}
