//! What goes wrong in real life: processes that die, disks that lie, ports that are taken, clients that say nothing.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port,
    process::{Program, run},
    program,
    servers::Samples,
};
use serde_json::{Value, json};

fn echo(ports: &[u16], samples: &Samples) -> Value {
    let listeners: Vec<Value> = ports
        .iter()
        .map(|port| json!({"name": format!("l{port}"), "bind": [format!("*:{port}")], "rules": [{"name": "all", "pool": "echo"}]}))
        .collect();
    let backend = json!({"name": "a", "address": samples.tcp_echo[0].to_string()});
    json!({"version": 1, "listeners": listeners, "pools": [{"name": "echo", "backends": [backend]}]})
}

/// Whether a byte comes back.
fn echoes(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
}

#[test]
fn a_node_serves_within_a_second_while_the_control_plane_is_dead() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&echo(&[port], &samples));
    fleet.kill_control_plane();
    let address = at(fleet.nodes[0].ip, port);
    assert!(echoes(address), "forwarding needs no control plane");

    fleet.nodes[0].kill();
    let started = Instant::now();
    fleet.nodes[0].begin(&[]);
    while !echoes(address) {
        assert!(started.elapsed() < Duration::from_secs(20), "does not serve from its cache");
    }
    let took = started.elapsed();
    println!("serves {} ms after its start", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");

    // And it is the same node when the control plane comes back.
    fleet.restart_control_plane();
    fleet.await_sync();
}

#[test]
fn no_acknowledged_write_is_lost_when_the_control_plane_is_killed() {
    let mut fleet = Fleet::start(1);
    let pool = |n: usize| json!({"name": format!("p{n}"), "backends": [{"name": "a", "address": format!("127.0.0.1:{}", 1000 + n)}]});
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let pid = fleet.control_plane().pid().to_string();
        // The kill comes from outside, at some moment among the writes.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(120 + round * 37));
            run("kill", &["-KILL", &pid])
        });
        for n in acknowledged.len().. {
            let path = format!("/api/v1/pools/p{n}");
            let body = pool(n).to_string();
            let headers = [("content-type", "application/json")];
            match fleet.rest.try_send(reqwest::Method::PUT, &path, &headers, &body) {
                Some(answer) if answer.status < 300 => acknowledged.push(n),
                _ => break,
            }
        }
        assert!(killer.join().expect("killed").0);
        fleet.restart_control_plane();
        for n in &acknowledged {
            let known = fleet.rest.get(&format!("/api/v1/pools/p{n}"));
            assert_eq!(known["backends"], pool(*n)["backends"], "round {round}");
        }
        // One that was on its way may have made it.
        let next = format!("/api/v1/pools/p{}", acknowledged.len());
        if fleet
            .rest
            .try_send(reqwest::Method::GET, &next, &[], "")
            .is_some_and(|answer| answer.status == 200)
        {
            acknowledged.push(acknowledged.len());
        }
    }
    println!("{} writes acknowledged over 5 kills", acknowledged.len());
    assert!(acknowledged.len() >= 10, "{}", acknowledged.len());
    fleet.await_sync();
}

#[test]
fn a_port_that_somebody_else_holds_is_a_rejection_and_the_old_configuration_stays() {
    let fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let (port, taken) = (free_port(), free_port());
    fleet.apply(&echo(&[port], &samples));
    let (held, free) = (&fleet.nodes[0], &fleet.nodes[1]);
    let _holder = TcpListener::bind(at(held.ip, taken)).expect("free a moment ago");

    let revision = fleet.put(&echo(&[port, taken], &samples));
    let view = eventually("the node rejects it", || {
        let view = fleet.view(&held.name);
        (view["phase"] == "rejected").then_some(view)
    });
    let rejection = &view["rejection"];
    assert_eq!(rejection["revision"], revision);
    let fault = &rejection["resources"][0];
    assert_eq!((&fault["kind"], &fault["name"]), (&json!("listener"), &json!(format!("l{taken}"))), "{view}");
    assert_eq!(fault["code"], "bind-failed");
    assert!(fault["message"].as_str().is_some_and(|text| text.contains(&taken.to_string())), "{fault}");
    assert_eq!(view["inSync"], false);
    assert!(echoes(at(held.ip, port)), "it keeps what it runs");
    eventually("the other node runs it", || echoes(at(free.ip, taken)).then_some(()));

    // The next change is tried, and works.
    fleet.apply(&echo(&[port], &samples));
    assert_eq!(fleet.view(&held.name)["rejection"], Value::Null);
}

