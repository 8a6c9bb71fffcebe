//! UDP as clients and backends see it.

#[path = "support/udp.rs"]
mod datagrams;
#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use awe4lb_data_plane::control::hot::DataPath;
use datagrams::*;
use support::*;

#[test]
fn datagrams_go_both_ways_and_are_counted_to_the_byte() {
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[udp_echo()], "", ""));
    let client = client(port);
    for size in [0, 1, 512, 1_200, 1_472] {
        let datagram = vec![7; size];
        assert_eq!(ask(&client, &datagram), datagram, "{size}");
    }
    let bytes = 1 + 512 + 1_200 + 1_472;
    eventually("counted", || (counters(&traffic, 1).datagrams_out == 5).then_some(()));
    for number in [1, 2, 3, 4] {
        let counted = counters(&traffic, number);
        assert_eq!((counted.bytes_in, counted.bytes_out), (bytes, bytes), "{number}");
        assert_eq!((counted.datagrams_in, counted.datagrams_out), (5, 5), "{number}");
        assert_eq!((counted.connections_total, counted.connections_active), (1, 1), "{number}");
    }
}

#[test]
fn large_datagrams_arrive_whole() {
    let port = free_udp_port();
    let _traffic = running(&simple_udp(port, &[udp_echo()], "", ""));
    let client = client(port);
    for size in [9_000, 40_000, 65_507] {
        let datagram: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        assert!(ask(&client, &datagram) == datagram, "{size}");
    }
}

#[test]
fn many_flows_at_once_get_their_own_answers() {
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[udp_echo(), udp_echo()], "", ""));
    let clients: Vec<UdpSocket> = (0..300).map(|_| client(port)).collect();
    for round in 0..5 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{round} {number}").as_bytes()).expect("sent");
        }
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).expect("an answer");
            assert_eq!(buffer[..length], *format!("{round} {number}").as_bytes());
        }
    }
    assert_eq!(counters(&traffic, 1).connections_total, 300);
    let per_backend = [4, 5].map(|number| counters(&traffic, number).datagrams_in);
    assert_eq!(per_backend.iter().sum::<u64>(), 1_500);
    assert!(per_backend.iter().all(|count| *count > 300), "{per_backend:?}");
}

#[test]
fn a_flow_keeps_its_backend_and_another_may_have_another() {
    let port = free_udp_port();
    let backends = [named("a"), named("b"), named("c")];
    let _traffic = running(&simple_udp(port, &backends, "", ", balance: roundRobin"));
    let mut seen = HashSet::new();
    for _ in 0..6 {
        let client = client(port);
        let first = ask(&client, b"?");
        for _ in 0..5 {
            assert_eq!(ask(&client, b"?"), first);
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn by_hash_a_client_keeps_its_backend_over_flows() {
    let port = free_udp_port();
    let backends = [named("a"), named("b"), named("c"), named("d")];
    let _traffic = running(&simple_udp(port, &backends, "", ", balance: hash, hashOn: client"));
    let first = ask(&client(port), b"?");
    for _ in 0..10 {
        assert_eq!(ask(&client(port), b"?"), first);
    }
}

/// A listener on the wildcard: the answer comes from the address that was asked, or a connected client does not see it.
#[test]
fn answers_come_from_the_address_that_was_asked() {
    use awe4lb_data_plane::traffic::{Traffic, TrafficOptions};
    let port = free_udp_port();
    let traffic = Traffic::start(TrafficOptions { threads: 1, bind_address: None, access_log: None })
        .expect("a worker");
    apply(&traffic, &simple_udp(port, &[udp_echo()], "", "")).expect("applied");
    for ip in [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 3, 7)] {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.connect((ip, port)).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(ask(&socket, b"hello"), b"hello", "{ip}");
    }
}

#[test]
fn a_flow_ends_when_it_is_silent_and_a_new_one_begins() {
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[udp_echo()], ", udp: { idleTimeout: 300ms }", ""));
    let client = client(port);
    ask(&client, b"one");
    eventually("the flow ends", || (ended(&traffic, 1, "idle-timeout") == 1).then_some(()));
    assert_eq!(counters(&traffic, 1).connections_active, 0);
    assert_eq!(ask(&client, b"two"), b"two");
    assert_eq!(counters(&traffic, 1).connections_total, 2);
}

