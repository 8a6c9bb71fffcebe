//! TLS as clients see it: terminated, passed through, and routed by name.

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use awe4lb_data_plane::control::hot::DataPath;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::*;

/// A self-signed certificate for `names`, and its document form.
struct Identity {
    chain: String,
    key: String,
    der: rustls_pki_types::CertificateDer<'static>,
}

fn identity(names: &[&str]) -> Identity {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

fn certificate(name: &str, identity: &Identity) -> String {
    let json = serde_json::json!({ "name": name, "chain": identity.chain, "key": identity.key });
    json.to_string()
}

fn client_config(trusted: &[&Identity]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        roots.add(identity.der.clone()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn tls(port: u16, name: &str, trusted: &[&Identity]) -> Client {
    let name = name.to_owned().try_into().expect("a name");
    StreamOwned::new(ClientConnection::new(client_config(trusted), name).expect("a client"), connect(port))
}

/// A backend that speaks TLS itself, says its name and ends.
fn tls_greeter(says: &'static str, identity: &Identity) -> SocketAddr {
    use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![identity.der.clone()], key)
        .expect("fits");
    let config = Arc::new(config);
    backend(move |stream| {
        let server = rustls::ServerConnection::new(config.clone()).expect("a server");
        let mut stream = StreamOwned::new(server, stream);
        let _ = stream.write_all(says.as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
        let _ = read_to_end(&mut stream.sock);
    })
}

fn said(client: &mut Client) -> std::io::Result<String> {
    let mut text = String::new();
    client.read_to_string(&mut text).map(|_| text)
}

fn end_cleanly(client: &mut Client) {
    // An end before the handshake would be the end of the handshake.
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).expect("a handshake");
    }
    client.conn.send_close_notify();
    client.flush().expect("sent");
    client.sock.shutdown(Shutdown::Write).expect("half closed");
}

#[test]
fn tls_ends_here_and_plain_bytes_are_counted() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, rules: [{{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
        echo(),
        certificate("demo", &demo)
    ));
    let mut client = tls(port, "app.test", &[&demo]);
    client.write_all(b"hello").expect("sent");
    end_cleanly(&mut client);
    assert_eq!(said(&mut client).expect("a clean end"), "hello");
    eventually("counted", || (ended(&traffic, 1, "finished") == 1).then_some(()));
    for number in [1, 2, 3, 4] {
        let counted = counters(&traffic, number);
        assert_eq!((counted.bytes_in, counted.bytes_out), (5, 5), "{number}");
    }
    assert_eq!(counters(&traffic, 1).handshakes_total, 1);
}

#[test]
fn large_streams_through_tls_arrive_whole_in_both_directions_at_once() {
    const LENGTH: usize = 16 * 1024 * 1024;
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
        echo(),
        certificate("demo", &demo)
    ));
    let mut client = tls(port, "app.test", &[&demo]);
    let pattern = |at: usize| (at.wrapping_mul(2_654_435_761) >> 11) as u8;
    let (mut sent, mut got, mut buffer) = (0, 0, vec![0; 64 * 1024]);
    // A window smaller than what the sockets hold: one thread cannot block itself.
    while got < LENGTH {
        while sent < LENGTH && sent - got < 128 * 1024 {
            let piece: Vec<u8> = (sent..(sent + 50_000).min(LENGTH)).map(pattern).collect();
            client.write_all(&piece).expect("sent");
            sent += piece.len();
        }
        let length = client.read(&mut buffer).expect("a piece");
        assert!(length > 0, "ended at {got}");
        assert!(buffer[..length].iter().enumerate().all(|(offset, byte)| *byte == pattern(got + offset)));
        got += length;
    }
}

/// Much data right behind the last message of the handshake once ended it.
#[test]
fn a_client_that_does_not_wait_loses_nothing() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, rules: [{{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
        echo(),
        certificate("demo", &demo)
    ));
    for round in 1..=20 {
        let mut client = tls(port, "app.test", &[&demo]);
        // The client's last message of the handshake and all of this leave in one piece.
        client.conn.set_buffer_limit(None);
        client.conn.writer().write_all(&[7; 200_000]).expect("buffered");
        let mut got = vec![0; 200_000];
        client.read_exact(&mut got).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(got.iter().all(|byte| *byte == 7));
    }
    eventually("counted", || (counters(&traffic, 1).bytes_in == 20 * 200_000).then_some(()));
}

