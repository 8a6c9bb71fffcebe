//! From a checked tree to the nouns. Defaults are filled in here, and only here.
//!
//! Values are known to be well formed (see `check`); what remains is what spans fields: exactly one action a rule, no
//! TLS on UDP, and the like.

use std::time::Duration;

use super::{
    access,
    discovery::sources,
    health::health_check,
    lists::addresses,
    scalars,
    tree::{Node, NodeKind},
    udp,
    violation::{Path, Violation},
};
use crate::{
    ACCESS_LOG_ALL, Backend, Balance, Certificate, Connect, Defaults, FolderCertificate, HashOn, Listener,
    Locality, MIRROR_ALL, Match, MinTlsVersion, Mirror, Name, OnDown, Outlier, Pool, PortRange, Preamble,
    Protocol, ProxyDatagrams, ProxyVersion, Rule, RuleAction, SniPattern, SplitTarget, TcpTimeouts, Tiers,
    TlsMode, TlsSettings, WhenAllDown,
};

use crate::rule::MAX_MATCH_DEPTH;

const SECOND: Duration = Duration::from_secs(1);

/// What is wrong, and what only looks so.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Violation>,
    pub(super) warnings: Vec<Violation>,
}

impl Findings {
    pub(super) fn error(
        &mut self,
        path: &Path<'_>,
        node: &Node,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        self.errors.push(Violation::new(path.to_string(), node.at, code, detail));
    }

    pub(super) fn warn(
        &mut self,
        path: &Path<'_>,
        node: &Node,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        self.warnings.push(Violation::new(path.to_string(), node.at, code, detail));
    }
}

pub(super) fn defaults(node: Option<&Node>) -> Defaults {
    let Some(node) = node else { return Defaults::default() };
    let connect = node.field("connect");
    let timeouts = node.field("timeouts");
    Defaults {
        connect_timeout: connect.and_then(|node| duration(node, "timeout")),
        connect_attempts: connect.and_then(|node| number(node, "attempts")),
        handshake_timeout: timeouts.and_then(|node| duration(node, "handshake")),
        idle_timeout: timeouts.and_then(|node| duration_limit(node, "idle")),
        half_close_timeout: timeouts.and_then(|node| duration(node, "halfClose")),
        lifetime: timeouts.and_then(|node| duration_limit(node, "lifetime")),
    }
}

