//! QUIC through the node without ending it: a real client and real servers (quinn), and a NAT in between.

#[path = "support/udp.rs"]
#[expect(dead_code, reason = "each test file uses its part")]
mod datagrams;
#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use datagrams::*;
use quinn::{
    ClientConfig, Connection, Endpoint, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::*;

/// One authority for all servers of a test.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let signed = rcgen::generate_simple_self_signed(names).expect("a certificate");
        Self {
            certificate: signed.cert.der().clone(),
            key: PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key"),
        }
    }

    /// A server that says its name, then who its client seems to be, then what it gets, on every stream.
    fn server(&self, name: &'static str, alpn: &[&str]) -> SocketAddr {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("a certificate");
        tls.alpn_protocols = protocols(alpn);
        let mut config =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("a server")));
        // What a server sees of a change would be the node's doing: it must not need to allow it.
        config.migration(false);
        let endpoint =
            Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a port for the server");
        let address = endpoint.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                        let question = receive.read_to_end(1 << 20).await.unwrap_or_default();
                        let said = format!("{name} {} ", connection.remote_address());
                        let answer = [said.as_bytes(), &question].concat();
                        if send.write_all(&answer).await.is_err() || send.finish().is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    /// A connection to `to` that asks for `name`.
    async fn connect(&self, to: SocketAddr, name: &str, alpn: &[&str], provider: CryptoProvider) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols(alpn);
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a client")));
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a port for the client");
        let connecting = endpoint.connect_with(config, to, name).expect("a valid name");
        let connection = tokio::time::timeout(PATIENCE, connecting).await;
        let connection = connection.expect("in time").expect("connected");
        Client { connection, _endpoint: endpoint }
    }
}

struct Client {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Client {
    /// What the server says to a question: its name, its client's address, and the length of what it got.
    async fn ask(&self, question: &[u8]) -> (String, String, usize) {
        let conversation = async {
            let (mut send, mut receive) = self.connection.open_bi().await.expect("a stream");
            send.write_all(question).await.expect("sent");
            send.finish().expect("finished");
            receive.read_to_end(1 << 21).await.expect("an answer")
        };
        let answer = tokio::time::timeout(PATIENCE, conversation).await.expect("an answer in time");
        let mut words = answer.splitn(3, |byte| *byte == b' ');
        let mut word = || words.next().expect("three words").to_vec();
        let (name, client, echo) = (word(), word(), word());
        assert_eq!(echo, question);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(name), text(client), question.len())
    }
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Keys that everybody understands: the hello is small.
fn classic() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() }
}

/// Keys that take two datagrams for a hello.
fn post_quantum() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() }
}

/// A NAT for one client, whose port on the outer side changes when it is told to.
struct Nat {
    address: SocketAddr,
    inner: Arc<UdpSocket>,
    outer: Arc<Mutex<Arc<UdpSocket>>>,
    client: Arc<Mutex<Option<SocketAddr>>>,
    target: SocketAddr,
}

