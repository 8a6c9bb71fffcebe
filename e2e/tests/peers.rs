//! Real servers and real clients: nginx, HAProxy, openssl, curl, Knot, kdig, iperf3.

use std::{collections::BTreeMap, net::Ipv4Addr};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port, have,
    process::{Program, run},
    servers::{HaProxy, Identity, Knot, Nginx},
};
use serde_json::json;

fn backends(addresses: &[std::net::SocketAddr]) -> serde_json::Value {
    addresses.iter().map(|address| json!({"address": address.to_string()})).collect()
}

#[test]
fn nginx_and_haproxy_behind_plain_tls_and_passed_through_tls() {
    if !["nginx", "haproxy", "openssl", "curl"].iter().all(|tool| have(tool)) {
        return;
    }
    let fleet = Fleet::start(2);
    let (first, second, own) = (
        Identity::new(&["first.test"]),
        Identity::new(&["second.test", "*.wild.test"]),
        Identity::new(&["own.test"]),
    );
    let nginx = Nginx::start(fleet.folder(), &own);
    let haproxy = HaProxy::start(fleet.folder(), &own);
    let (plain, mixed) = (free_port(), free_port());
    fleet.apply(&json!({
        "version": 1,
        "listeners": [
            {"name": "plain", "bind": [format!("*:{plain}")], "rules": [{"name": "all", "pool": "nginx"}]},
            {"name": "mixed", "bind": [format!("*:{mixed}")], "tls": {"certificates": ["first", "second"]}, "rules": [
                {"name": "own", "match": {"sni": ["own.test"]}, "tls": "passthrough", "pool": "haproxy"},
                {"name": "nginx", "match": {"sni": ["nginx.own.test"]}, "tls": "passthrough", "pool": "nginx-tls"},
                {"name": "ours", "pool": "nginx"},
            ]},
        ],
        "pools": [
            {"name": "nginx", "backends": backends(&[nginx.http])},
            {"name": "nginx-tls", "backends": backends(&[nginx.https])},
            {"name": "haproxy", "backends": backends(&[haproxy.https])},
        ],
        "certificates": [first.object("first"), second.object("second")],
    }));
    let (first_file, ..) = first.files(fleet.folder(), "first");
    let (second_file, ..) = second.files(fleet.folder(), "second");
    let (own_file, ..) = own.files(fleet.folder(), "own");
    for node in &fleet.nodes {
        let (ok, page, why) = run("curl", &["-sS", &format!("http://{}/", at(node.ip, plain))]);
        assert!(ok && page.starts_with("nginx "), "{page} {why}");

        // Each name gets its certificate, and curl verifies it.
        let ask = |name: &str, ca: &std::path::Path| {
            let to = format!("{name}:{mixed}:{}", node.ip);
            let url = format!("https://{name}:{mixed}/");
            run("curl", &["-sS", "--cacert", &ca.display().to_string(), "--resolve", &to, &url])
        };
        for (name, file) in
            [("first.test", &first_file), ("second.test", &second_file), ("a.wild.test", &second_file)]
        {
            let (ok, page, why) = ask(name, file);
            assert!(ok && page.starts_with("nginx "), "{name}: {page} {why}");
        }
        let (ok, page, why) = ask("own.test", &own_file);
        assert!(ok && page == "haproxy", "{page} {why}");

        // openssl is the judge of versions and certificates.
        let client = |name: &str, more: &[&str]| {
            let target = at(node.ip, mixed).to_string();
            let mut arguments = vec!["s_client", "-connect", &target, "-servername", name, "-brief"];
            arguments.extend(more);
            let (ok, out, err) = run("openssl", &arguments);
            (ok, out + &err)
        };
        let (ok, said) = client("first.test", &["-tls1_3"]);
        assert!(ok && said.contains("TLSv1.3"), "{said}");
        let (ok, said) = client("nginx.own.test", &[]);
        assert!(ok && said.contains("CN"), "{said}");
        let (ok, said) = client("first.test", &["-tls1_1"]);
        assert!(!ok, "old versions are refused: {said}");
    }
    eventually("handshakes are counted", || {
        let stats = fleet.rest.get("/api/v1/stats");
        let rule = |name: &str| {
            let rules = stats["rules"].as_array().into_iter().flatten();
            rules
                .filter(|one| one["name"] == name)
                .filter_map(|one| one["connectionsTotal"].as_u64())
                .sum::<u64>()
        };
        (rule("own") == 2 && rule("nginx") == 2 && rule("ours") >= 8).then_some(())
    });
}