pub(super) fn listener(
    node: &Node,
    defaults: &Defaults,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<Listener> {
    let protocol = match text(node, "protocol") {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let bind = node.field("bind")?;
    let bind_path = Path::Field(path, "bind");
    if bind.items().is_empty() {
        found.error(&bind_path, bind, "empty", "a listener needs at least one address to bind");
    }
    let tls = node.field("tls").and_then(|tls| {
        let path = Path::Field(path, "tls");
        if protocol == Protocol::Udp {
            found.error(&path, tls, "conflict", "a UDP listener cannot terminate TLS");
        }
        tls_settings(tls, &path, found)
    });
    udp::check_transport(node, protocol, path, found);
    let acme_http01 = boolean(node, "acmeHttp01").unwrap_or(false);
    if let Some(preamble) = node.field("preamble")
        && acme_http01
    {
        let detail = "who asks for TLS first asks for no challenge: \"acmeHttp01\" has no place here";
        found.error(&Path::Field(path, "preamble"), preamble, "conflict", detail);
    }
    let rules = listener_rules(node, tls.is_some(), acme_http01, path, found);
    let timeouts = node.field("timeouts");
    let idle = timeouts.and_then(|node| duration_limit(node, "idle")).or(defaults.idle_timeout);
    let lifetime = timeouts.and_then(|node| duration_limit(node, "lifetime")).or(defaults.lifetime);
    Some(Listener {
        name: name(node, "name")?,
        labels: labels(node.field("labels")),
        bind: bind.items().iter().filter_map(|item| scalars::bind(item.as_text()?).ok()).collect(),
        protocol,
        tls,
        proxy_from: node.field("proxyProtocol").map(|node| prefixes(node, "from")).unwrap_or_default(),
        access: node.field("access").map(|node| access::access(node, &Path::Field(path, "access"), found)),
        preamble: match text(node, "preamble") {
            Some("postgres") => Some(Preamble::Postgres),
            Some("ldap") => Some(Preamble::Ldap),
            _ => None,
        },
        acme_http01,
        rules,
        limits: access::limits(node.field("limits")),
        timeouts: TcpTimeouts {
            handshake: timeouts
                .and_then(|node| duration(node, "handshake"))
                .or(defaults.handshake_timeout)
                .unwrap_or(10 * SECOND),
            idle: idle.unwrap_or(Some(3600 * SECOND)),
            half_close: timeouts
                .and_then(|node| duration(node, "halfClose"))
                .or(defaults.half_close_timeout)
                .unwrap_or(60 * SECOND),
            lifetime: lifetime.unwrap_or(None),
        },
        udp: udp::settings(node.field("udp"), path, found),
        affinity: node.field("affinity").and_then(udp::affinity),
        access_log: node.field("accessLog").map(|node| sample(node, ACCESS_LOG_ALL)),
    })
}

/// The field `sample`, in parts of `all`.
fn sample(node: &Node, all: u32) -> u32 {
    let share = match node.field("sample").map(|node| &node.kind) {
        Some(NodeKind::Float(share)) => *share,
        Some(NodeKind::Integer(share)) => *share as f64,
        _ => 1.0,
    };
    (share.clamp(0.0, 1.0) * f64::from(all)).round() as u32
}

fn tls_settings(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<TlsSettings> {
    let certificates = node.field("certificates")?;
    if certificates.items().is_empty() {
        found.error(
            &Path::Field(path, "certificates"),
            certificates,
            "empty",
            "TLS needs at least one certificate",
        );
    }
    Some(TlsSettings {
        certificates: certificates.items().iter().filter_map(|item| item.as_text()?.parse().ok()).collect(),
        min_version: match text(node, "minVersion") {
            Some("1.3") => MinTlsVersion::V1_3,
            _ => MinTlsVersion::V1_2,
        },
        alpn: texts(node.field("alpn")),
        require_sni: boolean(node, "requireSni").unwrap_or(false),
    })
}

fn listener_rules(
    listener: &Node,
    has_tls: bool,
    may_be_none: bool,
    path: &Path<'_>,
    found: &mut Findings,
) -> Vec<Rule> {
    let node = listener.field("rules");
    let path = &Path::Field(path, "rules");
    if node.is_none_or(|node| node.items().is_empty()) && !may_be_none {
        found.error(path, node.unwrap_or(listener), "empty", "a listener needs at least one rule");
    }
    node.map(|node| rules(node, has_tls, path, found)).unwrap_or_default()
}

fn rules(node: &Node, has_tls: bool, path: &Path<'_>, found: &mut Findings) -> Vec<Rule> {
    let mut seen = std::collections::HashMap::new();
    let mut caught_by: Option<Name> = None;
    let mut rules = Vec::with_capacity(node.items().len());
    for (index, item) in node.items().iter().enumerate() {
        let here = Path::Index(path, index);
        let Some(rule) = rule(item, has_tls, &here, found) else { continue };
        if let Some(first) = seen.insert(rule.name.clone(), index) {
            found.error(&here, item, "duplicate-name", format!("rule {first} is called {:?} too", rule.name));
        }
        match &caught_by {
            Some(name) => {
                found.warn(&here, item, "unreachable", format!("rule {name:?} before it matches everything"));
            }
            None if rule.matches.is_empty() => caught_by = Some(rule.name.clone()),
            None => {}
        }
        rules.push(rule);
    }
    rules
}

fn rule(node: &Node, has_tls: bool, path: &Path<'_>, found: &mut Findings) -> Option<Rule> {
    let matches = node.field("match").map(conditions).unwrap_or_default();
    if matches.depth() > MAX_MATCH_DEPTH {
        let detail = format!("conditions are at most {MAX_MATCH_DEPTH} levels deep");
        found.error(&Path::Field(path, "match"), node, "too-deep", detail);
    }
    if let Some(sticky) = node.field("sticky")
        && node.field("split").is_none()
    {
        found.error(&Path::Field(path, "sticky"), sticky, "conflict", "only a split has sides to stay on");
    }
    let actions: Vec<&str> =
        ["pool", "split", "reject"].into_iter().filter(|action| node.field(action).is_some()).collect();
    let map = map_of(node, &matches, path, found)?;
    if actions.len() + usize::from(map.is_some()) != 1 {
        let detail = if map.is_some() {
            format!("the entries of a map name the pool, so that {} has no place here", actions.join(" and "))
        } else if actions.is_empty() {
            "a rule needs one of \"pool\", \"split\" and \"reject\"".to_owned()
        } else {
            format!("a rule does one thing, this has {}", actions.join(" and "))
        };
        found.error(path, node, "bad-action", detail);
        return None;
    }
    let action = match actions.first().copied() {
        None => RuleAction::Map(map?),
        Some("pool") => RuleAction::Pool(name(node, "pool")?),
        Some("split") => split(node.field("split")?, &Path::Field(path, "split"), found)?,
        Some(_) => RuleAction::Reject,
    };
    let tls = match (text(node, "tls"), has_tls) {
        (Some("terminate"), false) => {
            found.error(
                &Path::Field(path, "tls"),
                node,
                "conflict",
                "the listener has no \"tls\" to terminate with",
            );
            TlsMode::Passthrough
        }
        (Some("terminate") | None, true) => TlsMode::Terminate,
        _ => TlsMode::Passthrough,
    };
    let mirror = match node.field("mirror") {
        Some(mirror) => Some(self::mirror(mirror, &action, path, found)?),
        None => None,
    };
    let sticky = text(node, "sticky").is_some();
    Some(Rule { name: name(node, "name")?, matches, action, tls, sticky, mirror })
}

fn mirror(node: &Node, action: &RuleAction, path: &Path<'_>, found: &mut Findings) -> Option<Mirror> {
    if *action == RuleAction::Reject {
        found.error(
            &Path::Field(path, "mirror"),
            node,
            "conflict",
            "of what is rejected there are no copies",
        );
    }
    Some(Mirror { pool: name(node, "pool")?, share: sample(node, MIRROR_ALL) })
}

/// The map of a rule that has one. `None`: it is used where it cannot be.
fn map_of(node: &Node, matches: &Match, path: &Path<'_>, found: &mut Findings) -> Option<Option<Name>> {
    let misplaced = |found: &mut Findings, detail: &str| {
        found.error(&Path::Field(path, "match"), node, "conflict", detail);
    };
    let has_map = |part: &Match| part.sni.iter().any(|pattern| matches!(pattern, SniPattern::Map(_)));
    let is_inside = |part: &Match| {
        let mut parts: Vec<&Match> = part.parts().collect();
        while let Some(part) = parts.pop() {
            if has_map(part) {
                return true;
            }
            parts.extend(part.parts());
        }
        false
    };
    if is_inside(matches) {
        misplaced(
            found,
            "a map decides the pool: it stands in \"sni\" of the rule's own match, not inside of conditions",
        );
        return None;
    }
    match matches.sni.as_slice() {
        [SniPattern::Map(map)] => Some(Some(map.clone())),
        _ if has_map(matches) => {
            misplaced(found, "a map stands alone in \"sni\": make another rule for other names");
            None
        }
        _ => Some(None),
    }
}

fn conditions(node: &Node) -> Match {
    let parts = |field| one_or_many(node.field(field)).map(conditions).collect();
    Match {
        sni: one_or_many(node.field("sni")).filter_map(sni).collect(),
        alpn: one_or_many(node.field("alpn")).filter_map(|item| Some(item.as_text()?.into())).collect(),
        tls: boolean(node, "tls"),
        client: addresses(node.field("client")),
        peer: addresses(node.field("peer")),
        port: one_or_many(node.field("port")).filter_map(port_range).collect(),
        any: parts("any"),
        all: parts("all"),
        not: parts("not"),
    }
}

fn prefixes(node: &Node, field: &str) -> Vec<ipnet::IpNet> {
    one_or_many(node.field(field)).filter_map(|item| scalars::prefix(item.as_text()?).ok()).collect()
}

fn sni(node: &Node) -> Option<SniPattern> {
    if let Some(text) = node.as_text() {
        return scalars::sni(text).ok();
    }
    let part = |field| text(node, field).and_then(|text| scalars::name_part(text).ok());
    part("prefix")
        .map(SniPattern::Prefix)
        .or_else(|| part("suffix").map(SniPattern::Suffix))
        .or_else(|| name(node, "map").map(SniPattern::Map))
        .or_else(|| Some(SniPattern::Regex(text(node, "regex")?.into())))
}

fn port_range(node: &Node) -> Option<PortRange> {
    match node.kind {
        NodeKind::Integer(port) => {
            let port = u16::try_from(port).ok()?;
            Some(PortRange { first: port, last: port })
        }
        _ => scalars::ports(node.as_text()?).ok(),
    }
}

fn split(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<RuleAction> {
    let target = |item| Some(SplitTarget { pool: name(item, "pool")?, weight: number(item, "weight")? });
    let targets: Vec<SplitTarget> = node.items().iter().filter_map(target).collect();
    if targets.iter().all(|target| target.weight == 0) {
        found.error(path, node, "bad-value", "the weights of a split must add up to more than 0");
        return None;
    }
    Some(RuleAction::Split(targets))
}

pub(super) fn pool(node: &Node, defaults: &Defaults, path: &Path<'_>, found: &mut Findings) -> Option<Pool> {
    let backends_path = Path::Field(path, "backends");
    let mut backends: Vec<Backend> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (index, item) in node.field("backends").map(Node::items).unwrap_or_default().iter().enumerate() {
        let here = Path::Index(&backends_path, index);
        let Some(backend) = backend(item) else { continue };
        if let Some(first) = seen.insert(backend.name.clone(), index) {
            found.error(
                &here,
                item,
                "duplicate-name",
                format!("backend {first} is called {:?} too", backend.name),
            );
        }
        if backend.weight == 0 {
            found.warn(
                &here,
                item,
                "weight-zero",
                format!("backend {:?} has weight 0 and gets nothing", backend.name),
            );
        }
        backends.push(backend);
    }
    let connect = node.field("connect");
    let outlier = node.field("outlier");
    let health_check = node
        .field("healthCheck")
        .and_then(|check| health_check(check, &Path::Field(path, "healthCheck"), found));
    Some(Pool {
        name: name(node, "name")?,
        balance: match text(node, "balance") {
            Some("random") => Balance::Random,
            Some("leastConn") => Balance::LeastConn,
            Some("hash") => Balance::Hash,
            Some("maglev") => Balance::Maglev,
            Some("p2c") => Balance::P2c,
            Some("ewma") => Balance::Ewma,
            Some("leastBandwidth") => Balance::LeastBandwidth,
            _ => Balance::RoundRobin,
        },
        hash_on: match text(node, "hashOn") {
            Some("clientPort") => HashOn::ClientPort,
            Some("sni") => HashOn::Sni,
            Some("listener") => HashOn::Listener,
            _ => HashOn::Client,
        },
        tiers: node.field("tiers").map(tiers).unwrap_or_default(),
        locality: node.field("locality").map(|node| Locality {
            spill_below: number(node, "spillBelow").unwrap_or(Locality::default().spill_below),
        }),
        slow_start: duration(node, "slowStart"),
        backends,
        discovery: sources(node.field("discovery"), path, found),
        health_check,
        outlier: Outlier {
            consecutive_failures: outlier.and_then(|node| number(node, "consecutiveFailures")).unwrap_or(5),
            ejection: outlier.and_then(|node| duration(node, "ejection")).unwrap_or(30 * SECOND),
            max_ejected_percent: outlier.and_then(|node| number(node, "maxEjectedPercent")).unwrap_or(50),
        },
        when_all_down: match text(node, "whenAllDown") {
            Some("any") => WhenAllDown::Any,
            _ => WhenAllDown::Reject,
        },
        connect: Connect {
            timeout: connect
                .and_then(|node| duration(node, "timeout"))
                .or(defaults.connect_timeout)
                .unwrap_or(5 * SECOND),
            attempts: connect
                .and_then(|node| number(node, "attempts"))
                .or(defaults.connect_attempts)
                .unwrap_or(3),
        },
        proxy_protocol: match node.field("proxyProtocol").and_then(|node| text(node, "send")) {
            Some("v1") => Some(ProxyVersion::V1),
            Some(_) => Some(ProxyVersion::V2),
            None => None,
        },
        proxy_datagrams: match node.field("proxyProtocol").and_then(|node| text(node, "datagrams")) {
            Some("first") => ProxyDatagrams::First,
            _ => ProxyDatagrams::Every,
        },
        preserve_client_address: boolean(node, "preserveClientAddress").unwrap_or(false),
        on_down: match text(node, "onDown") {
            Some("keep") => OnDown::Keep,
            Some("close") => OnDown::Close,
            Some("rechoose") => OnDown::Rechoose,
            _ => OnDown::Auto,
        },
        removed_drain: node.field("onRemoved").and_then(|node| duration(node, "drain")),
    })
}

fn tiers(node: &Node) -> Tiers {
    let default = Tiers::default();
    Tiers {
        spill_when_full: text(node, "spill") == Some("whenFull"),
        min_usable: number(node, "minUsable").unwrap_or(default.min_usable),
        auto_failback: text(node, "failback") != Some("manual"),
        single_active: boolean(node, "singleActive").unwrap_or(default.single_active),
    }
}

fn backend(node: &Node) -> Option<Backend> {
    Some(Backend {
        name: name(node, "name")?,
        address: scalars::backend_address(text(node, "address")?).ok()?,
        weight: number(node, "weight").unwrap_or(1),
        priority: number(node, "priority").unwrap_or(0),
        max_connections: limit(node, "maxConnections").unwrap_or(None),
        zone: text(node, "zone").map(Into::into),
    })
}

/// A certificate without its key; `chain` must be there (files are inlined before).
pub(super) fn certificate(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<Certificate> {
    for field in ["chainFile", "keyFile"] {
        if let Some(value) = node.field(field) {
            let detail = format!(
                "{field:?} works in files only; send the text as {:?}",
                field.trim_end_matches("File")
            );
            found.error(&Path::Field(path, field), value, "file-not-allowed", detail);
        }
    }
    let Some(chain_pem) = text(node, "chain") else {
        if node.field("chainFile").is_none() {
            found.error(path, node, "missing-field", "a certificate needs \"chain\" or \"chainFile\"");
        }
        return None;
    };
    Some(Certificate { name: name(node, "name")?, chain_pem: chain_pem.to_owned() })
}

/// A certificate in a folder.
pub(super) fn folder_certificate(
    node: &Node,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<FolderCertificate> {
    let folder = text(node, "directory")?;
    for other in ["chain", "chainFile", "key", "keyFile", "acme"] {
        if let Some(value) = node.field(other) {
            let detail = format!("what lies in a folder has no {other:?}");
            found.error(&Path::Field(path, other), value, "conflict", detail);
        }
    }
    if !folder.starts_with('/') {
        let at = node.field("directory")?;
        found.error(&Path::Field(path, "directory"), at, "bad-value", "write the whole path of the folder");
    }
    Some(FolderCertificate { name: name(node, "name")?, path: folder.into() })
}

pub(super) fn text<'a>(node: &'a Node, field: &str) -> Option<&'a str> {
    node.field(field)?.as_text()
}

pub(super) fn name(node: &Node, field: &str) -> Option<Name> {
    text(node, field)?.parse().ok()
}

pub(super) fn number<T: TryFrom<i64>>(node: &Node, field: &str) -> Option<T> {
    match node.field(field)?.kind {
        NodeKind::Integer(integer) => T::try_from(integer).ok(),
        _ => None,
    }
}

pub(super) fn boolean(node: &Node, field: &str) -> Option<bool> {
    match node.field(field)?.kind {
        NodeKind::Bool(value) => Some(value),
        _ => None,
    }
}

/// `Some(None)` is `unlimited`.
pub(super) fn limit(node: &Node, field: &str) -> Option<Option<u32>> {
    match text(node, field) {
        Some("unlimited") => Some(None),
        _ => number(node, field).map(Some),
    }
}

pub(super) fn duration(node: &Node, field: &str) -> Option<Duration> {
    scalars::duration(text(node, field)?).ok()
}

/// `Some(None)` is `unlimited`.
fn duration_limit(node: &Node, field: &str) -> Option<Option<Duration>> {
    match text(node, field) {
        Some("unlimited") => Some(None),
        _ => duration(node, field).map(Some),
    }
}

fn texts(node: Option<&Node>) -> Vec<String> {
    node.map(Node::items)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| Some(item.as_text()?.to_owned()))
        .collect()
}

fn labels(node: Option<&Node>) -> std::collections::BTreeMap<String, String> {
    match node.map(|node| &node.kind) {
        Some(NodeKind::Object(entries)) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), entry.value.as_text()?.to_owned())))
            .collect(),
        _ => Default::default(),
    }
}

pub(super) fn one_or_many(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    let items = match node {
        Some(Node { kind: NodeKind::List(items), .. }) => items.as_slice(),
        Some(node) => std::slice::from_ref(node),
        None => &[],
    };
    items.iter()
}
