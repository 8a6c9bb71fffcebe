//! Certificates and accounts as the API shows them: what serves, how long, where, and what happens next.

use awe4lb_engine::renewal::Why;
use awe4lb_model::acme::KeyType;
use serde::Serialize;
use std::sync::PoisonError;

use super::{Acme, Failure, account::key_of, verify};
use crate::catalog::{CertificateFacts, Chain, ChainOrigin, Entry, Head, Issued, Kind};
use crate::ocsp::OcspView;

const DAY: i64 = 86_400;
/// Of a certificate that nobody renews by itself: with so much left it is told.
const EXPIRING: i64 = 14 * DAY;

/// How a certificate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All is well.
    Valid,
    /// It ends soon, and a renewal should have been there.
    Expiring,
    /// It is over.
    Expired,
    /// The clock says that it has not begun.
    NotYetValid,
    /// Nothing is issued yet; clients trust nothing that is shown meanwhile.
    Placeholder,
}

impl State {
    /// As in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Placeholder => "placeholder",
        }
    }

    /// Of a certificate by what it says. One that is issued should be renewed at a third of its life: with a fifth left,
    /// something is wrong.
    pub fn of(facts: &CertificateFacts, entry: &Entry, now: i64) -> Self {
        if entry.is_placeholder() {
            return Self::Placeholder;
        }
        Self::by_life(facts, entry.issued().is_some(), now)
    }

    fn by_life(facts: &CertificateFacts, renews_itself: bool, now: i64) -> Self {
        let (from, to) = verify::life(facts);
        let soon = if renews_itself { (to - from) / 5 } else { EXPIRING.min((to - from) / 3) };
        match () {
            () if to <= now => Self::Expired,
            () if from > now => Self::NotYetValid,
            () if to - now < soon => Self::Expiring,
            () => Self::Valid,
        }
    }
}

/// A certificate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// Unique.
    pub name: String,
    /// How it is kept: `acme`, `uploaded`, `directory`.
    pub origin: &'static str,
    /// How it does.
    pub state: State,
    /// RFC 3339, of the chain that ends first.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// Whole days; negative: it is over.
    pub days_left: i64,
    /// What it is for.
    pub names: Vec<String>,
    /// What serves, one for each type of key.
    pub chains: Vec<ChainView>,
    /// Listeners.
    pub used_by: Vec<String>,
    /// Where it is.
    pub nodes: NodesView,
    /// Of those that are issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeView>,
    /// Of those in folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<FolderView>,
}

/// The folder of a certificate.
#[derive(Debug, Serialize)]
pub struct FolderView {
    /// Of the control plane.
    pub path: String,
    /// Why what lies there does not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A chain that serves.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainView {
    /// Where it comes from.
    pub origin: &'static str,
    /// What its leaf says.
    #[serde(flatten)]
    pub facts: CertificateFacts,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    /// What its responder says, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp: Option<OcspView>,
}

/// How many nodes.
#[derive(Debug, Serialize)]
pub struct NodesView {
    /// Run it.
    pub serving: usize,
    /// Are there.
    pub connected: usize,
}

/// What ACME does about it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeView {
    /// Whose.
    pub account: String,
    /// What is wished.
    pub domains: Vec<String>,
    /// In order.
    pub challenges: Vec<&'static str>,
    /// One chain for each.
    pub key_types: Vec<&'static str>,
    /// `idle`, `ordering`, `waiting`, `failing`.
    pub state: &'static str,
    /// What is being done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What happens next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<NextView>,
    /// In a row.
    pub failures: u32,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
}

/// What happens next, and why then.
#[derive(Debug, Serialize)]
pub struct NextView {
    /// RFC 3339.
    pub at: String,
    /// `order`, `renew`, `retry`.
    pub what: &'static str,
    /// In words.
    pub why: &'static str,
}

/// An account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Unique.
    pub name: String,
    /// The authority's.
    pub directory: String,
    /// Whether the authority knows it.
    pub registered: bool,
    /// Where it keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// As the authority was told.
    pub contact: Vec<String>,
    /// Where the terms are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
    /// What it orders.
    pub certificates: Vec<String>,
    /// Why it could not be used lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
}

fn why_text(why: Why) -> &'static str {
    match why {
        Why::Missing => "it is wanted now",
        Why::Suggested => "the authority suggests it",
        Why::Third => "a third of its life is left then",
        Why::RenewBefore => "renewBefore says so",
        Why::Retry => "the last try failed",
        Why::Patience => "the authority takes no order before",
    }
}

impl Acme {
    /// How a certificate does.
    pub fn view(&self, head: &Head, name: &str) -> Option<CertificateView> {
        let entry = head.model.get(Kind::Certificate, name)?;
        Some(self.view_of(head, name, entry, &self.nodes()))
    }

