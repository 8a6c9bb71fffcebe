//! TLS towards clients, behind one type: ciphertext in, plaintext out, and back.
//!
//! rustls' buffered connection does the work today; whatever does it tomorrow, only this file changes.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_model::{
    MinTlsVersion, Name, TlsSettings,
    placed::{PlacedCertificate, ResourceId, ResourceKind},
};
use rustls::{
    ServerConfig, ServerConnection, SignatureAlgorithm,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::control::hot::Problem;

/// Plaintext that waits for the socket: back-pressure begins here.
const BUFFER_LIMIT: usize = 64 * 1024;

/// A chain with its key.
#[derive(Debug)]
pub(super) struct Loaded {
    plain: Arc<CertifiedKey>,
    /// With what the OCSP responder says, and until when that counts.
    stapled: Option<(Arc<CertifiedKey>, SystemTime)>,
}

impl Loaded {
    /// What clients are shown now: nobody is better off with an answer that ran out, also when no new one comes because the
    /// control plane is gone.
    fn current(&self) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((key, until)) if SystemTime::now() < *until => key,
            _ => &self.plain,
        }
    }
}

/// Loads a chain and its key; they must fit.
pub(super) fn load(placed: &PlacedCertificate) -> Result<Arc<Loaded>, Problem> {
    let problem = |kind, code, message: String| Problem {
        resource: ResourceId { kind, name: placed.certificate.name.clone() },
        code,
        field_path: String::new(),
        message,
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(placed.certificate.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| problem(ResourceKind::Certificate, "bad-chain", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(placed.key.0.as_bytes())
        .map_err(|error| problem(ResourceKind::Key, "bad-key", error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => problem(
            ResourceKind::Key,
            "key-mismatch",
            "the key does not belong to the certificate".to_owned(),
        ),
        other => problem(ResourceKind::Certificate, "bad-certificate", other.to_string()),
    })?;
    let stapled = placed.ocsp.as_ref().map(|staple| {
        let until = Duration::from_secs(u64::try_from(staple.until).unwrap_or(0));
        let key = CertifiedKey { ocsp: Some(staple.der.to_vec()), ..certified.clone() };
        (Arc::new(key), SystemTime::UNIX_EPOCH.checked_add(until).unwrap_or(SystemTime::UNIX_EPOCH))
    });
    Ok(Arc::new(Loaded { plain: Arc::new(certified), stapled }))
}

/// How a listener terminates.
pub(super) fn server_config(
    settings: &TlsSettings,
    certificates: &HashMap<Name, Arc<Loaded>>,
) -> Result<Arc<ServerConfig>, String> {
    let keys = settings.certificates.iter().map(|name| certificates.get(name).cloned().ok_or(name));
    let keys: Vec<_> =
        keys.collect::<Result<_, _>>().map_err(|name| format!("there is no certificate {name:?}"))?;
    let resolver = ByName::new(keys).map_err(|error| error.to_string())?;
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        MinTlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinTlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = settings.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect();
    // Tickets would be sealed with a key of this process alone, and resume on one node in N.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Certificates by server name and key type; the first is the default.
#[derive(Debug)]
struct ByName {
    all: Vec<Arc<Loaded>>,
    exact: HashMap<String, Vec<usize>>,
    wildcard: HashMap<String, Vec<usize>>,
}

impl ByName {
    fn new(all: Vec<Arc<Loaded>>) -> Result<Self, rustls::Error> {
        let (mut exact, mut wildcard) = (HashMap::<_, Vec<usize>>::new(), HashMap::<_, Vec<usize>>::new());
        for (index, key) in all.iter().enumerate() {
            for name in names(key.plain.end_entity_cert()?) {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_default().push(index),
                    None => exact.entry(name).or_default().push(index),
                }
            }
        }
        Ok(Self { all, exact, wildcard })
    }

    fn candidates(&self, name: &str) -> impl Iterator<Item = &Arc<Loaded>> {
        let exact = self.exact.get(name).into_iter().flatten();
        let parent = name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        exact.chain(parent.into_iter().flatten()).filter_map(|index| self.all.get(*index))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<Loaded>| key.plain.key.choose_scheme(hello.signature_schemes()).is_some();
        // Of several that fit, the one that is cheaper to sign with.
        let cheap = |key: &&Arc<Loaded>| key.plain.key.algorithm() != SignatureAlgorithm::RSA;
        let name = hello.server_name().map(str::to_ascii_lowercase).unwrap_or_default();
        let named = || self.candidates(&name).filter(fits);
        let chosen = named().find(cheap).or_else(|| named().next());
        // The default is the first certificate, or the same name's with another key type.
        chosen.or_else(|| self.all.iter().find(fits)).map(|key| key.current().clone())
    }
}

/// DNS names of a certificate, lower case.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return Vec::new() };
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Why TLS ended.
#[derive(Debug)]
pub(super) enum TlsFailure {
    /// The peer broke the protocol, or we share nothing with it. An alert may wait to be sent.
    Protocol,
}

/// One client's TLS.
pub(super) struct TlsSession {
    inner: Box<ServerConnection>,
}

impl TlsSession {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        let mut inner = ServerConnection::new(config).map_err(|_| TlsFailure::Protocol)?;
        inner.set_buffer_limit(Some(BUFFER_LIMIT));
        Ok(Self { inner: Box::new(inner) })
    }

    /// Takes all of the ciphertext. What does not fit because plaintext waits to be read is returned as its length.
    pub(super) fn receive(&mut self, mut ciphertext: &[u8]) -> Result<usize, TlsFailure> {
        let whole = ciphertext.len();
        while !ciphertext.is_empty() {
            match self.inner.read_tls(&mut ciphertext) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            self.inner.process_new_packets().map_err(|_| TlsFailure::Protocol)?;
        }
        Ok(whole - ciphertext.len())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// Decrypted bytes; 0: none now, or none ever again after [`Self::is_closed`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        io::Read::read(&mut self.inner.reader(), buffer).unwrap_or(0)
    }

    /// Whether the peer said that it will send no more.
    pub(super) fn is_closed(&mut self) -> bool {
        self.inner.process_new_packets().is_ok_and(|state| state.peer_has_closed())
    }

    /// How much of `plaintext` was taken.
    pub(super) fn write(&mut self, plaintext: &[u8]) -> usize {
        io::Write::write(&mut self.inner.writer(), plaintext).unwrap_or(0)
    }

    /// Says that we will send no more.
    pub(super) fn close(&mut self) {
        self.inner.send_close_notify();
    }

    pub(super) fn wants_send(&self) -> bool {
        self.inner.wants_write()
    }

    /// Gives ciphertext to `send` until it takes no more.
    pub(super) fn send(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        struct Sink<'a>(&'a mut dyn FnMut(&[u8]) -> io::Result<usize>);
        impl io::Write for Sink<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (self.0)(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        while self.inner.wants_write() {
            self.inner.write_tls(&mut Sink(&mut send))?;
        }
        Ok(())
    }
}

/// A fatal `unrecognized_name` alert for a client that is refused before TLS began, so that it sees more than a closed
/// connection.
pub(super) const REFUSAL_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

#[cfg(test)]
mod tests {
    use awe4lb_model::{
        Certificate,
        placed::{PrivateKeyPem, Staple},
    };

    use super::*;

    #[test]
    fn an_answer_of_ocsp_goes_along_until_it_runs_out() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let shown = |until: Option<i64>| {
            let placed = PlacedCertificate {
                certificate: Certificate { name: "c".parse().unwrap(), chain_pem: made.cert.pem() },
                key: PrivateKeyPem(made.signing_key.serialize_pem()),
                ocsp: until.map(|until| Staple { der: [1, 2, 3][..].into(), until }),
            };
            load(&placed).unwrap().current().ocsp.clone()
        };
        assert_eq!(shown(Some(now + 60)), Some(vec![1, 2, 3]));
        assert_eq!(shown(Some(now)), None);
        assert_eq!(shown(Some(i64::MAX)), Some(vec![1, 2, 3]));
        assert_eq!(shown(None), None);
    }
}
