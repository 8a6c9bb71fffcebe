//! Access rules and limits over real sockets: who gets in, how many, how fast, and what becomes of those who were in.

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use support::*;

/// What a client from an address of this loopback network is told.
fn greeting_from(address: [u8; 4], port: u16) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((address, 0)).into()).expect("bound");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("a listener");
    String::from_utf8(read_to_end(&mut socket.into()).unwrap_or_default()).expect("text")
}

/// What a client is told that a PROXY header names.
fn greeting_of(client: &str, port: u16) -> String {
    let mut stream = connect(port);
    let header = format!("PROXY TCP4 {client} 198.51.100.1 40000 443\r\n");
    let _ = stream.write_all(header.as_bytes());
    String::from_utf8(read_to_end(&mut stream).unwrap_or_default()).expect("text")
}

/// An open connection through an echo, proven by a byte.
fn open(port: u16) -> TcpStream {
    let mut stream = connect(port);
    assert!(echoes(&mut stream));
    stream
}

fn echoes(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0; 1]), Ok(1))
}

#[test]
fn the_denied_are_closed_unheard_and_counted() {
    let port = free_port();
    let access = ", access: { rules: [{ allow: 127.0.0.3 }, { deny: [127.0.0.2, 127.0.0.3] }] }";
    let traffic = running(&simple(port, &[greeter("in")], access, ""));
    assert_eq!(greeting_from([127, 0, 0, 1], port), "in");
    assert_eq!(greeting_from([127, 0, 0, 3], port), "in");
    assert_eq!(greeting_from([127, 0, 0, 2], port), "");
    eventually("counted", || (ended(&traffic, 1, "access-denied") == 1).then_some(()));
    eventually("all have ended", || (counters(&traffic, 1).connections_active == 0).then_some(()));
    assert_eq!(counters(&traffic, 1).connections_total, 3);
    assert_eq!(counters(&traffic, 2).connections_total, 2, "no rule sees the denied");
}

#[test]
fn a_rule_in_shadow_lets_in_and_counts() {
    let port = free_port();
    let access = ", access: { rules: [{ deny: 127.0.0.2, shadow: true }] }";
    let traffic = running(&simple(port, &[greeter("in")], access, ""));
    assert_eq!(greeting_from([127, 0, 0, 2], port), "in");
    assert_eq!(greeting_from([127, 0, 0, 1], port), "in");
    assert_eq!(ended(&traffic, 1, "access-denied-shadow"), 1);
    assert_eq!(ended(&traffic, 1, "access-denied"), 0);
}

#[test]
fn behind_a_proxy_it_is_the_client_that_is_judged() {
    let port = free_port();
    let more = ", proxyProtocol: { from: 127.0.0.0/8 }, access: { default: deny, rules: [{ allow: { list: offices } }] }";
    let yaml = |entries: &str| {
        simple(port, &[greeter("in")], more, "")
            + &format!("addressLists: [{{ name: offices, entries: [{entries}] }}]\n")
    };
    let traffic = running(&yaml("192.0.2.0/24"));
    assert_eq!(greeting_of("192.0.2.7", port), "in");
    assert_eq!(greeting_of("203.0.113.7", port), "");
    eventually("counted", || (ended(&traffic, 1, "access-denied") == 1).then_some(()));
    apply(&traffic, &yaml("203.0.113.0/24")).expect("applied");
    assert_eq!(greeting_of("203.0.113.7", port), "in");
    assert_eq!(greeting_of("192.0.2.7", port), "");
}

#[test]
fn a_list_that_grows_ends_what_is_open_and_leaves_the_others() {
    let (port, other) = (free_port(), free_port());
    let backend = echo();
    let yaml = |entries: &str| {
        format!(
            "listeners: [\
               {{ name: l, bind: ['*:{port}'], access: {{ rules: [{{ deny: {{ list: blocked }}, closeExisting: true }}] }}, rules: [{{ pool: p }}] }},\
               {{ name: m, bind: ['*:{other}'], access: {{ rules: [{{ deny: {{ list: blocked }} }}] }}, rules: [{{ pool: p }}] }}]\n\
             pools: [{{ name: p, backends: [{{ address: '{backend}' }}] }}]\n\
             addressLists: [{{ name: blocked, entries: [{entries}] }}]\n"
        )
    };
    let traffic = running(&yaml("192.0.2.0/24"));
    let mut closed: Vec<TcpStream> = (0..50).map(|_| open(port)).collect();
    let mut stays = open(other);
    apply(&traffic, &yaml("192.0.2.0/24, 198.51.100.1")).expect("applied");
    assert!(closed.iter_mut().all(echoes), "another entry is no concern of theirs");
    apply(&traffic, &yaml("127.0.0.0/8")).expect("applied");
    for stream in &mut closed {
        assert_eq!(
            stream.read(&mut [0; 1]).unwrap_or(0),
            0,
            "an idle connection ends without a byte from anybody"
        );
    }
    eventually("all are counted", || (ended(&traffic, 1, "access-revoked") == 50).then_some(()));
    assert!(echoes(&mut stays), "a rule without closeExisting is for new connections");
    assert_eq!(read_to_end(&mut connect(other)).unwrap_or_default(), b"");
    eventually("counted", || (ended(&traffic, 3, "access-denied") == 1).then_some(()));
}

