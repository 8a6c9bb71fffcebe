//! StartTLS of PostgreSQL: the request before the ClientHello is answered, TLS is routed by its name, passed through or
//! terminated, and who does not want TLS goes on without it.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use support::*;

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];
/// `user=a`, protocol 3.0.
const STARTUP: &[u8] = b"\0\0\0\x10\0\x03\0\0user\0a\0\0";

struct Identity {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

fn identity(name: &str) -> Identity {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    Identity { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

/// Speaks as a server of PostgreSQL does until the session begins, then says its name; without an identity it has no TLS.
fn database(name: &'static str, identity: Option<&Identity>) -> SocketAddr {
    let config = identity.map(|identity| {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![identity.der.clone()], key).expect("a server"))
    });
    backend(move |mut stream| {
        let mut first = [0; 8];
        if stream.read_exact(&mut first).is_err() {
            return;
        }
        match (first == SSL_REQUEST, &config) {
            (true, Some(config)) => {
                let session = ServerConnection::new(config.clone()).expect("a session");
                let _ = stream.write_all(b"S");
                let mut stream = StreamOwned::new(session, stream);
                let _ = stream.write_all(name.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
            (true, None) => drop(stream.write_all(b"N")),
            (false, _) => {
                let _ = stream.read(&mut [0; 100]);
                let _ = stream.write_all(name.as_bytes());
            }
        }
    })
}

fn starting_tls(port: u16, before: &[&[u8]], name: &str, trusted: &Identity) -> std::io::Result<String> {
    let mut stream = connect(port);
    for request in before {
        stream.write_all(request)?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer[0], if *request == SSL_REQUEST { b'S' } else { b'N' });
    }
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), name.to_owned().try_into().expect("a name"));
    let mut stream = StreamOwned::new(session.expect("a client"), stream);
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

fn plainly(port: u16, bytes: &[u8]) -> String {
    let mut stream: TcpStream = connect(port);
    stream.write_all(bytes).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    String::from_utf8(read_to_end(&mut stream).unwrap_or_default()).expect("text")
}

#[test]
fn tls_that_is_asked_for_is_routed_by_its_name_and_passed_through() {
    let port = free_port();
    let (a, b) = (identity("a.test"), identity("b.test"));
    let (first, second, plain) =
        (database("first", Some(&a)), database("second", Some(&b)), database("plain", None));
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], preamble: postgres, rules: [\
           {{ match: {{ sni: a.test }}, pool: a }}, {{ match: {{ sni: b.test }}, pool: b }},\
           {{ name: no-tls-there, match: {{ sni: c.test }}, pool: plain }}, {{ match: {{ tls: false }}, pool: plain }}] }}]\n\
         pools: [{{ name: a, backends: [{{ address: '{first}' }}] }}, {{ name: b, backends: [{{ address: '{second}' }}] }},\
           {{ name: plain, backends: [{{ address: '{plain}' }}] }}]\n"
    ));
    assert_eq!(starting_tls(port, &[SSL_REQUEST], "a.test", &a).expect("a"), "first");
    assert_eq!(starting_tls(port, &[GSS_REQUEST, SSL_REQUEST], "b.test", &b).expect("b"), "second");
    assert_eq!(plainly(port, STARTUP), "plain", "without TLS it goes by the rules for that");
    assert!(starting_tls(port, &[SSL_REQUEST], "c.test", &a).is_err());
    eventually("counted", || (ended(&traffic, 1, "backend-refused-tls") == 1).then_some(()));
    assert_eq!(plainly(port, &[0, 0, 0, 3, 1, 2, 3, 4]), "");
    eventually("counted", || (ended(&traffic, 1, "bad-preamble") == 1).then_some(()));
    // The ClientHello may not come before the answer: it would be outside of what TLS protects.
    assert_eq!(plainly(port, &[SSL_REQUEST, b"\x16\x03\x01"].concat()), "");
    eventually("counted", || (ended(&traffic, 1, "bad-preamble") == 2).then_some(()));
}

#[test]
fn tls_that_is_asked_for_may_end_here() {
    let port = free_port();
    let own = identity("db.test");
    let plain = database("plain", None);
    let certificate = serde_json::json!({ "name": "own", "chain": own.chain, "key": own.key });
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], preamble: postgres, tls: {{ certificates: [own] }}, rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, backends: [{{ address: '{plain}' }}] }}]\n\
         certificates: [{certificate}]\n"
    ));
    let mut stream = connect(port);
    stream.write_all(SSL_REQUEST).expect("sent");
    stream.read_exact(&mut [0; 1]).expect("answered");
    let mut roots = RootCertStore::empty();
    roots.add(own.der.clone()).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session =
        ClientConnection::new(Arc::new(config), "db.test".try_into().expect("a name")).expect("a client");
    let mut stream = StreamOwned::new(session, stream);
    stream.write_all(STARTUP).expect("sent");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"plain", "the backend gets the session without TLS, and without the request for it");
}
