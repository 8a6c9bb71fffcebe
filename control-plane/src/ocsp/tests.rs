//! Answers are made by openssl, from questions of ours.

use std::{fs, sync::Arc};

use proptest::prelude::*;

#[expect(dead_code, reason = "the tests of the whole need more of it")]
#[path = "../../tests/support/authority.rs"]
mod authority;

use authority::{Authority, CURVE};

use super::{
    answer::{Answer, Status},
    leaf::{Leaf, Question},
    watched::Watched,
};

const DAY: i64 = 86_400;

/// An authority with a certificate that it made: `leaf`, with serial 1001.
fn made(key: &str) -> Authority {
    let authority = Authority::new(key);
    let extensions = "authorityInfoAccess=OCSP;URI:http://127.0.0.1:1/\nsubjectAltName=DNS:a.test";
    authority.issue("leaf", "1001", extensions);
    authority
}

fn leaf(authority: &Authority, name: &str) -> Leaf {
    Leaf::read(&authority.chain(name)).unwrap()
}

fn asked(authority: &Authority) -> Question {
    leaf(authority, "leaf").question.unwrap()
}

/// What a responder with this key says, which counts for so many days.
fn say(authority: &Authority, status: &str, signer: &str, days: &str) -> Vec<u8> {
    authority.know(match status {
        "good" => &[("1001", false)],
        "revoked" => &[("1001", true)],
        _ => &[("2002", false)],
    });
    fs::write(authority.file("question"), asked(authority).encode().unwrap()).unwrap();
    authority.run(&format!(
        "ocsp -index index -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -reqin question -respout answer -ndays {days}"
    ));
    fs::read(authority.file("answer")).unwrap()
}

fn now() -> i64 {
    super::now()
}

#[test]
fn what_the_issuer_says_is_believed() {
    for key in [CURVE, "rsa:2048", "ed25519"] {
        let authority = made(key);
        let question = asked(&authority);
        let read = |status| Answer::read(&say(&authority, status, "ca", "7"), &question, now()).unwrap();
        let good = read("good");
        assert_eq!(good.status, Status::Good);
        assert_eq!(good.next_update, Some(good.this_update + 7 * DAY));
        assert_eq!(good.until, good.this_update + 7 * DAY);
        assert_eq!(read("revoked").status, Status::Revoked(1_735_689_600), "{key}");
        assert_eq!(read("unknown").status, Status::Unknown);
    }
}

#[test]
fn whom_the_issuer_appointed_is_believed_and_nobody_else() {
    let authority = made(CURVE);
    authority.issue("appointed", "3001", "extendedKeyUsage=OCSPSigning");
    authority.issue("server", "3002", "extendedKeyUsage=serverAuth");
    let question = asked(&authority);
    let read = |signer: &str, now| Answer::read(&say(&authority, "good", signer, "30"), &question, now);
    assert_eq!(read("appointed", now()).unwrap().status, Status::Good);
    let error = read("appointed", now() + 21 * DAY).unwrap_err();
    assert!(error.contains("CN=appointed, whose certificate counts from"), "{error}");
    let error = read("server", now()).unwrap_err();
    assert!(error.contains("CN=server, whose certificate is not for signing OCSP answers"), "{error}");
    // Of the same name, with another key.
    let other = made(CURVE);
    other.issue("appointed", "3001", "extendedKeyUsage=OCSPSigning");
    for file in ["ca.key", "appointed.key", "appointed.pem"] {
        fs::copy(other.path().join(file), authority.path().join(format!("other-{file}"))).unwrap();
    }
    fs::copy(other.path().join("ca.pem"), authority.path().join("other-ca.pem")).unwrap();
    let error = read("other-ca", now()).unwrap_err();
    assert!(error.contains("the signature of the answer is wrong"), "{error}");
    let error = read("other-appointed", now()).unwrap_err();
    assert!(error.contains("CN=appointed, whose certificate is not of CN=Test"), "{error}");
    // The certificate of the responder is not sent along.
    let silent = {
        authority.run("ocsp -index index -CA ca.pem -rsigner appointed.pem -rkey appointed.key -reqin question -respout answer -ndays 1 -resp_no_certs");
        fs::read(authority.path().join("answer")).unwrap()
    };
    let error = Answer::read(&silent, &question, now()).unwrap_err();
    assert!(error.contains("somebody else than CN=Test and whom it appointed"), "{error}");
    // Names its key instead of its name.
    authority.run("ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin question -respout answer -ndays 1 -resp_key_id");
    let by_key = fs::read(authority.path().join("answer")).unwrap();
    assert_eq!(Answer::read(&by_key, &question, now()).unwrap().status, Status::Good);
}

#[test]
fn an_answer_counts_for_its_certificate_and_its_time_only() {
    let authority = made(CURVE);
    let answer = say(&authority, "good", "ca", "7");
    let read = |question: &Question, now| Answer::read(&answer, question, now).unwrap_err();
    assert!(read(&asked(&authority), now() + 7 * DAY + 1).contains("ran out"));
    assert!(read(&asked(&authority), now() - 600).contains("compare the clocks"));
    authority.issue("other", "1002", "authorityInfoAccess=OCSP;URI:http://127.0.0.1:1/");
    let other = leaf(&authority, "other").question.unwrap();
    assert!(read(&other, now()).contains("another certificate than the one with serial 1002"));
    // The same serial, but of another authority with the same name.
    let error = read(&asked(&made(CURVE)), now());
    assert!(error.contains("signature"), "{error}");
}

