//! TCP as clients and backends see it.

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use awe4lb_data_plane::control::hot::{DataPath, Mode};
use support::*;

#[test]
fn bytes_go_both_ways_and_are_counted_to_the_byte() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let mut client = connect(port);
    client.write_all(b"hello").expect("sent");
    client.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(read_to_end(&mut client).expect("an answer"), b"hello");
    eventually("the end is counted", || (ended(&traffic, 1, "finished") == 1).then_some(()));
    for number in [1, 2, 3, 4] {
        let counted = counters(&traffic, number);
        assert_eq!((counted.bytes_in, counted.bytes_out), (5, 5), "{number}");
        assert_eq!((counted.connections_total, counted.connections_active), (1, 0), "{number}");
    }
    assert_eq!(traffic.active_connections(), 0);
}

#[test]
fn server_first_protocols_do_not_wait_for_the_client() {
    let port = free_port();
    let _traffic = running(&simple(port, &[greeter("220 ready")], "", ""));
    assert_eq!(greeting(port), "220 ready");
}

#[test]
fn a_half_closed_client_still_gets_a_long_answer() {
    let answer: Arc<[u8]> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let sent = answer.clone();
    let port = free_port();
    let _traffic = running(&simple(
        port,
        &[backend(move |mut stream| {
            let question = read_to_end(&mut stream).expect("a question");
            assert_eq!(question, b"give me all");
            stream.write_all(&sent).expect("answered");
        })],
        "",
        "",
    ));
    let mut client = connect(port);
    client.write_all(b"give me all").expect("sent");
    client.shutdown(Shutdown::Write).expect("half closed");
    assert!(read_to_end(&mut client).expect("an answer") == *answer);
}

#[test]
fn large_streams_arrive_whole_in_both_directions_at_once() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let mut client = connect(port);
    let mut sender = client.try_clone().expect("a second handle");
    let pattern = |at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8;
    let writer = std::thread::spawn(move || {
        let mut at = 0;
        while at < LENGTH {
            let piece: Vec<u8> = (at..(at + 65_536).min(LENGTH)).map(pattern).collect();
            sender.write_all(&piece).expect("sent");
            at += piece.len();
        }
        sender.shutdown(Shutdown::Write).expect("half closed");
    });
    let (mut at, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        let length = client.read(&mut buffer).expect("a piece");
        if length == 0 {
            break;
        }
        for (offset, byte) in buffer[..length].iter().enumerate() {
            assert_eq!(*byte, pattern(at + offset), "at {}", at + offset);
        }
        at += length;
    }
    writer.join().expect("the writer");
    assert_eq!(at, LENGTH);
    eventually("counters", || (counters(&traffic, 4).bytes_out == LENGTH as u64).then_some(()));
}

#[test]
fn a_reset_stays_a_reset_in_both_directions() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let port = free_port();
    let traffic = running(&simple(
        port,
        &[backend(move |mut stream| {
            let mut byte = [0; 1];
            let _ = stream.read_exact(&mut byte);
            if byte == *b"r" {
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
                return;
            }
            let error = stream.read(&mut byte).map_err(|error| error.kind());
            tell.lock().expect("a lock").send(error).expect("told");
        })],
        "",
        "",
    ));
    let mut client = connect(port);
    client.write_all(b"r").expect("sent");
    let error = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("the backend is blamed", || (ended(&traffic, 1, "backend-reset") == 1).then_some(()));

    let mut client = connect(port);
    client.write_all(b"c").expect("sent");
    eventually("it arrived", || (counters(&traffic, 4).bytes_in == 2).then_some(()));
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE).expect("told"), Err(std::io::ErrorKind::ConnectionReset));
    eventually("the client is blamed", || (ended(&traffic, 1, "client-reset") == 1).then_some(()));
}

#[test]
fn a_refused_dial_goes_to_the_next_backend() {
    let port = free_port();
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let traffic = running(&simple(port, &[dead, greeter("alive")], "", ", balance: roundRobin"));
    for _ in 0..4 {
        assert_eq!(greeting(port), "alive");
    }
    assert!(ended(&traffic, 4, "dial-failed") >= 1);
    eventually("all are counted", || (ended(&traffic, 1, "finished") == 4).then_some(()));
}

#[test]
fn without_a_usable_backend_the_client_is_closed_at_once_with_a_reason() {
    let port = free_port();
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let traffic = running(&simple(port, &[dead], "", ""));
    assert_eq!(greeting(port), "");
    eventually("counted", || (ended(&traffic, 1, "dial-failed") == 1).then_some(()));
    apply(&traffic, &simple(port, &[], "", "")).expect("applied");
    assert_eq!(greeting(port), "");
    eventually("counted", || (ended(&traffic, 3, "no-backend") == 1).then_some(()));
}

