//! Why an order failed: in the authority's words, and what to do about it.

use std::time::SystemTime;

use instant_acme::{Error, Identifier, Problem};
use serde::{Deserialize, Serialize};

/// A failure as it is shown and stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// RFC 3339.
    pub at: Box<str>,
    /// `urn:ietf:params:acme:error:…` of the authority, or `awe4lb:…`.
    pub r#type: Box<str>,
    /// What happened.
    pub detail: Box<str>,
    /// What to do.
    pub hint: Box<str>,
    /// Which of the names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Box<str>>,
    /// By which kind of challenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Box<str>>,
    /// Nodes that had not confirmed the challenge.
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub nodes: Box<[String]>,
    /// What the authority asked for: not before, in unix seconds; 0: nothing.
    #[serde(skip)]
    pub not_sooner: i64,
}

impl Failure {
    /// One of ours.
    pub fn new(word: &str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            at: jiff::Timestamp::now().to_string().into(),
            r#type: format!("awe4lb:{word}").into(),
            detail: detail.into().into(),
            hint: hint.into().into(),
            domain: None,
            challenge: None,
            nodes: Box::default(),
            not_sooner: 0,
        }
    }

    /// Nothing can be stored: nothing is ordered then.
    pub fn storage(error: impl std::fmt::Display) -> Self {
        Self::new(
            "storage",
            format!("{error:#}"),
            "nothing is ordered that could not be stored: look at the disk of the control plane",
        )
    }

    /// Of the authority's own words.
    pub fn of_problem(problem: &Problem) -> Self {
        let kind = problem.r#type.clone().unwrap_or_else(|| "about:blank".to_owned());
        let mut detail = problem.detail.clone().unwrap_or_else(|| problem.to_string());
        let mut domain = None;
        for sub in &problem.subproblems {
            let name = sub.identifier.as_ref().map(|identifier: &Identifier| match identifier {
                Identifier::Dns(name) => name.clone(),
                other => format!("{other:?}"),
            });
            let said = sub.detail.as_deref().unwrap_or_default();
            detail.push_str(&format!("; {}: {said}", name.as_deref().unwrap_or("?")));
            domain = domain.or(name.map(Into::into));
        }
        Self { domain, hint: hint(&kind).into(), r#type: kind.into(), ..Self::new("", detail, "") }
    }

    /// Of an answer that is none, or of one that says no. What the client saw of the network comes first.
    pub fn of_error(error: &Error, retry_after: Option<SystemTime>) -> Self {
        let failure = match error {
            Error::Api(problem) => Self::of_problem(problem),
            Error::Timeout(_) => Self::new(
                "timeout",
                "the authority did not get on with the order in time",
                "the order is taken up again later; see whether the authority reports an incident",
            ),
            Error::Unsupported(what) => {
                Self::new("unsupported", format!("the authority does not support {what}"), "")
            }
            Error::Json(error) => Self::new(
                "malformed",
                format!("the authority's answer cannot be read: {error}"),
                "is the directory's URL that of an ACME directory?",
            ),
            other => Self::new(
                "unreachable",
                causes(other),
                "can this machine reach the authority, and does it trust its certificate (\"ca\" of the account)?",
            ),
        };
        Self { not_sooner: seconds(retry_after), ..failure }
    }

    /// With whom and how it was tried.
    #[must_use]
    pub fn of(mut self, domain: &str, challenge: &str) -> Self {
        self.domain = Some(self.domain.take().unwrap_or_else(|| domain.into()));
        self.challenge = Some(challenge.into());
        let is_about_asking = ["connection", "tls", "unauthorized", "incorrectResponse"]
            .iter()
            .any(|word| self.r#type.ends_with(word));
        let domain = self.domain.as_deref().unwrap_or(domain);
        if is_about_asking {
            self.hint = match challenge {
                "http-01" => format!(
                    "do all addresses of {domain} lead to nodes of this fleet, and port 80 there to a listener with acmeHttp01?"
                ),
                "tls-alpn-01" => {
                    format!("do all addresses of {domain} lead to nodes of this fleet, and port 443 there to a TCP listener?")
                }
                _ => format!("is the zone of {domain} that the hook changes the public one?"),
            }
            .into();
        }
        self
    }

    /// Whether another kind of challenge may do better.
    pub fn is_of_challenge(&self) -> bool {
        self.challenge.is_some()
    }
}

fn seconds(at: Option<SystemTime>) -> i64 {
    let at = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    at.map_or(0, |at| i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
}

/// Whether an authority will say the same tomorrow. What is overloaded, or says that it is not ready, will not.
pub fn is_final(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    if [":badNonce", ":rateLimited", ":orderNotReady", ":serverInternal"]
        .iter()
        .any(|end| kind.ends_with(end))
    {
        return false;
    }
    match problem.status {
        Some(408 | 425 | 429) => false,
        Some(status) => (400..500).contains(&status),
        None => kind.starts_with("urn:ietf:params:acme:error:"),
    }
}

/// The causes, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(&format!(": {next}"));
        }
        cause = error.source();
    }
    text
}

