//! Against a real HTTP server.

use std::process::Command;

use axum::{Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::events::Events;

const SECRET: &[u8] = b"correct horse battery staple";

type Request = (http::HeaderMap, String);

/// Takes requests; the first so many it refuses. With its address.
async fn server(refuse: u64) -> (String, mpsc::UnboundedReceiver<Request>) {
    let (out, requests) = mpsc::unbounded_channel();
    let seen = Arc::new(AtomicU64::new(0));
    let take = move |State(out): State<mpsc::UnboundedSender<Request>>, headers, body| async move {
        let _ = out.send((headers, body));
        match seen.fetch_add(1, Relaxed) < refuse {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::NO_CONTENT,
        }
    };
    let router = Router::new().route("/hook", post(take)).with_state(out);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

fn start(urls: &[String], kinds: &[&str], events: &Events) -> (Webhooks, CancellationToken) {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let webhooks = Webhooks::new(urls, kinds, Some(key), Allowed::default()).unwrap();
    let (this, heard, stop) =
        (webhooks.clone(), events.listen_without_statistics(), CancellationToken::new());
    tokio::spawn({
        let stop = stop.clone();
        async move { this.run(heard, stop).await }
    });
    (webhooks, stop)
}

async fn next(requests: &mut mpsc::UnboundedReceiver<Request>) -> (String, Value, String) {
    let (headers, body) =
        tokio::time::timeout(Duration::from_secs(20), requests.recv()).await.unwrap().unwrap();
    assert_eq!(headers["content-type"], "application/json");
    let signature = headers[SIGNATURE].to_str().unwrap().to_owned();
    (signature, serde_json::from_str(&body).unwrap(), body)
}

fn count(webhooks: &Webhooks, outcome: &str) -> u64 {
    webhooks.counts().into_iter().find(|(name, _)| *name == outcome).unwrap().1
}

#[tokio::test]
async fn events_come_signed_in_order_and_only_those_that_were_asked_for() {
    let events = Events::new();
    let (url, mut requests) = server(0).await;
    let (webhooks, stop) = start(&[url], &["certificate", "node"], &events);
    events.publish("revision", &json!({"revision": 7}));
    events.publish("stats", &json!({}));
    for number in 0..20 {
        events.publish("certificate", &json!({"name": format!("c{number}"), "what": "renewed"}));
    }
    events.publish("node", &json!({"name": "n1"}));
    let mut last = 0;
    for number in 0..20 {
        let (_, body, _) = next(&mut requests).await;
        assert_eq!(body["kind"], "certificate");
        assert_eq!(body["data"], json!({"name": format!("c{number}"), "what": "renewed"}));
        assert!(body["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        let id = body["id"].as_u64().unwrap();
        assert!(id > last);
        last = id;
    }
    let (signature, node, text) = next(&mut requests).await;
    assert_eq!(node["kind"], "node");
    let at: i64 = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - at).abs() < 60);
    assert_eq!(signature, sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), at, &text));
    stop.cancel();
    assert_eq!(count(&webhooks, "dropped"), 0);
}

#[tokio::test]
async fn what_is_refused_is_sent_again_before_what_came_later() {
    let events = Events::new();
    let ((url, mut requests), (other, mut others)) = (server(2).await, server(0).await);
    let (webhooks, _stop) = start(&[url, other], &["node"], &events);
    events.publish("node", &1);
    events.publish("node", &2);
    // One that refuses holds up nobody else.
    assert_eq!(next(&mut others).await.1["data"], 1);
    assert_eq!(next(&mut others).await.1["data"], 2);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut requests).await.1["data"].as_u64().unwrap());
    }
    assert_eq!(seen, [1, 1, 1, 2]);
    assert_eq!(count(&webhooks, "retried"), 2);
    for _ in 0..1_000 {
        if count(&webhooks, "delivered") == 4 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", webhooks.counts());
}

#[tokio::test]
async fn nothing_is_sent_to_what_is_link_local() {
    let url = "http://169.254.169.254/latest".to_owned();
    let webhooks = Webhooks::new(&[url], Vec::new(), None, Allowed::default()).unwrap();
    let why = webhooks.0.post(&webhooks.0.targets[0], "{}").await.unwrap_err();
    assert!(why.contains("--allow-network"), "{why}");
}

#[test]
fn addresses_and_secrets_are_checked_and_not_shown() {
    assert!(check("https://hooks.example.com/T0/B1?x=y").is_ok());
    assert!(check("hooks.example.com").is_err());
    assert!(check("ftp://hooks.example.com/").is_err());
    assert_eq!(
        shown("https://user:word@hooks.example.com:8443/T0/SECRET"),
        "https://hooks.example.com:8443/…"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "short\n\n\n\n\n\n\n\n\n\n\n\n\n\n").unwrap();
    assert!(read_secret(&file).unwrap_err().to_string().contains("at least 16 bytes"));
    std::fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
    let key = read_secret(&file).unwrap();
    assert_eq!(sign(&key, 7, "x"), sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), 7, "x"));
}

/// The example of docs/operations.md, run as it stands.
#[test]
fn the_documented_verification_verifies() {
    let page = include_str!("../../../docs/operations.md");
    let (_, after) = page.split_once("<!-- verify a webhook -->\n```sh\n").expect("the example");
    let (script, _) = after.split_once("\n```").expect("its end");
    let dir = tempfile::tempdir().unwrap();
    let (body_file, secret_file) = (dir.path().join("body"), dir.path().join("secret"));
    std::fs::write(&secret_file, [SECRET, b"\n"].concat()).unwrap();
    let verify = |header: &str, body: &str| {
        std::fs::write(&body_file, body).unwrap();
        let status = Command::new("sh")
            .args(["-c", script])
            .env("header", header)
            .env("body", &body_file)
            .env("secret", &secret_file)
            .status();
        status.unwrap().success()
    };
    let key = read_secret(&secret_file).unwrap();
    let (now, body) = (jiff::Timestamp::now().as_second(), r#"{"id":1,"kind":"certificate"}"#);
    assert!(verify(&sign(&key, now, body), body));
    assert!(!verify(&sign(&key, now, body), r#"{"id":2,"kind":"certificate"}"#));
    assert!(!verify(&sign(&key, now - 3_600, body), body), "played again");
    let other = hmac::Key::new(hmac::HMAC_SHA256, b"another secret of ours");
    assert!(!verify(&sign(&other, now, body), body));
    assert!(!verify("", body));
}