#[test]
fn a_cold_start_serves_all_that_it_can_and_names_what_is_missing() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let (port, taken) = (free_port(), free_port());
    fleet.apply(&echo(&[port, taken], &samples));
    let ip = fleet.nodes[0].ip;
    assert!(fleet.nodes[0].stop(), "it ends well");
    let holder = TcpListener::bind(at(ip, taken)).expect("the node has let go");

    let ready = fleet.nodes[0].start();
    assert_eq!(ready["missing"], json!([format!("l{taken}")]), "{ready}");
    assert!(echoes(at(ip, port)));
    let admin = ready["admin"].as_str().unwrap_or_default();
    let (_, said, _) = run("curl", &["-s", "-w", " %{http_code}", &format!("http://{admin}/readyz")]);
    assert!(said.contains(&format!("l{taken}")) && said.contains("503"), "{said}");
    eventually("the control plane knows", || {
        let view = fleet.view("node-1");
        (view["missingListeners"] == json!([format!("l{taken}")]) && view["inSync"] == false).then_some(())
    });
    drop(holder);
}

#[test]
fn a_join_token_that_is_wrong_used_or_expired_lets_nobody_in() {
    let fleet = Fleet::start(1);
    let used = fleet.join_token(&json!({"uses": 1}));
    let try_token = |name: &str, token: &str| {
        let file = fleet.folder().join(format!("{name}.token"));
        std::fs::write(&file, token).expect("written");
        let (state, file) = (fleet.folder().join(name).display().to_string(), file.display().to_string());
        let control_plane = format!("https://{}", fleet.grpc());
        let arguments =
            ["--control-plane", &control_plane, "--join-token-file", &file, "--state-dir", &state];
        let arguments =
            [&arguments[..], &["--name", name, "--admin", "127.0.0.1:0", "--threads", "1"]].concat();
        Program::start(name, fleet.folder(), program("awe4lb-data-plane"), arguments)
    };
    let first = try_token("first", &used);
    eventually("the first joins", || {
        let view = fleet.rest.send(reqwest::Method::GET, "/api/v1/nodes/first", &[], "");
        (view.json["state"] == "connected").then_some(())
    });
    drop(first);

    let (head, secret) = used.rsplit_once('_').expect("three parts");
    let wrong = format!("{head}_{}", secret.chars().rev().collect::<String>());
    let expired = fleet.join_token(&json!({"expiresIn": "1s"}));
    std::thread::sleep(Duration::from_millis(2_100));
    for (name, token, why) in [
        ("second", used.as_str(), "used up"),
        ("third", wrong.as_str(), "not known"),
        ("fourth", expired.as_str(), "expired"),
    ] {
        let mut node = try_token(name, token);
        eventually(&format!("{name} is told: {why}"), || node.log().contains(why).then_some(()));
        let view = fleet.rest.send(reqwest::Method::GET, &format!("/api/v1/nodes/{name}"), &[], "");
        assert_eq!(view.status, 404, "{name} has not joined");
        node.kill();
    }
}

#[test]
fn a_damaged_cache_falls_back_to_the_generation_before() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let (first, second) = (free_port(), free_port());
    fleet.apply(&echo(&[first], &samples));
    fleet.apply(&echo(&[first, second], &samples));
    fleet.kill_control_plane();
    let node = &mut fleet.nodes[0];
    node.kill();
    let cache = node.state_dir().join("cache");
    let mut files: Vec<_> = std::fs::read_dir(&cache)
        .expect("a cache")
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 64))
        .collect();
    files.sort_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).expect("a time"));
    let newest = files.last().expect("a generation").path();
    let mut bytes = std::fs::read(&newest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&newest, bytes).expect("written");
    node.begin(&[]);
    let ip = node.ip;
    eventually("it serves what it ran before", || echoes(at(ip, first)).then_some(()));
    assert!(!echoes(at(ip, second)), "{} was damaged, and yet it runs", newest.display());
    let log = fleet.nodes[0].running().log();
    assert!(!log.contains("panicked"), "{log}");

    fleet.restart_control_plane();
    fleet.await_sync();
    eventually("and then what it is to run", || echoes(at(ip, second)).then_some(()));
}

