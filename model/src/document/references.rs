//! What spans objects: names that must exist, addresses that must not collide.

use std::collections::{HashMap, HashSet};

use super::{
    tree::{Node, Position},
    violation::{Violation, nearest},
};
use crate::{
    BindHost, Config, Listener, Name, Pool, Protocol, ProxyVersion, RuleAction, SniMap,
    acme::{AcmeCertificate, AcmeChallenge},
};

/// Where the objects of a document stand: the order of the nouns is by name.
#[derive(Debug, Default)]
pub(super) struct Pointers {
    listeners: HashMap<String, (usize, Option<Position>)>,
    maps: HashMap<String, (usize, Option<Position>)>,
    certificates: HashMap<String, (usize, Option<Position>)>,
    /// Names that the document declares, also of objects that did not build.
    declared: HashMap<&'static str, HashSet<String>>,
}

impl Pointers {
    pub(super) fn of(document: &Node) -> Self {
        let names = |field: &str| {
            let items = document.field(field).map(Node::items).unwrap_or_default();
            items.iter().enumerate().filter_map(|(index, item)| {
                Some((item.field("name")?.as_text()?.to_owned(), (index, item.at)))
            })
        };
        Self {
            listeners: names("listeners").collect(),
            maps: names("maps").collect(),
            certificates: names("certificates").collect(),
            declared: super::KINDS
                .iter()
                .map(|(kind, field)| (*kind, names(field).map(|(name, _)| name).collect()))
                .collect(),
        }
    }

    fn listener(&self, name: &Name) -> (String, Option<Position>) {
        match self.listeners.get(name.as_str()) {
            Some((index, at)) => (format!("/listeners/{index}"), *at),
            None => (format!("/listeners/{name}"), None),
        }
    }

    fn of_certificate(&self, name: &Name) -> (String, Option<Position>) {
        match self.certificates.get(name.as_str()) {
            Some((index, at)) => (format!("/certificates/{index}"), *at),
            None => (format!("/certificates/{name}"), None),
        }
    }

    fn declares(&self, kind: &str, name: &Name) -> bool {
        self.declared.get(kind).is_some_and(|names| names.contains(name.as_str()))
    }
}

/// Everything that refers to what is not there, and binds that collide. Pointers name listeners by their names.
pub fn check_references(config: &Config) -> Vec<Violation> {
    let mut out = Vec::new();
    check(config, &Pointers::default(), &mut out);
    out
}

pub(super) fn check(config: &Config, pointers: &Pointers, out: &mut Vec<Violation>) {
    let pools: HashSet<&Name> = config.pools.iter().map(|pool| &pool.name).collect();
    let issued = config.acme_certificates.iter().map(|certificate| &certificate.name);
    let in_folders = config.folder_certificates.iter().map(|certificate| &certificate.name);
    let certificates: HashSet<&Name> = config
        .certificates
        .iter()
        .map(|certificate| &certificate.name)
        .chain(issued)
        .chain(in_folders)
        .collect();
    let known = Known {
        certificates,
        lists: config.address_lists.iter().map(|list| &list.name).collect(),
        maps: config.maps.iter().map(|map| &map.name).collect(),
        pools,
    };
    for listener in &config.listeners {
        check_listener(listener, &known, pointers, out);
    }
    for map in &config.maps {
        check_map(map, &known.pools, pointers, out);
    }
    for certificate in &config.acme_certificates {
        check_issued(certificate, config, &known.certificates, pointers, out);
    }
    check_proxies(config, pointers, out);
    check_binds(config, pointers, out);
}

/// What may be right, but hardly is.
pub(super) fn warn(config: &Config, pointers: &Pointers, out: &mut Vec<Violation>) {
    let answers_http = config.listeners.iter().any(|listener| listener.acme_http01);
    let answers_tls = config.listeners.iter().any(|listener| listener.protocol == Protocol::Tcp);
    for certificate in &config.acme_certificates {
        let (pointer, at) = pointers.of_certificate(&certificate.name);
        let lacks = |challenge: AcmeChallenge| match challenge {
            AcmeChallenge::Http01 if !answers_http => {
                Some("no listener has acmeHttp01: nobody answers http-01")
            }
            AcmeChallenge::TlsAlpn01 if !answers_tls => Some("without a listener nobody answers tls-alpn-01"),
            AcmeChallenge::Http01 | AcmeChallenge::TlsAlpn01 | AcmeChallenge::Dns01 => None,
        };
        for detail in certificate.challenges.iter().filter_map(|challenge| lacks(*challenge)) {
            let violation =
                Violation::new(format!("{pointer}/acme/challenge"), at, "no-answer", detail.to_owned());
            out.push(violation.hint("the listener at port 80 of the names gets acmeHttp01: true"));
        }
    }
}

/// The account of a certificate that is to be issued is there, and the names of its chains on nodes are free.
fn check_issued(
    certificate: &AcmeCertificate,
    config: &Config,
    certificates: &HashSet<&Name>,
    pointers: &Pointers,
    out: &mut Vec<Violation>,
) {
    let (pointer, at) = pointers.of_certificate(&certificate.name);
    let is_there = config.acme_accounts.iter().any(|account| account.name == certificate.account);
    if !is_there && !pointers.declares("acmeAccount", &certificate.account) {
        let detail = format!("there is no ACME account {:?}", certificate.account);
        let pointer = format!("{pointer}/acme/account");
        let violation = Violation::new(pointer, at, "dangling-reference", detail);
        let known = config.acme_accounts.iter().map(|account| account.name.as_str());
        out.push(match nearest(certificate.account.as_str(), known) {
            Some(word) => violation.hint(format!("did you mean {word:?}?")),
            None => violation,
        });
    }
    for key_type in certificate.key_types.iter().skip(1) {
        let Some(name) = certificate.placed_name(*key_type) else { continue };
        if certificates.contains(&name) {
            let detail = format!(
                "its chain of key type {} is called {name:?} on nodes, as another certificate is",
                key_type.word()
            );
            out.push(Violation::new(format!("{pointer}/acme/keyType"), at, "duplicate-name", detail));
        }
    }
}

