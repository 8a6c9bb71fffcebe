//! Which certificate is the leaf, and which are above it.

use awe4lb_model::placed::PrivateKeyPem;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{
    Bundle, Oddity, Unreadable,
    read::{Parts, public_half},
};

/// Finds the leaf by the key, and puts those above it in order. A root is left out: clients have it, or trust nothing of it.
pub(super) fn order(parts: Parts) -> Result<Bundle, Unreadable> {
    let mut parsed = Vec::new();
    for (at, der) in (1..).zip(&parts.certificates) {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| {
            Unreadable::new("bad-certificate", format!("certificate {at} cannot be read: {error}"), "")
        })?;
        parsed.push(certificate);
    }
    if parsed.is_empty() {
        return Err(Unreadable::new(
            "missing-chain",
            "there is no certificate in it",
            "send the chain along",
        ));
    }
    let (leaf, key) = leaf(&parsed, &parts)?;
    let mut chain = vec![leaf];
    let mut has_root = is_self_signed(&parsed[leaf]);
    while let Some(above) = issuer_of(&parsed, chain[chain.len() - 1]) {
        if chain.contains(&above) {
            break;
        }
        if is_self_signed(&parsed[above]) {
            has_root = true;
            break;
        }
        chain.push(above);
    }
    let mut warnings = Vec::new();
    if chain.len() == 1 && !has_root {
        let issuer = parsed[leaf].issuer();
        warnings.push(Oddity {
            code: "chain-incomplete",
            detail: format!("the certificate is signed by {issuer}, and that one's certificate is not there"),
            hint: "clients that do not know it will not trust this: add the intermediate certificates"
                .to_owned(),
        });
    }
    let is_strange = |at: usize| !chain.contains(&at) && !is_self_signed(&parsed[at]);
    let strange = (0..parsed.len()).filter(|at| is_strange(*at)).count();
    if strange > 0 {
        warnings.push(Oddity {
            code: "unused-certificates",
            detail: format!(
                "{strange} of the certificates have nothing to do with the key's: they are left out"
            ),
            hint: String::new(),
        });
    }
    let chain_pem = chain.iter().map(|at| pem_of(&parts.certificates[*at])).collect();
    Ok(Bundle { chain_pem, key, warnings })
}

/// The certificate that one of the keys belongs to.
fn leaf(parsed: &[X509Certificate<'_>], parts: &Parts) -> Result<(usize, PrivateKeyPem), Unreadable> {
    if parts.keys.is_empty() {
        return Err(Unreadable::new("missing-key", "there is no private key in it", "send the key along"));
    }
    let mut why = String::new();
    for key in &parts.keys {
        match public_half(key) {
            Ok(public) => {
                if let Some(at) = parsed.iter().position(|one| one.public_key().raw == public) {
                    return Ok((at, PrivateKeyPem(key.to_string())));
                }
            }
            Err(error) => why = format!(": {error}"),
        }
    }
    Err(match why.as_str() {
        "" => Unreadable::new(
            "key-does-not-fit",
            "the key belongs to none of the certificates",
            "compare: openssl x509 -pubkey -noout, openssl pkey -pubout",
        ),
        _ => Unreadable::new(
            "invalid-key",
            format!("the key cannot be used for TLS{why}"),
            "RSA, ECDSA and Ed25519 can",
        ),
    })
}

fn issuer_of(parsed: &[X509Certificate<'_>], of: usize) -> Option<usize> {
    let below = &parsed[of];
    parsed.iter().position(|one| {
        one.subject() == below.issuer()
            && !std::ptr::eq(one, below)
            && below.verify_signature(Some(one.public_key())).is_ok()
    })
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject() == certificate.issuer() && certificate.verify_signature(None).is_ok()
}

/// A certificate as PEM.
pub fn pem_of(der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// What a chain may be called: the first name that it is for, in the letters of names of objects.
pub fn name_of(chain_pem: &str) -> Option<String> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let named = alternative.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    let name =
        named.or_else(|| Some(parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned()))?;
    let name = name.to_ascii_lowercase().replace('*', "wildcard");
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}
