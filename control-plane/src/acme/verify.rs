//! Whether what an authority sent is taken: the chain holds, it is for the names and the key that were asked for, it counts
//! now, and it is no worse than what serves.

use awe4lb_model::{
    acme::{AcmeCertificate, KeyType},
    placed::PrivateKeyPem,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::failure::Failure;
use crate::catalog::{Catalog, CertificateFacts, Chain, ChainOrigin};

/// A certificate may begin so many seconds later than our clock says.
const CLOCKS_DIFFER: i64 = 60;
/// One that has less than this part of the life that is left is no renewal.
const MUCH_SHORTER: i64 = 3;

/// Reads what was sent.
pub fn accept(
    pem: String,
    key: PrivateKeyPem,
    wanted: &AcmeCertificate,
    key_type: KeyType,
    source: String,
    current: Option<&Chain>,
    now: i64,
) -> Result<Chain, Failure> {
    let refuse = |word: &str, detail: String, hint: &str| Failure::new(word, detail, hint);
    check_links(&pem).map_err(|detail| {
        refuse("bad-chain", detail, "the authority's chain does not hold: what served before goes on")
    })?;
    let chain = Catalog::read_chain(&wanted.name, key_type, pem, key, ChainOrigin::Acme(source)).map_err(
        |error| {
            refuse(
                "bad-chain",
                error.to_string(),
                "what the authority sent cannot be used: what served before goes on",
            )
        },
    )?;
    let lacking: Vec<&str> =
        wanted.domains.iter().map(AsRef::as_ref).filter(|domain| !covers(&chain.facts, domain)).collect();
    if !lacking.is_empty() {
        let detail = format!("the certificate is not for {}", lacking.join(", "));
        return Err(refuse("bad-chain", detail, "the authority issued less than was ordered"));
    }
    let (from, to) = life(&chain.facts);
    if from > now + CLOCKS_DIFFER {
        let detail = format!(
            "the certificate counts from {} on, and the clock here says earlier",
            chain.facts.not_before
        );
        return Err(refuse("clock", detail, "set the clock of the control plane"));
    }
    if to <= now {
        let detail = format!("the certificate expired at {}", chain.facts.not_after);
        return Err(refuse("clock", detail, "is the clock of the control plane right?"));
    }
    if let Some(current) = current {
        let left = life(&current.facts).1 - now;
        if (to - now) * MUCH_SHORTER < left {
            let detail = format!(
                "the new certificate ends at {}, the one that serves only at {}",
                chain.facts.not_after, current.facts.not_after
            );
            return Err(refuse(
                "worse",
                detail,
                "a certificate that would be worse is not taken: see the authority's profile",
            ));
        }
    }
    Ok(chain)
}

/// From when to when, in unix seconds.
pub fn life(facts: &CertificateFacts) -> (i64, i64) {
    let read = |text: &str| text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    (read(&facts.not_before), read(&facts.not_after))
}

/// Whether a certificate is for a name as it was ordered: a wildcard counts as itself alone.
fn covers(facts: &CertificateFacts, domain: &str) -> bool {
    facts.names.iter().any(|name| name.eq_ignore_ascii_case(domain))
}

/// Each certificate is signed by the next one.
fn check_links(pem: &str) -> Result<(), String> {
    let mut ders = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        ders.push(der.map_err(|error| format!("the chain is no PEM: {error}"))?);
    }
    let mut chain = Vec::new();
    for (at, der) in (1..).zip(&ders) {
        let (_, parsed) = X509Certificate::from_der(der)
            .map_err(|error| format!("certificate {at} of the chain cannot be read: {error}"))?;
        chain.push(parsed);
    }
    for (at, pair) in (1..).zip(chain.windows(2)) {
        if let [one, issuer] = pair {
            one.verify_signature(Some(issuer.public_key())).map_err(|_| {
                format!("certificate {at} of the chain is not signed by certificate {}", at + 1)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;

    struct Made {
        pem: String,
        key: PrivateKeyPem,
    }

    fn at(seconds: i64) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    /// Issued by a small authority of the test.
    fn issue(names: &[&str], from: i64, to: i64) -> Made {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root, root_key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (at(from), at(to));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap().pem();
        Made { pem: format!("{leaf}{root_pem}"), key: PrivateKeyPem(key.serialize_pem()) }
    }

    fn wanted(domains: &[&str]) -> AcmeCertificate {
        AcmeCertificate {
            name: "web".parse().unwrap(),
            account: "ca".parse().unwrap(),
            domains: domains.iter().map(|domain| (*domain).into()).collect(),
            challenges: Vec::new(),
            key_types: vec![KeyType::P256],
            profile: None,
            renew_before: None,
            dns: None,
        }
    }

    fn take(made: &Made, domains: &[&str], current: Option<&Chain>) -> Result<Chain, String> {
        accept(made.pem.clone(), made.key.clone(), &wanted(domains), KeyType::P256, "ca".into(), current, NOW)
            .map_err(|failure| failure.r#type.into())
    }

    #[test]
    fn what_was_ordered_is_taken() {
        let made = issue(&["a.test", "*.a.test"], NOW - 3_600, NOW + 90 * DAY);
        let chain = take(&made, &["a.test", "*.a.test"], None).unwrap();
        assert_eq!(life(&chain.facts), (NOW - 3_600, NOW + 90 * DAY));
    }

    #[test]
    fn what_was_not_ordered_is_not() {
        let good = issue(&["a.test"], NOW - 3_600, NOW + 90 * DAY);
        let other = issue(&["a.test"], NOW - 3_600, NOW + 90 * DAY);
        assert_eq!(take(&good, &["a.test", "b.test"], None).unwrap_err(), "awe4lb:bad-chain");
        assert_eq!(take(&good, &["*.a.test"], None).unwrap_err(), "awe4lb:bad-chain");
        let wrong_key = Made { pem: good.pem.clone(), key: other.key.clone() };
        assert_eq!(take(&wrong_key, &["a.test"], None).unwrap_err(), "awe4lb:bad-chain");
        let mixed = good.pem.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned()
            + other.pem.split_inclusive("-----END CERTIFICATE-----\n").nth(1).unwrap();
        let mixed = Made { pem: mixed, key: good.key.clone() };
        assert_eq!(take(&mixed, &["a.test"], None).unwrap_err(), "awe4lb:bad-chain");
        let garbage = Made { pem: "hello".into(), key: good.key };
        assert_eq!(take(&garbage, &["a.test"], None).unwrap_err(), "awe4lb:bad-chain");
    }

    #[test]
    fn a_clock_that_is_wrong_is_named() {
        let later = issue(&["a.test"], NOW + DAY, NOW + 90 * DAY);
        assert_eq!(take(&later, &["a.test"], None).unwrap_err(), "awe4lb:clock");
        let over = issue(&["a.test"], NOW - 90 * DAY, NOW - DAY);
        assert_eq!(take(&over, &["a.test"], None).unwrap_err(), "awe4lb:clock");
    }

    #[test]
    fn a_worse_one_is_not_taken_but_authorities_may_shorten_lives() {
        let serves = take(&issue(&["a.test"], NOW - 3_600, NOW + 60 * DAY), &["a.test"], None).unwrap();
        let short = issue(&["a.test"], NOW - 3_600, NOW + 6 * DAY);
        assert_eq!(take(&short, &["a.test"], Some(&serves)).unwrap_err(), "awe4lb:worse");
        let shorter = issue(&["a.test"], NOW - 3_600, NOW + 45 * DAY);
        assert!(take(&shorter, &["a.test"], Some(&serves)).is_ok());
    }
}
