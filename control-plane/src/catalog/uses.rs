//! Who uses a certificate, and for which names.

use std::collections::BTreeSet;

use awe4lb_model::{Listener, Match, SniPattern, TlsMode};

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
            let terminated = listener.rules.iter().filter(|rule| rule.tls == TlsMode::Terminate);
            terminated.for_each(|rule| names_of(&rule.matches, &mut names));
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

/// Names that a certificate can be for: of expressions nobody can say.
fn names_of(matches: &Match, names: &mut BTreeSet<String>) {
    names.extend(matches.sni.iter().filter_map(|pattern| match pattern {
        SniPattern::Exact(name) => Some(name.to_string()),
        SniPattern::Wildcard(name) => Some(format!("*.{name}")),
        _ => None,
    }));
    matches.any.iter().chain(&matches.all).for_each(|inner| names_of(inner, names));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label() {
        let names = ["*.example.com".to_owned(), "Other.test".to_owned()].to_vec();
        let facts = CertificateFacts { names, ..CertificateFacts::default() };
        for yes in ["a.example.com", "A.EXAMPLE.com", "*.example.com", "other.test", "a.example.com."] {
            assert!(covers(&facts, yes), "{yes}");
        }
        for no in ["example.com", "a.b.example.com", "*.b.example.com", "x.other.test", ""] {
            assert!(!covers(&facts, no), "{no}");
        }
    }
}