#[test]
fn a_control_plane_that_dies_in_the_middle_of_a_snapshot_leaves_the_last_good_state() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&echo(&[port], &samples));
    let address = at(fleet.nodes[0].ip, port);
    let mut document = echo(&[port], &samples);
    for round in 0..4 {
        // Large enough to take a while on the wire, and new in each of its many parts.
        let pools = (0..2_000).map(|n| {
            let backend = json!({"name": format!("b{round}"), "address": "127.0.0.1:9", "weight": round + 1});
            json!({"name": format!("p{n}"), "backends": [backend]})
        });
        let echo = document["pools"][0].clone();
        document["pools"] = std::iter::once(echo).chain(pools).collect();
        let revision = fleet.put(&document);
        std::thread::sleep(Duration::from_millis(30 * round));
        fleet.kill_control_plane();
        assert!(echoes(address), "round {round}");
        fleet.restart_control_plane();
        fleet.await_revision(revision);
        assert!(echoes(address), "round {round}");
    }
    let log = fleet.nodes[0].running().log();
    assert!(!log.contains("panic"), "{log}");
}

#[test]
fn clients_that_say_nothing_or_nonsense_are_closed_in_time_and_counted() {
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    let mut document = echo(&[port], &samples);
    document["listeners"][0]["rules"] =
        json!([{"name": "app", "match": {"sni": ["app.test"]}, "pool": "echo"}]);
    document["listeners"][0]["timeouts"] = json!({"handshake": "1s"});
    fleet.apply(&document);
    let address = at(fleet.nodes[0].ip, port);
    let end_of = |first: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(first).expect("sent");
        let started = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        started.elapsed()
    };
    let silent = end_of(b"");
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&silent), "{silent:?}");
    // A record of TLS that holds nonsense, and one that promises more than ever comes.
    assert!(end_of(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00") < Duration::from_secs(3));
    assert!(end_of(b"\x16\x03\x01\x40\x00\x01") < Duration::from_secs(3));
    assert!(end_of(b"GET / HTTP/1.1\r\n\r\n") < Duration::from_secs(3));
    eventually("all are counted", || {
        let stats = fleet.rest.get("/api/v1/stats");
        let line = &stats["listeners"][0];
        let of =
            |reason: &str| line["failed"][reason].as_u64().or(line["ended"][reason].as_u64()).unwrap_or(0);
        (of("handshake-timeout") == 2 && of("bad-client-hello") == 1 && of("no-rule") == 1).then_some(())
    });
}

#[test]
fn out_of_descriptors_a_node_waits_and_goes_on() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&echo(&[port], &samples));
    let address = at(fleet.nodes[0].ip, port);
    let pid = fleet.nodes[0].running().pid().to_string();
    let (ok, _, why) = run("prlimit", &["--pid", &pid, "--nofile=80:80"]);
    assert!(ok, "{why}");
    let open: Vec<TcpStream> =
        (0..80).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()).collect();
    eventually("the shortage is counted", || {
        let stats = fleet.rest.get("/api/v1/stats");
        (stats["totals"]["failed"]["resource-exhausted"].as_u64() > Some(0)).then_some(())
    });
    drop(open);
    eventually("it accepts again", || echoes(address).then_some(()));
    assert_eq!(fleet.view("node-1")["state"], "connected");
}

#[test]
fn drain_lets_open_connections_end() {
    let mut fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&echo(&[port], &samples));
    let mut open = TcpStream::connect(at(fleet.nodes[0].ip, port)).expect("accepted");
    open.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut answer = [0; 4];
    open.write_all(b"ping").and_then(|()| open.read_exact(&mut answer)).expect("echoed");
    fleet.nodes[0].running().terminate();
    eventually("it accepts nothing more", || {
        TcpStream::connect_timeout(&at(fleet.nodes[0].ip, port), Duration::from_millis(200))
            .is_err()
            .then_some(())
    });
    open.write_all(b"pong").and_then(|()| open.read_exact(&mut answer)).expect("still there");
    drop(open);
    assert!(fleet.nodes[0].stop(), "it ends well");
}