/// What to do about errors of RFC 8555 6.7.
fn hint(kind: &str) -> &'static str {
    match kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or_default() {
        "dns" => {
            "the authority found no address or record: does the name exist in public DNS, and lead to the nodes?"
        }
        "connection" | "tls" => "the authority could not connect to an address of the name",
        "unauthorized" | "incorrectResponse" => {
            "somebody else answered the authority, or the account may not"
        }
        "caa" => "a CAA record of the domain names other authorities: add this one",
        "rateLimited" => "the authority takes no more for now: it is asked again when it said so",
        "rejectedIdentifier" => "the authority issues nothing for this name",
        "externalAccountRequired" => {
            "the authority wants accounts bound to one of its own: set externalAccountBinding"
        }
        "userActionRequired" => {
            "the terms of service have changed: read them at the authority and agree there"
        }
        "invalidContact" | "unsupportedContact" => "the authority does not take the contact of the account",
        "accountDoesNotExist" => "the authority does not know the account any more: it is registered anew",
        "badCSR" | "badPublicKey" => "the authority does not take this type of key: try another keyType",
        "unsupportedIdentifier" => "the authority does not issue for this kind of name",
        "serverInternal" => "the authority has a fault of its own: it is asked again later",
        "" => "is this the URL of an ACME directory, and does the authority report an incident?",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, status: u16) -> Problem {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        Problem { r#type: Some(kind), detail: None, status: Some(status), subproblems: Vec::new() }
    }

    #[test]
    fn an_order_lives_on_while_the_authority_is_ill_or_busy() {
        for (kind, status) in [
            ("serverInternal", 500),
            ("rateLimited", 429),
            ("orderNotReady", 403),
            ("badNonce", 400),
            ("x", 503),
        ] {
            assert!(!is_final(&problem(kind, status)), "{kind}");
        }
        for (kind, status) in [("malformed", 404), ("unauthorized", 403), ("badCSR", 400), ("caa", 403)] {
            assert!(is_final(&problem(kind, status)), "{kind}");
        }
        // A page of a proxy.
        let page = Problem { r#type: Some("about:blank".into()), ..problem("", 502) };
        assert!(!is_final(&page));
    }

    #[test]
    fn who_was_asked_and_did_not_answer_is_told_what_to_look_at() {
        let failure = Failure::of_problem(&problem("connection", 400)).of("a.test", "tls-alpn-01");
        assert!(failure.hint.contains("a.test") && failure.hint.contains("443"), "{}", failure.hint);
        assert_eq!(failure.domain.as_deref(), Some("a.test"));
        let failure = Failure::of_problem(&problem("caa", 403)).of("a.test", "http-01");
        assert!(failure.hint.contains("CAA"));
    }
}
