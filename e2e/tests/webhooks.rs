//! Webhooks by the flags of the program: what happens arrives at an address.

use std::{process::Command, sync::mpsc::Receiver, time::Duration};

use awe4lb_e2e::{
    acme::{Scene, can_run, certificate},
    fakes::front::Front,
    fleet::Fleet,
    program,
    sink::{Posted, sink},
};
use serde_json::{Value, json};

/// The next event of a certificate that says this.
#[track_caller]
fn told(posted: &Receiver<Posted>, what: &str) -> Value {
    let mut seen = Vec::new();
    loop {
        let Ok(event) = posted.recv_timeout(Duration::from_secs(30)) else {
            panic!("{what} is not told: {seen:#?}")
        };
        if event.body["data"]["what"] == what {
            return event.body["data"].clone();
        }
        seen.push(event.body);
    }
}

/// The whole life of a certificate, as somebody hears of it who is only posted to.
#[test]
fn issued_renewed_failed_expiring_expired() {
    if !can_run() {
        return;
    }
    let (address, posted) = sink(|_| 200);
    let mut scene =
        Scene::start_with(1, &["--webhook", &format!("http://{address}/")], |wish| wish.life = 20);
    let front = Front::start(&scene.pebble);
    scene.account = front.account("ca");
    scene.fleet.put(&scene.document(&[certificate("web", &["n1.test"], "http-01")]));
    let issued = told(&posted, "issued");
    assert_eq!((&issued["name"], &issued["keyType"]), (&json!("web"), &json!("p256")), "{issued}");
    scene.fleet.rest.post("/api/v1/certificates/web:renew", &json!({})).ok();
    let renewed = told(&posted, "renewed");
    assert!(renewed["notAfter"].is_string(), "{renewed}");

    front.refuse(Some((500, "serverInternal", String::new())));
    let failed = told(&posted, "failed");
    let error = &failed["error"];
    assert_eq!(
        (&error["type"], &error["detail"]),
        (&json!("urn:ietf:params:acme:error:serverInternal"), &json!("not now"))
    );
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("again later")), "{failed}");
    told(&posted, "expiring");
    told(&posted, "expired");
    assert_eq!(scene.status("web")["state"], "expired");
    // It is back: the next try comes soon, as the end is near or over.
    front.refuse(None);
    told(&posted, "renewed");
    scene.issued("web");
}

#[test]
fn what_happens_arrives() {
    let (address, posted) = sink(|_| 200);
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").expect("a file");
    let url = format!("http://{address}/hook");
    let secret = secret.display().to_string();
    let flags =
        ["--webhook", &url, "--webhook-events", "revision,certificate", "--webhook-secret-file", &secret];
    let fleet = Fleet::start_with(0, &flags);
    for port in [1, 2] {
        let backend = json!({"address": format!("127.0.0.1:{port}")});
        fleet.put(&json!({"version": 1, "pools": [{"name": "p", "backends": [backend]}]}));
    }
    for revision in [1, 2] {
        let request = posted.recv_timeout(Duration::from_secs(30)).expect("an event");
        let (event, signature) = (&request.body, request.header("awe4lb-signature").unwrap_or_default());
        assert_eq!((request.path(), &event["id"].is_u64()), ("/hook", &true));
        assert_eq!((&event["kind"], &event["data"]["revision"]), (&json!("revision"), &json!(revision)));
        assert!(signature.starts_with("t=") && signature.contains(",v1="), "{signature}");
    }
}

#[test]
fn flags_that_cannot_work_stop_the_start() {
    let said = |flags: &[&str]| {
        let dir = tempfile::tempdir().expect("a folder");
        let output = Command::new(program("awe4lb-control-plane"))
            .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(flags)
            .output()
            .expect("it runs");
        assert!(!output.status.success(), "{flags:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["--webhook", "hooks.test"]).contains("begins with https://"));
    assert!(said(&["--webhook-events", "weather"]).contains("known are certificate, node"));
    assert!(said(&["--webhook-secret-file", "/nonexistent"]).contains("--webhook-secret-file /nonexistent"));
}
