//! Which rule a connection meets. First match wins, at a cost that does not grow with the number of names.

use std::{collections::HashMap, net::IpAddr};

use awe4lb_model::{Listener, Rule, SniPattern};
use ipnet::IpNet;

/// What is known of a connection when it is routed.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The address of the socket's peer.
    pub peer: IpAddr,
    /// The server name of the ClientHello: lower case, without a trailing dot.
    pub server_name: Option<&'a str>,
}

/// The rules of a listener, indexed by server name.
#[derive(Debug, Clone, Default)]
pub struct RuleTable {
    /// Rules by exact name, ascending.
    exact: HashMap<Box<str>, Vec<u32>>,
    /// Rules by the name behind `*.`, ascending.
    wildcard: HashMap<Box<str>, Vec<u32>>,
    /// Rules that ask for no name, ascending.
    any_name: Vec<u32>,
    /// What else each rule asks for.
    conditions: Vec<Conditions>,
}

#[derive(Debug, Clone, Default)]
struct Conditions {
    client: Vec<IpNet>,
    peer: Vec<IpNet>,
}

/// Why a rule was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The server name is another one, or there is none.
    ServerName,
    /// The client's address is not listed.
    Client,
    /// The peer's address is not listed.
    Peer,
}

impl RuleTable {
    /// Indexes the rules of a listener.
    pub fn compile(listener: &Listener) -> Self {
        let mut table = Self::default();
        for (index, rule) in (0u32..).zip(&listener.rules) {
            if rule.matches.sni.is_empty() {
                table.any_name.push(index);
            }
            for pattern in &rule.matches.sni {
                let (map, name) = match pattern {
                    SniPattern::Exact(name) => (&mut table.exact, name),
                    SniPattern::Wildcard(name) => (&mut table.wildcard, name),
                };
                let rules = map.entry(name.clone()).or_default();
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
            table
                .conditions
                .push(Conditions { client: rule.matches.client.clone(), peer: rule.matches.peer.clone() });
        }
        table
    }

    /// Whether any rule asks for a server name: only then is the client's first flight waited for.
    pub fn needs_client_hello(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The first rule that matches, by its place.
    pub fn route(&self, facts: &Facts<'_>) -> Option<usize> {
        let (client, peer) = (facts.client.to_canonical(), facts.peer.to_canonical());
        let mut best = u32::MAX;
        let mut consider = |rules: &[u32]| {
            for index in rules.iter().copied().take_while(|index| *index < best) {
                if self.conditions[index as usize].hold(client, peer) {
                    best = index;
                    break;
                }
            }
        };
        consider(&self.any_name);
        if let Some(name) = facts.server_name {
            if let Some(rules) = self.exact.get(name) {
                consider(rules);
            }
            if !self.wildcard.is_empty() {
                let mut rest = name;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(rules) = self.wildcard.get(parent) {
                        consider(rules);
                    }
                    rest = parent;
                }
            }
        }
        (best != u32::MAX).then_some(best as usize)
    }
}

impl Conditions {
    fn hold(&self, client: IpAddr, peer: IpAddr) -> bool {
        lists(&self.client, client) && lists(&self.peer, peer)
    }
}

/// An empty list holds every address.
fn lists(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// Why `rule` does not match, or `None` when it does.
pub fn explain(rule: &Rule, facts: &Facts<'_>) -> Option<Mismatch> {
    let named = |pattern: &SniPattern| match (pattern, facts.server_name) {
        (SniPattern::Exact(wanted), Some(name)) => **wanted == *name,
        (SniPattern::Wildcard(wanted), Some(name)) => {
            name.strip_suffix(&**wanted).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        }
        (_, None) => false,
    };
    if !rule.matches.sni.is_empty() && !rule.matches.sni.iter().any(named) {
        Some(Mismatch::ServerName)
    } else if !lists(&rule.matches.client, facts.client.to_canonical()) {
        Some(Mismatch::Client)
    } else if !lists(&rule.matches.peer, facts.peer.to_canonical()) {
        Some(Mismatch::Peer)
    } else {
        None
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

#[cfg(test)]
mod tests {
    use awe4lb_model::document::{Format, compile, parse};
    use proptest::prelude::*;

    use super::*;

    fn listener(rules: &str) -> Listener {
        let text =
            format!("listeners: [{{ name: l, bind: ['*:1'], rules: [{rules}] }}]\npools: [{{ name: p }}]\n");
        compile(parse(&text, Format::Yaml).expect("yaml")).expect("valid").config.listeners.remove(0)
    }

    fn facts<'a>(client: &str, name: Option<&'a str>) -> Facts<'a> {
        let client = client.parse().expect("an address");
        Facts { client, peer: client, server_name: name }
    }

    #[test]
    fn the_first_match_wins_across_kinds() {
        let table = RuleTable::compile(&listener(
            "{ match: { sni: '*.b.c' }, pool: p }, { match: { sni: a.b.c }, pool: p }, \
             { match: { client: 10.0.0.0/8 }, pool: p }, { match: { sni: x.y, client: 10.0.0.0/8 }, pool: p }, { pool: p }",
        ));
        assert_eq!(table.route(&facts("1.1.1.1", Some("a.b.c"))), Some(0));
        assert_eq!(table.route(&facts("1.1.1.1", Some("z.a.b.c"))), Some(0));
        assert_eq!(table.route(&facts("1.1.1.1", Some("b.c"))), Some(4));
        assert_eq!(table.route(&facts("10.1.1.1", Some("x.y"))), Some(2));
        assert_eq!(table.route(&facts("::ffff:10.1.1.1", None)), Some(2));
        assert_eq!(table.route(&facts("1.1.1.1", None)), Some(4));
    }

    #[test]
    fn splits_follow_their_weights() {
        let counts = (0..100).fold([0; 3], |mut counts, random| {
            counts[choose_split([95, 0, 5].into_iter(), random).expect("a side")] += 1;
            counts
        });
        assert_eq!(counts, [95, 0, 5]);
        assert_eq!(choose_split([0].into_iter(), 7), None);
    }

    fn any_rule() -> impl Strategy<Value = String> {
        let sni = prop_oneof![
            Just(String::new()),
            "[ab]\\.[ab]\\.c".prop_map(|name| format!("sni: {name}")),
            "[ab]\\.c".prop_map(|name| format!("sni: '*.{name}'")),
        ];
        let client = prop_oneof![Just(""), Just("client: 10.0.0.0/8"), Just("client: 10.1.0.0/16")];
        (sni, client).prop_map(|(sni, client)| {
            let both: Vec<_> = [sni.as_str(), client].into_iter().filter(|part| !part.is_empty()).collect();
            format!("{{ match: {{ {} }}, reject: {{}} }}", both.join(", "))
        })
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_walking_the_rules(
            rules in prop::collection::vec(any_rule(), 1..12),
            name in prop::option::of("[ab](\\.[ab]){0,3}\\.c"),
            client in prop_oneof![Just("10.1.0.1"), Just("10.2.0.1"), Just("9.9.9.9")],
        ) {
            let listener = listener(&rules.join(", "));
            let facts = facts(client, name.as_deref());
            let walked = listener.rules.iter().position(|rule| explain(rule, &facts).is_none());
            prop_assert_eq!(RuleTable::compile(&listener).route(&facts), walked);
        }
    }
}