#[test]
fn a_banned_node_is_cut_off_within_a_second_and_goes_on_forwarding() {
    let fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    fleet.apply(&echo(&[port], &samples));
    let banned = &fleet.nodes[1];
    fleet.rest.post("/api/v1/nodes/node-2:ban", &Value::Null).ok();
    let started = Instant::now();
    eventually("it is cut off", || {
        let metrics = fleet.rest.send(reqwest::Method::GET, "/metrics", &[], "").text;
        metrics.contains("awe4lb_nodes{state=\"banned\"} 1").then_some(())
    });
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(echoes(at(banned.ip, port)), "it forwards what it runs");
    let more = free_port();
    fleet.put(&echo(&[port, more], &samples));
    eventually("the other node goes on", || echoes(at(fleet.nodes[0].ip, more)).then_some(()));
    assert!(!echoes(at(banned.ip, more)), "it gets nothing new");
}

#[test]
fn an_invalid_document_is_refused_with_everything_that_is_wrong() {
    let fleet = Fleet::start(1);
    let wrong = "version: 1\nlisteners:\n  - name: l\n    bind: ['*:0']\n    rules: [{ pool: nowhere, colour: red }]\n";
    let headers = [("content-type", "application/yaml")];
    let answer = fleet.rest.send(reqwest::Method::PUT, "/api/v1/config", &headers, wrong);
    assert_eq!(answer.status, 422);
    let errors = answer.json["errors"].as_array().cloned().unwrap_or_default();
    assert_eq!(errors.len(), 3, "{}", answer.text);
    assert!(errors.iter().all(|error| error["line"].as_u64() >= Some(3) && error["pointer"].is_string()));
    assert_eq!(fleet.rest.get("/api/v1/revisions")["total"], 0, "nothing has changed");
}

/// It was closed at once to everybody until its time was over, up to half a minute.
#[test]
fn a_backend_that_was_set_aside_serves_again_when_it_is_the_only_one_left() {
    let fleet = Fleet::start(1);
    let samples = Samples::start(fleet.folder());
    let (port, late) = (free_port(), free_port());
    let mut document = echo(&[port], &samples);
    document["pools"][0]["outlier"] = json!({"consecutiveFailures": 1, "ejection": "1h"});
    let backends = document["pools"][0]["backends"].as_array_mut().expect("a list");
    backends.push(json!({"name": "late", "address": format!("127.0.0.1:{late}")}));
    fleet.apply(&document);
    let address = at(fleet.nodes[0].ip, port);
    eventually("it is set aside", || {
        assert!(echoes(address), "another attempt finds the other one");
        let backends = fleet.rest.get("/api/v1/backends?pool=echo");
        let late = backends["items"].as_array()?.iter().find(|one| one["name"] == "late")?;
        (late["nodes"][0]["ejected"] == true).then_some(())
    });

    let arguments = ["--tcp-echo".to_owned(), format!("127.0.0.1:{late}")];
    let mut started = Program::start("late", fleet.folder(), program("awe4lb-sample-backends"), arguments);
    started.ready();
    document["pools"][0]["backends"].as_array_mut().expect("a list").remove(0);
    fleet.apply(&document);
    assert!(echoes(address), "a pool never loses its only backend this way");
}

/// It did not start, as in an image without the package of them.
#[test]
fn a_control_plane_starts_where_no_authority_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let binary = program("awe4lb-control-plane").display().to_string();
    let arguments = ["SSL_CERT_FILE=/dev/null", "SSL_CERT_DIR=/dev/null", &binary, "--data-dir", &data];
    let arguments = [&arguments[..], &["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]].concat();
    let mut control = Program::start("control-plane", folder.path(), "env", arguments);
    control.ready();
    assert!(control.log().contains("install ca-certificates"), "{}", control.log());
}
