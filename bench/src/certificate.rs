//! The certificates of a run: ECDSA P-256 and RSA-2048, self-signed, made anew each time.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, danger},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

/// The name that the certificate carries.
pub const NAME: &str = "bench.example.test";

/// Writes `cert.pem`, `key.pem` and, for HAProxy, `both.pem` into a folder; the same with `rsa-` before the names; and
/// `roots.pem`, which trusts both.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let ecdsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
    let mut roots = String::new();
    for (prefix, key) in [("", ecdsa), ("rsa-", rsa)] {
        let certificate = rcgen::CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?.pem();
        let key = key.serialize_pem();
        std::fs::write(folder.join(format!("{prefix}cert.pem")), &certificate)?;
        std::fs::write(folder.join(format!("{prefix}key.pem")), &key)?;
        std::fs::write(folder.join(format!("{prefix}both.pem")), format!("{certificate}{key}"))?;
        roots.push_str(&certificate);
    }
    std::fs::write(folder.join("roots.pem"), roots)?;
    Ok(())
}

/// How a client judges the server's certificate.
#[derive(Debug, Clone)]
pub enum Trust {
    /// These PEM certificates are the roots.
    Roots(std::path::PathBuf),
    /// Anything goes: the load is measured, not the identity.
    Anything,
}

/// A client that always makes a full handshake: TLS 1.3 with X25519 and AES-256-GCM alone, or whatever there is, also
/// with 1.2; never a resumption.
pub fn client(trust: &Trust, tls13_only: bool) -> anyhow::Result<Arc<ClientConfig>> {
    configure(trust, tls13_only, Resumption::disabled())
}

/// The strict client that resumes with a ticket whenever the server has given it one.
pub fn resuming_client(trust: &Trust) -> anyhow::Result<Arc<ClientConfig>> {
    configure(trust, true, Resumption::store(Arc::new(Tickets::default())))
}

fn configure(trust: &Trust, tls13_only: bool, resumption: Resumption) -> anyhow::Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    if tls13_only {
        provider.kx_groups.truncate(1);
        // Whichever side prefers: all servers encrypt with the same.
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    }
    let versions: &[_] = if tls13_only {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?;
    let mut config = match trust {
        Trust::Roots(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(file)
                .with_context(|| format!("cannot read the roots {}", file.display()))?
            {
                roots.add(certificate?)?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Anything => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnything))
            .with_no_client_auth(),
    };
    config.resumption = resumption;
    Ok(Arc::new(config))
}

/// Tickets of one server, each used once. The store of rustls keeps eight, and many connections are opened at once.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl Tickets {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Tls13ClientSessionValue>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        const MOST: usize = 4096;
        self.with(|tickets| {
            if tickets.len() < MOST {
                tickets.push(ticket);
            }
        });
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(Vec::pop)
    }
}

#[derive(Debug)]
struct AcceptAnything;

impl danger::ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<danger::ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
