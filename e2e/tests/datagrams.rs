//! Datagrams under pressure: full queues, floods, many flows. Nothing is lost without being counted, and nobody pays for others.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use awe4lb_e2e::{
    at, eventually,
    fleet::{Fleet, Node},
    free_port,
    load::Load,
    process::Program,
    program,
};
use serde_json::{Value, json};

/// The echo of the benchmark, which keeps up with a node.
fn echo(fleet: &Fleet) -> (Program, SocketAddr) {
    let arguments = ["backend", "--udp-address", "127.0.0.1"];
    let mut echo = Program::start("echo", fleet.folder(), program("awe4lb-bench"), arguments);
    let port = echo.ready()["udp"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    (echo, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// One UDP listener before these backends.
fn document(port: u16, udp: &Value, backends: &[SocketAddr]) -> Value {
    let backends: Vec<Value> = backends.iter().map(|at| json!({"address": at.to_string()})).collect();
    json!({
        "version": 1,
        "listeners": [{
            "name": "l", "protocol": "udp", "bind": [format!("*:{port}")], "udp": udp, "rules": [{"pool": "p"}],
        }],
        "pools": [{"name": "p", "backends": backends}],
    })
}

/// One node with a UDP listener to one echo, and where they are.
fn echoing(udp: &Value) -> (Fleet, Program, SocketAddr, SocketAddr) {
    let fleet = Fleet::start(1);
    let (echo, backend) = echo(&fleet);
    let port = free_port();
    fleet.apply(&document(port, udp, &[backend]));
    let entrance = at(fleet.nodes[0].ip, port);
    (fleet, echo, entrance, backend)
}

/// What has been counted of the listener.
fn counted(fleet: &Fleet) -> Value {
    fleet.rest.get("/api/v1/stats")["listeners"][0].clone()
}

fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

/// How often something ended or was dropped for this reason.
fn because(of: &Value, reason: &str) -> u64 {
    number(of, &format!("/ended/{reason}")) + number(of, &format!("/failed/{reason}"))
}

fn descriptors(node: &mut Node) -> usize {
    let pid = node.running().pid();
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// KiB of its own, and seconds of processor.
fn use_of(node: &mut Node) -> (u64, f64) {
    let pid = node.running().pid();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (status, stat) = (read("status"), read("stat"));
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let memory = anonymous.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    (memory, ticks / 100.0)
}

#[test]
fn what_finds_the_queue_of_the_kernel_full_is_counted_to_the_last_datagram() {
    let (mut fleet, _echo, entrance, _) = echoing(&json!({}));
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.connect(entrance).expect("connected");
    client.send(b"the first").expect("sent");
    eventually("it is there", || (number(&counted(&fleet), "/datagramsIn") == 1).then_some(()));
    fleet.nodes[0].running().pause(true);
    for _ in 0..12_000 {
        client.send(&[7; 1_200]).expect("sent");
    }
    fleet.nodes[0].running().pause(false);
    // The kernel tells what it dropped with the next that it takes, and here is none: it is asked.
    eventually("all of them are counted", || {
        let counted = counted(&fleet);
        let lost = because(&counted, "datagram-overflow");
        (lost > 1_000 && number(&counted, "/datagramsIn") + lost == 12_001).then_some(())
    });
    // What it tells with the next is counted already.
    client.send(b"the last").expect("sent");
    eventually("the last is there", || {
        let counted = counted(&fleet);
        let all = number(&counted, "/datagramsIn") + because(&counted, "datagram-overflow");
        assert!(all <= 12_002, "{counted}");
        (all == 12_002).then_some(())
    });
}

/// Half of the datagrams that a node echoes in a second at saturation: measured, because a machine that is shared is not
/// as fast at every moment.
fn half_of_saturation() -> u32 {
    let (fleet, _echo, entrance, _) = echoing(&json!({}));
    let target = entrance.to_string();
    let flags = ["--protocol", "udp", "--target", &target, "--flows", "64", "--bytes", "200"];
    let flags = [&flags[..], &["--in-flight", "4", "--duration", "2"]].concat();
    let result = Load::start("saturation", fleet.folder(), &flags).result();
    let received = number(&result, "/all/datagramsReceived");
    println!("at saturation {} a second", received / 2);
    u32::try_from(received / 4).expect("a rate")
}

/// Real clients beside a flood of made-up addresses into a table that is far too small for it.
fn flood(sources: u32, table: u32, rate: u32, real_rate: u32) {
    let (mut fleet, _echo, entrance, _) = echoing(&json!({"maxFlows": table}));
    let target = entrance.to_string();
    let seconds = (f64::from(sources) / f64::from(rate)).ceil();
    let real = Load::start(
        "real",
        fleet.folder(),
        &[
            "--protocol",
            "udp",
            "--target",
            &target,
            "--flows",
            "32",
            "--rate",
            &real_rate.to_string(),
            "--until-stdin-closes",
        ],
    );
    eventually("real flows are there", || {
        (number(&counted(&fleet), "/connectionsTotal") == 32).then_some(())
    });
    let flood = Load::start(
        "flood",
        fleet.folder(),
        &[
            "--protocol",
            "flood",
            "--target",
            &target,
            "--sources",
            &sources.to_string(),
            "--rate",
            &rate.to_string(),
            "--duration",
            &seconds.to_string(),
        ],
    );
    eventually("the table is full", || {
        let counted = counted(&fleet);
        (because(&counted, "flow-table-full") + because(&counted, "flow-evicted") > 0).then_some(())
    });
    let (memory_before, _) = use_of(&mut fleet.nodes[0]);
    let sent = flood.result();
    let (memory_after, _) = use_of(&mut fleet.nodes[0]);
    let real = real.finish();
    let all = &real["all"];
    let (asked, answered) = (number(all, "/datagramsSent"), number(all, "/datagramsReceived"));
    let counted = counted(&fleet);
    let flows = number(&counted, "/connectionsActive");
    println!(
        "flood {} in {seconds} s: {} {}; real {answered} of {asked}, {} µs at p99; {memory_before} -> {memory_after} KiB; {flows} flows",
        sent["all"]["datagramsSent"], counted["ended"], counted["failed"], real["latencyMicros"]["p99"]
    );
    assert!(asked > 1_000, "{real}");
    assert!((asked - answered) * 1_000 < asked, "real flows lost {} of {asked}", asked - answered);
    assert!(flows <= u64::from(table));
    assert!(memory_after < memory_before + memory_before / 10 + 512, "{memory_before} -> {memory_after} KiB");
    // Idle again: what is left are the flows that wait for their time.
    std::thread::sleep(Duration::from_secs(2));
    let (_, before) = use_of(&mut fleet.nodes[0]);
    std::thread::sleep(Duration::from_secs(1));
    let (_, after) = use_of(&mut fleet.nodes[0]);
    println!("{:.1} % of a core afterwards", (after - before) * 100.0);
    assert!(after - before <= 0.1, "{} s of processor in an idle second", after - before);
}

#[test]
fn real_flows_do_not_notice_a_flood_of_made_up_addresses() {
    flood(30_000, 1_000, 5_000, 1_000);
}

#[test]
#[ignore = "the deep lane: debug binaries (without AWE4LB_BIN_DIR) cannot carry this"]
fn real_flows_do_not_notice_a_flood_of_two_hundred_thousand_addresses_at_half_of_what_a_node_can() {
    flood(200_000, 10_000, half_of_saturation(), 4_000);
}

/// So many flows, some at a time, all of them answered; afterwards nothing is left of them.
fn come_and_go(flows: u32, rate: u32) {
    let (mut fleet, _echo, entrance, _) =
        echoing(&json!({"maxFlows": 16_000, "idleTimeout": "500ms", "unansweredTimeout": "500ms"}));
    let target = entrance.to_string();
    let before = descriptors(&mut fleet.nodes[0]);
    let seconds = (f64::from(flows) / f64::from(rate)).ceil();
    let load = Load::start(
        "come-and-go",
        fleet.folder(),
        &[
            "--protocol",
            "flood",
            "--target",
            &target,
            "--sources",
            &flows.to_string(),
            "--rate",
            &rate.to_string(),
            "--duration",
            &seconds.to_string(),
        ],
    );
    let mut most = 0;
    eventually("flows are open", || {
        most = most.max(descriptors(&mut fleet.nodes[0]));
        (most > before + 100).then_some(())
    });
    let sent = number(&load.result(), "/all/datagramsSent");
    assert!(sent + 1_000 > u64::from(flows), "{sent}");
    eventually("they are gone", || {
        let counted = counted(&fleet);
        let (begun, open) = (number(&counted, "/connectionsTotal"), number(&counted, "/connectionsActive"));
        let refused = because(&counted, "datagram-overflow");
        (begun + refused >= sent && open == 0).then_some(())
    });
    let after = eventually("descriptors are back", || {
        let now = descriptors(&mut fleet.nodes[0]);
        (now <= before + 2).then_some(now)
    });
    let counted = counted(&fleet);
    println!("{sent} flows: {before} -> {most}… -> {after} descriptors: {}", counted["ended"]);
    assert_eq!(because(&counted, "resource-exhausted"), 0, "{counted}");
    assert_eq!(because(&counted, "flow-table-full"), 0, "{counted}");
}

#[test]
fn ten_thousand_flows_leave_nothing_behind() {
    come_and_go(10_000, 2_500);
}

#[test]
#[ignore = "the deep lane: debug binaries (without AWE4LB_BIN_DIR) cannot carry this"]
fn a_hundred_thousand_flows_leave_nothing_behind() {
    come_and_go(100_000, 10_000);
}

/// A pool whose backends are asked whether they are well, patiently: what is loaded may be slow.
fn checked(mut document: Value) -> Value {
    document["pools"][0]["healthCheck"] = json!({
        "type": "udp", "send": "well?", "expect": "well?", "interval": "100ms", "timeout": "400ms", "fall": 4, "rise": 1,
    });
    document
}

/// Waits until the backend at this address is up, or down.
fn until_health(fleet: &Fleet, address: SocketAddr, wanted: &str) {
    eventually(&format!("{address} is {wanted}"), || {
        let all = fleet.rest.get("/api/v1/backends?pool=p");
        let is_it = |one: &&Value| one["address"] == address.to_string();
        let one = all["items"].as_array()?.iter().find(is_it)?;
        (one["nodes"][0]["health"] == wanted).then_some(())
    });
}

/// Datagrams that found the queue of any socket of this machine full, as the kernel counts them for itself.
fn dropped_by_the_kernel() -> u64 {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/snmp"), read("/proc/net/snmp6"));
    let mut lines = v4.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let at = names.split_whitespace().position(|name| name == "RcvbufErrors").expect("a counter");
    let of_v4 = values.split_whitespace().nth(at).and_then(|value| value.parse().ok()).unwrap_or(0u64);
    let of_v6 = v6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    of_v4 + of_v6.and_then(|value| value.trim().parse().ok()).unwrap_or(0u64)
}

/// Every datagram of `flows` flows comes back, while the configuration changes after each of so many, and a backend without
/// flows comes and goes; before `flips` of the changes it falls ill and gets well again. Datagrams of 200 bytes, at this rate.
fn steady(rate: u32, flows: u32, changes: u32, flips: u32, each: u64) -> Value {
    let (fleet, _echo, entrance, own) = echoing(&json!({}));
    let (spare_echo, spare) = echo(&fleet);
    let target = entrance.to_string();
    let dropped_before = dropped_by_the_kernel();
    let load = Load::start(
        "steady",
        fleet.folder(),
        &[
            "--protocol",
            "udp",
            "--target",
            &target,
            "--rate",
            &rate.to_string(),
            "--flows",
            &flows.to_string(),
            "--until-stdin-closes",
            "--bytes",
            "200",
        ],
    );
    let wanted = u64::from(flows);
    eventually("all flows are there", || {
        (number(&counted(&fleet), "/connectionsTotal") == wanted).then_some(())
    });
    for change in 1..=changes {
        eventually("datagrams pass", || {
            (number(&counted(&fleet), "/datagramsIn") >= each * u64::from(change)).then_some(())
        });
        let is_there = change % 2 == 1;
        let backends = if is_there { vec![own, spare] } else { vec![own] };
        fleet.apply(&checked(document(entrance.port(), &json!({"maxFlows": 20_000 + change}), &backends)));
        if is_there && change <= flips * 2 {
            until_health(&fleet, spare, "up");
            spare_echo.pause(true);
            until_health(&fleet, spare, "down");
            spare_echo.pause(false);
            until_health(&fleet, spare, "up");
        }
    }
    let result = load.finish();
    let all = &result["all"];
    let sent = number(all, "/datagramsSent");
    let counted = eventually("all of them are counted", || {
        let counted = counted(&fleet);
        (number(&counted, "/datagramsIn") + because(&counted, "datagram-overflow") >= sent).then_some(counted)
    });
    println!("{all} {} µs at p99, {changes} changes: {counted}", result["latencyMicros"]["p99"]);
    assert_eq!(number(all, "/datagramsDamaged") + number(all, "/datagramsRepeated"), 0, "{result}");
    let lost = number(all, "/datagramsSent") - number(all, "/datagramsReceived");
    let overflow = because(&counted, "datagram-overflow");
    // The queues of the echo and of the clients are not ours to count.
    let dropped = dropped_by_the_kernel() - dropped_before;
    assert!(overflow <= dropped, "{overflow} counted, {dropped} dropped");
    assert!(lost <= dropped, "{lost} lost, {dropped} dropped by the kernel: {result}");
    assert_eq!(number(&counted, "/connectionsTotal"), wanted, "no flow has moved");
    result
}

#[test]
fn flows_lose_nothing_and_stay_where_they_are_over_changes() {
    steady(2_000, 64, 10, 2, 1_000);
}

#[test]
#[ignore = "the deep lane: debug binaries (without AWE4LB_BIN_DIR) cannot carry this"]
fn ten_million_datagrams_over_a_thousand_flows_fifty_changes_and_fifty_flips() {
    // Down and up again are two.
    let result = steady(60_000, 1_000, 50, 25, 200_000);
    assert!(number(&result, "/all/datagramsSent") >= 10_000_000, "{result}");
}

#[test]
#[ignore = "the deep lane: debug binaries (without AWE4LB_BIN_DIR) cannot carry this"]
fn nothing_is_lost_at_half_of_what_a_node_can() {
    let result = steady(half_of_saturation(), 64, 1, 0, 800_000);
    assert!(number(&result, "/all/datagramsSent") >= 800_000, "{result}");
    assert_eq!(result["all"]["datagramsSent"], result["all"]["datagramsReceived"], "{result}");
}
