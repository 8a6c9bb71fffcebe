//! Rules: matches and actions.

use awe4lb_model::{
    Addresses, MIRROR_ALL, Match, Mirror, Name, PortRange, Rule, RuleAction, SniPattern, SplitTarget,
    TlsMode,
    placed::Number,
    rule::{MAX_MATCH_DEPTH, sni_regex},
};
use ipnet::IpNet;

use super::{At, at_most, ip, ip_bytes, name, number, port};
use crate::{Problem, WireError, v1};

pub(super) fn to_wire(rule: &Rule, number: Number) -> v1::Rule {
    v1::Rule {
        number: number.0,
        name: rule.name.to_string(),
        r#match: (!rule.matches.is_empty()).then(|| match_to_wire(&rule.matches)),
        sticky: rule.sticky,
        mirror: rule
            .mirror
            .as_ref()
            .map(|mirror| v1::Mirror { pool: mirror.pool.to_string(), share: mirror.share }),
        terminate_tls: rule.tls == TlsMode::Terminate,
        action: Some(match &rule.action {
            RuleAction::Pool(pool) => v1::rule::Action::Pool(pool.to_string()),
            RuleAction::Split(targets) => v1::rule::Action::Split(v1::Split {
                targets: targets
                    .iter()
                    .map(|target| v1::SplitTarget { pool: target.pool.to_string(), weight: target.weight })
                    .collect(),
            }),
            RuleAction::Map(map) => v1::rule::Action::Map(map.to_string()),
            RuleAction::Reject => v1::rule::Action::Reject(v1::Reject {}),
        }),
    }
}

pub(super) fn from_wire(wire: v1::Rule, at: At<'_>) -> Result<(Number, Rule), WireError> {
    let rule = Rule {
        name: name(&wire.name, at.field("name"))?,
        matches: match wire.r#match {
            Some(matches) => match_from_wire(matches, at.field("match"), 1)?,
            None => Match::default(),
        },
        sticky: wire.sticky,
        mirror: wire.mirror.map(|mirror| mirror_from_wire(&mirror, at.field("mirror"))).transpose()?,
        action: match wire.action {
            Some(v1::rule::Action::Pool(pool)) => RuleAction::Pool(name(&pool, at.field("pool"))?),
            Some(v1::rule::Action::Split(split)) => split_from_wire(split, at.field("split"))?,
            Some(v1::rule::Action::Map(map)) => RuleAction::Map(name(&map, at.field("map"))?),
            Some(v1::rule::Action::Reject(v1::Reject {})) => RuleAction::Reject,
            None => return Err(at.field("action").refuse(Problem::Missing)),
        },
        tls: if wire.terminate_tls { TlsMode::Terminate } else { TlsMode::Passthrough },
    };
    let is_of_map = match (&rule.action, rule.matches.sni.as_slice()) {
        (RuleAction::Map(action), [SniPattern::Map(asked)]) => action == asked,
        (RuleAction::Map(_), _) => false,
        (_, patterns) => !patterns.iter().any(|pattern| matches!(pattern, SniPattern::Map(_))),
    };
    if !is_of_map {
        let problem = Problem::Malformed("a map both matches and names the pool".to_owned());
        return Err(at.field("map").refuse(problem));
    }
    Ok((number(wire.number, at.field("number"))?, rule))
}

fn mirror_from_wire(wire: &v1::Mirror, at: At<'_>) -> Result<Mirror, WireError> {
    Ok(Mirror {
        pool: name(&wire.pool, at.field("pool"))?,
        share: at_most(wire.share, MIRROR_ALL, at.field("share"))?,
    })
}

