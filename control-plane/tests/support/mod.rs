//! A control plane in this process, and a peer that speaks the real gRPC over mutual TLS.

pub mod authority;

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

/// How long anything may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// These tests are about the control plane: whom a node trusts is tested with the node.
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

/// Who a node is.
pub struct Identity {
    certificate: Bytes,
    key: Vec<u8>,
}

impl Identity {
    /// Of a certificate and its key (PKCS#8).
    pub fn new(certificate: Bytes, key: Vec<u8>) -> Self {
        Self { certificate, key }
    }
}

/// A connection to the nodes' address, with a node's certificate or without.
pub async fn channel(to: SocketAddr, identity: Option<&Identity>) -> Channel {
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
pub struct Node {
    out: mpsc::Sender<v1::FromNode>,
    incoming: tonic::Streaming<v1::ToNode>,
    /// Of this process start.
    pub boot: Bytes,
}

impl Node {
    /// With an empty hand.
    pub async fn attach(to: SocketAddr, identity: &Identity, boot: u8) -> Self {
        Self::attach_with(to, identity, boot, v1::Hello::default()).await.unwrap()
    }

    /// With what `hello` says.
    pub async fn attach_with(
        to: SocketAddr,
        identity: &Identity,
        boot: u8,
        hello: v1::Hello,
    ) -> Result<Self, tonic::Status> {
        let boot = Bytes::copy_from_slice(&[boot; 16]);
        let (out, messages) = mpsc::channel(16);
        let hello = v1::Hello {
            version: "0.1.0".to_owned(),
            protocol: PROTOCOL,
            boot_id: boot.clone(),
            capabilities: match hello.capabilities.is_empty() {
                true => CAPABILITIES.iter().map(|word| (*word).to_owned()).collect(),
                false => hello.capabilities.clone(),
            },
            ..hello
        };
        out.send(v1::FromNode { message: Some(from_node::Message::Hello(hello)) }).await.unwrap();
        let mut client = FleetClient::new(channel(to, Some(identity)).await);
        let incoming = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { out, incoming, boot })
    }

    /// Says something.
    pub async fn say(&self, message: from_node::Message) {
        self.out.send(v1::FromNode { message: Some(message) }).await.unwrap();
    }

    /// The next message; `None` at the end.
    pub async fn hear(&mut self) -> Result<Option<to_node::Message>, tonic::Status> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await.unwrap()?;
        Ok(next.and_then(|next| next.message))
    }

    /// Reports, and waits until that is acknowledged.
    pub async fn report(&mut self, sequence: u64, counters: v1::Counters) {
        let report = v1::CounterReport {
            boot_id: self.boot.clone(),
            sequence,
            counters: vec![counters],
            ..v1::CounterReport::default()
        };
        self.say(from_node::Message::Counters(report)).await;
        loop {
            match self.hear().await.unwrap() {
                Some(to_node::Message::CounterAck(ack))
                    if ack.boot_id == self.boot && ack.sequence >= sequence =>
                {
                    return;
                }
                Some(_) => {}
                None => panic!("the stream ended before {sequence} was acknowledged"),
            }
        }
    }
}

/// A control plane.
pub struct Plane {
    /// Its parts.
    pub running: Running,
    /// Without a token.
    pub client: reqwest::Client,
    token: String,
}

impl Plane {
    /// In this folder; `name` is that of a token that must be new.
    pub async fn start(dir: &Path, name: &str) -> Self {
        let arguments = ["awe4lb-control-plane", "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--data-dir"];
        let cli = Cli::parse_from(arguments.into_iter().chain([dir.to_str().unwrap()]));
        let running = run::start(cli.run).await.unwrap();
        let (_, token) = running.app.auth.make_token(name, Role::Admin, None, "test").await.unwrap();
        Self { running, client: reqwest::Client::new(), token }
    }

    /// As admin.
    pub fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.running.http)).bearer_auth(&self.token)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(http::Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// PUT of the whole configuration.
    pub async fn apply(&self, document: &Value) {
        let put = self.request(http::Method::PUT, "/api/v1/config").json(document).send().await.unwrap();
        assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    }

    /// A new join token.
    pub async fn join_token(&self, wish: &Value) -> String {
        let request = self.request(http::Method::POST, "/api/v1/join-tokens").json(wish);
        let token: Value = request.send().await.unwrap().json().await.unwrap();
        token["token"].as_str().unwrap().to_owned()
    }

    /// A machine with this key joins, or may not.
    pub async fn join(
        &self,
        token: &str,
        name: &str,
        key: &rcgen::KeyPair,
    ) -> Result<v1::EnrolReply, tonic::Status> {
        let csr = rcgen::CertificateParams::default().serialize_request(key).unwrap();
        let request = v1::EnrolRequest {
            token: token.to_owned(),
            name: name.to_owned(),
            csr_der: Bytes::copy_from_slice(csr.der()),
        };
        let mut client = EnrolmentClient::new(channel(self.running.grpc, None).await);
        client.enrol(request).await.map(tonic::Response::into_inner)
    }

    /// The node `n1` joins.
    pub async fn enrol(&self) -> Identity {
        let token = self.join_token(&json!({"uses": 1})).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let reply = self.join(&token, "n1", &key).await.unwrap();
        Identity { certificate: reply.certificate_der, key: key.serialize_der() }
    }
}
