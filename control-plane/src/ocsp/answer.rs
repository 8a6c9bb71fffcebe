//! Answers of responders: read, and believed only when the issuer, or somebody it appointed, signed them. No I/O, no clock.

use std::sync::Arc;

use x509_cert::der::{Decode as _, Encode as _, asn1::ObjectIdentifier};
use x509_ocsp::{
    CertId, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus, ResponderId, ResponseData,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    leaf::{Question, sha1},
    signed::{Signed, elements, inner, key_of},
};

/// `id-pkix-ocsp-basic`.
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// How far clocks may be apart, in seconds.
const SKEW: i64 = 300;
/// An answer that does not say how long it counts, counts for so many seconds.
const DEFAULT_LIFE: i64 = 3_600;
/// More certificates are not looked at.
const MAX_CERTIFICATES: usize = 8;

/// An answer that can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// As it came.
    pub(super) der: Arc<[u8]>,
    /// Of the certificate.
    pub(super) status: Status,
    /// Unix seconds.
    pub(super) this_update: i64,
    /// Unix seconds, if it says so.
    pub(super) next_update: Option<i64>,
    /// Until when it counts, in unix seconds.
    pub(super) until: i64,
}

/// What the authority says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Not revoked.
    Good,
    /// Revoked, at this time in unix seconds.
    Revoked(i64),
    /// The responder does not know it.
    Unknown,
}

impl Answer {
    /// Reads what came; `now` in unix seconds. The error is for people.
    pub(super) fn read(bytes: &[u8], question: &Question, now: i64) -> Result<Self, String> {
        let garbled = |error: x509_cert::der::Error| format!("what came is no OCSP answer: {error}");
        let response = OcspResponse::from_der(bytes).map_err(garbled)?;
        successful(response.response_status)?;
        let basic = response.response_bytes.filter(|bytes| bytes.response_type == BASIC);
        let basic = basic.ok_or("the answer is not of the basic kind")?;
        let signed = Signed::read(basic.response.as_bytes()).map_err(garbled)?;
        let data = ResponseData::from_der(signed.content).map_err(garbled)?;
        check_signer(&signed, &data.responder_id, question, now)?;
        let single = data.responses.iter().find(|single| is_of(&single.cert_id, &question.id));
        let single = single.ok_or_else(|| {
            let serial = hex::encode(question.id.serial_number.as_bytes());
            format!("the answer is about another certificate than the one with serial {serial}")
        })?;
        let this_update = seconds(&single.this_update);
        let next_update = single.next_update.as_ref().map(seconds);
        let until = next_update.unwrap_or(this_update.saturating_add(DEFAULT_LIFE));
        if this_update > now.saturating_add(SKEW) {
            return Err(format!("the answer counts from {} on only: compare the clocks", text(this_update)));
        }
        if until <= now {
            return Err(format!("the answer ran out at {}: its responder does not renew it", text(until)));
        }
        let status = match &single.cert_status {
            CertStatus::Good(_) => Status::Good,
            CertStatus::Revoked(info) => Status::Revoked(seconds(&info.revocation_time)),
            CertStatus::Unknown(_) => Status::Unknown,
        };
        Ok(Self { der: bytes.into(), status, this_update, next_update, until })
    }
}

fn successful(status: OcspResponseStatus) -> Result<(), String> {
    let why = match status {
        OcspResponseStatus::Successful => return Ok(()),
        OcspResponseStatus::MalformedRequest => "it does not understand the question",
        OcspResponseStatus::InternalError => "it has an internal error",
        OcspResponseStatus::TryLater => "it asks to try later",
        OcspResponseStatus::SigRequired => "it answers signed questions only",
        OcspResponseStatus::Unauthorized => "it does not answer for this certificate (unauthorized)",
    };
    Err(format!("the responder refuses: {why}"))
}

/// RFC 6960 4.2.2.2: the issuer itself, or who has a certificate of it for this purpose.
fn check_signer(
    signed: &Signed<'_>,
    responder: &ResponderId,
    question: &Question,
    now: i64,
) -> Result<(), String> {
    let unreadable = "the certificate of the issuer cannot be read";
    let (_, issuer) = X509Certificate::from_der(&question.issuer).map_err(|_| unreadable)?;
    let broken = "the signature of the answer is wrong, or of a kind that is not taken any more";
    if is(&issuer, responder) {
        return if signed.is_signed_by(issuer.public_key().raw) { Ok(()) } else { Err(broken.to_owned()) };
    }
    for der in certificates(signed.rest).unwrap_or_default().into_iter().take(MAX_CERTIFICATES) {
        let Ok((_, delegate)) = X509Certificate::from_der(der) else { continue };
        if !is(&delegate, responder) {
            continue;
        }
        check_delegate(der, &delegate, &issuer, now)?;
        return if signed.is_signed_by(delegate.public_key().raw) { Ok(()) } else { Err(broken.to_owned()) };
    }
    Err(format!("the answer is signed by somebody else than {} and whom it appointed", issuer.subject()))
}

fn check_delegate(
    der: &[u8],
    delegate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    now: i64,
) -> Result<(), String> {
    let of = || format!("the answer is signed by {}", delegate.subject());
    let is_issued = delegate.issuer().as_raw() == issuer.subject().as_raw()
        && Signed::read(der).is_ok_and(|signed| signed.is_signed_by(issuer.public_key().raw));
    if !is_issued {
        return Err(format!("{}, whose certificate is not of {}", of(), issuer.subject()));
    }
    let usage = delegate.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.ocsp_signing) {
        return Err(format!("{}, whose certificate is not for signing OCSP answers", of()));
    }
    let (from, to) = (delegate.validity().not_before.timestamp(), delegate.validity().not_after.timestamp());
    if now < from.saturating_sub(SKEW) || now > to {
        return Err(format!("{}, whose certificate counts from {} to {}", of(), text(from), text(to)));
    }
    Ok(())
}

/// Whether a responder calls itself so.
fn is(certificate: &X509Certificate<'_>, responder: &ResponderId) -> bool {
    match responder {
        ResponderId::ByName(name) => name.to_der().is_ok_and(|name| name == certificate.subject().as_raw()),
        ResponderId::ByKey(hash) => {
            key_of(certificate.public_key().raw).is_ok_and(|(_, bits)| sha1(bits) == hash.as_bytes())
        }
    }
}

/// `[0] EXPLICIT SEQUENCE OF Certificate`, as it stands.
fn certificates(rest: &[u8]) -> x509_cert::der::Result<Vec<&[u8]>> {
    if rest.is_empty() { Ok(Vec::new()) } else { elements(inner(inner(rest)?)?) }
}

/// Without the parameters of the hash: some write them, some do not.
fn is_of(said: &CertId, asked: &CertId) -> bool {
    said.hash_algorithm.oid == asked.hash_algorithm.oid
        && said.issuer_name_hash == asked.issuer_name_hash
        && said.issuer_key_hash == asked.issuer_key_hash
        && said.serial_number == asked.serial_number
}

fn seconds(time: &OcspGeneralizedTime) -> i64 {
    i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339.
pub(super) fn text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
