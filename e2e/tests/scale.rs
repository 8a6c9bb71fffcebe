//! Large configurations: how long a change takes to every node, and what the last of many rules costs.

use std::time::{Duration, Instant};

use awe4lb_e2e::{
    at,
    fleet::Fleet,
    free_port,
    load::Load,
    servers::{Identity, Samples},
};
use serde_json::{Value, json};

const LISTENERS: u16 = 100;
const RULES: usize = 100;

fn document(first_port: u16, host: &str) -> Value {
    let rule = |listener: u16, rule: usize| {
        let name = if rule == 57 { host.to_owned() } else { format!("r{rule}.l{listener}.test") };
        json!({"name": format!("r{rule}"), "match": {"sni": [name]}, "pool": format!("p{}", rule % 10)})
    };
    let listener = |listener: u16| {
        let rules: Vec<Value> = (0..RULES).map(|number| rule(listener, number)).collect();
        json!({"name": format!("l{listener}"), "bind": [format!("*:{}", first_port + listener)], "rules": rules})
    };
    let pool = |pool: u16| json!({"name": format!("p{pool}"), "backends": [{"name": "a", "address": format!("127.0.0.1:{}", 1000 + pool)}]});
    json!({
        "version": 1,
        "listeners": (0..LISTENERS).map(listener).collect::<Vec<_>>(),
        "pools": (0..10).map(pool).collect::<Vec<_>>(),
    })
}

/// The mark is 300 ms from the last byte received to the commit. Here with debug binaries and other tests beside, and with
/// all of the way in it: from the request at the REST API until the control plane knows that both nodes run it.
#[test]
fn ten_thousand_rules_reach_every_node_at_once() {
    let fleet = Fleet::start(2);
    // A hundred ports in a row, above those that other tests take and below those of clients.
    let first_port = 31_100 + (std::process::id() % 15) as u16 * 100;
    let mut slowest = Duration::ZERO;
    for host in ["a.test", "b.test", "c.test"] {
        let started = Instant::now();
        fleet.apply(&document(first_port, host));
        println!(
            "10,000 rules over 100 listeners, request to commit on two nodes: {} ms",
            started.elapsed().as_millis()
        );
        slowest = slowest.max(started.elapsed());
    }
    let log = fleet.control_plane().log();
    let micros: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| line["apply_ms"].as_f64())
        .collect();
    let most = micros.iter().copied().fold(0.0, f64::max);
    println!("last byte received to commit, slowest of {}: {most:.1} ms", micros.len());
    assert!(most <= 300.0, "{most} ms");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// CPU time of the node for each connection by exact name, the first rule of 10,000 and the last.
#[test]
#[ignore = "the deep lane"]
fn the_last_of_ten_thousand_rules_costs_what_the_first_costs() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    let names: Vec<String> = (0..10_000).map(|rule| format!("r{rule}.example.test")).collect();
    let rules: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name.split('.').next(), "match": {"sni": [name]}, "pool": "echo"}))
        .collect();
    let identity = Identity::new(&["*.example.test"]);
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "tls": {"certificates": ["wild"]}, "rules": rules}],
        "pools": [{"name": "echo", "backends": [{"name": "a", "address": samples.tcp_echo[0].to_string()}]}],
        "certificates": [identity.object("wild")],
    }));
    let pid = fleet.nodes[0].running().pid();
    let target = at(fleet.nodes[0].ip, port).to_string();
    let cost = |name: &str| {
        let before = cpu(pid);
        let flags =
            ["--target", &target, "--protocol", "tls", "--sni", name, "--rate", "400", "--duration", "2"];
        let result = Load::start("load", fleet.folder(), &flags).result();
        assert_eq!(result["all"]["connectionsFailed"], 0, "{result}");
        (cpu(pid) - before) as f64 / result["all"]["connectionsCompleted"].as_f64().unwrap_or(1.0)
    };
    // In turns first: what else grows or shrinks on the machine hits both.
    let mut ratios: Vec<f64> = (0..8)
        .map(|round| {
            let [first, last] = [&names[0], &names[9_999]];
            if round % 2 == 0 {
                let before = cost(first);
                cost(last) / before
            } else {
                let before = cost(last);
                before / cost(first)
            }
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("rule 10,000 to rule 1, CPU per connection: {ratios:.3?}");
    assert!(f64::midpoint(ratios[3], ratios[4]) <= 1.1, "{ratios:?}");
}

/// Nanoseconds of all threads, by the scheduler.
fn cpu(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let account = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(account).sum()
}
