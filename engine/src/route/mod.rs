//! Which rule a connection meets. First match wins, at a cost that does not grow with the number of exact and wildcard
//! names; rules that describe names otherwise are looked at one after the other.

mod condition;
mod explain;
mod names;
mod prefixes;
mod tables;
#[cfg(test)]
mod tests;

pub use explain::{Mismatch, explain};
pub use names::NameTable;
pub use prefixes::PrefixSet;
pub use tables::{AddressSet, Tables};

use std::{collections::HashMap, net::IpAddr};

use awe4lb_model::{Listener, SniPattern};

use crate::client_hello::Alpn;
use condition::Condition;

/// What is known of a connection when it is routed.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The address of the socket's peer.
    pub peer: IpAddr,
    /// The port that the client came to.
    pub port: u16,
    /// Whether the client speaks TLS, once its first bytes were seen.
    pub is_tls: bool,
    /// The server name of the ClientHello: lower case, without a trailing dot.
    pub server_name: Option<&'a str>,
    /// The application protocols of the ClientHello.
    pub alpn: &'a Alpn,
}

/// The rules of a listener, indexed by server name.
#[derive(Debug, Clone, Default)]
pub struct RuleTable {
    /// Rules by exact name, ascending.
    exact: HashMap<Box<str>, Vec<u32>>,
    /// Rules by the name behind `*.`, ascending.
    wildcard: HashMap<Box<str>, Vec<u32>>,
    /// Rules that ask for no name, or for one in another way, ascending.
    scanned: Vec<u32>,
    /// What each rule asks for, but the names of the two maps.
    conditions: Vec<Condition>,
    needs_client_hello: bool,
}

impl RuleTable {
    /// Indexes the rules of a listener. `tables`: the lists and maps that they refer to.
    pub fn compile(listener: &Listener, tables: &Tables) -> Self {
        let mut table = Self::default();
        for (index, rule) in (0u32..).zip(&listener.rules) {
            let mut others = Vec::new();
            for pattern in &rule.matches.sni {
                let (map, name) = match pattern {
                    SniPattern::Exact(name) => (&mut table.exact, name),
                    SniPattern::Wildcard(name) => (&mut table.wildcard, name),
                    other => {
                        others.push(other);
                        continue;
                    }
                };
                let rules = map.entry(name.clone()).or_default();
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
            if rule.matches.sni.is_empty() || !others.is_empty() {
                table.scanned.push(index);
            }
            table.conditions.push(Condition::compile(&rule.matches, others, tables));
            table.needs_client_hello |= rule.matches.needs_client_hello();
        }
        table
    }

    /// Whether any rule asks for what the client says first: only then is that waited for.
    pub fn needs_client_hello(&self) -> bool {
        self.needs_client_hello
    }

    /// The first rule that matches, by its place.
    pub fn route(&self, facts: &Facts<'_>) -> Option<usize> {
        let facts = Facts { client: facts.client.to_canonical(), peer: facts.peer.to_canonical(), ..*facts };
        let mut best = u32::MAX;
        let mut consider = |rules: &[u32], by_name: bool| {
            for index in rules.iter().copied().take_while(|index| *index < best) {
                let condition = &self.conditions[index as usize];
                if (by_name || condition.names_hold(&facts)) && condition.others_hold(&facts) {
                    best = index;
                    break;
                }
            }
        };
        if let Some(name) = facts.server_name {
            if let Some(rules) = self.exact.get(name) {
                consider(rules, true);
            }
            if !self.wildcard.is_empty() {
                let mut rest = name;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(rules) = self.wildcard.get(parent) {
                        consider(rules, true);
                    }
                    rest = parent;
                }
            }
        }
        // After the names: what they found spares the scan of what comes later.
        consider(&self.scanned, false);
        (best != u32::MAX).then_some(best as usize)
    }
}

/// Which side of a split, for a random number. `None` only when all weights are 0.
pub fn choose_split(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut at = random.checked_rem(total)?;
    for (index, weight) in weights.map(u64::from).enumerate() {
        if at < weight {
            return Some(index);
        }
        at -= weight;
    }
    None
}

/// The number by which a client stays on its side of a split, the same on every node. Pinned.
pub fn sticky_side(rule: &str, client: IpAddr) -> u64 {
    let seed = xxhash_rust::xxh3::xxh3_64(rule.as_bytes());
    match client.to_canonical() {
        IpAddr::V4(ip) => xxhash_rust::xxh3::xxh3_64_with_seed(&ip.octets(), seed),
        IpAddr::V6(ip) => xxhash_rust::xxh3::xxh3_64_with_seed(&ip.octets(), seed),
    }
}
