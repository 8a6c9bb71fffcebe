//! Who uses a certificate, and for which names.

use std::collections::BTreeSet;

use awe4lb_model::{Listener, Match, SniPattern};

use super::{CertificateFacts, Entry, Kind, Model, entry::Noun};

/// Whether a certificate is for a server name.
pub fn covers(facts: &CertificateFacts, name: &str) -> bool {
    let name = name.trim_end_matches('.');
    facts.names.iter().any(|known| match known.strip_prefix("*.") {
        // A wildcard stands for one label.
        Some(parent) => {
            name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)) || name == known
        }
        None => known.eq_ignore_ascii_case(name),
    })
}

fn uses<'a>(entry: &'a Entry, certificate: &str) -> Option<&'a Listener> {
    let Noun::Listener(listener) = &entry.noun else { return None };
    let named = &listener.tls.as_ref()?.certificates;
    named.iter().any(|name| name.as_str() == certificate).then_some(listener)
}

impl Model {
    /// The listeners that terminate TLS with a certificate.
    pub fn used_by(&self, certificate: &str) -> Vec<String> {
        let of = self.all(Kind::Listener).filter(|(_, entry)| uses(entry, certificate).is_some());
        of.map(|(name, _)| name.to_owned()).collect()
    }

    /// Names that rules of these listeners ask for and no other certificate of theirs is for: name and listener.
    pub(super) fn needed_names(&self, certificate: &str) -> Vec<(String, String)> {
        let mut needed = Vec::new();
        for (_, entry) in self.all(Kind::Listener) {
            let Some(listener) = uses(entry, certificate) else { continue };
            let mut names = BTreeSet::new();
            listener.rules.iter().for_each(|rule| exact_names(&rule.matches, &mut names));
            let others: Vec<&CertificateFacts> = listener
                .tls
                .iter()
                .flat_map(|tls| &tls.certificates)
                .filter(|name| name.as_str() != certificate)
                .filter_map(|name| self.get(Kind::Certificate, name.as_str())?.certificate())
                .collect();
            let alone = names.into_iter().filter(|name| !others.iter().any(|other| covers(other, name)));
            needed.extend(alone.map(|name| (name, listener.name.to_string())));
        }
        needed
    }
}

fn exact_names(matches: &Match, names: &mut BTreeSet<String>) {
    names.extend(matches.sni.iter().filter_map(|pattern| match pattern {
        SniPattern::Exact(name) => Some(name.to_string()),
        _ => None,
    }));
    matches.any.iter().chain(&matches.all).for_each(|inner| exact_names(inner, names));
}
