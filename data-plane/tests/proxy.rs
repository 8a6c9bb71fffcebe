//! The PROXY protocol over real sockets: who may say who the client is, and what backends are told.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, mpsc},
};

use awe4lb_engine::proxy_protocol::{Header, Parsed, parse};
use support::*;

/// Gives everything that each connection sends, and says its name.
fn listener(name: &'static str) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let address = backend(move |mut stream| {
        let _ = stream.write_all(name.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = tell.lock().expect("a lock").send(read_to_end(&mut stream).unwrap_or_default());
    });
    (address, told)
}

/// Sends, ends, and gives who answered and the client's own address.
fn say(port: u16, bytes: &[u8]) -> (String, SocketAddr) {
    let mut stream: TcpStream = connect(port);
    let own = stream.local_addr().expect("an address");
    stream.write_all(bytes).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    (String::from_utf8(read_to_end(&mut stream).unwrap_or_default()).expect("text"), own)
}

fn header_of(bytes: &[u8]) -> (Header, &[u8]) {
    let Parsed::Header { header, length } = parse(bytes) else { panic!("no header in {bytes:?}") };
    (header, &bytes[length..])
}

#[test]
fn a_header_of_a_stated_peer_says_who_the_client_is() {
    let port = free_port();
    let ((office, heard), (other, _)) = (listener("office"), listener("other"));
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], proxyProtocol: {{ from: 127.0.0.0/8 }}, rules: [\
           {{ match: {{ client: 192.0.2.0/24, peer: 127.0.0.1 }}, pool: office }}, {{ pool: other }}] }}]\n\
         pools: [{{ name: office, backends: [{{ address: '{office}' }}] }}, {{ name: other, backends: [{{ address: '{other}' }}] }}]\n"
    ));
    assert_eq!(say(port, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\nhello").0, "office");
    assert_eq!(heard.recv_timeout(PATIENCE).expect("heard"), b"hello", "the header does not go on");
    assert_eq!(say(port, b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\nhello").0, "other");
    assert_eq!(say(port, b"PROXY UNKNOWN\r\nhello").0, "other", "the socket's own address counts");
}

#[test]
fn a_stated_peer_without_a_header_is_closed_and_others_cannot_lie() {
    let (strict, open) = (free_port(), free_port());
    let (other, heard) = listener("other");
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{strict}'], proxyProtocol: {{ from: 127.0.0.0/8 }}, rules: [{{ pool: p }}] }},\
           {{ name: m, bind: ['*:{open}'], proxyProtocol: {{ from: 10.0.0.0/8 }}, rules: [{{ match: {{ client: 127.0.0.1 }}, pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{other}' }}] }}]\n"
    ));
    for wrong in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"PROXY TCP4 nonsense\r\n", b"\r\n\r\n\0\r\nQUIT\n\xFF"] {
        assert_eq!(say(strict, wrong).0, "");
    }
    eventually("counted", || (ended(&traffic, 1, "bad-proxy-header") == 3).then_some(()));
    let lie = b"PROXY TCP4 10.0.0.7 198.51.100.1 40000 443\r\n";
    assert_eq!(say(open, lie).0, "other");
    assert_eq!(heard.recv_timeout(PATIENCE).expect("heard"), lie, "bytes like any others");
}

#[test]
fn a_header_may_come_byte_by_byte_and_a_silent_peer_is_closed() {
    let port = free_port();
    let (other, heard) = listener("other");
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], proxyProtocol: {{ from: 127.0.0.1 }}, timeouts: {{ handshake: 300ms }},\
           rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{other}' }}] }}]\n"
    ));
    let mut stream = connect(port);
    stream.set_nodelay(true).expect("nodelay");
    for byte in b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\nx" {
        stream.write_all(&[*byte]).expect("sent");
    }
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(read_to_end(&mut stream).expect("an answer"), b"other");
    assert_eq!(heard.recv_timeout(PATIENCE).expect("heard"), b"x");
    let mut silent = connect(port);
    assert_eq!(read_to_end(&mut silent).unwrap_or_default(), b"");
    eventually("counted", || (ended(&traffic, 1, "handshake-timeout") == 1).then_some(()));
}

#[test]
fn a_backend_is_told_who_the_client_is() {
    for version in ["v1", "v2"] {
        let port = free_port();
        let (backend, heard) = listener("backend");
        let traffic =
            running(&simple(port, &[backend], "", &format!(", proxyProtocol: {{ send: {version} }}")));
        let (answer, own) = say(port, b"payload");
        assert_eq!(answer, "backend");
        let bytes = heard.recv_timeout(PATIENCE).expect("heard");
        let (header, rest) = header_of(&bytes);
        assert_eq!((header.source, header.destination.map(|to| to.port())), (Some(own), Some(port)));
        assert_eq!(rest, b"payload");
        eventually("the payload is counted, the header is not", || {
            (counters(&traffic, 3).bytes_in == 7).then_some(())
        });
    }
}

#[test]
fn what_one_header_says_the_next_one_says_too() {
    let port = free_port();
    let (backend, heard) = listener("backend");
    let _traffic = running(&simple(
        port,
        &[backend],
        ", proxyProtocol: { from: 127.0.0.0/8 }",
        ", proxyProtocol: { send: v2 }",
    ));
    say(port, b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n");
    let bytes = heard.recv_timeout(PATIENCE).expect("heard");
    let (header, rest) = header_of(&bytes);
    assert_eq!(header.source, Some("[2001:db8::7]:40000".parse().expect("an address")));
    assert_eq!(header.destination, Some("[2001:db8::1]:443".parse().expect("an address")));
    assert_eq!(rest, b"");
}