#[test]
fn two_name_servers_share_the_questions_and_a_client_keeps_its_own() {
    if !["knotd", "kdig"].iter().all(|tool| have(tool)) {
        return;
    }
    let fleet = Fleet::start(2);
    let servers = ["dns-a", "dns-b"].map(|name| Knot::start(fleet.folder(), name));
    let port = free_port();
    let addresses: Vec<_> = servers.iter().map(|server| server.dns).collect();
    // With the preset a question is a flow of its own, and the servers are asked whether they are well.
    let preset = free_port();
    let document = |balance: &str, hash_on: &str| {
        json!({
            "version": 1,
            "listeners": [
                {"name": "dns", "protocol": "udp", "bind": [format!("*:{port}")], "rules": [{"name": "all", "pool": "dns"}]},
                {"name": "dns-tcp", "bind": [format!("*:{port}")], "rules": [{"name": "all", "pool": "dns"}]},
                {
                    "name": "preset", "protocol": "udp", "bind": [format!("*:{preset}")], "udp": {"preset": "dns"},
                    "rules": [{"name": "all", "pool": "checked"}],
                },
            ],
            "pools": [
                {"name": "dns", "balance": balance, "hashOn": hash_on, "backends": backends(&addresses)},
                {
                    "name": "checked", "balance": "roundRobin", "backends": backends(&addresses),
                    "healthCheck": {
                        "type": "dns", "query": "who.example.test", "interval": "200ms", "timeout": "200ms", "fall": 1,
                    },
                },
            ],
        })
    };
    let ask_at = |node: Ipv4Addr, port: u16, from: &str, more: &[&str]| {
        let (server, port) = (format!("@{node}"), port.to_string());
        let mut arguments = vec![
            "+short",
            "+time=5",
            "+retry=0",
            "-b",
            from,
            &server,
            "-p",
            &port,
            "who.example.test",
            "TXT",
        ];
        arguments.extend(more);
        let (ok, answer, why) = run("kdig", &arguments);
        assert!(ok && answer.contains("dns-"), "{answer} {why}");
        answer.trim().to_owned()
    };

    let ask = |node: Ipv4Addr, from: &str, more: &[&str]| ask_at(node, port, from, more);

    fleet.apply(&document("roundRobin", "client"));
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10 {
        // A new client each time: kdig takes a fresh port.
        *answers.entry(ask(fleet.nodes[0].ip, "127.0.0.1", &[])).or_default() += 1;
    }
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [5, 5], "{answers:?}");

    // By the client's address: every flow of it goes to the same server, on either node, also after a change.
    fleet.apply(&document("hash", "client"));
    let mut of_clients = BTreeMap::new();
    for client in 1..=8 {
        let from = format!("127.0.2.{client}");
        let first = ask(fleet.nodes[0].ip, &from, &[]);
        for node in &fleet.nodes {
            assert_eq!(ask(node.ip, &from, &[]), first, "{from} on {}", node.name);
        }
        assert_eq!(ask(fleet.nodes[1].ip, &from, &["+tcp"]), first, "{from} over TCP");
        *of_clients.entry(first).or_insert(0) += 1;
    }
    assert_eq!(of_clients.len(), 2, "both have clients: {of_clients:?}");

    // With the preset nothing is left of a question once its answer came.
    for _ in 0..6 {
        ask_at(fleet.nodes[0].ip, preset, "127.0.0.1", &[]);
    }
    eventually("six flows are complete", || {
        let stats = fleet.rest.get("/api/v1/stats");
        let listener =
            stats["listeners"].as_array()?.iter().find(|listener| listener["name"] == "preset")?.clone();
        (listener["ended"]["flow-complete"] == 6 && listener["connectionsActive"] == 0).then_some(())
    });
    // A server that dies is found by its check: no question is lost to it any more.
    let [_alive, dead] = servers;
    drop(dead);
    eventually("the check has found it", || {
        let backends = fleet.rest.get("/api/v1/backends?pool=checked");
        let backends = backends["items"].as_array()?;
        backends.iter().any(|one| one["nodes"][0]["health"] == "down").then_some(())
    });
    for _ in 0..6 {
        assert!(ask_at(fleet.nodes[0].ip, preset, "127.0.0.1", &[]).contains("dns-a"));
    }
}

#[test]
fn iperf_through_three_nodes() {
    if !have("iperf3") {
        return;
    }
    let fleet = Fleet::start(3);
    let (server, port) = (free_port(), free_port());
    let _iperf = Program::start(
        "iperf3",
        fleet.folder(),
        "iperf3",
        ["-s", "-B", "127.0.0.1", "-p", &server.to_string()],
    );
    awe4lb_e2e::servers::listening(at(Ipv4Addr::LOCALHOST, server));
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "iperf", "bind": [format!("*:{port}")], "rules": [{"name": "all", "pool": "iperf"}]}],
        "pools": [{"name": "iperf", "backends": backends(&[at(Ipv4Addr::LOCALHOST, server)])}],
    }));
    let mut all = 0;
    for node in &fleet.nodes {
        let (ip, port) = (node.ip.to_string(), port.to_string());
        for direction in [&["-P", "2"][..], &["-R"][..]] {
            let mut arguments = vec!["-c", &ip, "-p", &port, "-t", "1", "-J"];
            arguments.extend(direction);
            let result = eventually("iperf3 is not busy", || {
                let (_, out, _) = run("iperf3", &arguments);
                // Ends with 0 whatever comes of it.
                serde_json::from_str::<serde_json::Value>(&out)
                    .ok()
                    .filter(|result| result["error"].is_null())
            });
            let received = result["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
            assert!(received >= 10_000_000, "{received}");
            all += received;
        }
    }
    eventually("the bytes are counted", || {
        let totals = &fleet.rest.get("/api/v1/stats")["totals"];
        (totals["bytesIn"].as_u64()? + totals["bytesOut"].as_u64()? >= all).then_some(())
    });
}