    /// All of them, in order of name.
    pub fn views<'a>(&'a self, head: &'a Head) -> impl Iterator<Item = (&'a str, CertificateView)> + 'a {
        let nodes = self.nodes();
        head.model
            .all(Kind::Certificate)
            .map(move |(name, entry)| (name, self.view_of(head, name, entry, &nodes)))
    }

    fn nodes(&self) -> NodesView {
        let nodes = self.0.clerk.fleet.nodes();
        let connected = nodes.iter().filter(|node| node.state == "connected");
        NodesView {
            serving: connected.clone().filter(|node| node.in_sync).count(),
            connected: connected.count(),
        }
    }

    fn view_of(&self, head: &Head, name: &str, entry: &Entry, nodes: &NodesView) -> CertificateView {
        let now = jiff::Timestamp::now().as_second();
        let chains: Vec<ChainView> = match (entry.issued(), entry.folder()) {
            (Some(issued), _) => issued.serving().map(|chain| self.chain_view(name, chain)).collect(),
            (None, Some(folder)) => vec![self.chain_view(name, &folder.chain)],
            (None, None) => entry
                .certificate()
                .map(|facts| ChainView {
                    origin: "uploaded",
                    facts: facts.clone(),
                    issued_at: None,
                    ocsp: self.0.ocsp.ocsp_of(name, &facts.fingerprint),
                })
                .into_iter()
                .collect(),
        };
        let first_to_end = chains.iter().min_by_key(|chain| verify::life(&chain.facts).1);
        let facts = first_to_end.map(|chain| chain.facts.clone()).unwrap_or_default();
        CertificateView {
            name: name.to_owned(),
            origin: match (entry.issued(), entry.folder()) {
                (Some(_), _) => "acme",
                (None, Some(_)) => "directory",
                (None, None) => "uploaded",
            },
            state: State::of(&facts, entry, now),
            days_left: (verify::life(&facts).1 - now).div_euclid(DAY),
            not_before: facts.not_before,
            not_after: facts.not_after,
            names: facts.names,
            chains,
            used_by: head.model.used_by(name),
            nodes: NodesView { ..*nodes },
            acme: entry.issued().map(|issued| self.acme_view(head, name, issued)),
            directory: entry.folder().map(|folder| FolderView {
                path: folder.wanted.path.to_string(),
                error: self.0.folders.error_of(name),
            }),
        }
    }

    fn chain_view(&self, name: &str, chain: &Chain) -> ChainView {
        ChainView {
            origin: chain.origin.word(),
            facts: chain.facts.clone(),
            issued_at: (chain.origin != ChainOrigin::Placeholder).then(|| chain.issued_at.clone()),
            ocsp: self.0.ocsp.ocsp_of(name, &chain.facts.fingerprint),
        }
    }

    fn acme_view(&self, head: &Head, name: &str, issued: &Issued) -> AcmeView {
        let wanted = &issued.wanted;
        // Of several key types the one that is worst off.
        let worst = wanted.key_types.iter().max_by_key(|key_type| {
            let all = self.all();
            let live = all.get(&(name.to_owned(), **key_type));
            live.map_or((false, 0), |live| (live.step.is_some(), live.attempt.failures))
        });
        let key_type = worst.copied().unwrap_or(KeyType::P256);
        let key = (name.to_owned(), key_type);
        let live = self.all().get(&key).cloned().unwrap_or_default();
        let next = self.next(head, issued, &key).filter(|_| live.step.is_none());
        let is_there = self.current(head, issued, key_type).is_some();
        let now = jiff::Timestamp::now().as_second();
        AcmeView {
            account: wanted.account.to_string(),
            domains: wanted.domains.iter().map(|domain| domain.to_string()).collect(),
            challenges: wanted.challenges.iter().map(|challenge| challenge.word()).collect(),
            key_types: wanted.key_types.iter().map(|key_type| key_type.word()).collect(),
            state: match (&live.step, &live.error, is_there) {
                (Some(_), ..) => "ordering",
                (None, Some(_), _) if live.attempt.failures > 0 => "failing",
                (None, _, false) => "waiting",
                (None, _, true) => "idle",
            },
            step: live.step,
            next: next.and_then(|next| {
                let what = match (next.why, is_there) {
                    (Why::Retry, _) => "retry",
                    (_, true) => "renew",
                    (_, false) => "order",
                };
                let at = jiff::Timestamp::from_second(next.at.max(now)).ok()?.to_string();
                Some(NextView { at, what, why: why_text(next.why) })
            }),
            failures: live.attempt.failures,
            last_error: live.error,
        }
    }

    /// How an account does.
    pub async fn account_view(&self, head: &Head, name: &str) -> anyhow::Result<Option<AccountView>> {
        let Some((account, _)) =
            head.model.get(Kind::AcmeAccount, name).and_then(|entry| entry.acme_account())
        else {
            return Ok(None);
        };
        let stored = self.0.clerk.store.acme_account(&key_of(account)).await?;
        let terms = self.0.clerk.accounts.terms(account).await;
        let registered = stored.filter(|stored| !stored.url.is_empty());
        let of_account = |(name, issued): (&str, &Issued)| {
            (issued.wanted.account == account.name).then(|| name.to_owned())
        };
        let troubles = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(AccountView {
            name: name.to_owned(),
            directory: account.directory.to_string(),
            registered: registered.is_some(),
            contact: registered
                .as_ref()
                .and_then(|stored| serde_json::from_str(&stored.contact).ok())
                .unwrap_or_default(),
            url: registered.map(|stored| stored.url),
            terms,
            certificates: super::issued(head).filter_map(of_account).collect(),
            last_error: troubles.get(name).cloned(),
        }))
    }

    /// How many orders came to what end, by account.
    pub fn orders(&self) -> Vec<((String, &'static str), u64)> {
        let orders = self.0.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.iter().map(|(of, count)| (of.clone(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_by_what_is_left_and_who_renews() {
        let at = |days: i64| jiff::Timestamp::from_second(1_800_000_000 + days * DAY).unwrap();
        let mut facts = CertificateFacts::default();
        (facts.not_before, facts.not_after) = (at(0).to_string(), at(90).to_string());
        let state = |days, renews_itself| State::by_life(&facts, renews_itself, at(days).as_second());
        // Somebody has to replace it: two weeks ahead.
        assert_eq!(
            [75, 77, 89, 90].map(|days| state(days, false)),
            [State::Valid, State::Expiring, State::Expiring, State::Expired]
        );
        // It should be renewed at a third of its life: a fifth is too late.
        assert_eq!([61, 71, 73].map(|days| state(days, true)), [State::Valid, State::Valid, State::Expiring]);
        assert_eq!(state(-1, true), State::NotYetValid);
    }
}