#[test]
fn one_listener_terminates_one_name_and_passes_another_through() {
    let (port, demo, own) = (free_port(), identity(&["app.test"]), identity(&["own.test"]));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, rules: [\
           {{ name: own, match: {{ sni: ['own.test', '*.own.test'] }}, pool: own, tls: passthrough }},\
           {{ name: app, match: {{ sni: app.test }}, pool: app }}] }}]\n\
         pools: [{{ name: app, backends: [{{ address: '{}' }}] }}, {{ name: own, backends: [{{ address: '{}' }}] }}]\n\
         certificates: [{}]\n",
        greeter("terminated"),
        tls_greeter("passed through", &own),
        certificate("demo", &demo)
    ));
    let said_to = |name: &str| {
        let mut client = tls(port, name, &[&demo, &own]);
        said(&mut client)
    };
    assert_eq!(said_to("own.test").expect("an answer"), "passed through");
    let mut client = tls(port, "app.test", &[&demo, &own]);
    end_cleanly(&mut client);
    assert_eq!(said(&mut client).expect("an answer"), "terminated");
    let error = said_to("other.test").expect_err("no rule");
    assert!(error.to_string().contains("UnrecognisedName"), "an alert says why: {error}");
    eventually("counted", || (ended(&traffic, 1, "no-rule") == 1).then_some(()));
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let port = free_port();
    let (first, second, wild) =
        (identity(&["first.test"]), identity(&["second.test"]), identity(&["*.wild.test"]));
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [a, b, c] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}, {}, {}]\n",
        greeter("hello"),
        certificate("a", &first),
        certificate("b", &second),
        certificate("c", &wild)
    ));
    for (name, identity) in [("first.test", &first), ("second.test", &second), ("x.wild.test", &wild)] {
        let mut client = tls(port, name, &[identity]);
        end_cleanly(&mut client);
        assert_eq!(said(&mut client).expect("the right certificate"), "hello", "{name}");
    }
}

#[test]
fn a_hello_one_byte_at_a_time_is_routed() {
    let (port, own) = (free_port(), identity(&["own.test"]));
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ match: {{ sni: own.test }}, pool: own }}] }}]\n\
         pools: [{{ name: own, backends: [{{ address: '{}' }}] }}]\n",
        tls_greeter("slowly", &own)
    ));
    let name = "own.test".to_owned().try_into().expect("a name");
    let mut connection = ClientConnection::new(client_config(&[&own]), name).expect("a client");
    let mut socket = connect(port);
    socket.set_nodelay(true).expect("nodelay");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("a hello");
    for byte in hello {
        socket.write_all(&[byte]).expect("sent");
    }
    assert_eq!(said(&mut StreamOwned::new(connection, socket)).expect("an answer"), "slowly");
}

#[test]
fn an_end_without_close_notify_reaches_the_backend_as_a_reset() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = backend(move |mut stream| {
        let ended = read_to_end(&mut stream).map_err(|error| error.kind());
        tell.lock().expect("a lock").send(ended).expect("told");
    });
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{backend}' }}] }}]\ncertificates: [{}]\n",
        certificate("demo", &demo)
    ));
    let mut client = tls(port, "app.test", &[&demo]);
    client.write_all(b"half a mess").expect("sent");
    client.flush().expect("sent");
    eventually("it arrived", || (counters(&traffic, 4).bytes_in == 11).then_some(()));
    client.sock.shutdown(Shutdown::Both).expect("cut");
    let ended_with = told.recv_timeout(PATIENCE).expect("told");
    assert_eq!(ended_with, Err(std::io::ErrorKind::ConnectionReset));
    eventually("counted", || (ended(&traffic, 1, "tls-error") == 1).then_some(()));
}

#[test]
fn garbage_and_silence_are_closed_and_counted() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], timeouts: {{ handshake: 300ms }}, tls: {{ certificates: [demo] }}, \
         rules: [{{ match: {{ sni: app.test }}, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
        echo(),
        certificate("demo", &demo)
    ));
    for (bytes, reason) in [
        (&b""[..], "handshake-timeout"),
        (b"\x16\x03\x01\x02\x00\x01", "handshake-timeout"),
        (b"GET / HTTP/1.1\r\n\r\n", "no-rule"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "bad-client-hello"),
    ] {
        let mut client = connect(port);
        client.write_all(bytes).expect("sent");
        let _ = read_to_end(&mut client);
        eventually(reason, || (ended(&traffic, 1, reason) >= 1).then_some(()));
    }
    assert_eq!(ended(&traffic, 1, "handshake-timeout"), 2);
    assert_eq!(traffic.active_connections(), 0);
}