#[test]
fn a_client_has_so_many_connections_over_all_workers() {
    let port = free_port();
    let yaml =
        |most: u32| simple(port, &[echo()], &format!(", limits: {{ maxConnectionsPerClient: {most} }}"), "");
    let traffic = running(&yaml(5));
    let mut held: Vec<TcpStream> = (0..5).map(|_| open(port)).collect();
    assert_eq!(read_to_end(&mut connect(port)).unwrap_or_default(), b"");
    eventually("counted", || (ended(&traffic, 1, "client-full") == 1).then_some(()));
    held.pop();
    eventually("its place is free", || (counters(&traffic, 1).connections_active == 4).then_some(()));
    held.push(open(port));
    // Those that are open count under a new configuration, too.
    apply(&traffic, &yaml(6)).expect("applied");
    held.push(open(port));
    assert_eq!(read_to_end(&mut connect(port)).unwrap_or_default(), b"");
}

#[test]
fn new_connections_have_a_rate_by_listener_and_by_client() {
    for (limits, reason) in
        [("newConnectionsPerSecond: 5", "listener-rate"), ("newPerClientPerSecond: 5", "client-rate")]
    {
        let port = free_port();
        let traffic = running(&simple(port, &[greeter("in")], &format!(", limits: {{ {limits} }}"), ""));
        let from = Instant::now();
        let let_in = (0..40).filter(|_| greeting(port) == "in").count() as u64;
        let most = 5 + 5 * (from.elapsed().as_millis() as u64 + 400) / 1_000;
        assert!((5..=most).contains(&let_in), "{let_in} of at most {most}");
        eventually("counted", || (ended(&traffic, 1, reason) == 40 - let_in).then_some(()));
        eventually("a place comes with time", || (greeting(port) == "in").then_some(()));
    }
}

/// Sends so many bytes and gives how long it took until all had arrived.
fn push(port: u16, bytes: usize) -> Duration {
    let from = Instant::now();
    let mut stream = connect(port);
    stream.write_all(&vec![7; bytes]).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(read_to_end(&mut stream).expect("an answer"), bytes.to_string().as_bytes());
    from.elapsed()
}

#[test]
fn bytes_wait_and_none_is_lost() {
    let sink = backend(|mut stream| {
        let length = read_to_end(&mut stream).unwrap_or_default().len();
        let _ = stream.write_all(length.to_string().as_bytes());
    });
    for limit in ["bytesPerSecond", "bytesPerSecondPerClient", "bytesPerSecondPerConnection"] {
        let port = free_port();
        let traffic = running(&simple(port, &[sink], &format!(", limits: {{ {limit}: 1000000 }}"), ""));
        // A fifth of a second's worth comes at once, and the clock is a tenth of a second coarse.
        let took = push(port, 1_000_000);
        assert!(took >= Duration::from_millis(600), "{limit}: {took:?}");
        assert_eq!(counters(&traffic, 1).bytes_in, 1_000_000);
        let apart = Instant::now();
        let both: Vec<_> = (0..2).map(|_| std::thread::spawn(move || push(port, 300_000))).collect();
        for one in both {
            one.join().expect("pushed");
        }
        assert!(apart.elapsed() < PATIENCE);
    }
}

#[test]
fn half_a_million_prefixes_are_compiled_once_and_shared() {
    let entries: Vec<ipnet::IpNet> = (0..500_000u32)
        .map(|n| ipnet::IpNet::new((0x0B00_0000 + n * 64).to_be_bytes().into(), 27).expect("a net"))
        .collect();
    let port = free_port();
    let access = ", access: { rules: [{ deny: { list: many } }] }";
    let yaml = simple(port, &[greeter("in")], access, "") + "addressLists: [{ name: many, entries: [] }]\n";
    let mut with_list = (*config(&yaml)).clone();
    let name = with_list.address_lists[0].name.clone();
    with_list.address_lists[0] = awe4lb_model::AddressList::new(name, entries);
    let traffic = traffic();
    let with_list = std::sync::Arc::new(with_list);
    let mut times = Vec::new();
    for _ in 0..2 {
        use awe4lb_data_plane::control::hot::{DataPath as _, Mode};
        let from = Instant::now();
        let prepared = traffic.prepare(with_list.clone(), Mode::Strict).expect("prepared");
        times.push(from.elapsed());
        traffic.commit(prepared);
    }
    // Generous: it takes some tens of milliseconds, on a debug build some hundreds.
    assert!(times[0] < Duration::from_secs(5), "{times:?}");
    assert!(times[1] < times[0] / 2 || times[1] < Duration::from_millis(20), "compiled again: {times:?}");
    assert_eq!(greeting(port), "in");
}
