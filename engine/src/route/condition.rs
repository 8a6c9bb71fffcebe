//! What a rule asks for, in the form that is asked for every connection.

use std::sync::Arc;

use awe4lb_model::{Match, PortRange, SniPattern, rule::sni_regex};

use super::{AddressSet, Facts, NameTable, Tables};

/// One [`Match`], compiled. Fields that ask for nothing cost nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    names: Vec<NamePattern>,
    alpn: Vec<Box<str>>,
    tls: Option<bool>,
    client: AddressSet,
    peer: AddressSet,
    port: Vec<PortRange>,
    any: Vec<Condition>,
    all: Vec<Condition>,
    not: Vec<Condition>,
}

#[derive(Debug, Clone)]
enum NamePattern {
    Exact(Box<str>),
    /// With its dot: `.example.com`.
    Below(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Regex(regex::bytes::Regex),
    Map(Arc<NameTable>),
    None,
}

impl Condition {
    /// `names`: those that are not found in another way.
    pub(super) fn compile<'a>(
        matches: &Match,
        names: impl IntoIterator<Item = &'a SniPattern>,
        tables: &Tables,
    ) -> Self {
        let inner =
            |parts: &[Match]| parts.iter().map(|part| Self::compile(part, &part.sni, tables)).collect();
        Self {
            names: names.into_iter().map(|pattern| NamePattern::compile(pattern, tables)).collect(),
            alpn: matches.alpn.clone(),
            tls: matches.tls,
            client: tables.addresses(&matches.client),
            peer: tables.addresses(&matches.peer),
            port: matches.port.clone(),
            any: inner(&matches.any),
            all: inner(&matches.all),
            not: inner(&matches.not),
        }
    }

    /// Whether one of the names fits, or none is asked for.
    pub(super) fn names_hold(&self, facts: &Facts<'_>) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.holds(facts))
    }

    /// Whether all the rest holds.
    pub(super) fn others_hold(&self, facts: &Facts<'_>) -> bool {
        self.tls.is_none_or(|wanted| wanted == facts.is_tls)
            && (self.client.is_empty() || self.client.contains(facts.client))
            && (self.peer.is_empty() || self.peer.contains(facts.peer))
            && (self.port.is_empty() || self.port.iter().any(|range| range.contains(facts.port)))
            && (self.alpn.is_empty() || self.alpn.iter().any(|wanted| facts.alpn.offers(wanted)))
            && (self.any.is_empty() || self.any.iter().any(|part| part.holds(facts)))
            && self.all.iter().all(|part| part.holds(facts))
            && !self.not.iter().any(|part| part.holds(facts))
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.names_hold(facts) && self.others_hold(facts)
    }
}

impl NamePattern {
    fn compile(pattern: &SniPattern, tables: &Tables) -> Self {
        match pattern {
            SniPattern::Exact(name) => Self::Exact(name.clone()),
            SniPattern::Wildcard(parent) => Self::Below(format!(".{parent}").into()),
            SniPattern::Prefix(start) => Self::Prefix(start.clone()),
            SniPattern::Suffix(end) => Self::Suffix(end.clone()),
            // Checked to compile when it was decoded; no name is empty, so that one that does not meets nothing.
            SniPattern::Regex(text) => sni_regex(text).map_or(Self::Exact(Box::default()), Self::Regex),
            SniPattern::Map(name) => Self::Map(tables.map(name)),
            SniPattern::None => Self::None,
        }
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        let Some(name) = facts.server_name else { return facts.is_tls && matches!(self, Self::None) };
        match self {
            Self::Exact(wanted) => **wanted == *name,
            Self::Below(end) => name.len() > end.len() && name.ends_with(&**end),
            Self::Prefix(start) => name.starts_with(&**start),
            Self::Suffix(end) => name.ends_with(&**end),
            Self::Regex(regex) => regex.is_match(name.as_bytes()),
            Self::Map(table) => table.find(name).is_some(),
            Self::None => false,
        }
    }
}
