//! Why a rule does or does not match: by the rule as it is written, not by the index.

use std::net::IpAddr;

use awe4lb_model::{Addresses, Match, Rule, SniPattern, rule::sni_regex};

use super::{Facts, Tables};

/// Why a rule was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The server name is another one, or there is none.
    ServerName,
    /// None of the application protocols is offered.
    Alpn,
    /// The client speaks TLS, or does not.
    Tls,
    /// The client's address is not listed.
    Client,
    /// The peer's address is not listed.
    Peer,
    /// The client came to another port.
    Port,
    /// None of `any` holds.
    Any,
    /// One of `all` does not hold.
    All,
    /// One of `not` holds.
    Not,
}

impl Mismatch {
    /// In words, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::ServerName => "the server name does not match",
            Self::Alpn => "none of the application protocols is offered",
            Self::Tls => "whether the client speaks TLS does not match",
            Self::Client => "the client's address is not listed",
            Self::Peer => "the peer's address is not listed",
            Self::Port => "the client came to another port",
            Self::Any => "none of \"any\" holds",
            Self::All => "one of \"all\" does not hold",
            Self::Not => "one of \"not\" holds",
        }
    }
}

/// Why `rule` does not match, or `None` when it does. `tables`: the lists and maps that rules refer to.
pub fn explain(rule: &Rule, facts: &Facts<'_>, tables: &Tables) -> Option<Mismatch> {
    mismatch(&rule.matches, facts, tables)
}

fn mismatch(matches: &Match, facts: &Facts<'_>, tables: &Tables) -> Option<Mismatch> {
    let holds = |part: &Match| mismatch(part, facts, tables).is_none();
    let checks = [
        (
            matches.sni.is_empty() || matches.sni.iter().any(|pattern| fits(pattern, facts, tables)),
            Mismatch::ServerName,
        ),
        (
            matches.alpn.is_empty() || matches.alpn.iter().any(|wanted| facts.alpn.offers(wanted)),
            Mismatch::Alpn,
        ),
        (matches.tls.is_none_or(|wanted| wanted == facts.is_tls), Mismatch::Tls),
        (lists(&matches.client, facts.client, tables), Mismatch::Client),
        (lists(&matches.peer, facts.peer, tables), Mismatch::Peer),
        (
            matches.port.is_empty() || matches.port.iter().any(|range| range.contains(facts.port)),
            Mismatch::Port,
        ),
        (matches.any.is_empty() || matches.any.iter().any(holds), Mismatch::Any),
        (matches.all.iter().all(holds), Mismatch::All),
        (!matches.not.iter().any(holds), Mismatch::Not),
    ];
    checks.into_iter().find(|(holds, _)| !holds).map(|(_, mismatch)| mismatch)
}

fn fits(pattern: &SniPattern, facts: &Facts<'_>, tables: &Tables) -> bool {
    match (pattern, facts.server_name) {
        (SniPattern::Exact(wanted), Some(name)) => **wanted == *name,
        (SniPattern::Wildcard(parent), Some(name)) => {
            name.strip_suffix(&**parent).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        }
        (SniPattern::Prefix(start), Some(name)) => name.starts_with(&**start),
        (SniPattern::Suffix(end), Some(name)) => name.ends_with(&**end),
        (SniPattern::Regex(text), Some(name)) => {
            sni_regex(text).is_ok_and(|regex| regex.is_match(name.as_bytes()))
        }
        (SniPattern::Map(map), Some(name)) => tables.map(map).find(name).is_some(),
        (SniPattern::None, None) => facts.is_tls,
        (SniPattern::None, Some(_)) | (_, None) => false,
    }
}

/// Where nobody is named, everybody is meant.
fn lists(addresses: &Addresses, address: IpAddr, tables: &Tables) -> bool {
    let address = address.to_canonical();
    addresses.is_empty()
        || addresses.prefixes.iter().any(|prefix| prefix.contains(&address))
        || addresses.lists.iter().any(|list| tables.list(list).contains(address))
}
