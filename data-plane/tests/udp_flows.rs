//! How flows begin, are shared out, limited, watched and ended.

#[path = "support/udp.rs"]
mod datagrams;
#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use awe4lb_data_plane::{
    control::hot::{AdminState, ConnectionFilter, DataPath as _},
    traffic::{Traffic, TrafficOptions},
};
use awe4lb_engine::proxy_protocol::{Parsed, parse};
use datagrams::*;
use support::*;

fn all(ended: bool) -> ConnectionFilter {
    ConnectionFilter { ended, limit: 10_000, ..ConnectionFilter::default() }
}

fn set_admin(traffic: &Traffic, state: AdminState) {
    let pool = traffic.pools().remove(0);
    let first = pool.members()[0].number;
    pool.set_admin(first, state);
}

/// Two backends that say their names, of which the first leads.
fn pair(port: u16, pool: &str) -> (Arc<Traffic>, UdpSocket) {
    let backends = [named("first"), named("second")];
    let yaml = simple_udp(port, &backends, "", pool).replace("name: b1,", "name: b1, priority: 1,");
    let (traffic, client) = (running(&yaml), client(port));
    assert_eq!(ask(&client, b"?"), b"first");
    (traffic, client)
}

#[test]
fn per_packet_every_datagram_is_balanced_on_its_own() {
    let port = free_udp_port();
    let one_worker = Traffic::start(TrafficOptions {
        threads: 1,
        bind_address: Some(Ipv4Addr::LOCALHOST.into()),
        access_log: None,
    });
    let traffic = one_worker.expect("a worker");
    let yaml = simple_udp(port, &[named("a"), named("b")], ", udp: { preset: dns }", "");
    apply(&traffic, &yaml).expect("applied");
    let client = client(port);
    let said: Vec<Vec<u8>> = (0..6).map(|_| ask(&client, b"?")).collect();
    assert_eq!(said.iter().filter(|name| **name == b"a").count(), 3, "{said:?}");
    assert!(said.windows(2).all(|two| two[0] != two[1]), "in turn: {said:?}");
    eventually("each answer ended its flow", || (ended(&traffic, 1, "flow-complete") == 6).then_some(()));
    assert_eq!(counters(&traffic, 1).connections_active, 0);
}

#[test]
fn a_flow_ends_with_exactly_the_answers_it_may_have() {
    let port = free_udp_port();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let backend = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            for answer in [b"1", b"2", b"3"] {
                socket.send_to(answer, from).expect("sent");
            }
        }
    });
    let traffic = running(&simple_udp(port, &[backend], ", udp: { maxResponses: 2 }", ""));
    let client = client(port);
    for flow in 1..=3 {
        assert_eq!(ask(&client, b"?"), b"1");
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).expect("the second"), 1);
        assert_eq!(buffer[0], b'2');
        eventually("complete", || (ended(&traffic, 1, "flow-complete") == flow).then_some(()));
    }
    client.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    assert!(client.recv(&mut [0; 8]).is_err(), "the third answer of none has come");
    assert_eq!(counters(&traffic, 1).datagrams_out, 6);
}

#[test]
fn flows_go_elsewhere_when_their_backend_goes_into_maintenance_and_stay_when_it_drains() {
    let port = free_udp_port();
    let (traffic, client) = pair(port, "");
    set_admin(&traffic, AdminState::Drain);
    assert_eq!(ask(&client, b"?"), b"first", "a drained backend keeps its flows");
    assert_eq!(ask(&self::client(port), b"?"), b"second", "and gets no new ones");
    set_admin(&traffic, AdminState::Maintenance);
    assert_eq!(ask(&client, b"?"), b"second");
    eventually("counted", || (ended(&traffic, 1, "backend-down") == 1).then_some(()));
}

#[test]
fn a_pool_may_keep_flows_where_they_are() {
    let (traffic, client) = pair(free_udp_port(), ", onDown: keep");
    set_admin(&traffic, AdminState::Maintenance);
    assert_eq!(ask(&client, b"?"), b"first");
}

#[test]
fn a_silent_flow_at_a_backend_that_is_down_ends_by_itself() {
    let (traffic, _client) = pair(free_udp_port(), "");
    set_admin(&traffic, AdminState::Maintenance);
    eventually("ended", || (ended(&traffic, 1, "backend-down") == 1).then_some(()));
}

#[test]
fn flows_of_a_removed_backend_have_their_time() {
    let port = free_udp_port();
    let (gone, stays) = (named("gone"), named("stays"));
    let drain = ", onRemoved: { drain: 1s }";
    let traffic = running(&simple_udp(port, &[gone], "", drain));
    let client = client(port);
    assert_eq!(ask(&client, b"?"), b"gone");
    let without = simple_udp(port, &[stays], "", drain).replace("name: b0", "name: other");
    apply(&traffic, &without).expect("applied");
    assert_eq!(ask(&client, b"?"), b"gone", "it has a second");
    eventually("it goes elsewhere", || (ask(&client, b"?") == b"stays").then_some(()));
    assert_eq!(ended(&traffic, 1, "backend-removed"), 1);
}

