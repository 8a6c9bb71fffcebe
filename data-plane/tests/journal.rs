//! What a node can say of its connections: who is connected now, why one ended, and closing by hand.

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::sync_channel,
    },
};

use awe4lb_data_plane::{
    control::hot::{ConnectionFilter, ConnectionRecord, ConnectionState, DataPath as _},
    traffic::{AccessLogSink, Traffic, TrafficOptions},
};
use support::*;

fn all(ended: bool) -> ConnectionFilter {
    ConnectionFilter { ended, limit: 1_000, ..ConnectionFilter::default() }
}

fn the_one(traffic: &Traffic, filter: &ConnectionFilter) -> ConnectionRecord {
    eventually("one connection", || {
        let mut found = traffic.connections(filter);
        (found.len() == 1).then(|| found.remove(0))
    })
}

#[test]
fn an_open_connection_is_listed_with_what_it_moved_and_then_with_why_it_ended() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let mut stream = connect(port);
    stream.write_all(b"hello").expect("sent");
    stream.read_exact(&mut [0; 5]).expect("echoed");
    let open = the_one(&traffic, &all(false));
    assert_eq!(open.client, stream.local_addr().expect("an address"));
    assert_eq!((open.listener, open.rule, open.pool, open.backend), (1, 2, 3, 4));
    assert_eq!((open.bytes_in, open.bytes_out, open.state, open.end), (5, 5, ConnectionState::Open, None));
    assert!(open.dial_micros > 0);
    for (filter, count) in [
        (ConnectionFilter { listener: Some(1), pool: Some(3), backend: Some(4), ..all(false) }, 1),
        (ConnectionFilter { listener: Some(9), ..all(false) }, 0),
        (ConnectionFilter { client: Some("127.0.0.0/8".parse().expect("a prefix")), ..all(false) }, 1),
        (ConnectionFilter { client: Some("10.0.0.0/8".parse().expect("a prefix")), ..all(false) }, 0),
        (ConnectionFilter { id: Some(open.id), ..all(false) }, 1),
        (all(true), 0),
    ] {
        assert_eq!(traffic.connections(&filter).len(), count, "{filter:?}");
    }
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(read_to_end(&mut stream).expect("the end"), b"");
    let ended = the_one(&traffic, &all(true));
    assert_eq!((ended.id, ended.end.map(|end| end.label())), (open.id, Some("finished")));
    assert!(traffic.connections(&all(false)).is_empty());
}

#[test]
fn whoever_is_closed_by_hand_is_closed_and_the_others_are_not() {
    let port = free_port();
    let traffic = running(&simple(port, &[echo()], "", ""));
    let [mut meant, mut other] = [(); 2].map(|()| {
        let mut stream = connect(port);
        stream.write_all(b"x").expect("sent");
        stream.read_exact(&mut [0]).expect("echoed");
        stream
    });
    let own = meant.local_addr().expect("an address");
    let id = traffic.connections(&all(false)).into_iter().find(|one| one.client == own).expect("listed").id;
    assert_eq!(traffic.close_connections(&ConnectionFilter { id: Some(id), ..all(false) }), 1);
    assert!(read_to_end(&mut meant).unwrap_or_default().is_empty());
    eventually("counted", || (ended(&traffic, 1, "admin-closed") == 1).then_some(()));
    other.write_all(b"y").expect("sent");
    other.read_exact(&mut [0]).expect("still there");
    assert_eq!(traffic.close_connections(&ConnectionFilter { id: Some(id), ..all(false) }), 0);
}

