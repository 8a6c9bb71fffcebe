//! What is signed, as it stands in its bytes: certificates and basic OCSP answers begin alike.

use rustls_pki_types::SignatureVerificationAlgorithm;
use x509_cert::der::{self, Decode as _, Header, Reader as _, SliceReader, asn1::BitStringRef};

/// `SEQUENCE { signed, algorithm, signature, … }`. Nothing is encoded anew, so that the signature is checked over what
/// was signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// What the signature is over.
    pub(super) content: &'a [u8],
    /// Without tag and length.
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// What follows.
    pub(super) rest: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(inner(bytes)?)?;
        let content = reader.tlv_bytes()?;
        let algorithm = inner(reader.tlv_bytes()?)?;
        let signature = bits(&mut reader)?;
        let rest = reader.read_slice(reader.remaining_len())?;
        Ok(Self { content, algorithm, signature, rest })
    }

    /// Whether the owner of a key (`SubjectPublicKeyInfo`, DER) signed it.
    pub(super) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let Ok((kind, key)) = key_of(public_key) else { return false };
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
            *algorithm.public_key_alg_id() == *kind && *algorithm.signature_alg_id() == *self.algorithm
        };
        let verified = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            algorithm.verify_signature(key, self.content, self.signature).is_ok()
        };
        algorithms.all.iter().filter(fits).any(verified)
    }
}

/// What is within one element; nothing may follow it.
pub(super) fn inner(bytes: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(bytes)?;
    let header = Header::decode(&mut reader)?;
    let inner = reader.read_slice(header.length)?;
    reader.finish(inner)
}

/// Elements that stand one after another.
pub(super) fn elements(bytes: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(bytes)?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        elements.push(reader.tlv_bytes()?);
    }
    Ok(elements)
}

/// Algorithm (without tag and length) and bits of a `SubjectPublicKeyInfo`.
pub(super) fn key_of(public_key: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(inner(public_key)?)?;
    let kind = inner(reader.tlv_bytes()?)?;
    let bits = bits(&mut reader)?;
    reader.finish((kind, bits))
}

fn bits<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let bits = BitStringRef::decode(reader)?;
    bits.as_bytes().ok_or_else(|| der::Tag::BitString.value_error())
}