#[test]
fn connections_of_a_removed_backend_have_their_time_where_the_pool_says_so() {
    let port = free_udp_port();
    let drain = ", onRemoved: { drain: 300ms }";
    let traffic = running(&simple(port, &[echo()], "", drain));
    let mut stream = connect(port);
    stream.write_all(b"x").expect("sent");
    stream.read_exact(&mut [0]).expect("echoed");
    apply(&traffic, &simple(port, &[echo()], "", drain).replace("name: b0", "name: other")).expect("applied");
    stream.write_all(b"x").expect("sent");
    stream.read_exact(&mut [0]).expect("it goes on");
    let _ = read_to_end(&mut stream);
    eventually("it is counted", || (ended(&traffic, 1, "backend-removed") == 1).then_some(()));
}

#[test]
fn connections_end_with_their_backend_where_the_pool_says_so() {
    let port = free_udp_port();
    let traffic = running(&simple(port, &[echo(), echo()], "", ", onDown: close, balance: leastConn"));
    let streams: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect(port);
            stream.write_all(b"x").expect("sent");
            stream.read_exact(&mut [0]).expect("echoed");
            stream
        })
        .collect();
    set_admin(&traffic, AdminState::Maintenance);
    eventually("the one at the backend that went down", || {
        (ended(&traffic, 1, "backend-down") == 1).then_some(())
    });
    assert_eq!(counters(&traffic, 1).connections_active, 1, "the other goes on");
    drop(streams);
}

#[test]
fn who_is_denied_gets_no_flow_and_loses_the_one_it_has() {
    let port = free_udp_port();
    let backend = udp_echo();
    let traffic = running(&simple_udp(port, &[backend], "", ""));
    let client = client(port);
    ask(&client, b"?");
    let deny = ", access: { rules: [{ deny: 127.0.0.0/8, closeExisting: true }] }";
    apply(&traffic, &simple_udp(port, &[backend], deny, "")).expect("applied");
    eventually("revoked", || (ended(&traffic, 1, "access-revoked") == 1).then_some(()));
    client.send(b"?").expect("sent");
    eventually("denied", || (ended(&traffic, 1, "access-denied") >= 1).then_some(()));
}

#[test]
fn datagrams_beyond_the_rate_are_dropped_and_counted() {
    let port = free_udp_port();
    let limits = ", limits: { packetsPerSecondPerClient: 50 }";
    let traffic = running(&simple_udp(port, &[udp_echo()], limits, ""));
    let client = client(port);
    for _ in 0..200 {
        client.send(b"?").expect("sent");
    }
    let seen = || {
        let sample = counters(&traffic, 1);
        let dropped = ended(&traffic, 1, "datagram-rate");
        (sample.datagrams_in + sample.datagrams_out, dropped)
    };
    // Each question that came through has an answer, which counts as well and may be dropped itself.
    let (passed, dropped) =
        eventually("all are accounted for", || Some(seen()).filter(|(_, dropped)| *dropped >= 180));
    assert!(passed >= 10, "{passed} passed, {dropped} dropped");
    assert!(passed <= 60, "{passed} passed, {dropped} dropped");
}

#[test]
fn new_flows_of_a_client_are_limited() {
    let port = free_udp_port();
    let limits = ", limits: { newPerClientPerSecond: 5 }";
    let traffic = running(&simple_udp(port, &[udp_echo()], limits, ""));
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(port)).collect();
    clients.iter().for_each(|client| assert_eq!(client.send(b"?").expect("sent"), 1));
    eventually("all were judged", || (counters(&traffic, 1).connections_total == 20).then_some(()));
    assert!(ended(&traffic, 1, "client-rate") >= 14);
}

#[test]
fn who_may_have_made_up_its_address_gets_little() {
    let port = free_udp_port();
    let large = udp_backend(|_, _| Some(vec![7; 1_000]));
    let traffic = running(&simple_udp(port, &[large], ", udp: { maxReplyRatio: 3 }", ""));
    let client = client(port);
    client.send(&[1; 100]).expect("sent");
    eventually("dropped", || (ended(&traffic, 1, "datagram-reply-ratio") == 1).then_some(()));
    assert_eq!(ask(&client, &[1; 500]).len(), 1_000, "three times 600 are more than 1,000");
    assert_eq!(ask(&client, b"?").len(), 1_000, "from here on it has shown that it gets answers");
}