/// Causes of an end that are provoked from outside, each with the side and the word that it must have.
#[test]
fn every_end_has_its_cause_and_its_side() {
    use awe4lb_model::Side;
    let nobody = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.local_addr().expect("an address")
    };
    let resets = backend(|stream| {
        let _ = (&stream).read(&mut [0; 8]);
        let _ = socket_linger_zero(&stream);
    });
    let closes_on_five = backend(|mut stream| {
        let _ = stream.read_exact(&mut [0; 5]);
    });
    let echo = echo();
    // The listener, the pool, what the client does, the word, the side.
    type Client = fn(std::net::TcpStream);
    let cases: [(&str, String, Client, &str, Side); 9] = [
        ("", format!("backends: [{{ address: '{echo}' }}]"), polite, "finished", Side::Client),
        ("", format!("backends: [{{ address: '{echo}' }}]"), reset, "client-reset", Side::Client),
        ("", format!("backends: [{{ address: '{resets}' }}]"), talk, "backend-reset", Side::Backend),
        ("", format!("backends: [{{ address: '{closes_on_five}' }}]"), talk, "finished", Side::Client),
        ("", format!("backends: [{{ address: '{nobody}' }}]"), talk, "dial-failed", Side::Backend),
        ("", "backends: []".to_owned(), talk, "no-backend", Side::Backend),
        (
            ", timeouts: { idle: 200ms }",
            format!("backends: [{{ address: '{echo}' }}]"),
            silent,
            "idle-timeout",
            Side::Us,
        ),
        (
            ", timeouts: { lifetime: 200ms }",
            format!("backends: [{{ address: '{echo}' }}]"),
            silent,
            "lifetime",
            Side::Us,
        ),
        (
            ", access: { default: deny }",
            format!("backends: [{{ address: '{echo}' }}]"),
            silent,
            "access-denied",
            Side::Us,
        ),
    ];
    for (listener, pool, client, word, side) in cases {
        let port = free_port();
        let traffic = running(&format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ name: r, pool: p }}]{listener} }}]\n\
             pools: [{{ name: p, {pool} }}]\n"
        ));
        client(connect(port));
        eventually(&format!("{word} with {pool}{listener}"), || {
            (ended(&traffic, 1, word) == 1).then_some(())
        });
        let reason =
            awe4lb_model::EndReason::ALL.iter().find(|reason| reason.label() == word).expect("a reason");
        assert_eq!(reason.side(), side, "{word}");
        let total: u64 = counters(&traffic, 1).ends.iter().map(|(_, count)| count).sum();
        assert_eq!(total, 1, "one reason for one connection: {word}");
    }
}

fn polite(mut stream: std::net::TcpStream) {
    let _ = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
    let _ = read_to_end(&mut stream);
}

fn talk(mut stream: std::net::TcpStream) {
    let _ = stream.write_all(b"hello");
    let _ = read_to_end(&mut stream);
}

fn silent(mut stream: std::net::TcpStream) {
    let _ = read_to_end(&mut stream);
}

fn reset(mut stream: std::net::TcpStream) {
    let _ = stream.write_all(b"hello");
    let _ = stream.read_exact(&mut [0; 5]);
    let _ = socket_linger_zero(&stream);
}

fn socket_linger_zero(stream: &std::net::TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}

#[test]
fn the_access_log_is_told_of_what_its_listeners_ask_for() {
    let (records, told) = sync_channel(1);
    let lost = Arc::new(AtomicU64::new(0));
    let sink = AccessLogSink { records, lost: lost.clone() };
    let options =
        TrafficOptions { threads: 1, bind_address: Some(Ipv4Addr::LOCALHOST.into()), access_log: Some(sink) };
    let traffic = Traffic::start(options).expect("a worker");
    let (logged, quiet) = (free_port(), free_port());
    let hello = greeter("hello");
    apply(
        &traffic,
        &format!(
            "listeners: [{{ name: logged, bind: ['*:{logged}'], accessLog: {{}}, rules: [{{ pool: p }}] }},\
               {{ name: quiet, bind: ['*:{quiet}'], rules: [{{ pool: p }}] }}]\n\
             pools: [{{ name: p, backends: [{{ address: '{hello}' }}] }}]\n"
        ),
    )
    .expect("applied");
    assert_eq!(greeting(quiet), "hello");
    assert_eq!(greeting(logged), "hello");
    let record = told.recv_timeout(PATIENCE).expect("told");
    assert_eq!((record.listener, record.bytes_out), (1, 5));
    assert!(told.try_recv().is_err(), "of nothing else");
    // Nobody takes records any more: one waits, the others are lost, and nobody waits for the log.
    for _ in 0..3 {
        assert_eq!(greeting(logged), "hello");
    }
    eventually("counted as lost", || (lost.load(Relaxed) == 2).then_some(()));
}