#[test]
fn a_flow_without_an_answer_ends_sooner() {
    let port = free_udp_port();
    let silent = udp_backend(|_, _| None);
    let traffic =
        running(&simple_udp(port, &[silent], ", udp: { idleTimeout: 60s, unansweredTimeout: 300ms }", ""));
    client(port).send(b"anybody?").expect("sent");
    eventually("the flow ends", || (ended(&traffic, 1, "unanswered") == 1).then_some(()));
}

#[test]
fn one_client_cannot_take_all_flows() {
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[udp_echo()], ", udp: { maxFlowsPerClient: 2 }", ""));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(port)).collect();
    assert_eq!(ask(&clients[0], b"1"), b"1");
    assert_eq!(ask(&clients[1], b"2"), b"2");
    clients[2].send(b"3").expect("sent");
    eventually("the third is refused", || (ended(&traffic, 1, "client-flow-limit") == 1).then_some(()));
    assert_eq!(ask(&clients[0], b"still here"), b"still here");
}

#[test]
fn a_full_table_makes_room_by_what_was_never_answered() {
    let port = free_udp_port();
    let silent_then_echo = AtomicUsize::new(0);
    let backend = udp_backend(move |datagram, _| {
        (silent_then_echo.fetch_add(1, Ordering::Relaxed) > 0).then(|| datagram.to_vec())
    });
    // One worker's share of the table is what this is about.
    use awe4lb_data_plane::traffic::{Traffic, TrafficOptions};
    let options =
        TrafficOptions { threads: 1, bind_address: Some(Ipv4Addr::LOCALHOST.into()), access_log: None };
    let traffic = Traffic::start(options).expect("a worker");
    apply(&traffic, &simple_udp(port, &[backend], ", udp: { maxFlows: 1 }", "")).expect("applied");
    client(port).send(b"never answered").expect("sent");
    eventually("the first flow", || (counters(&traffic, 1).connections_total == 1).then_some(()));
    assert_eq!(ask(&client(port), b"hello"), b"hello");
    eventually("evicted", || (ended(&traffic, 1, "flow-evicted") == 1).then_some(()));
}

#[test]
fn a_backend_that_is_not_there_is_a_failure_and_the_flow_moves_on() {
    let port = free_udp_port();
    let gone = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.local_addr().expect("an address")
    };
    let outlier =
        ", balance: roundRobin, outlier: { consecutiveFailures: 1, ejection: 60s, maxEjectedPercent: 50 }";
    let traffic = running(&simple_udp(port, &[gone, named("alive")], "", outlier));
    // Each of a few clients finds the living one in the end: the refusal of the other has told.
    for _ in 0..4 {
        let client = client(port);
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        eventually("an answer", || {
            client.send(b"?").ok()?;
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).ok()?;
            (&buffer[..length] == b"alive").then_some(())
        });
    }
    assert!(
        ended(&traffic, 4, "dial-failed") + ended(&traffic, 4, "backend-reset") > 0,
        "{:?}",
        counters(&traffic, 4)
    );
}

#[test]
fn a_change_of_the_configuration_keeps_flows() {
    let port = free_udp_port();
    let seen: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let sources = seen.clone();
    let backend = udp_backend(move |datagram, from| {
        sources.lock().expect("not poisoned").insert(from);
        Some(datagram.to_vec())
    });
    let traffic = running(&simple_udp(port, &[backend], "", ""));
    let client = client(port);
    ask(&client, b"before");
    let more = simple_udp(port, &[backend, udp_echo()], ", udp: { idleTimeout: 50s }", ", balance: hash");
    apply(&traffic, &more).expect("applied");
    ask(&client, b"after");
    assert_eq!(seen.lock().expect("not poisoned").len(), 1, "it is the same flow to the backend");
    let total = traffic
        .counters()
        .iter()
        .filter(|sample| sample.number == 1)
        .map(|sample| sample.connections_total)
        .sum::<u64>();
    assert_eq!(total, 1);
}

#[test]
fn rules_by_client_and_rejects() {
    let port = free_udp_port();
    let yaml = format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], protocol: udp, rules: [\
           {{ name: no, match: {{ client: ['127.0.0.0/8'] }}, reject: {{}} }}, {{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ name: a, address: '{}' }}] }}]\n",
        udp_echo()
    );
    let traffic = running(&yaml);
    client(port).send(b"?").expect("sent");
    eventually("rejected", || (ended(&traffic, 1, "rule-reject") == 1).then_some(()));
}