#[test]
fn listeners_of_a_group_send_a_client_to_the_same_backend() {
    let (one, other) = (free_udp_port(), free_udp_port());
    let (a, b) = (named("a"), named("b"));
    let listener = |name: &str, port: u16| {
        format!(
            "{{ name: {name}, bind: ['*:{port}'], protocol: udp, affinity: {{ group: ike }}, rules: [{{ pool: p }}] }}"
        )
    };
    let yaml = format!(
        "listeners: [{}, {}]\npools: [{{ name: p, balance: random, backends: [{{ name: a, address: '{a}' }}, {{ name: b, address: '{b}' }}] }}]\n",
        listener("ike", one),
        listener("nat", other)
    );
    let _traffic = running(&yaml);
    let mut seen = HashMap::new();
    for number in 0..40u8 {
        let ip = Ipv4Addr::new(127, 1, 0, number + 1);
        let ask_from = |port: u16| {
            let socket = UdpSocket::bind((ip, 0)).expect("a port");
            socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            ask(&socket, b"?")
        };
        let names: HashSet<Vec<u8>> = [one, other, one, other].map(ask_from).into();
        assert_eq!(names.len(), 1, "client {ip}");
        *seen.entry(names.into_iter().next()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "not all clients are at one backend: {seen:?}");
}

#[test]
fn backends_are_told_who_the_client_is() {
    for (datagrams, expected) in [("every", [true, true]), ("first", [true, false])] {
        let port = free_udp_port();
        let told: Arc<Mutex<Vec<Option<SocketAddr>>>> = Arc::default();
        let notes = told.clone();
        let backend = udp_backend(move |datagram, _| {
            let (source, payload) = match parse(datagram) {
                Parsed::Header { header, length } => (header.source, &datagram[length..]),
                _ => (None, datagram),
            };
            notes.lock().expect("not poisoned").push(source);
            Some(payload.to_vec())
        });
        let pool = format!(", proxyProtocol: {{ send: v2, datagrams: {datagrams} }}");
        let traffic = running(&simple_udp(port, &[backend], "", &pool));
        let client = client(port);
        assert_eq!(ask(&client, b"hello"), b"hello");
        assert_eq!(ask(&client, b"again"), b"again");
        let own = client.local_addr().expect("an address");
        let wanted: Vec<_> = expected.iter().map(|told| told.then_some(own)).collect();
        assert_eq!(*told.lock().expect("not poisoned"), wanted);
        assert_eq!(counters(&traffic, 1).bytes_in, 10, "headers are no payload");
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}

/// Beyond the first 1,024 of each worker flows share sockets: with four backends a quarter as many.
#[test]
fn many_flows_over_several_backends_share_sockets_and_get_their_own_answers() {
    let port = free_udp_port();
    let traffic = Traffic::start(TrafficOptions {
        threads: 1,
        bind_address: Some(Ipv4Addr::LOCALHOST.into()),
        access_log: None,
    })
    .expect("a worker");
    let backends = [udp_echo(), udp_echo(), udp_echo(), udp_echo()];
    let yaml = simple_udp(port, &backends, ", udp: { maxFlowsPerClient: 10000 }", "");
    apply(&traffic, &yaml).expect("applied");
    let before = open_descriptors();
    let clients: Vec<UdpSocket> = (0..5_024).map(|_| client(port)).collect();
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(ask(client, number.to_string().as_bytes()), number.to_string().as_bytes());
    }
    for (number, client) in clients.iter().enumerate().rev() {
        assert_eq!(ask(client, number.to_string().as_bytes()), number.to_string().as_bytes());
    }
    assert_eq!(counters(&traffic, 1).connections_active, 5_024);
    let upstream = open_descriptors() - before - clients.len();
    assert!((2_000..2_200).contains(&upstream), "{upstream} sockets: 1,024, and 4,000 by fours");
    drop(traffic);
    eventually("nothing stays open", || (open_descriptors() <= before + clients.len()).then_some(()));
}

/// What ICMP says of a shared socket's datagrams concerns one flow of several.
#[test]
fn a_refusal_on_a_shared_socket_ends_the_flow_it_concerns() {
    let port = free_udp_port();
    let traffic = Traffic::start(TrafficOptions {
        threads: 1,
        bind_address: Some(Ipv4Addr::LOCALHOST.into()),
        access_log: None,
    })
    .expect("a worker");
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|gone| gone.local_addr()).expect("a port");
    let alive = named("alive");
    let udp = ", udp: { maxFlowsPerClient: 10000 }";
    apply(&traffic, &simple_udp(port, &[alive], udp, "")).expect("applied");
    let _first: Vec<UdpSocket> =
        (0..1_100).map(|_| client(port)).inspect(|one| drop(ask(one, b"?"))).collect();
    let outlier = ", outlier: { consecutiveFailures: 1000000 }";
    apply(&traffic, &simple_udp(port, &[alive, gone], udp, outlier)).expect("applied");
    for _ in 0..10 {
        let client = client(port);
        client.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        eventually("an answer", || {
            client.send(b"?").ok()?;
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).ok()?;
            (&buffer[..length] == b"alive").then_some(())
        });
    }
    assert!(ended(&traffic, 1, "dial-failed") >= 3, "{:?}", counters(&traffic, 1));
    assert_eq!(ended(&traffic, 1, "backend-reset"), 0, "those that were answered are not touched");
}

