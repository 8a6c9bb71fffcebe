//! Webhooks by the flags of the program: what happens arrives at an address.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Command,
    sync::mpsc,
    time::Duration,
};

use awe4lb_e2e::{fleet::Fleet, program};
use serde_json::{Value, json};

/// Takes all requests. Its port, and each request: the signature and the body.
fn receiver() -> (u16, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (out, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let (mut signature, mut length) = (String::new(), 0);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                let (name, value) = line.trim_end().split_once(": ").unwrap_or_default();
                match name {
                    "awe4lb-signature" => signature = value.to_owned(),
                    "content-length" => length = value.parse().expect("a length"),
                    _ => {}
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.into_inner().write_all(answer.as_bytes()).expect("an answer");
            let _ = out.send((signature, serde_json::from_slice(&body).expect("JSON")));
        }
    });
    (port, requests)
}

#[test]
fn what_happens_arrives() {
    let (port, requests) = receiver();
    let secrets = tempfile::tempdir().expect("a folder");
    let secret = secrets.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").expect("a file");
    let url = format!("http://127.0.0.1:{port}/hook");
    let secret = secret.display().to_string();
    let flags =
        ["--webhook", &url, "--webhook-events", "revision,certificate", "--webhook-secret-file", &secret];
    let fleet = Fleet::start_with(0, &flags);
    for port in [1, 2] {
        let backend = json!({"address": format!("127.0.0.1:{port}")});
        fleet.put(&json!({"version": 1, "pools": [{"name": "p", "backends": [backend]}]}));
    }
    for revision in [1, 2] {
        let (signature, event) = requests.recv_timeout(Duration::from_secs(30)).expect("an event");
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
