//! One TLS connection to a control plane, with tonic on top. Reconnecting is ours, not tonic's: a channel here is exactly
//! one connection, so that a new certificate, another address or a ban takes effect at the next one.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use awe4lb_proto::SERVER_NAME;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);

/// `host:port` of a control plane's URL.
pub fn endpoint_authority(url: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("control plane {url:?} is not a URL"))?;
    if uri.scheme_str() != Some("https") {
        bail!("control plane {url:?}: nodes speak TLS only, write https://HOST:PORT");
    }
    let host = uri.host().with_context(|| format!("control plane {url:?} has no host"))?;
    if !matches!(uri.path(), "" | "/") {
        bail!("control plane {url:?}: no path belongs there");
    }
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(7071)))
}

/// Checks the server against `ca` and shows `identity`.
pub fn mutual_tls(
    ca: &CertificateDer<'static>,
    identity: (CertificateDer<'static>, PrivateKeyDer<'static>),
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).context("the cluster's CA certificate")?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.0], identity.1)
        .context("the node's certificate and key")?;
    Ok(with_h2(config))
}

/// Checks nothing but that the server has the key of the certificate it shows; the caller checks the certificate before
/// it trusts or says anything ([`check_chain`]).
pub fn unchecked_tls() -> anyhow::Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(provider())))
        .with_no_client_auth();
    Ok(with_h2(config))
}

/// Whether a chain that a server showed leads to `ca` and is that of a control plane.
pub fn check_chain(chain: &[CertificateDer<'_>], ca: &CertificateDer<'static>) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).context("the CA certificate")?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    let (leaf, rest) = chain.split_first().context("the server shows no certificate")?;
    verifier.verify_server_cert(leaf, rest, &ServerName::try_from(SERVER_NAME)?, &[], UnixTime::now())?;
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn with_h2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // One connection at a time and for days: nothing to resume.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Connects and shakes hands.
pub async fn dial(url: &str, config: Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let authority = endpoint_authority(url)?;
    let connect = async {
        let tcp = TcpStream::connect(&authority).await.with_context(|| format!("connect to {authority}"))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME)?;
        TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .with_context(|| format!("TLS handshake with {authority}"))
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
        Ok(result) => result,
        Err(_) => bail!("connect to {authority}: no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    }
}

/// A gRPC channel over exactly this connection.
pub async fn channel(stream: TlsStream<TcpStream>) -> anyhow::Result<Channel> {
    // The scheme is http because TLS is below, where tonic does not look.
    let endpoint = Endpoint::from_shared(format!("http://{SERVER_NAME}"))?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    Ok(endpoint.connect_with_connector(Once(Some(stream))).await?)
}

/// A connector that has one connection to give.
struct Once(Option<TlsStream<TcpStream>>);

impl tower::Service<http::Uri> for Once {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let stream =
            self.0.take().ok_or_else(|| io::Error::other("the connection to the control plane is gone"));
        Box::pin(std::future::ready(stream.map(TokioIo::new)))
    }
}

/// Takes any certificate, but only with proof of its key.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_are_https_addresses() {
        assert_eq!(endpoint_authority("https://a.example:1234").unwrap(), "a.example:1234");
        assert_eq!(endpoint_authority("https://[::1]:9/").unwrap(), "[::1]:9");
        assert_eq!(endpoint_authority("https://a").unwrap(), "a:7071");
        for bad in ["http://a:1", "a:1", "https://a:1/path", "https://", "", "\u{0}"] {
            assert!(endpoint_authority(bad).is_err(), "{bad:?}");
        }
    }
}