#[test]
fn our_own_listeners_are_no_backends() {
    let (one, other) = (free_udp_port(), free_udp_port());
    let yaml = format!(
        "listeners: [{{ name: a, bind: ['*:{one}'], protocol: udp, rules: [{{ pool: b }}] }}, {{ name: b, bind: ['*:{other}'], protocol: udp, rules: [{{ pool: a }}] }}]\n\
         pools: [{{ name: a, backends: [{{ address: '127.0.0.1:{one}' }}] }}, {{ name: b, backends: [{{ address: '127.0.0.1:{other}' }}] }}]\n"
    );
    let traffic = running(&yaml);
    client(one).send(b"round and round").expect("sent");
    let failed = || {
        traffic
            .counters()
            .iter()
            .map(|sample| sample.number)
            .find(|number| ended(&traffic, *number, "dial-failed") > 0)
    };
    eventually("refused", failed);
    assert_eq!(traffic.counters().iter().map(|sample| sample.datagrams_in).sum::<u64>(), 0);
}

#[test]
fn flows_are_listed_closed_by_hand_and_remembered() {
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[udp_echo()], "", ""));
    let (meant, other) = (client(port), client(port));
    ask(&meant, b"hello");
    ask(&other, b"x");
    let open = traffic.connections(&all(false));
    assert_eq!(open.len(), 2);
    let address = meant.local_addr().expect("an address");
    let record = open.iter().find(|record| record.client == address).expect("it is listed");
    assert_eq!((record.listener, record.rule, record.pool, record.backend), (1, 2, 3, 4));
    assert_eq!((record.bytes_in, record.bytes_out), (5, 5));
    let one = ConnectionFilter { id: Some(record.id), ..all(false) };
    assert_eq!(traffic.close_connections(&one), 1);
    let gone = eventually("closed", || traffic.connections(&all(true)).pop());
    assert_eq!(gone.end.map(|end| end.label()), Some("admin-closed"));
    assert_eq!(ask(&meant, b"a new flow"), b"a new flow");
    assert_eq!(counters(&traffic, 1).connections_active, 2);
}

/// Every datagram that was delivered is counted, and a flow does not move while its backend lives.
#[test]
fn flows_stay_with_their_backend_over_changes_and_flips_of_others() {
    let port = free_udp_port();
    let moved = Arc::new(AtomicUsize::new(0));
    let homes: Arc<Mutex<HashMap<Vec<u8>, usize>>> = Arc::default();
    let backends: Vec<SocketAddr> = (0..3)
        .map(|own| {
            let (moved, homes) = (moved.clone(), homes.clone());
            udp_backend(move |datagram, _| {
                let mut homes = homes.lock().expect("not poisoned");
                if *homes.entry(datagram.to_vec()).or_insert(own) != own {
                    moved.fetch_add(1, Relaxed);
                }
                Some(datagram.to_vec())
            })
        })
        .collect();
    let yaml = |turn: usize| {
        let extra = named("extra");
        let balance = ["roundRobin", "leastConn", "random", "hash"][turn % 4];
        let mut list = backends.clone();
        if turn % 2 == 1 {
            list.push(extra);
        }
        simple_udp(
            port,
            &list,
            &format!(", udp: {{ maxFlows: {} }}", 1_000 + turn),
            &format!(", balance: {balance}"),
        )
    };
    let traffic = running(&yaml(0));
    let clients: Vec<UdpSocket> = (0..50).map(|_| client(port)).collect();
    for turn in 0..20 {
        for (number, client) in clients.iter().enumerate() {
            let name = number.to_string().into_bytes();
            assert_eq!(ask(client, &name), name);
        }
        // The last of the list, which has no flow, goes down and up while the configuration changes.
        apply(&traffic, &yaml(turn + 1)).expect("applied");
        if let Some(extra) = traffic.pools()[0].members().get(3) {
            traffic.pools()[0].set_admin(extra.number, AdminState::Maintenance);
        }
    }
    assert_eq!(moved.load(Relaxed), 0);
    assert_eq!(counters(&traffic, 1).connections_total, 50);
    assert_eq!((counters(&traffic, 1).datagrams_in, counters(&traffic, 1).datagrams_out), (1_000, 1_000));
}
