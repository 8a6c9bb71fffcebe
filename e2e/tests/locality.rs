//! Backends near a node: its own zone first, as long as enough of them work there.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use awe4lb_e2e::{at, eventually, fleet::Fleet, free_port};
use serde_json::{Value, json};

/// A server that says where it is, to everybody.
fn named(host: &str, port: u16) -> SocketAddr {
    let at: SocketAddr = format!("{host}:{port}").parse().expect("an address");
    let listener = TcpListener::bind(at).expect("listens");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(at.to_string().as_bytes()));
        }
    });
    at
}

fn who(entrance: SocketAddr) -> BTreeSet<String> {
    let ask = || {
        let Ok(mut stream) = TcpStream::connect(entrance) else { return "refused".to_owned() };
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    (0..12).map(|_| ask()).collect()
}

#[track_caller]
fn until_these(entrance: SocketAddr, wanted: &[SocketAddr]) {
    let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
    let mut last = BTreeSet::new();
    eventually(&format!("{wanted:?} answer at {entrance}"), || {
        last = who(entrance);
        (last == wanted).then_some(())
    });
}

fn zones(fleet: &Fleet) -> Vec<Value> {
    let answer = fleet.rest.post("/api/v1/explain", &json!({"listener": "l", "from": "127.0.0.1"})).ok();
    answer["pools"][0]["locality"]["zones"].as_array().cloned().unwrap_or_default()
}

#[test]
fn each_node_prefers_its_own_zone_and_spills_when_too_little_is_left_there() {
    let mut fleet = Fleet::start_in_zones(&["east", "west"], &[]);
    let (port, target) = (free_port(), free_port());
    let east = [named("127.0.9.21", target), named("127.0.9.22", target)];
    let west = [named("127.0.9.23", target)];
    let told = named("127.0.9.24", target);
    let backend = |at: &SocketAddr, name: &str, zone: &str| json!({"name": name, "address": at.to_string(), "zone": zone});
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "balance": "roundRobin", "locality": {"prefer": "zone", "spillBelow": 60},
            "backends": [backend(&east[0], "e1", "east"), backend(&east[1], "e2", "east"), backend(&west[0], "w1", "west")],
            "discovery": [{"type": "push"}]}],
    }));
    let entrances: Vec<SocketAddr> = fleet.nodes.iter().map(|node| at(node.ip, port)).collect();
    until_these(entrances[0], &east);
    until_these(entrances[1], &west);

    // A backend that was discovered says where it is, too.
    let pushed = json!([{"host": told.ip().to_string(), "port": target, "labels": {"zone": "west"}}]);
    fleet.rest.put("/api/v1/pools/p/sources/push", &pushed).ok();
    until_these(entrances[0], &east);
    until_these(entrances[1], &[west[0], told]);

    // One of two is left in the east: there everybody takes part, in the west nothing changes. `explain` says so.
    fleet.rest.post("/api/v1/pools/p/backends/e1:drain", &json!({})).ok();
    until_these(entrances[0], &[east[1], west[0], told]);
    until_these(entrances[1], &[west[0], told]);
    let said = zones(&fleet);
    let first: Vec<_> = said.iter().map(|zone| (zone["zone"].clone(), zone["first"].clone())).collect();
    assert_eq!(first, [(json!("east"), json!(false)), (json!("west"), json!(true))], "{said:?}");
    fleet.rest.post("/api/v1/pools/p/backends/e1:ready", &json!({})).ok();
    until_these(entrances[0], &east);

    // A node knows where it is without the control plane.
    fleet.kill_control_plane();
    fleet.nodes[0].kill();
    fleet.nodes[0].start();
    until_these(entrances[0], &east);
}

#[test]
fn a_node_of_a_file_is_told_its_zone_by_a_flag() {
    use awe4lb_e2e::{process::Program, program};
    let folder = tempfile::tempdir().expect("a folder");
    let (port, target) = (free_port(), free_port());
    let (east, west) = (named("127.0.9.25", target), named("127.0.9.26", target));
    let file = folder.path().join("node.yaml");
    let text = json!({
        "listeners": [{"name": "l", "bind": [format!("127.0.0.1:{port}")], "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "locality": {"prefer": "zone"}, "backends": [
            {"address": east.to_string(), "zone": "east"}, {"address": west.to_string(), "zone": "west"}]}],
    });
    std::fs::write(&file, text.to_string()).expect("written");
    let arguments =
        ["--snapshot-file", &file.display().to_string(), "--admin", "127.0.0.1:0", "--zone", "west"]
            .map(str::to_owned);
    let mut node = Program::start("node", folder.path(), program("awe4lb-data-plane"), arguments);
    node.ready();
    until_these(([127, 0, 0, 1], port).into(), &[west]);
}