pub(super) fn all<W, T>(
    wire: Vec<W>,
    at: At<'_>,
    one: impl Fn(W, At<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    wire.into_iter().enumerate().map(|(index, item)| one(item, at.index(index))).collect()
}

fn match_to_wire(matches: &Match) -> v1::Match {
    let parts = |parts: &[Match]| parts.iter().map(match_to_wire).collect();
    v1::Match {
        sni: matches.sni.iter().map(sni_to_wire).collect(),
        alpn: matches.alpn.iter().map(ToString::to_string).collect(),
        tls: matches.tls,
        client: matches.client.prefixes.iter().map(prefix_to_wire).collect(),
        peer: matches.peer.prefixes.iter().map(prefix_to_wire).collect(),
        client_lists: names_to_wire(&matches.client.lists),
        peer_lists: names_to_wire(&matches.peer.lists),
        port: matches
            .port
            .iter()
            .map(|range| v1::PortRange { first: range.first.into(), last: range.last.into() })
            .collect(),
        any: parts(&matches.any),
        all: parts(&matches.all),
        not: parts(&matches.not),
    }
}

fn match_from_wire(wire: v1::Match, at: At<'_>, depth: usize) -> Result<Match, WireError> {
    if depth > MAX_MATCH_DEPTH {
        return Err(at.refuse(Problem::Malformed("conditions too deep inside each other".to_owned())));
    }
    let inner = |part, at: At<'_>| match_from_wire(part, at, depth + 1);
    Ok(Match {
        sni: all(wire.sni, at.field("sni"), sni_from_wire)?,
        alpn: wire.alpn.into_iter().map(String::into_boxed_str).collect(),
        tls: wire.tls,
        client: Addresses {
            prefixes: all(wire.client, at.field("client"), prefix_from_wire)?,
            lists: names_from_wire(wire.client_lists, at.field("client_lists"))?,
        },
        peer: Addresses {
            prefixes: all(wire.peer, at.field("peer"), prefix_from_wire)?,
            lists: names_from_wire(wire.peer_lists, at.field("peer_lists"))?,
        },
        port: all(wire.port, at.field("port"), port_range_from_wire)?,
        any: all(wire.any, at.field("any"), inner)?,
        all: all(wire.all, at.field("all"), inner)?,
        not: all(wire.not, at.field("not"), inner)?,
    })
}

pub(super) fn names_to_wire(names: &[Name]) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

pub(super) fn names_from_wire(wire: Vec<String>, at: At<'_>) -> Result<Vec<Name>, WireError> {
    all(wire, at, |text, at| name(&text, at))
}

fn port_range_from_wire(wire: v1::PortRange, at: At<'_>) -> Result<PortRange, WireError> {
    let range =
        PortRange { first: port(wire.first, at.field("first"))?, last: port(wire.last, at.field("last"))? };
    if range.first == 0 || range.last < range.first {
        return Err(at.refuse(Problem::Malformed("not a range of ports".to_owned())));
    }
    Ok(range)
}

fn sni_to_wire(pattern: &SniPattern) -> v1::Sni {
    let (kind, text) = match pattern {
        SniPattern::Exact(name) => (v1::SniKind::Exact, &**name),
        SniPattern::Wildcard(name) => (v1::SniKind::Wildcard, &**name),
        SniPattern::Prefix(start) => (v1::SniKind::Prefix, &**start),
        SniPattern::Suffix(end) => (v1::SniKind::Suffix, &**end),
        SniPattern::Regex(text) => (v1::SniKind::Regex, &**text),
        SniPattern::Map(name) => (v1::SniKind::Map, name.as_str()),
        SniPattern::None => (v1::SniKind::None, ""),
    };
    v1::Sni { text: text.to_owned(), kind: kind.into() }
}

fn sni_from_wire(wire: v1::Sni, at: At<'_>) -> Result<SniPattern, WireError> {
    let make: fn(Box<str>) -> SniPattern = match v1::SniKind::try_from(wire.kind) {
        Ok(v1::SniKind::Exact) => SniPattern::Exact,
        Ok(v1::SniKind::Wildcard) => SniPattern::Wildcard,
        Ok(v1::SniKind::Prefix) => SniPattern::Prefix,
        Ok(v1::SniKind::Suffix) => SniPattern::Suffix,
        Ok(v1::SniKind::Regex) => {
            sni_regex(&wire.text)
                .map_err(|error| at.field("text").refuse(Problem::Malformed(error.to_string())))?;
            return Ok(SniPattern::Regex(wire.text.into()));
        }
        Ok(v1::SniKind::Map) => return Ok(SniPattern::Map(name(&wire.text, at.field("text"))?)),
        Ok(v1::SniKind::None) if wire.text.is_empty() => return Ok(SniPattern::None),
        Ok(v1::SniKind::None) => {
            let problem = Problem::Malformed("text where there is no name".to_owned());
            return Err(at.field("text").refuse(problem));
        }
        Ok(v1::SniKind::Unspecified) => return Err(at.field("kind").refuse(Problem::Missing)),
        Err(_) => return Err(at.field("kind").refuse(Problem::UnknownValue(wire.kind))),
    };
    if wire.text.is_empty() {
        return Err(at.field("text").refuse(Problem::Missing));
    }
    let is_whole = matches!(wire.kind(), v1::SniKind::Exact | v1::SniKind::Wildcard);
    if !is_server_name(&wire.text, is_whole) {
        let problem = Problem::Malformed("not a lower-case server name".to_owned());
        return Err(at.field("text").refuse(problem));
    }
    Ok(make(wire.text.into_boxed_str()))
}

/// Matching compares bytes: anything else than a lower-case name without its last dot would never match.
pub(super) fn is_server_name(text: &str, is_whole: bool) -> bool {
    let odd = |byte: u8| byte.is_ascii_uppercase() || !byte.is_ascii_graphic();
    text.len() <= 253 && !(is_whole && text.ends_with('.')) && !text.bytes().any(odd)
}

pub(super) fn prefix_to_wire(prefix: &IpNet) -> v1::Prefix {
    v1::Prefix { address: ip_bytes(prefix.addr()), length: prefix.prefix_len().into() }
}

pub(super) fn prefix_from_wire(wire: v1::Prefix, at: At<'_>) -> Result<IpNet, WireError> {
    let ip = ip(&wire.address, at.field("address"))?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let refused = || at.field("length").refuse(Problem::OutOfRange { value: wire.length.into(), most });
    let length = u8::try_from(wire.length).map_err(|_| refused())?;
    IpNet::new(ip, length).map_err(|_| refused())
}

fn split_from_wire(wire: v1::Split, at: At<'_>) -> Result<RuleAction, WireError> {
    let total: u64 = wire.targets.iter().map(|target| u64::from(target.weight)).sum();
    if total == 0 {
        return Err(at.field("targets").refuse(Problem::Missing));
    }
    let targets = all(wire.targets, at.field("targets"), |target, at| {
        Ok(SplitTarget { pool: name(&target.pool, at.field("pool"))?, weight: target.weight })
    })?;
    Ok(RuleAction::Split(targets))
}
