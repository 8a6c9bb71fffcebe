//! tls-alpn-01: a handshake that shows a certificate made for the question, and nothing behind it (RFC 8737).

use std::{rc::Rc, sync::Arc};

use awe4lb_engine::challenge::ACME_TLS;
use awe4lb_model::EndReason;
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::traffic::{
    connection::{handshake, send},
    socket::Socket,
    timers::Timer,
    tls::TlsSession,
    worker::Worker,
};

/// Shows this certificate to whoever speaks `acme-tls/1`.
pub(super) fn config(chain_der: Vec<Vec<u8>>, key_der: Vec<u8>) -> Result<Arc<ServerConfig>, String> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    let chain: Vec<CertificateDer<'static>> = chain_der.into_iter().map(CertificateDer::from).collect();
    let leaf = chain.first().ok_or("there is no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    // Not asked of rustls: its own check refuses the critical extension that the whole thing is about.
    let is_of_key = key.public_key().is_none_or(|public| *public == *parsed.public_key().raw);
    if !is_of_key {
        return Err("the key does not belong to the certificate".to_owned());
    }
    let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ACME_TLS.as_bytes().to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Completes the handshake, then closes: no data is exchanged (RFC 8737 section 3).
pub(in crate::traffic) async fn answer(
    worker: &Rc<Worker>,
    client: &Socket,
    config: Arc<ServerConfig>,
    first: Vec<u8>,
    deadline: &Timer,
) -> EndReason {
    let Ok(mut session) = TlsSession::new(config) else { return EndReason::TlsHandshakeFailed };
    if let Err(reason) = handshake(worker, client, &mut session, first, deadline).await {
        return reason;
    }
    session.close();
    // An authority that has seen the certificate may be gone already.
    let _ = send(client, &mut session, deadline).await;
    client.shutdown_write();
    EndReason::ChallengeAnswered
}
