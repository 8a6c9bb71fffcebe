//! What a certificate says of OCSP: whom to ask, how, and whether it is worth anything without an answer.

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_cert::{
    der::{
        Encode as _,
        asn1::{Null, ObjectIdentifier, OctetString},
    },
    serial_number::SerialNumber,
    spki::AlgorithmIdentifierOwned,
};
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest};
use x509_parser::{
    asn1_rs::FromDer as _,
    extensions::{GeneralName, ParsedExtension},
    prelude::X509Certificate,
};

use super::signed::{self, Signed};

/// `id-ad-ocsp`, RFC 5280 4.2.2.1.
const AD_OCSP: &str = "1.3.6.1.5.5.7.48.1";
/// `id-pe-tlsfeature`, RFC 7633.
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
/// The feature `status_request`, RFC 6066.
const STATUS_REQUEST: u16 = 5;
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");

/// The first certificate of a chain that has to do with OCSP.
#[derive(Debug)]
pub(super) struct Leaf {
    /// SHA-256, hex.
    pub(super) fingerprint: String,
    /// Clients refuse it without an answer.
    pub(super) must_staple: bool,
    /// What to ask; or why nobody can be asked, and what to do.
    pub(super) question: Result<Question, String>,
}

/// What a responder is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// Of the responder.
    pub(super) url: String,
    /// Identifies the certificate.
    pub(super) id: CertId,
    /// The certificate that signed it, DER.
    pub(super) issuer: CertificateDer<'static>,
}

impl Leaf {
    /// `None`: it names no responder, and needs none.
    pub(super) fn read(chain_pem: &str) -> Option<Self> {
        let chain = ders(chain_pem);
        let leaf = chain.first()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let (url, must_staple) = (responder(&parsed), must_staple(&parsed));
        let question = match url {
            Some(url) => question(&parsed, leaf, &chain[1..], url),
            None if must_staple => {
                Err("the certificate must be sent with an OCSP answer, but names no responder".to_owned())
            }
            None => return None,
        };
        let fingerprint = hex::encode(digest::digest(&digest::SHA256, leaf));
        Some(Self { fingerprint, must_staple, question })
    }
}

impl Question {
    /// As RFC 6960 4.1 has it, DER: one certificate, no nonce, so that a responder may answer from its cache.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let request = Request { req_cert: self.id.clone(), single_request_extensions: None };
        let tbs_request = TbsRequest { request_list: vec![request], ..TbsRequest::default() };
        let request = OcspRequest { tbs_request, optional_signature: None };
        request.to_der().map_err(|error| format!("the question cannot be written: {error}"))
    }
}

fn question(
    parsed: &X509Certificate<'_>,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'static>],
    url: String,
) -> Result<Question, String> {
    let no_issuer = || {
        let issuer = parsed.issuer();
        format!("the chain does not hold the certificate of {issuer}, which signed it: add it to the chain")
    };
    let signed = Signed::read(leaf).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    for der in others {
        let Ok((_, issuer)) = X509Certificate::from_der(der) else { continue };
        let key = issuer.public_key().raw;
        if issuer.subject().as_raw() != parsed.issuer().as_raw() || !signed.is_signed_by(key) {
            continue;
        }
        let id = cert_id(issuer.subject().as_raw(), key, parsed.raw_serial());
        let id = id.map_err(|error| format!("the certificate cannot be asked for: {error}"))?;
        return Ok(Question { url, id, issuer: der.clone() });
    }
    Err(no_issuer())
}

/// By SHA-1, as RFC 5019 2.1.1 asks for: every responder knows it, and nothing rests on it.
fn cert_id(issuer: &[u8], key: &[u8], serial: &[u8]) -> x509_cert::der::Result<CertId> {
    let (_, bits) = signed::key_of(key)?;
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: OctetString::new(sha1(issuer))?,
        issuer_key_hash: OctetString::new(sha1(bits))?,
        serial_number: SerialNumber::new(serial)?,
    })
}

pub(super) fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

fn responder(leaf: &X509Certificate<'_>) -> Option<String> {
    let access = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    })?;
    access.accessdescs.iter().find_map(|description| match &description.access_location {
        GeneralName::URI(url) if description.access_method.to_id_string() == AD_OCSP => {
            Some((*url).to_owned())
        }
        _ => None,
    })
}

fn must_staple(leaf: &X509Certificate<'_>) -> bool {
    let features = leaf.extensions().iter().find(|extension| extension.oid.to_id_string() == TLS_FEATURE);
    let features = features.and_then(|extension| Vec::<u16>::from_der(extension.value).ok());
    features.is_some_and(|(_, features)| features.contains(&STATUS_REQUEST))
}

/// The certificates of a chain, leaf first.
fn ders(chain_pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(chain_pem.as_bytes()).filter_map(Result::ok).collect()
}
