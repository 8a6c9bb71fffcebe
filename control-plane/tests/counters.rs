//! Counters from a node over the real gRPC to the answers of REST: exactly once, also when the control plane starts
//! again and the node repeats itself.

#![allow(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use awe4lb_proto::v1;
use futures_util::StreamExt as _;
use serde_json::json;
use support::*;

fn counters(number: u64, connections: u64) -> v1::Counters {
    v1::Counters {
        number,
        bytes_in: connections * 100,
        bytes_out: connections * 1_000,
        connections_total: connections,
        connections_active: 1,
        ends: vec![
            v1::ReasonCount { reason: "finished".to_owned(), count: connections - 2 },
            v1::ReasonCount { reason: "dial-failed".to_owned(), count: 1 },
        ],
        dial_micros_total: connections * 500,
        dials_total: connections,
        ..v1::Counters::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_counts_is_answered_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let plane = Plane::start(&dir, "first").await;
    let document = json!({
        "listeners": [{"name": "web", "bind": ["127.0.0.1:8080"], "protocol": "tcp", "rules": [{"name": "all", "pool": "app"}]}],
        "pools": [{"name": "app", "backends": [{"name": "b1", "address": "127.0.0.1:9"}]}],
    });
    let put = plane.request(http::Method::PUT, "/api/v1/config").json(&document).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let listener = plane.get("/api/v1/listeners/web").await["meta"]["number"].as_u64().unwrap();
    let pool = plane.get("/api/v1/pools/app").await["meta"]["number"].as_u64().unwrap();
    let identity = plane.enrol().await;

    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    node.report(1, counters(listener, 10)).await;
    node.report(2, counters(pool, 10)).await;
    let stats = plane.get("/api/v1/stats").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 10, "{stats}");
    assert_eq!(stats["totals"]["connectionsActive"], 1);
    assert_eq!(stats["totals"]["dialMillisMean"], 0.5);
    assert_eq!(stats["totals"]["failed"], json!({"dial-failed": 1}));
    assert_eq!(stats["totals"]["ended"], json!({"finished": 8}));
    assert_eq!(stats["listeners"][0]["name"], "web");
    assert_eq!(stats["rules"][0]["listener"], "web");
    assert_eq!(stats["backends"][0]["pool"], "app");
    assert_eq!(stats["nodes"][0]["name"], "n1");

    // Whoever listens is told each second.
    let events = plane.request(http::Method::GET, "/api/v1/events?types=stats").send().await.unwrap();
    let mut events = events.bytes_stream();
    let mut text = String::new();
    let told = async {
        while !text.contains("\"connectionsTotal\":10") {
            text += std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(text.contains("event: stats") || text.contains("event:stats"), "{text}");
    drop(events);
    plane.running.stop().await;
    drop(node);

    // The node has not heard of the acknowledgement, and repeats itself; then it counts on, then it starts again.
    let plane = Plane::start(&dir, "second").await;
    let stats = plane.get("/api/v1/stats").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 10);
    assert_eq!(stats["totals"]["connectionsActive"], 0, "nobody has said so yet");
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    node.report(1, counters(listener, 10)).await;
    assert_eq!(plane.get("/api/v1/stats").await["totals"]["connectionsTotal"], 10);
    node.report(3, counters(listener, 25)).await;
    drop(node);
    let mut node = Node::attach(plane.running.grpc, &identity, 2).await;
    node.report(1, counters(listener, 5)).await;
    let stats = plane.get("/api/v1/stats?node=n1").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 30);
    assert_eq!(stats["listeners"][0]["bytesOut"], 30_000);
    assert_eq!(plane.get("/api/v1/stats?node=n2").await["totals"]["connectionsTotal"], 0);

    // An object that is gone is counted in the sums.
    let empty = plane.request(http::Method::PUT, "/api/v1/config").json(&json!({})).send().await.unwrap();
    assert_eq!(empty.status(), 200);
    let gone = async {
        loop {
            let stats = plane.get("/api/v1/stats").await;
            assert_eq!(stats["totals"]["connectionsTotal"], 30);
            if stats["listeners"] == json!([]) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let metrics = plane.client.get(format!("http://{}/metrics", plane.running.http)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("awe4lb_node_connections_total{node=\"n1\"} 30\n"), "{metrics}");
    plane.running.stop().await;
}
