//! Certificates and their keys: two resources, so that a renewed chain does not resend a key, and a key is only ever in
//! the manifests of nodes that terminate with it.

use awe4lb_model::{Certificate, placed::PrivateKeyPem};

use super::{At, name};
use crate::{Hash, Noun, Problem, WireError, v1};

pub(crate) fn certificate_to_wire(certificate: &Certificate, key: Hash) -> v1::Certificate {
    v1::Certificate {
        name: certificate.name.to_string(),
        chain_pem: certificate.chain_pem.clone(),
        key_hash: key.to_wire(),
    }
}

/// The certificate and the hash of the key resource that belongs to it.
pub(crate) fn certificate_from_wire(wire: v1::Certificate) -> Result<(Certificate, Hash), WireError> {
    let at = At::root(Noun::Certificate);
    if wire.chain_pem.is_empty() {
        return Err(at.field("chain_pem").refuse(Problem::Missing));
    }
    let key = Hash::from_wire(&wire.key_hash, Noun::Certificate, "/key_hash")?;
    Ok((Certificate { name: name(&wire.name, at.field("name"))?, chain_pem: wire.chain_pem }, key))
}

pub(crate) fn key_to_wire(certificate: &Certificate, key: &PrivateKeyPem) -> v1::Key {
    v1::Key { certificate: certificate.name.to_string(), key_pem: key.0.clone() }
}

pub(crate) fn key_from_wire(wire: v1::Key) -> Result<(awe4lb_model::Name, PrivateKeyPem), WireError> {
    let at = At::root(Noun::Key);
    if wire.key_pem.is_empty() {
        return Err(at.field("key_pem").refuse(Problem::Missing));
    }
    Ok((name(&wire.certificate, at.field("certificate"))?, PrivateKeyPem(wire.key_pem)))
}
