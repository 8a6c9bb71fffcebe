//! Who this node is: name, key, certificate and the CA it trusts. One file, so that they always fit each other.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rand::Rng;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::state_dir::{self, StateDir};

/// A node's identity. `Debug` shows no key.
#[derive(Clone)]
pub struct Identity {
    /// As the control plane calls it.
    pub name: String,
    /// The only CA this node trusts as a control plane's.
    pub ca: CertificateDer<'static>,
    /// What the node shows.
    pub certificate: CertificateDer<'static>,
    /// PEM.
    key_pem: String,
    /// Where it joined, so that later the state directory is all it needs.
    pub control_planes: Vec<String>,
    /// Of the certificate.
    pub validity: Validity,
}

/// From when to when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last one.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether it is over.
    pub fn is_over(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// A random moment between 50 % and 80 % of the life.
    pub fn renew_at(&self, random: &mut impl Rng) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO);
        self.not_before + life.mul_f64(random.random_range(0.5..0.8))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct File {
    name: String,
    ca: String,
    certificate: String,
    key: String,
    #[serde(default)]
    control_planes: Vec<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// From what the control plane answered; checks that the certificate is over our key.
    pub fn new(
        name: String,
        ca: Vec<u8>,
        certificate: Vec<u8>,
        key_pem: String,
        control_planes: Vec<String>,
    ) -> anyhow::Result<Self> {
        let (_, parsed) =
            X509Certificate::from_der(&certificate).context("the certificate cannot be read")?;
        let key = KeyPair::from_pem(&key_pem).context("the node's key cannot be read")?;
        let of_key = key.public_key_raw();
        anyhow::ensure!(
            parsed.public_key().subject_public_key.data.as_ref() == of_key,
            "the certificate is not for this node's key"
        );
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = Validity {
            not_before: at(parsed.validity().not_before.timestamp()),
            not_after: at(parsed.validity().not_after.timestamp()),
        };
        Ok(Self { name, ca: ca.into(), certificate: certificate.into(), key_pem, control_planes, validity })
    }

    /// The stored identity, `None` when this node never joined.
    pub fn load(dir: &StateDir) -> anyhow::Result<Option<Self>> {
        let path = path(dir);
        let Some(content) = state_dir::read_if_there(&path).with_context(|| path.display().to_string())?
        else {
            return Ok(None);
        };
        let read = || -> anyhow::Result<Self> {
            let file: File = serde_json::from_slice(&content)?;
            Self::new(
                file.name,
                BASE64.decode(file.ca)?,
                BASE64.decode(file.certificate)?,
                file.key,
                file.control_planes,
            )
        };
        read().with_context(|| format!("identity {} (remove it to join again)", path.display())).map(Some)
    }

    /// Stores it durably, 0600.
    pub fn store(&self, dir: &StateDir) -> anyhow::Result<()> {
        let file = File {
            name: self.name.clone(),
            ca: BASE64.encode(&self.ca),
            certificate: BASE64.encode(&self.certificate),
            key: self.key_pem.clone(),
            control_planes: self.control_planes.clone(),
        };
        let path = path(dir);
        state_dir::write_durably(&path, &serde_json::to_vec_pretty(&file)?)
            .with_context(|| format!("store {}", path.display()))
    }

    /// For mutual TLS.
    pub fn for_tls(&self) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).context("the node's key")?;
        Ok((self.certificate.clone(), key))
    }
}

fn path(dir: &StateDir) -> PathBuf {
    dir.file("identity.json")
}

/// A key that waits for its certificate, and the request for it.
pub struct PendingKey {
    /// PEM.
    pub key_pem: String,
    /// PKCS#10.
    pub csr_der: Vec<u8>,
}

impl PendingKey {
    /// A new key.
    pub fn generate(name: Option<&str>) -> anyhow::Result<Self> {
        Self::of(KeyPair::generate()?, name)
    }

    /// The key of an enrolment that was not answered, or a new one, stored before it is used: a retry with the same key
    /// gets the same certificate.
    pub fn stored(dir: &StateDir, name: Option<&str>) -> anyhow::Result<Self> {
        let path = pending_path(dir);
        if let Some(content) = state_dir::read_if_there(&path)? {
            match std::str::from_utf8(&content).ok().and_then(|pem| KeyPair::from_pem(pem).ok()) {
                Some(key) => return Self::of(key, name),
                None => tracing::warn!(file = %path.display(), "not a key; making a new one"),
            }
        }
        let pending = Self::generate(name)?;
        state_dir::write_durably(&path, pending.key_pem.as_bytes())?;
        Ok(pending)
    }

    /// The identity is stored; the key is in it.
    pub fn forget(dir: &StateDir) -> std::io::Result<()> {
        state_dir::remove_durably(&pending_path(dir))
    }

    fn of(key: KeyPair, name: Option<&str>) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.unwrap_or("node"));
        let csr = params.serialize_request(&key)?;
        Ok(Self { key_pem: key.serialize_pem(), csr_der: csr.der().to_vec() })
    }
}

fn pending_path(dir: &StateDir) -> PathBuf {
    dir.file("enrol-key.pem")
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn certificate_for(key_pem: &str) -> Vec<u8> {
        let key = KeyPair::from_pem(key_pem).unwrap();
        CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn survives_a_restart_and_keeps_its_key_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&dir.path().join("s")).unwrap();
        assert!(Identity::load(&dir).unwrap().is_none());
        let pending = PendingKey::stored(&dir, Some("n1")).unwrap();
        assert_eq!(PendingKey::stored(&dir, Some("n1")).unwrap().key_pem, pending.key_pem);
        let certificate = certificate_for(&pending.key_pem);
        let identity = Identity::new(
            "n1".into(),
            certificate.clone(),
            certificate,
            pending.key_pem,
            vec!["https://a:1".into()],
        )
        .unwrap();
        identity.store(&dir).unwrap();
        PendingKey::forget(&dir).unwrap();
        let again = Identity::load(&dir).unwrap().unwrap();
        assert_eq!((again.name.as_str(), &again.control_planes), ("n1", &identity.control_planes));
        again.for_tls().unwrap();
        assert!(!format!("{again:?}").contains("PRIVATE"));
        std::fs::write(path(&dir), b"{").unwrap();
        assert!(Identity::load(&dir).unwrap_err().to_string().contains("identity.json"));
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let (mine, other) = (PendingKey::generate(None).unwrap(), PendingKey::generate(None).unwrap());
        let certificate = certificate_for(&other.key_pem);
        assert!(Identity::new("n".into(), certificate.clone(), certificate, mine.key_pem, vec![]).is_err());
        assert!(Identity::new("n".into(), vec![], vec![1, 2], other.key_pem, vec![]).is_err());
    }

    #[test]
    fn renewed_in_the_second_half_of_life() {
        let validity = Validity { not_before: UNIX_EPOCH, not_after: UNIX_EPOCH + Duration::from_secs(1000) };
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let at = validity.renew_at(&mut random).duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!((500..=800).contains(&at), "{at}");
        }
        assert!(validity.is_over(UNIX_EPOCH + Duration::from_secs(1001)));
    }
}
