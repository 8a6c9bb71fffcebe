//! The certificate authority of the cluster: made at first start, its key sealed in the store.
//!
//! Nodes are known by the public key in their certificate; the control plane by a fixed name, so that moving it to
//! another host changes nothing.

use std::time::Duration;

use awe4lb_proto::{Hash, SERVER_NAME};
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sqlx::Row;
use time::OffsetDateTime;

use super::FleetError;
use crate::store::Store;

/// How long a node's certificate is valid.
pub const NODE_VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// How far certificates are backdated, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(3600);
const SERVER_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// A CSR with an RSA key of 8,192 bits has less.
const MAX_CSR: usize = 8 * 1024;

/// Issues certificates.
pub struct Authority {
    cluster: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for a node.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_der: Bytes,
    /// Until when it is valid, Unix seconds.
    pub not_after: i64,
    /// SHA-256 of its public key.
    pub key_hash: Hash,
}

impl Authority {
    /// Loads it, or makes it when there is none.
    pub async fn open(store: &Store) -> Result<Self, FleetError> {
        let stored =
            sqlx::query("SELECT cluster, certificate_der, key_sealed FROM fleet_authority WHERE id = 1")
                .fetch_optional(store.writer())
                .await?;
        let Some(row) = stored else { return Self::make(store).await };
        let sealed: Vec<u8> = row.try_get("key_sealed")?;
        let key = store.unseal(&sealed).map_err(|error| FleetError::Seal(format!("{error:#}")))?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.to_vec()))?;
        let certificate = CertificateDer::from(row.try_get::<Vec<u8>, _>("certificate_der")?);
        Ok(Self {
            cluster: row.try_get("cluster")?,
            issuer: Issuer::from_ca_cert_der(&certificate, key)?,
            certificate,
        })
    }

    async fn make(store: &Store) -> Result<Self, FleetError> {
        let cluster = hex::encode(super::random::<4>()?);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let sealed =
            store.seal(&key.serialize_der()).map_err(|error| FleetError::Seal(format!("{error:#}")))?;
        let mut params = params(&format!("awe4lb cluster {cluster}"), AUTHORITY_VALIDITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        sqlx::query(
            "INSERT INTO fleet_authority (id, cluster, certificate_der, key_sealed, created_at) VALUES (1, ?, ?, ?, ?)",
        )
        .bind(&cluster)
        .bind(certificate.as_ref())
        .bind(sealed)
        .bind(super::now())
        .execute(store.writer())
        .await?;
        tracing::info!(cluster, "made a certificate authority for this cluster");
        Ok(Self { cluster, issuer: Issuer::new(params, key), certificate })
    }

    /// What the cluster is called in join tokens.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The certificate that everything leads to.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of [`Self::certificate`]: what join tokens pin.
    pub fn pin(&self) -> Hash {
        Hash::of(&self.certificate)
    }

    /// A fresh certificate and key for the gRPC server.
    pub fn issue_server(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), FleetError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params("awe4lb control plane", SERVER_VALIDITY);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(SERVER_NAME.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }

    /// A certificate for a node. Of the request only the public key counts, and that its owner signed it.
    pub fn issue_node(&self, name: &str, csr: &Csr) -> Result<Issued, FleetError> {
        let mut params = params(name, NODE_VALIDITY);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(node_host(name).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after = params.not_after.unix_timestamp();
        let certificate = params.signed_by(&csr.0.public_key, &self.issuer)?;
        Ok(Issued {
            certificate_der: Bytes::copy_from_slice(certificate.der()),
            not_after,
            key_hash: csr.key_hash(),
        })
    }
}

/// A signing request whose signature holds.
pub struct Csr(CertificateSigningRequestParams);

impl Csr {
    /// Checks one that came from outside.
    pub fn parse(der: &[u8]) -> Result<Self, FleetError> {
        if der.len() > MAX_CSR {
            return Err(FleetError::Invalid(format!("the signing request has more than {MAX_CSR} bytes")));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        request.map(Self).map_err(|error| FleetError::Invalid(format!("the signing request: {error}")))
    }

    /// SHA-256 of the public key.
    pub fn key_hash(&self) -> Hash {
        Hash::of(&self.0.public_key.subject_public_key_info())
    }
}

/// Whom a verified client certificate belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node's name.
    pub name: String,
    /// SHA-256 of its public key.
    pub key_hash: Hash,
}

impl PeerIdentity {
    /// Reads a certificate that TLS has already verified against the authority.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let name = names.value.general_names.iter().find_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(host) => host.strip_suffix(NODE_SUFFIX),
            _ => None,
        })?;
        Some(Self { name: name.to_owned(), key_hash: Hash::of(certificate.public_key().raw) })
    }
}

const NODE_SUFFIX: &str = ".node.awe4lb.internal";

fn node_host(name: &str) -> String {
    format!("{name}{NODE_SUFFIX}")
}

fn params(common_name: &str, validity: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + validity;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = params("test", AUTHORITY_VALIDITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { cluster: "c".to_owned(), issuer: Issuer::new(params, key), certificate }
    }

    fn csr(asks_for: &str) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec![asks_for.to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn of_a_request_only_the_key_counts() {
        let csr = Csr::parse(&csr("control-plane.awe4lb.internal")).unwrap();
        let issued = authority().issue_node("n1", &csr).unwrap();
        let peer = PeerIdentity::read(&issued.certificate_der).unwrap();
        assert_eq!(peer, PeerIdentity { name: "n1".to_owned(), key_hash: csr.key_hash() });
        let (_, certificate) = x509_parser::parse_x509_certificate(&issued.certificate_der).unwrap();
        assert!(!certificate.is_ca());
        let validity = certificate.validity();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 30 * 86_400 + 3_600);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let mut der = csr("x");
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(Csr::parse(&der).is_err());
        assert!(Csr::parse(b"").is_err());
        assert!(Csr::parse(&vec![0x30; MAX_CSR + 1]).is_err());
    }

    #[test]
    fn a_server_certificate_is_no_node() {
        let (certificate, _) = authority().issue_server().unwrap();
        assert_eq!(PeerIdentity::read(&certificate), None);
        assert_eq!(PeerIdentity::read(b"nonsense"), None);
    }
}