#[test]
fn plain_to_tls_and_back_keeps_the_socket() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let plain = simple(port, &[greeter("hello")], "", "");
    let with_tls = format!(
        "{}certificates: [{}]\n",
        simple(port, &[greeter("hello")], ", tls: { certificates: [demo] }", ""),
        certificate("demo", &demo)
    );
    let traffic = running(&plain);
    for _ in 0..3 {
        assert_eq!(greeting(port), "hello");
        apply(&traffic, &with_tls).expect("applied");
        let mut client = tls(port, "app.test", &[&demo]);
        end_cleanly(&mut client);
        assert_eq!(said(&mut client).expect("an answer"), "hello");
        apply(&traffic, &plain).expect("applied");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_by_name() {
    let (port, demo, other) = (free_port(), identity(&["app.test"]), identity(&["other.test"]));
    let traffic = running(&simple(port, &[greeter("old")], "", ""));
    let mixed = Identity { chain: demo.chain.clone(), key: other.key, der: demo.der };
    let yaml = format!(
        "{}certificates: [{}]\n",
        simple(port, &[greeter("new")], ", tls: { certificates: [demo] }", ""),
        certificate("demo", &mixed)
    );
    let problems = apply(&traffic, &yaml).expect_err("a mismatch");
    assert_eq!((problems[0].code, problems[0].resource.name.as_str()), ("key-mismatch", "demo"));
    assert_eq!(greeting(port), "old");
}

#[test]
fn bytes_inside_of_tls_wait_as_well() {
    let (port, demo) = (free_port(), identity(&["app.test"]));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo] }}, limits: {{ bytesPerSecond: 500000 }},\
           rules: [{{ name: r, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
        echo(),
        certificate("demo", &demo)
    ));
    let mut client = tls(port, "app.test", &[&demo]);
    let from = std::time::Instant::now();
    client.write_all(&[7; 200_000]).expect("sent");
    let mut back = vec![0; 200_000];
    client.read_exact(&mut back).expect("all of it");
    // 400,000 bytes in both directions, of which a fifth of a second's worth comes at once.
    assert!(from.elapsed() >= std::time::Duration::from_millis(400), "{:?}", from.elapsed());
    assert!(back.iter().all(|byte| *byte == 7));
    end_cleanly(&mut client);
    eventually("counted", || (counters(&traffic, 1).bytes_out == 200_000).then_some(()));
}

/// The first flight of a client that wants `name`, or that sends no name.
fn hello(name: &str, sends_it: bool) -> Vec<u8> {
    let mut config = Arc::unwrap_or_clone(client_config(&[]));
    config.enable_sni = sends_it;
    let name = name.to_owned().try_into().expect("a name");
    let mut bytes = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// `hello` with another name of the same length in it.
fn renamed(hello: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = hello.windows(from.len()).position(|window| window == from.as_bytes()).expect("the name");
    [&hello[..at], to.as_bytes(), &hello[at + from.len()..]].concat()
}

/// Whether rules look at the hello or not, whole or byte by byte: without a host name TLS does not begin.
#[test]
fn a_client_without_a_name_is_refused_where_one_is_required() {
    const MISSING_EXTENSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 109];
    let named = hello("app.test", true);
    let refused = [
        ("no name", hello("app.test", false)),
        ("an address", renamed(&named, "app.test", "10.0.0.1")),
        ("a NUL", renamed(&named, "app.test", "app\0test")),
    ];
    for (matches, no_tls) in [("", "tls-handshake-failed"), ("match: { tls: true }, ", "no-rule")] {
        let (port, demo) = (free_port(), identity(&["app.test"]));
        let traffic = running(&format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], tls: {{ certificates: [demo], requireSni: true }}, \
             rules: [{{ {matches}pool: p }}] }}]\n\
             pools: [{{ name: p, backends: [{{ address: '{}' }}] }}]\ncertificates: [{}]\n",
            greeter("hello"),
            certificate("demo", &demo)
        ));
        for (what, bytes) in &refused {
            for piece in [bytes.len(), 1] {
                let mut client = connect(port);
                client.set_nodelay(true).expect("nodelay");
                for bytes in bytes.chunks(piece) {
                    client.write_all(bytes).expect("sent");
                }
                let answer = read_to_end(&mut client).expect("an answer");
                assert_eq!(answer, MISSING_EXTENSION, "{what}, {piece} at a time, {matches:?}");
            }
        }
        let mut client = connect(port);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let _ = read_to_end(&mut client);
        for name in ["app.test", "APP.test"] {
            let mut client = tls(port, name, &[&demo]);
            end_cleanly(&mut client);
            assert_eq!(said(&mut client).expect("an answer"), "hello", "{name}");
        }
        eventually("counted", || (ended(&traffic, 1, "sni-missing") == 6).then_some(()));
        eventually("no TLS", || (ended(&traffic, 1, no_tls) == 1).then_some(()));
        eventually("served", || (ended(&traffic, 1, "finished") == 2).then_some(()));
        assert_eq!(counters(&traffic, 1).handshakes_total, 2);
        assert_eq!(counters(&traffic, 4).connections_total, 2, "no backend was dialled for the others");
    }
}