#[test]
fn max_connections_of_a_backend_and_of_a_listener_refuse_with_reasons() {
    let port = free_port();
    let yaml = format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], limits: {{ maxConnections: 2 }}, rules: [{{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: '{}', maxConnections: 1 }}] }}]\n",
        echo()
    );
    let traffic = running(&yaml);
    let mut first = connect(port);
    first.write_all(b"x").expect("sent");
    first.read_exact(&mut [0; 1]).expect("echoed");
    assert_eq!(greeting(port), "");
    eventually("the backend is full", || (ended(&traffic, 1, "backends-full") == 1).then_some(()));
    apply(&traffic, &yaml.replace("maxConnections: 2", "maxConnections: 1")).expect("applied");
    assert_eq!(greeting(port), "");
    eventually("the listener is full", || (ended(&traffic, 1, "listener-full") == 1).then_some(()));
    first.write_all(b"y").expect("the first is unharmed");
    first.read_exact(&mut [0; 1]).expect("echoed");
}

#[test]
fn rules_by_client_and_splits_and_reject() {
    let port = free_port();
    let yaml = |client: &str| {
        format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ name: no, match: {{ client: {client} }}, reject: {{}} }}, {{ name: s, split: [{{ pool: a, weight: 1 }}, {{ pool: b, weight: 1 }}] }}] }}]\n\
             pools: [{{ name: a, backends: [{{ address: '{}' }}] }}, {{ name: b, backends: [{{ address: '{}' }}] }}]\n",
            greeter("a"),
            greeter("b")
        )
    };
    let traffic = running(&yaml("127.0.0.1"));
    assert_eq!(greeting(port), "");
    eventually("rejected", || (ended(&traffic, 2, "rule-reject") == 1).then_some(()));
    apply(&traffic, &yaml("10.0.0.0/8")).expect("applied");
    let greetings: std::collections::BTreeSet<String> = (0..64).map(|_| greeting(port)).collect();
    assert_eq!(greetings, ["a".to_owned(), "b".to_owned()].into());
}

#[test]
fn a_port_of_another_process_is_an_error_that_leaves_no_trace() {
    let (port, other) = (free_port(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let taken = other.local_addr().expect("an address").port();
    let traffic = running(&simple(port, &[greeter("old")], "", ""));
    let both = simple(port, &[greeter("new")], "", "").replace(
        "listeners: [",
        &format!("listeners: [{{ name: t, bind: ['*:{taken}'], rules: [{{ pool: p }}] }}, "),
    );
    let problems = apply(&traffic, &both).expect_err("a taken port");
    assert_eq!(problems[0].code, "bind-failed");
    assert_eq!(problems[0].resource.name.as_str(), "t");
    assert_eq!(greeting(port), "old");
    // A cold start serves the others.
    let prepared = traffic.prepare(config(&both), Mode::BestEffort).expect("the best of it");
    assert_eq!(prepared.missing.len(), 1);
    traffic.commit(prepared);
    assert_eq!(greeting(port), "new");
}

#[test]
fn changes_lose_no_connection_and_open_ones_keep_their_route() {
    let port = free_port();
    let (one, two) = (greeter("one"), greeter("two"));
    let traffic = running(&simple(port, &[one], "", ""));
    let held = echo();
    apply(&traffic, &simple(port, &[held], "", "")).expect("applied");
    let mut open = connect(port);
    open.write_all(b"1").expect("sent");
    open.read_exact(&mut [0; 1]).expect("echoed");
    apply(&traffic, &simple(port, &[one], "", "")).expect("applied");

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let greeting = greeting(port);
                    assert!(greeting == "one" || greeting == "two", "lost: {greeting:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for change in 0..20 {
        let renamed = simple(port, &[if change % 2 == 0 { two } else { one }], "", "")
            .replace("name: l,", &format!("name: l{change},"));
        apply(&traffic, &renamed).expect("applied");
        let before = served.load(Ordering::Relaxed);
        eventually("traffic goes on", || (served.load(Ordering::Relaxed) > before + 4).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no connection lost"));
    open.write_all(b"2").expect("the open one is unharmed");
    open.read_exact(&mut [0; 1]).expect("echoed");
}

#[test]
fn a_removed_listener_closes_its_port_and_keeps_its_connections() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let mut open = connect(port);
    open.write_all(b"1").expect("sent");
    open.read_exact(&mut [0; 1]).expect("echoed");
    apply(&traffic, "listeners: []\n").expect("applied");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    open.write_all(b"2").expect("unharmed");
    open.read_exact(&mut [0; 1]).expect("echoed");
}

#[test]
fn silence_ends_connections_after_their_time() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], ", timeouts: { idle: 300ms, halfClose: 300ms }", ""));
    let mut idle = connect(port);
    assert_eq!(read_to_end(&mut idle).expect("an end"), b"");
    eventually("counted", || (ended(&traffic, 1, "idle-timeout") == 1).then_some(()));
}

#[test]
fn drain_waits_for_connections_and_closes_what_remains() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let mut open = connect(port);
    open.write_all(b"1").expect("sent");
    open.read_exact(&mut [0; 1]).expect("echoed");
    traffic.stop_accepting();
    eventually("the port is closed", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err().then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(traffic.drain(std::time::Duration::from_millis(100)));
    assert_eq!(read_to_end(&mut open).unwrap_or_default(), b"");
    assert_eq!(ended(&traffic, 1, "shutdown"), 1);
}