impl Nat {
    fn before(port: u16) -> Self {
        let inner = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let nat = Self {
            address: inner.local_addr().expect("an address"),
            outer: Arc::new(Mutex::new(Self::mapping(target))),
            client: Arc::default(),
            inner,
            target,
        };
        nat.listen();
        let (inner, outer, client) = (nat.inner.clone(), nat.outer.clone(), nat.client.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = inner.recv_from(&mut buffer) {
                *client.lock().expect("not poisoned") = Some(from);
                let outer = outer.lock().expect("not poisoned").clone();
                let _ = outer.send(&buffer[..length]);
            }
        });
        nat
    }

    fn mapping(target: SocketAddr) -> Arc<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.connect(target).expect("connected");
        Arc::new(socket)
    }

    /// What comes back to the port of now goes to the client; what comes to an old one goes nowhere.
    fn listen(&self) {
        let (inner, client) = (self.inner.clone(), self.client.clone());
        let (outer, this) = (self.outer.clone(), self.outer.lock().expect("not poisoned").clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(length) = this.recv(&mut buffer) {
                if !Arc::ptr_eq(&outer.lock().expect("not poisoned"), &this) {
                    return;
                }
                if let Some(client) = *client.lock().expect("not poisoned") {
                    let _ = inner.send_to(&buffer[..length], client);
                }
            }
        });
    }

    fn change(&self) {
        *self.outer.lock().expect("not poisoned") = Self::mapping(self.target);
        self.listen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_is_routed_by_name_and_protocol_without_being_ended() {
    let identity = Identity::new(&["a.test", "b.test", "x.b.test", "c.test"]);
    let (a, b, other) = (
        identity.server("a", &["h3", "doq"]),
        identity.server("b", &["h3"]),
        identity.server("doq", &["h3", "doq"]),
    );
    let port = free_udp_port();
    let traffic = running(&format!(
        "listeners: [{{ name: l, protocol: udp, bind: ['*:{port}'], udp: {{ preset: quic }}, rules: [\
           {{ match: {{ alpn: doq }}, pool: doq }},\
           {{ match: {{ sni: a.test }}, pool: a }},\
           {{ match: {{ sni: [b.test, '*.b.test'] }}, pool: b }}] }}]\n\
         pools: [{}]\n",
        [("a", a), ("b", b), ("doq", other)]
            .map(|(name, at)| format!("{{ name: {name}, backends: [{{ address: '{at}' }}] }}"))
            .join(", ")
    ));
    let to = (Ipv4Addr::LOCALHOST, port).into();
    for (name, alpn, server) in
        [("a.test", "h3", "a"), ("b.test", "h3", "b"), ("x.b.test", "h3", "b"), ("a.test", "doq", "doq")]
    {
        for provider in [classic(), post_quantum()] {
            let client = identity.connect(to, name, &[alpn], provider).await;
            assert_eq!(client.ask(b"small").await.0, server, "{name} {alpn}");
            let lost = client.connection.stats().path.lost_packets;
            assert_eq!(lost, 0, "a hello of two datagrams that came as one run has both");
            assert_eq!(client.ask(&vec![7; 1 << 20]).await.2, 1 << 20, "a megabyte there and back");
        }
    }
    assert_eq!(counters(&traffic, 1).connections_total, 8, "one flow a connection");
    assert_eq!(ended(&traffic, 1, "bad-initial"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_that_a_nat_changes_its_port() {
    const CLIENTS: u64 = 16;
    let identity = Identity::new(&["a.test"]);
    let backends = [identity.server("one", &["h3"]), identity.server("two", &["h3"])];
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &backends, ", udp: { preset: quic }", ""));
    for number in 0..CLIENTS {
        let nat = Nat::before(port);
        let client = identity.connect(nat.address, "a.test", &["h3"], classic()).await;
        let before = client.ask(b"before").await;
        for change in 1..=3 {
            nat.change();
            // Same server, and for the server the same client: nothing has moved.
            assert_eq!(
                (before.0.clone(), before.1.clone(), 5),
                client.ask(b"after").await,
                "{number}.{change}"
            );
        }
        // Whichever of the two workers the kernel chose: there were 48 changes.
    }
    let counted = counters(&traffic, 1);
    assert_eq!(counted.connections_total, CLIENTS, "a changed port is not another flow");
    assert_eq!(ended(&traffic, 1, "datagram-unsent"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_preset_a_changed_port_is_another_client() {
    let identity = Identity::new(&["a.test"]);
    let port = free_udp_port();
    let traffic = running(&simple_udp(port, &[identity.server("one", &["h3"])], "", ""));
    let nat = Nat::before(port);
    let client = identity.connect(nat.address, "a.test", &["h3"], classic()).await;
    client.ask(b"before").await;
    nat.change();
    let (mut send, _receive) = client.connection.open_bi().await.expect("a stream");
    send.write_all(b"?").await.expect("sent");
    send.finish().expect("finished");
    eventually("another flow", || (counters(&traffic, 1).connections_total == 2).then_some(()));
}

#[test]
fn what_is_no_quic_takes_the_rule_for_it_and_a_damaged_hello_is_refused() {
    let port = free_udp_port();
    let traffic = running(&format!(
        "listeners: [{{ name: l, protocol: udp, bind: ['*:{port}'], udp: {{ preset: quic }}, rules: [\
           {{ match: {{ sni: a.test }}, pool: a }}, {{ match: {{ tls: false }}, pool: plain }}] }}]\n\
         pools: [{{ name: a, backends: [{{ address: '{}' }}] }}, {{ name: plain, backends: [{{ address: '{}' }}] }}]\n",
        named("a"),
        named("plain"),
    ));
    assert_eq!(ask(&client(port), b"\x12\x34 a question"), b"plain");

    // The header of an Initial, and noise where its hello should be.
    let mut damaged = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x96];
    damaged.resize(1_200, 0x5a);
    let stranger = client(port);
    stranger.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    stranger.send(&damaged).expect("sent");
    eventually("refused", || (ended(&traffic, 1, "bad-initial") == 1).then_some(()));
    assert!(stranger.recv(&mut [0; 64]).is_err(), "nothing is said to it");
    assert_eq!(counters(&traffic, 1).connections_active, 1, "only the question's flow is there");
}
