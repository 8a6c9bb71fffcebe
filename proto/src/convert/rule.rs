//! Rules: matches and actions.

use awe4lb_model::{Match, Rule, RuleAction, SniPattern, SplitTarget, TlsMode, placed::Number};
use ipnet::IpNet;

use super::{At, ip, ip_bytes, name, number};
use crate::{Problem, WireError, v1};

pub(super) fn to_wire(rule: &Rule, number: Number) -> v1::Rule {
    v1::Rule {
        number: number.0,
        name: rule.name.to_string(),
        sni: rule.matches.sni.iter().map(sni_to_wire).collect(),
        client: rule.matches.client.iter().map(prefix_to_wire).collect(),
        peer: rule.matches.peer.iter().map(prefix_to_wire).collect(),
        terminate_tls: rule.tls == TlsMode::Terminate,
        action: Some(match &rule.action {
            RuleAction::Pool(pool) => v1::rule::Action::Pool(pool.to_string()),
            RuleAction::Split(targets) => v1::rule::Action::Split(v1::Split {
                targets: targets
                    .iter()
                    .map(|target| v1::SplitTarget { pool: target.pool.to_string(), weight: target.weight })
                    .collect(),
            }),
            RuleAction::Reject => v1::rule::Action::Reject(v1::Reject {}),
        }),
    }
}

pub(super) fn from_wire(wire: v1::Rule, at: At<'_>) -> Result<(Number, Rule), WireError> {
    let rule = Rule {
        name: name(&wire.name, at.field("name"))?,
        matches: Match {
            sni: all(wire.sni, at.field("sni"), sni_from_wire)?,
            client: all(wire.client, at.field("client"), prefix_from_wire)?,
            peer: all(wire.peer, at.field("peer"), prefix_from_wire)?,
        },
        action: match wire.action {
            Some(v1::rule::Action::Pool(pool)) => RuleAction::Pool(name(&pool, at.field("pool"))?),
            Some(v1::rule::Action::Split(split)) => split_from_wire(split, at.field("split"))?,
            Some(v1::rule::Action::Reject(v1::Reject {})) => RuleAction::Reject,
            None => return Err(at.field("action").refuse(Problem::Missing)),
        },
        tls: if wire.terminate_tls { TlsMode::Terminate } else { TlsMode::Passthrough },
    };
    Ok((number(wire.number, at.field("number"))?, rule))
}

fn all<W, T>(
    wire: Vec<W>,
    at: At<'_>,
    one: impl Fn(W, At<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    wire.into_iter().enumerate().map(|(index, item)| one(item, at.index(index))).collect()
}

fn sni_to_wire(pattern: &SniPattern) -> v1::Sni {
    match pattern {
        SniPattern::Exact(name) => v1::Sni { name: name.to_string(), wildcard: false },
        SniPattern::Wildcard(name) => v1::Sni { name: name.to_string(), wildcard: true },
    }
}

fn sni_from_wire(wire: v1::Sni, at: At<'_>) -> Result<SniPattern, WireError> {
    if wire.name.is_empty() {
        return Err(at.field("name").refuse(Problem::Missing));
    }
    // Matching compares bytes: anything else than a lower-case name without its last dot would never match.
    let odd = |byte: u8| byte.is_ascii_uppercase() || !byte.is_ascii_graphic();
    if wire.name.len() > 253 || wire.name.ends_with('.') || wire.name.bytes().any(odd) {
        let problem = Problem::Malformed("not a lower-case server name".to_owned());
        return Err(at.field("name").refuse(problem));
    }
    let name = wire.name.into_boxed_str();
    Ok(if wire.wildcard { SniPattern::Wildcard(name) } else { SniPattern::Exact(name) })
}

fn prefix_to_wire(prefix: &IpNet) -> v1::Prefix {
    v1::Prefix { address: ip_bytes(prefix.addr()), length: prefix.prefix_len().into() }
}

fn prefix_from_wire(wire: v1::Prefix, at: At<'_>) -> Result<IpNet, WireError> {
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
