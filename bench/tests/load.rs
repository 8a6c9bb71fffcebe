//! `awe4lb-bench load` against the bench's own backends: its sums are exact.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_awe4lb-bench");

struct Backends {
    child: Child,
    echo: u64,
    udp: u64,
}

impl Backends {
    fn start() -> Self {
        let mut child = Command::new(BENCH)
            .args(["backend", "--udp-address", "127.0.0.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self { child, echo: ready["echo"].as_u64().unwrap(), udp: ready["udp"].as_u64().unwrap() }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(arguments: &[&str]) -> Value {
    let output = Command::new(BENCH).arg("load").args(arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn connections_and_streams_are_summed_to_the_byte() {
    let backends = Backends::start();
    let (one, two) = (format!("127.0.0.1:{}", backends.echo), format!("127.0.0.2:{}", backends.echo));
    let targets = format!("{one},{two}");
    let outcome = load(&["--target", &targets, "--rate", "500", "--duration", "0.5", "--streams", "4"]);
    let all = &outcome["all"];
    assert_eq!(all["connectionsFailed"], 0, "{outcome}");
    assert_eq!(all["connectionsStarted"], all["connectionsCompleted"], "{outcome}");
    assert_eq!(all["streamsIntact"], 4, "{outcome}");
    assert_eq!(all["bytesSent"], all["bytesReceived"], "{outcome}");
    let sent = |target: &str| outcome["targets"][target]["bytesSent"].as_u64().unwrap();
    assert_eq!(all["bytesSent"], sent(&one) + sent(&two), "{outcome}");
}

#[test]
fn datagrams_are_counted_one_by_one() {
    let backends = Backends::start();
    let target = format!("127.0.0.1:{}", backends.udp);
    let outcome = load(&[
        "--protocol",
        "udp",
        "--target",
        &target,
        "--rate",
        "500",
        "--duration",
        "0.5",
        "--flows",
        "8",
    ]);
    let all = &outcome["all"];
    assert!(all["datagramsSent"].as_u64().unwrap() > 0, "{outcome}");
    assert_eq!(all["datagramsSent"], all["datagramsReceived"], "{outcome}");
    assert_eq!(all["bytesSent"].as_u64().unwrap(), 64 * all["datagramsSent"].as_u64().unwrap(), "{outcome}");
}

#[test]
fn a_port_that_nobody_holds_is_a_counted_failure() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = load(&["--target", &free.to_string(), "--rate", "100", "--duration", "0.1"]);
    let all = &outcome["all"];
    assert_eq!(all["connectionsConnected"], 0, "{outcome}");
    assert!(all["connectionsFailed"].as_u64().unwrap() > 0, "{outcome}");
    assert_eq!(all["connectionsFailed"], all["connectionsStarted"], "{outcome}");
}
