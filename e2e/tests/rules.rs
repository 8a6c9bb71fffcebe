//! Ten thousand rules.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use awe4lb_e2e::{at, fleet::Fleet, free_port, servers::Samples};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
use serde_json::{Value, json};

fn listener(name: usize, port: u16, rules: usize) -> Value {
    let rules: Vec<Value> = (1..=rules)
        .map(|rule| json!({"name": format!("r{rule}"), "match": {"sni": [host(rule)]}, "pool": "echo"}))
        .collect();
    json!({"name": format!("l{name}"), "bind": [format!("*:{port}")], "rules": rules})
}

fn host(rule: usize) -> String {
    format!("host-{rule:05}.example.test")
}

fn document(listeners: &[Value], samples: &Samples) -> Value {
    let backends = json!([{"name": "a", "address": samples.tcp_echo[0].to_string()}]);
    json!({"version": 1, "listeners": listeners, "pools": [{"name": "echo", "backends": backends}]})
}

/// What a client of TLS says first.
fn client_hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    hello
}

/// The backend sends back what it gets: the hello came through.
fn pass(address: SocketAddr, hello: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    stream.write_all(hello).expect("sent");
    let mut answer = vec![0; hello.len()];
    stream.read_exact(&mut answer).expect("echoed");
    assert!(answer == hello, "something else came back");
}

/// Milliseconds from the last byte received to the commit, as the node logs them of its last change.
fn last_apply(log: &str) -> f64 {
    let line =
        log.lines().rfind(|line| line.contains("configuration applied")).expect("a change was applied");
    let (_, rest) = line.split_once("apply_micros").expect("its time");
    let digits: String =
        rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse::<f64>().expect("a number") / 1000.0
}

#[test]
fn ten_thousand_rules_over_a_hundred_listeners_are_live_in_300_milliseconds() {
    let mut fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
    let mut listeners: Vec<Value> =
        ports.iter().enumerate().map(|(name, port)| listener(name, *port, 100)).collect();
    let asked = Instant::now();
    fleet.apply(&document(&listeners, &samples));
    println!(
        "ten thousand rules: {} ms from the request to the commit on both nodes",
        asked.elapsed().as_millis()
    );
    let check = |fleet: &mut Fleet, what: &str| {
        for node in &mut fleet.nodes {
            let took = last_apply(&node.running().log());
            println!("{what}: {took} ms from the last byte to the commit on {}", node.name);
            assert!(took <= 300.0, "{what} took {took} ms");
            pass(at(node.ip, ports[99]), &client_hello(&host(100)));
        }
    };
    check(&mut fleet, "ten thousand rules");

    listeners[99]["rules"][99]["name"] = json!("another");
    fleet.apply(&document(&listeners, &samples));
    check(&mut fleet, "one rule of ten thousand");
}

/// CPU nanoseconds of a process, all its threads.
fn cpu(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.flatten().map(|task| of(task.path())).sum()
}

#[test]
fn the_last_of_ten_thousand_rules_costs_what_the_first_does() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&document(&[listener(0, port, 10_000)], &samples));
    let address = at(fleet.nodes[0].ip, port);
    let pid = fleet.nodes[0].running().pid();
    let hellos = [1, 9_999].map(|rule| client_hello(&host(rule)));
    let cost = |hello: &[u8]| {
        let before = cpu(pid);
        for _ in 0..400 {
            pass(address, hello);
        }
        (cpu(pid) - before) as f64
    };
    cost(&hellos[0]);
    // Pair by pair, in turns first: what else happens on the machine hits both.
    let mut ratios: Vec<f64> = (0..11)
        .map(|round| {
            if round % 2 == 0 {
                let first = cost(&hellos[0]);
                cost(&hellos[1]) / first
            } else {
                let last = cost(&hellos[1]);
                last / cost(&hellos[0])
            }
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("rule 9,999 costs {median:.3} of rule 1 (all: {ratios:.3?})");
    assert!(median <= 1.1, "{median}");
}