#[test]
fn refusals_are_told_in_words() {
    let question = asked(&made(CURVE));
    let read = |bytes: &[u8]| Answer::read(bytes, &question, now()).unwrap_err();
    assert!(read(&[0x30, 3, 10, 1, 6]).contains("does not answer for this certificate"));
    assert!(read(&[0x30, 3, 10, 1, 3]).contains("try later"));
    assert!(read(&[0x30, 3, 10, 1, 0]).contains("basic kind"));
    assert!(read(b"<html>").contains("no OCSP answer"));
    assert!(read(b"").contains("no OCSP answer"));
}

#[test]
fn garbage_is_refused_and_never_panics() {
    let authority = made(CURVE);
    authority.issue("appointed", "3001", "extendedKeyUsage=OCSPSigning");
    let (question, good) = (asked(&authority), say(&authority, "good", "appointed", "7"));
    let known = Answer::read(&good, &question, now()).unwrap();
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(at in 0..good.len(), bits in 1..=255_u8, cut in 0..good.len(), noise: Vec<u8>)| {
        let mut damaged = good.clone();
        damaged[at] ^= bits;
        // What is not signed may be damaged, what is said may not.
        if let Ok(answer) = Answer::read(&damaged, &question, now()) {
            prop_assert_eq!(Answer { der: known.der.clone(), ..answer }, known.clone());
        }
        prop_assert!(Answer::read(&good[..cut], &question, now()).is_err());
        prop_assert!(Answer::read(&noise, &question, now()).is_err());
    });
}

#[test]
fn certificates_say_whom_to_ask() {
    let authority = made(CURVE);
    let chain = |name: &str| authority.chain(name);
    let leaf = Leaf::read(&chain("leaf")).unwrap();
    assert_eq!(leaf.question.unwrap().url, "http://127.0.0.1:1/");
    assert!(!leaf.must_staple);
    authority.issue("plain", "1003", "subjectAltName=DNS:a.test");
    assert!(Leaf::read(&chain("plain")).is_none());
    authority.issue(
        "strict",
        "1004",
        "tlsfeature=status_request\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:1/",
    );
    assert!(Leaf::read(&chain("strict")).unwrap().must_staple);
    authority.issue("stuck", "1005", "tlsfeature=status_request");
    let stuck = Leaf::read(&chain("stuck")).unwrap();
    assert!(stuck.must_staple);
    assert!(stuck.question.unwrap_err().contains("names no responder"));
    // The issuer is missing, or is another one.
    for others in [String::new(), Authority::new(CURVE).read("ca.pem")] {
        let leaf = Leaf::read(&(authority.read("leaf.pem") + &others)).unwrap();
        let error = leaf.question.unwrap_err();
        assert!(error.contains("does not hold the certificate of CN=Test"), "{error}");
    }
    assert!(Leaf::read("garbage").is_none());
}

/// What is known over time. The answer counts from 1000 to 9000.
fn answer(status: Status, from: i64) -> Answer {
    let until = from + 8_000;
    Answer { der: [1][..].into(), status, this_update: from, next_update: Some(until), until }
}

fn watched() -> Watched {
    Watched::new(Arc::new(leaf(&made(CURVE), "leaf")), 1_000)
}

#[test]
fn a_good_answer_stays_while_it_counts_and_goes_when_it_runs_out() {
    let mut watched = watched();
    assert_eq!((watched.view(1_000).status, watched.next_try), ("pending", Some(1_000)));
    watched.take(Err("down".to_owned()), 1_000, 0.0);
    assert_eq!((watched.view(1_000).status, watched.next_try), ("failing", Some(1_300)));
    assert!(watched.staple(1_000).is_none());
    watched.take(Ok(answer(Status::Good, 1_000)), 1_300, 0.5);
    assert_eq!(watched.next_try, Some(5_000));
    assert_eq!(watched.view(1_300).error, None);
    watched.take(Err("down".to_owned()), 5_000, 0.0);
    let view = watched.view(8_999);
    assert_eq!((view.status, view.error.as_deref()), ("good", Some("down")));
    assert_eq!(view.next_update.as_deref(), Some("1970-01-01T02:30:00Z"));
    assert_eq!(watched.staple(8_999).map(|staple| staple.until), Some(9_000));
    let view = watched.view(9_000);
    assert_eq!((view.status, view.next_update), ("failing", None));
    assert!(watched.staple(9_000).is_none());
    assert_eq!(watched.failures_total, 2);
}

#[test]
fn only_what_is_good_goes_along() {
    let mut watched = watched();
    watched.take(Ok(answer(Status::Unknown, 1_000)), 1_000, 0.0);
    assert_eq!((watched.view(1_000).status, watched.staple(1_000)), ("unknown", None));
    assert_eq!(watched.next_try, Some(1_300), "asked again soon");
    watched.take(Ok(answer(Status::Good, 1_300)), 1_300, 0.0);
    assert!(watched.staple(1_300).is_some());
    watched.take(Ok(answer(Status::Revoked(1_200), 1_400)), 1_400, 0.0);
    assert_eq!((watched.view(1_400).status, watched.staple(1_400)), ("revoked", None));
    assert_eq!(watched.revoked(1_400), Some(1_200));
    // An answer from before that, played again, does not undo it.
    watched.take(Ok(answer(Status::Good, 1_300)), 1_500, 0.0);
    assert_eq!((watched.view(1_500).status, watched.staple(1_500)), ("revoked", None));
}

#[test]
fn what_was_stored_counts_at_once_and_is_asked_for_again_when_it_is_due() {
    let (mut fresh, mut old) = (watched(), watched());
    fresh.recall(answer(Status::Good, 1_000), 2_000, 0.5);
    assert_eq!(fresh.next_try, Some(5_000));
    old.recall(answer(Status::Good, 1_000), 6_000, 0.5);
    assert_eq!(old.next_try, Some(6_000));
    assert!(old.staple(6_000).is_some());
}
