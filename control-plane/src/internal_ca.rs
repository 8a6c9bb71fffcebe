//! Certificates for development and for backends: signed by an authority of the control plane's own (another than that of the
//! nodes), or by themselves.

use std::time::Duration;

use awe4lb_model::acme::KeyType;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sqlx::Row as _;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::store::Store;

/// Clients of today take no longer one.
pub const MAX_DAYS: u32 = 825;
/// For clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
const ROOT_DAYS: u64 = 3_650;
/// Names of one certificate.
const MAX_NAMES: usize = 100;

/// A certificate and its key, PEM.
pub struct Issued {
    /// Without the root.
    pub chain: String,
    /// In the clear.
    pub key: Zeroizing<String>,
}

/// What is wished.
#[derive(Debug, Clone)]
pub struct Wish {
    /// DNS names (also wildcards) and addresses.
    pub names: Vec<String>,
    /// How long.
    pub days: u32,
    /// Of the key.
    pub key_type: KeyType,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The wish is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The authority is not there.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A new key. RSA takes a while.
pub fn generate(key_type: KeyType) -> Result<KeyPair, rcgen::Error> {
    match key_type {
        KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

/// The authority.
pub struct InternalAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl InternalAuthority {
    /// Loads it, or makes it.
    pub async fn open(store: &Store) -> anyhow::Result<Self> {
        if let Some(known) = Self::load(store).await? {
            return Ok(known);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = dated(CertificateParams::default(), ROOT_DAYS);
        let mut name = DistinguishedName::new();
        name.push(
            DnType::CommonName,
            format!("awe4lb internal authority {}", hex::encode(&key.public_key_raw()[1..5])),
        );
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        // Of two that come at once, one is first; both use its.
        let made = sqlx::query(
            "INSERT INTO internal_authority (id, certificate_der, key_sealed, created_at) VALUES (1, ?, ?, ?) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(certificate.der().as_ref())
        .bind(store.seal(&key.serialize_der())?)
        .bind(jiff::Timestamp::now().to_string())
        .execute(store.writer())
        .await?;
        if made.rows_affected() > 0 {
            tracing::info!("made the internal certificate authority");
        }
        let made = Self::load(store).await?;
        made.ok_or_else(|| anyhow::anyhow!("the internal certificate authority was not stored"))
    }

    async fn load(store: &Store) -> anyhow::Result<Option<Self>> {
        let row = sqlx::query("SELECT certificate_der, key_sealed FROM internal_authority WHERE id = 1")
            .fetch_optional(store.writer())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let key = store.unseal(row.try_get("key_sealed")?)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.to_vec()))?;
        let certificate = CertificateDer::from(row.try_get::<Vec<u8>, _>("certificate_der")?);
        Ok(Some(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate }))
    }

    /// What clients trust, PEM.
    pub fn certificate_pem(&self) -> String {
        crate::import::pem_of(&self.certificate)
    }

    /// A certificate by this authority.
    pub fn issue(&self, wish: &Wish) -> Result<Issued, IssueError> {
        let (mut params, key) = prepare(wish)?;
        params.use_authority_key_identifier_extension = true;
        let made = params.signed_by(&key, &self.issuer).map_err(anyhow::Error::from)?;
        Ok(Issued { chain: made.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }
}

/// A certificate that is signed by itself.
pub fn self_signed(wish: &Wish) -> Result<Issued, IssueError> {
    let (params, key) = prepare(wish)?;
    let made = params.self_signed(&key).map_err(anyhow::Error::from)?;
    Ok(Issued { chain: made.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn prepare(wish: &Wish) -> Result<(CertificateParams, KeyPair), IssueError> {
    let invalid = |detail: String| Err(IssueError::Invalid(detail));
    if wish.names.is_empty() || wish.names.len() > MAX_NAMES {
        return invalid(format!("a certificate is for 1 to {MAX_NAMES} names, not {}", wish.names.len()));
    }
    if !(1..=MAX_DAYS).contains(&wish.days) {
        return invalid(format!("{} days: it lives 1 to {MAX_DAYS} days", wish.days));
    }
    for name in &wish.names {
        let is_host = name.strip_prefix("*.").unwrap_or(name).split('.').all(|label| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(is_letter)
        });
        if !is_host && name.parse::<std::net::IpAddr>().is_err() {
            return invalid(format!("{name:?} is no name and no address"));
        }
    }
    let params = CertificateParams::new(wish.names.clone())
        .map_err(|error| IssueError::Invalid(format!("the names cannot be used: {error}")))?;
    let mut params = dated(params, wish.days.into());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, wish.names[0].chars().take(64).collect::<String>());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = generate(wish.key_type).map_err(anyhow::Error::from)?;
    Ok((params, key))
}

fn dated(mut params: CertificateParams, days: u64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::from_secs(days * 86_400);
    params
}
