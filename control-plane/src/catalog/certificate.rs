//! What is in a certificate, and whether a key fits it.

use awe4lb_model::{Certificate, document::Violation, placed::PrivateKeyPem};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
    public_key::PublicKey,
};

/// What the leaf of a chain says.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// DNS names and addresses it is for.
    pub names: Vec<String>,
    /// `rsa-2048`, `ecdsa-256`, `ed25519`, …
    pub key_type: String,
    /// SHA-256 of the leaf, hex.
    pub fingerprint: String,
    /// Who signed it.
    pub issuer: String,
    /// Of its issuer, hex.
    pub serial: String,
    #[serde(skip)]
    pub(super) self_signed: bool,
    #[serde(skip)]
    pub(super) public_key: Vec<u8>,
}

impl CertificateFacts {
    /// Reads every certificate of the chain, and says what the leaf is.
    pub(super) fn read(certificate: &Certificate) -> Result<Self, Violation> {
        let wrong = |detail: String| Violation::new("/chain", None, "invalid-certificate", detail);
        let mut leaf = None;
        for (at, der) in CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes()).enumerate() {
            let der = der.map_err(|error| wrong(format!("the chain is no PEM: {error}")))?;
            let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| {
                wrong(format!("certificate {} of the chain cannot be read: {error}", at + 1))
            })?;
            if !rest.is_empty() {
                return Err(wrong(format!("certificate {} of the chain has trailing bytes", at + 1)));
            }
            if leaf.is_none() {
                leaf = Some(facts(&der, &parsed).map_err(wrong)?);
            }
        }
        leaf.ok_or_else(|| wrong("the chain holds no certificate".to_owned()))
    }

    /// Whether nobody else signed it.
    pub fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    /// SHA-256 of the public key: by it a stored private key is found.
    pub(super) fn public_key_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.public_key).into()
    }

    /// Whether the key can be used, and belongs to this certificate.
    pub(super) fn check_key(&self, key: &PrivateKeyPem) -> Result<(), Violation> {
        let wrong = |detail: String| Violation::new("/key", None, "invalid-key", detail);
        let der = PrivateKeyDer::from_pem_slice(key.0.as_bytes())
            .map_err(|error| wrong(format!("the key is no PEM private key: {error}")).hint(
                "PKCS#8, PKCS#1 and SEC1 are understood; an encrypted key has to be decrypted first: openssl pkey -in KEY",
            ))?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
            .map_err(|error| wrong(format!("the key is of no kind that TLS can use here: {error}")))?;
        match key.public_key() {
            Some(public) if public.as_ref() == self.public_key => Ok(()),
            _ => Err(Violation::new(
                "/key",
                None,
                "key-does-not-fit",
                "the key does not belong to the first certificate of the chain",
            )
            .hint("the chain begins with the leaf; compare: openssl x509 -pubkey, openssl pkey -pubout")),
        }
    }

    /// A warning when it is no longer, or not yet, valid.
    pub(super) fn check_time(&self, now: jiff::Timestamp) -> Option<Violation> {
        let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let (from, to) = (parse(&self.not_before)?, parse(&self.not_after)?);
        let warn = |code, detail| Some(Violation::new("/chain", None, code, detail));
        if to < now {
            warn("certificate-expired", format!("the certificate expired at {to}"))
        } else if from > now {
            warn("certificate-not-yet-valid", format!("the certificate is valid from {from} on"))
        } else {
            None
        }
    }
}

fn facts(der: &[u8], leaf: &X509Certificate<'_>) -> Result<CertificateFacts, String> {
    let time = |seconds| {
        jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).map_err(|error| error.to_string())
    };
    Ok(CertificateFacts {
        not_before: time(leaf.validity().not_before.timestamp())?,
        not_after: time(leaf.validity().not_after.timestamp())?,
        names: names(leaf),
        key_type: key_type(leaf),
        fingerprint: hex::encode(Sha256::digest(der)),
        issuer: leaf.issuer().to_string(),
        serial: hex::encode(leaf.raw_serial()),
        self_signed: leaf.issuer() == leaf.subject(),
        public_key: leaf.public_key().raw.to_vec(),
    })
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<String> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_owned));
    }
    names
}

fn key_type(leaf: &X509Certificate<'_>) -> String {
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("rsa-{}", key.key_size()),
        Ok(PublicKey::EC(key)) => format!("ecdsa-{}", key.key_size()),
        _ if leaf.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519 => {
            "ed25519".to_owned()
        }
        _ => leaf.public_key().algorithm.algorithm.to_id_string(),
    }
}
