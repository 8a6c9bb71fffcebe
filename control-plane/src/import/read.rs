//! From files to certificates and keys, whatever they are wrapped in.

use p12_keystore::Pkcs12Archive;
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding,
    pkcs5::{EncryptionScheme, pbes2::Kdf},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::Unreadable;

/// What was found, in order.
#[derive(Default)]
pub(super) struct Parts {
    /// DER.
    pub(super) certificates: Vec<Vec<u8>>,
    /// PEM, in the clear.
    pub(super) keys: Vec<Zeroizing<String>>,
}

/// What a password may cost to be tried: rounds, and bytes that are gone through.
const MAX_ITERATIONS: u32 = 2_000_000;
const MAX_MEMORY: u64 = 256 * 1024 * 1024;
/// Keys in one file, each of which may cost as much.
const MAX_KEYS: usize = 8;
const PASSWORD: &str = "send the password along";

impl Parts {
    /// PEM with any blocks in any order; those that are no certificate and no key are passed over.
    pub(super) fn add_pem(&mut self, text: &str, password: Option<&str>) -> Result<(), Unreadable> {
        if text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(Unreadable::new(
                "encrypted-key",
                "the key is encrypted in the old way of OpenSSL, which is not understood here",
                "decrypt it first: openssl pkey -in OLD -out NEW",
            ));
        }
        for block in Pem::iter_from_buffer(text.as_bytes()) {
            let block = block.map_err(|error| {
                Unreadable::new("bad-pem", format!("this is no PEM: {error}"), "is a line of it missing?")
            })?;
            match block.label.as_str() {
                "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
                    self.certificates.push(block.contents)
                }
                label if label.ends_with("PRIVATE KEY") && self.keys.len() == MAX_KEYS => {
                    let detail = format!("there are more than {MAX_KEYS} private keys in it");
                    return Err(Unreadable::new("too-large", detail, "send the key of one certificate"));
                }
                "ENCRYPTED PRIVATE KEY" => self.keys.push(decrypt(&block.contents, password)?),
                label if label.ends_with("PRIVATE KEY") => self.keys.push(to_pem(label, &block.contents)),
                _ => {}
            }
        }
        Ok(())
    }

    /// PKCS#12, as OpenSSL, Java and Windows write it.
    pub(super) fn add_pkcs12(
        &mut self,
        archive_bytes: &[u8],
        password: Option<&str>,
    ) -> Result<(), Unreadable> {
        let archive =
            Pkcs12Archive::from_pkcs12(archive_bytes, password.unwrap_or_default()).map_err(|error| {
                if x509_parser::parse_x509_certificate(archive_bytes).is_ok() {
                    let hint = "make it PEM: openssl x509 -inform der -in FILE; and send the key along";
                    return Unreadable::new(
                        "bad-pkcs12",
                        "this is a certificate in DER, without a key",
                        hint,
                    );
                }
                let detail = match error {
                    p12_keystore::error::Error::MacError(_) => {
                        "the password of the PKCS#12 file is wrong".to_owned()
                    }
                    other => format!("this is no PKCS#12 that can be read: {other}"),
                };
                let hint =
                    if password.is_none() { PASSWORD } else { "look at it: openssl pkcs12 -info -in FILE" };
                Unreadable::new("bad-pkcs12", detail, hint)
            })?;
        self.certificates.extend(archive.certs.iter().map(|bag| bag.cert.as_der().to_vec()));
        self.keys.extend(archive.keys.iter().map(|bag| to_pem("PRIVATE KEY", bag.key.as_der())));
        Ok(())
    }
}

fn decrypt(der: &[u8], password: Option<&str>) -> Result<Zeroizing<String>, Unreadable> {
    let Some(password) = password else {
        return Err(Unreadable::new("encrypted-key", "the key is encrypted", PASSWORD));
    };
    let hint = "decrypt it first: openssl pkey -in OLD -out NEW";
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| {
        Unreadable::new("encrypted-key", format!("the encrypted key cannot be read: {error}"), hint)
    })?;
    if !is_affordable(&info.encryption_algorithm) {
        return Err(Unreadable::new("encrypted-key", "the key takes too much work to decrypt", hint));
    }
    let plain = info.decrypt(password).map_err(|error| {
        Unreadable::new(
            "encrypted-key",
            format!("the key cannot be decrypted: {error}"),
            "is the password right?",
        )
    })?;
    plain.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| {
        Unreadable::new("encrypted-key", format!("the key cannot be written: {error}"), hint)
    })
}

/// A file from outside must not hold a processor for minutes.
fn is_affordable(scheme: &EncryptionScheme) -> bool {
    match scheme {
        EncryptionScheme::Pbes2(parameters) => match &parameters.kdf {
            Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= MAX_ITERATIONS,
            Kdf::Scrypt(scrypt) => {
                let block = 128 * u64::from(scrypt.block_size) * u64::from(scrypt.parallelization);
                scrypt.cost_parameter.checked_mul(block).is_some_and(|bytes| bytes <= MAX_MEMORY)
            }
            _ => false,
        },
        // Its rounds are few; the library refuses it anyway.
        _ => true,
    }
}

/// As the kind it was.
fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut pem = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Whether TLS can use a key, and its public half (SubjectPublicKeyInfo).
pub(super) fn public_half(pem: &str) -> Result<Vec<u8>, String> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|error| error.to_string())?;
    key.public_key().map(|key| key.as_ref().to_vec()).ok_or_else(|| "it has no public half".to_owned())
}
