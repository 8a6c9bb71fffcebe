//! Certificates and their keys: two resources, so that a renewed chain does not resend a key, and a key is only ever in
//! the manifests of nodes that terminate with it.

use awe4lb_model::{
    Certificate,
    placed::{PrivateKeyPem, Staple},
};

use super::{At, name};
use crate::{Hash, Noun, Problem, WireError, v1};

pub(crate) fn certificate_to_wire(
    certificate: &Certificate,
    key: Hash,
    ocsp: Option<&Staple>,
) -> v1::Certificate {
    v1::Certificate {
        name: certificate.name.to_string(),
        chain_pem: certificate.chain_pem.clone(),
        key_hash: key.to_wire(),
        ocsp: ocsp.map(|staple| staple.der.to_vec().into()).unwrap_or_default(),
        ocsp_until: ocsp.map_or(0, |staple| staple.until),
    }
}

/// The certificate, the hash of the key resource that belongs to it, and what its OCSP responder says.
pub(crate) fn certificate_from_wire(
    wire: v1::Certificate,
) -> Result<(Certificate, Hash, Option<Staple>), WireError> {
    let at = At::root(Noun::Certificate);
    if wire.chain_pem.is_empty() {
        return Err(at.field("chain_pem").refuse(Problem::Missing));
    }
    let key = Hash::from_wire(&wire.key_hash, Noun::Certificate, "/key_hash")?;
    let ocsp = match (wire.ocsp.is_empty(), wire.ocsp_until) {
        (true, 0) => None,
        (true, _) => return Err(at.field("ocsp").refuse(Problem::Missing)),
        (false, until) if until > 0 => Some(Staple { der: wire.ocsp[..].into(), until }),
        (false, _) => return Err(at.field("ocsp_until").refuse(Problem::Missing)),
    };
    let certificate = Certificate { name: name(&wire.name, at.field("name"))?, chain_pem: wire.chain_pem };
    Ok((certificate, key, ocsp))
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
