//! From REST to byte to counter: what the load generator sent and received is what the REST API counts, to the byte.

use std::time::Duration;

use awe4lb_e2e::{
    eventually,
    fleet::Fleet,
    free_port,
    load::Load,
    servers::{Identity, Samples},
};
use serde_json::{Value, json};

struct Ports {
    tcp: u16,
    tls: u16,
    udp: u16,
}

fn document(ports: &Ports, samples: &Samples, identity: &Identity) -> Value {
    let address = |of: &std::net::SocketAddr| json!([{"name": "a", "address": of.to_string()}]);
    json!({
        "version": 1,
        "listeners": [
            {"name": "tcp", "bind": [format!("*:{}", ports.tcp)], "rules": [{"name": "all", "pool": "tcp"}]},
            {"name": "tls", "bind": [format!("*:{}", ports.tls)], "tls": {"certificates": ["app"]},
             "rules": [{"name": "app", "match": {"sni": ["app.test"]}, "pool": "tls"}]},
            {"name": "udp", "protocol": "udp", "bind": [format!("*:{}", ports.udp)], "rules": [{"name": "all", "pool": "udp"}]},
        ],
        "pools": [
            {"name": "tcp", "backends": address(&samples.tcp_echo[0])},
            {"name": "tls", "backends": address(&samples.tcp_echo[1])},
            {"name": "udp", "backends": address(&samples.udp_echo)},
        ],
        "certificates": [identity.object("app")],
    })
}

/// The line of statistics of one object.
fn line<'a>(stats: &'a Value, list: &str, parent: Option<(&str, &str)>, name: &str) -> &'a Value {
    let lines = stats[list].as_array().into_iter().flatten();
    lines
        .filter(|one| one["name"] == name)
        .find(|one| parent.is_none_or(|(field, parent)| one[field] == parent))
        .unwrap_or(&Value::Null)
}

fn loads(fleet: &Fleet, ports: &Ports) -> [(&'static str, Load); 3] {
    let start = |name: &'static str, port: u16, more: &[&str]| {
        let targets = fleet.targets(port);
        let mut flags = vec!["--target", &targets, "--duration", "4"];
        flags.extend(more);
        (name, Load::start(name, fleet.folder(), &flags))
    };
    [
        start("tcp", ports.tcp, &["--rate", "200", "--streams", "10"]),
        start(
            "tls",
            ports.tls,
            &["--rate", "40", "--streams", "4", "--protocol", "tls", "--sni", "app.test"],
        ),
        start("udp", ports.udp, &["--rate", "800", "--flows", "16", "--protocol", "udp"]),
    ]
}

fn agree(fleet: &Fleet, results: &[(&str, Value)]) {
    for (name, result) in results {
        let all = &result["all"];
        assert_eq!(all["connectionsFailed"], 0, "{result}");
        assert_eq!(all["streamsBroken"], 0, "{result}");
        assert_eq!(all["datagramsSent"], all["datagramsReceived"], "{result}");
        let (sent, received) = (all["bytesSent"].clone(), all["bytesReceived"].clone());
        eventually(&format!("the counters of {name} are those of the load: {all}"), || {
            let stats = fleet.rest.get("/api/v1/stats");
            let rule = if *name == "tls" { "app" } else { "all" };
            let lines = [
                line(&stats, "listeners", None, name),
                line(&stats, "rules", Some(("listener", name)), rule),
                line(&stats, "pools", None, name),
                line(&stats, "backends", Some(("pool", name)), "a"),
            ];
            let agrees = |line: &&Value| line["bytesIn"] == sent && line["bytesOut"] == received;
            let mut agree = lines.iter().all(agrees);
            if *name == "udp" {
                agree &= lines.iter().all(|line| line["datagramsIn"] == all["datagramsSent"]);
                agree &= lines.iter().all(|line| line["datagramsOut"] == all["datagramsReceived"]);
            } else {
                let begun = all["connectionsStarted"].as_u64()? + all["streamsOpened"].as_u64()?;
                agree &= lines.iter().all(|line| line["connectionsTotal"] == begun);
                agree &= lines.iter().all(|line| line["ended"]["finished"] == begun);
            }
            agree.then_some(())
        });
    }
    // And by node: what was sent to each address.
    for node in &fleet.nodes {
        let mut sent = 0;
        for (_, result) in results {
            let of_node = result["targets"].as_object().into_iter().flatten();
            sent += of_node
                .filter(|(address, _)| address.starts_with(&format!("{}:", node.ip)))
                .filter_map(|(_, sums)| sums["bytesSent"].as_u64())
                .sum::<u64>();
        }
        eventually(&format!("{} has counted {sent}", node.name), || {
            let stats = fleet.rest.get(&format!("/api/v1/stats?node={}", node.name));
            (stats["totals"]["bytesIn"] == sent).then_some(())
        });
    }
}

#[test]
fn counters_are_what_the_load_has_sent_to_the_byte() {
    let fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let ports = Ports { tcp: free_port(), tls: free_port(), udp: free_port() };
    fleet.apply(&document(&ports, &samples, &Identity::new(&["app.test"])));
    let results = loads(&fleet, &ports).map(|(name, load)| (name, load.result()));
    agree(&fleet, &results);
}

#[test]
fn counters_are_exact_also_when_the_control_plane_is_killed_in_the_middle() {
    let mut fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let ports = Ports { tcp: free_port(), tls: free_port(), udp: free_port() };
    fleet.apply(&document(&ports, &samples, &Identity::new(&["app.test"])));
    let loads = loads(&fleet, &ports);
    // Something has been acknowledged, something is on its way.
    eventually("counters arrive", || {
        let stats = fleet.rest.get("/api/v1/stats");
        (stats["totals"]["bytesIn"].as_u64() > Some(10_000)).then_some(())
    });
    fleet.kill_control_plane();
    std::thread::sleep(Duration::from_millis(500));
    fleet.restart_control_plane();
    let results = loads.map(|(name, load)| (name, load.result()));
    agree(&fleet, &results);
}