/// A header that a backend waits for and never gets would be worse than an error.
fn check_proxies(config: &Config, pointers: &Pointers, out: &mut Vec<Violation>) {
    let speaks = |pool: &&Pool| pool.proxy_protocol == Some(ProxyVersion::V1);
    let proxied: HashSet<&Name> = config.pools.iter().filter(speaks).map(|pool| &pool.name).collect();
    for listener in config.listeners.iter().filter(|listener| listener.protocol == Protocol::Udp) {
        for (index, rule) in listener.rules.iter().enumerate() {
            if let Some(pool) = rule.pools().find(|pool| proxied.contains(pool)) {
                let (pointer, at) = pointers.listener(&listener.name);
                let detail = format!("pool {pool:?} sends PROXY v1, which has no words for UDP: take v2");
                out.push(Violation::new(format!("{pointer}/rules/{index}"), at, "conflict", detail));
            }
        }
    }
}

/// Names that listeners may refer to.
struct Known<'a> {
    pools: HashSet<&'a Name>,
    certificates: HashSet<&'a Name>,
    lists: HashSet<&'a Name>,
    maps: HashSet<&'a Name>,
}

/// Of a hundred thousand entries, some are enough to see what is wrong.
const DANGLING_ENTRIES: usize = 20;

fn check_map(map: &SniMap, pools: &HashSet<&Name>, pointers: &Pointers, out: &mut Vec<Violation>) {
    let is_missing = |pool: &Name| !pools.contains(pool) && !pointers.declares("pool", pool);
    for (key, pool) in map.entries.iter().filter(|(_, pool)| is_missing(pool)).take(DANGLING_ENTRIES) {
        let (pointer, at) = match pointers.maps.get(map.name.as_str()) {
            Some((index, at)) => (format!("/maps/{index}"), *at),
            None => (format!("/maps/{}", map.name), None),
        };
        let detail = format!("there is no pool {pool:?}");
        let violation = Violation::new(format!("{pointer}/entries/{key}"), at, "dangling-reference", detail);
        out.push(match nearest(pool.as_str(), pools.iter().map(|name| name.as_str())) {
            Some(word) => violation.hint(format!("did you mean {word:?}?")),
            None => violation,
        });
    }
}

fn check_listener(listener: &Listener, known: &Known<'_>, pointers: &Pointers, out: &mut Vec<Violation>) {
    let mut dangling = |kind: &str, name: &Name, known: &HashSet<&Name>, field: String| {
        let (pointer, at) = pointers.listener(&listener.name);
        let violation = Violation::new(
            pointer + &field,
            at,
            "dangling-reference",
            format!("there is no {kind} {name:?}"),
        );
        out.push(match nearest(name.as_str(), known.iter().map(|name| name.as_str())) {
            Some(word) => violation.hint(format!("did you mean {word:?}?")),
            None => violation,
        });
    };
    for (index, rule) in listener.rules.iter().enumerate() {
        for pool in rule.pools() {
            if !known.pools.contains(pool) && !pointers.declares("pool", pool) {
                dangling("pool", pool, &known.pools, format!("/rules/{index}"));
            }
        }
        for list in rule.matches.lists() {
            if !known.lists.contains(list) && !pointers.declares("addressList", list) {
                dangling("address list", list, &known.lists, format!("/rules/{index}/match"));
            }
        }
        if let RuleAction::Map(map) = &rule.action
            && !known.maps.contains(map)
            && !pointers.declares("map", map)
        {
            dangling("map", map, &known.maps, format!("/rules/{index}/match/sni"));
        }
    }
    let access = listener.access.iter().flat_map(|access| access.rules.iter().enumerate());
    for (index, list) in access.flat_map(|(at, rule)| rule.addresses.lists.iter().map(move |list| (at, list)))
    {
        if !known.lists.contains(list) && !pointers.declares("addressList", list) {
            dangling("address list", list, &known.lists, format!("/access/rules/{index}"));
        }
    }
    for (index, name) in listener.tls.iter().flat_map(|tls| tls.certificates.iter().enumerate()) {
        if !known.certificates.contains(name) && !pointers.declares("certificate", name) {
            dangling("certificate", name, &known.certificates, format!("/tls/certificates/{index}"));
        }
    }
}

/// `*:443` holds the port on every address; two different addresses may share it.
fn check_binds(config: &Config, pointers: &Pointers, out: &mut Vec<Violation>) {
    let mut by_port: HashMap<(Protocol, u16), Vec<(&Listener, BindHost)>> = HashMap::new();
    for listener in &config.listeners {
        for (index, bind) in listener.bind.iter().enumerate() {
            let others = by_port.entry((listener.protocol, bind.port)).or_default();
            if let Some((other, _)) = others.iter().find(|(_, held)| overlap(*held, bind.host)) {
                let (pointer, at) = pointers.listener(&listener.name);
                let detail = format!("{bind} is bound by listener {:?} already", other.name);
                out.push(Violation::new(format!("{pointer}/bind/{index}"), at, "bind-collision", detail));
            }
            others.push((listener, bind.host));
        }
    }
}

fn overlap(a: BindHost, b: BindHost) -> bool {
    match (a, b) {
        (BindHost::Any, _) | (_, BindHost::Any) => true,
        (BindHost::Ip(a), BindHost::Ip(b)) => {
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
    }
}
