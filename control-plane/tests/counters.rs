//! Counters from a node over the real gRPC to the answers of REST: exactly once, also when the control plane starts
//! again and the node repeats itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use awe4lb_control_plane::{
    auth::Role,
    options::Cli,
    run::{self, Running},
};
use awe4lb_proto::{
    CAPABILITIES, PROTOCOL, SERVER_NAME,
    v1::{self, enrolment_client::EnrolmentClient, fleet_client::FleetClient, from_node, to_node},
};
use bytes::Bytes;
use clap::Parser as _;
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(20);

/// These tests are about counters: whom a node trusts is tested with the node.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

struct Identity {
    certificate: Bytes,
    key: Vec<u8>,
}

async fn channel(to: SocketAddr, identity: Option<&Identity>) -> Channel {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
            config.with_client_auth_cert(vec![identity.certificate.to_vec().into()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(to).await?;
            let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_shared(format!("http://{SERVER_NAME}"))
        .unwrap()
        .connect_with_connector(connect)
        .await
        .unwrap()
}

/// A node's stream.
struct Node {
    out: mpsc::Sender<v1::FromNode>,
    incoming: tonic::Streaming<v1::ToNode>,
    boot: Bytes,
}

impl Node {
    async fn attach(to: SocketAddr, identity: &Identity, boot: u8) -> Self {
        let boot = Bytes::copy_from_slice(&[boot; 16]);
        let (out, messages) = mpsc::channel(16);
        let hello = v1::Hello {
            version: "0.1.0".to_owned(),
            protocol: PROTOCOL,
            capabilities: CAPABILITIES.iter().map(|word| (*word).to_owned()).collect(),
            boot_id: boot.clone(),
            ..v1::Hello::default()
        };
        out.send(v1::FromNode { message: Some(from_node::Message::Hello(hello)) }).await.unwrap();
        let mut client = FleetClient::new(channel(to, Some(identity)).await);
        let incoming = client.attach(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { out, incoming, boot }
    }

    /// Reports, and waits until that is acknowledged.
    async fn report(&mut self, sequence: u64, counters: v1::Counters) {
        let report = v1::CounterReport {
            boot_id: self.boot.clone(),
            sequence,
            counters: vec![counters],
            ..v1::CounterReport::default()
        };
        self.out.send(v1::FromNode { message: Some(from_node::Message::Counters(report)) }).await.unwrap();
        let acknowledged = async {
            while let Some(message) = self.incoming.message().await.unwrap() {
                if let Some(to_node::Message::CounterAck(ack)) = message.message
                    && ack.boot_id == self.boot
                    && ack.sequence >= sequence
                {
                    return;
                }
            }
            panic!("the stream ended before {sequence} was acknowledged");
        };
        tokio::time::timeout(PATIENCE, acknowledged).await.unwrap();
    }
}

fn counters(number: u64, connections: u64) -> v1::Counters {
    v1::Counters {
        number,
        bytes_in: connections * 100,
        bytes_out: connections * 1_000,
        connections_total: connections,
        connections_active: 1,
        ends: vec![
            v1::ReasonCount { reason: "finished".to_owned(), count: connections - 2 },
            v1::ReasonCount { reason: "dial-failed".to_owned(), count: 1 },
        ],
        dial_micros_total: connections * 500,
        dials_total: connections,
        ..v1::Counters::default()
    }
}

struct Plane {
    running: Running,
    client: reqwest::Client,
    token: String,
}

impl Plane {
    async fn start(dir: &Path, name: &str) -> Self {
        let arguments = ["awe4lb-control-plane", "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--data-dir"];
        let cli = Cli::parse_from(arguments.into_iter().chain([dir.to_str().unwrap()]));
        let running = run::start(cli.run).await.unwrap();
        let (_, token) = running.app.auth.make_token(name, Role::Admin, None, "test").await.unwrap();
        Self { running, client: reqwest::Client::new(), token }
    }

    fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.running.http)).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.request(http::Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    async fn enrol(&self) -> Identity {
        let request = self.request(http::Method::POST, "/api/v1/join-tokens").json(&json!({"uses": 1}));
        let token: Value = request.send().await.unwrap().json().await.unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let request = v1::EnrolRequest {
            token: token["token"].as_str().unwrap().to_owned(),
            name: "n1".to_owned(),
            csr_der: Bytes::copy_from_slice(csr.der()),
        };
        let mut client = EnrolmentClient::new(channel(self.running.grpc, None).await);
        let reply = client.enrol(request).await.unwrap().into_inner();
        Identity { certificate: reply.certificate_der, key: key.serialize_der() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_counts_is_answered_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let plane = Plane::start(&dir, "first").await;
    let document = json!({
        "listeners": [{"name": "web", "bind": ["127.0.0.1:8080"], "protocol": "tcp", "rules": [{"name": "all", "pool": "app"}]}],
        "pools": [{"name": "app", "backends": [{"name": "b1", "address": "127.0.0.1:9"}]}],
    });
    let put = plane.request(http::Method::PUT, "/api/v1/config").json(&document).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let listener = plane.get("/api/v1/listeners/web").await["meta"]["number"].as_u64().unwrap();
    let pool = plane.get("/api/v1/pools/app").await["meta"]["number"].as_u64().unwrap();
    let identity = plane.enrol().await;

    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    node.report(1, counters(listener, 10)).await;
    node.report(2, counters(pool, 10)).await;
    let stats = plane.get("/api/v1/stats").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 10, "{stats}");
    assert_eq!(stats["totals"]["connectionsActive"], 1);
    assert_eq!(stats["totals"]["dialMillisMean"], 0.5);
    assert_eq!(stats["totals"]["failed"], json!({"dial-failed": 1}));
    assert_eq!(stats["totals"]["ended"], json!({"finished": 8}));
    assert_eq!(stats["listeners"][0]["name"], "web");
    assert_eq!(stats["rules"][0]["listener"], "web");
    assert_eq!(stats["backends"][0]["pool"], "app");
    assert_eq!(stats["nodes"][0]["name"], "n1");

    // Whoever listens is told each second.
    let events = plane.request(http::Method::GET, "/api/v1/events?types=stats").send().await.unwrap();
    let mut events = events.bytes_stream();
    let mut text = String::new();
    let told = async {
        while !text.contains("\"connectionsTotal\":10") {
            text += std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(text.contains("event: stats") || text.contains("event:stats"), "{text}");
    drop(events);
    plane.running.stop().await;
    drop(node);

    // The node has not heard of the acknowledgement, and repeats itself; then it counts on, then it starts again.
    let plane = Plane::start(&dir, "second").await;
    let stats = plane.get("/api/v1/stats").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 10);
    assert_eq!(stats["totals"]["connectionsActive"], 0, "nobody has said so yet");
    let mut node = Node::attach(plane.running.grpc, &identity, 1).await;
    node.report(1, counters(listener, 10)).await;
    assert_eq!(plane.get("/api/v1/stats").await["totals"]["connectionsTotal"], 10);
    node.report(3, counters(listener, 25)).await;
    drop(node);
    let mut node = Node::attach(plane.running.grpc, &identity, 2).await;
    node.report(1, counters(listener, 5)).await;
    let stats = plane.get("/api/v1/stats?node=n1").await;
    assert_eq!(stats["totals"]["connectionsTotal"], 30);
    assert_eq!(stats["listeners"][0]["bytesOut"], 30_000);
    assert_eq!(plane.get("/api/v1/stats?node=n2").await["totals"]["connectionsTotal"], 0);

    // An object that is gone is counted in the sums.
    let empty = plane.request(http::Method::PUT, "/api/v1/config").json(&json!({})).send().await.unwrap();
    assert_eq!(empty.status(), 200);
    let gone = async {
        loop {
            let stats = plane.get("/api/v1/stats").await;
            assert_eq!(stats["totals"]["connectionsTotal"], 30);
            if stats["listeners"] == json!([]) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let metrics = plane.client.get(format!("http://{}/metrics", plane.running.http)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("awe4lb_node_connections_total{node=\"n1\"} 30\n"), "{metrics}");
    plane.running.stop().await;
}
