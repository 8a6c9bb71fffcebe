//! Answers of OCSP responders, about a certificate that comes along: the length of the chain in two bytes, the chain (see
//! `pem`), the answer.
#![no_main]

#[path = "../../control-plane/src/ocsp/answer.rs"]
mod answer;
#[allow(dead_code, reason = "the control plane uses all of it")]
#[path = "../../control-plane/src/ocsp/leaf.rs"]
mod leaf;
#[path = "../pem.rs"]
mod pem;
#[path = "../../control-plane/src/ocsp/signed.rs"]
mod signed;

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use answer::Answer;
use leaf::Leaf;
use libfuzzer_sys::{Corpus, fuzz_target};

/// Seeds are as old as the run.
static NOW: LazyLock<i64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before long")
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let [high, low, rest @ ..] = bytes else { return Corpus::Reject };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (chain, answer) = rest.split_at(length);
    let Some(Ok(question)) = Leaf::read(&pem::text(chain)).map(|leaf| leaf.question) else {
        return Corpus::Keep;
    };
    let _ = question.encode();
    if let Ok(believed) = Answer::read(answer, &question, *NOW) {
        assert!(believed.until > *NOW && *believed.der == *answer);
        assert!(Answer::read(answer, &question, believed.until).is_err());
    }
    Corpus::Keep
});
