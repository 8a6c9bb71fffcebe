//! Who may connect: the first rule that names the client decides; rules in shadow only say what they would have done.

use std::net::IpAddr;

use awe4lb_model::{Access, Verdict};

use crate::route::{AddressSet, Tables};

/// Access rules in the form that is asked for every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTable {
    default: Verdict,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    verdict: Verdict,
    addresses: AddressSet,
    shadow: bool,
    close_existing: bool,
}

/// What becomes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It may connect.
    Allowed,
    /// It may, and a rule in shadow would have denied it.
    AllowedButForShadow,
    /// It may not.
    Denied {
        /// Whether that holds for connections that are open, too.
        close_existing: bool,
    },
}

impl AccessTable {
    /// `tables`: the lists that the rules refer to.
    pub fn compile(access: &Access, tables: &Tables) -> Self {
        let rules = access.rules.iter().map(|rule| Rule {
            verdict: rule.verdict,
            addresses: tables.addresses(&rule.addresses),
            shadow: rule.shadow,
            close_existing: rule.close_existing,
        });
        Self { default: access.default, rules: rules.collect() }
    }

    /// Whether any rule is for connections that are open.
    pub fn closes_existing(&self) -> bool {
        self.rules.iter().any(|rule| rule.close_existing)
    }

    /// Judges a client.
    pub fn judge(&self, client: IpAddr) -> Judgement {
        let mut in_shadow = false;
        let mut named = self.rules.iter().filter(|rule| rule.addresses.contains(client));
        let decides = named.find(|rule| {
            in_shadow |= rule.shadow && rule.verdict == Verdict::Deny;
            !rule.shadow
        });
        match decides.map_or(self.default, |rule| rule.verdict) {
            Verdict::Deny => {
                Judgement::Denied { close_existing: decides.is_some_and(|rule| rule.close_existing) }
            }
            Verdict::Allow if in_shadow => Judgement::AllowedButForShadow,
            Verdict::Allow => Judgement::Allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use awe4lb_model::{AccessRule, Addresses};

    use super::*;

    fn rule(verdict: Verdict, prefix: &str) -> AccessRule {
        let addresses = Addresses { prefixes: vec![prefix.parse().unwrap()], lists: Vec::new() };
        AccessRule { verdict, addresses, shadow: false, close_existing: false }
    }

    fn judge(access: &Access, client: &str) -> Judgement {
        AccessTable::compile(access, &Tables::default()).judge(client.parse().unwrap())
    }

    #[test]
    fn the_first_rule_that_names_the_client_decides() {
        let rules = vec![
            rule(Verdict::Allow, "10.1.0.0/16"),
            AccessRule { close_existing: true, ..rule(Verdict::Deny, "10.0.0.0/8") },
        ];
        let access = Access { default: Verdict::Allow, rules };
        assert_eq!(judge(&access, "10.1.2.3"), Judgement::Allowed);
        assert_eq!(judge(&access, "::ffff:10.2.0.1"), Judgement::Denied { close_existing: true });
        assert_eq!(judge(&access, "192.0.2.1"), Judgement::Allowed);
        let closed = Access { default: Verdict::Deny, ..access };
        assert_eq!(judge(&closed, "192.0.2.1"), Judgement::Denied { close_existing: false });
        assert_eq!(judge(&closed, "10.1.2.3"), Judgement::Allowed);
    }

    #[test]
    fn a_rule_in_shadow_decides_nothing() {
        let shadow = |verdict| AccessRule { shadow: true, ..rule(verdict, "10.0.0.0/8") };
        let of = |default, rules| judge(&Access { default, rules }, "10.0.0.1");
        assert_eq!(of(Verdict::Allow, vec![shadow(Verdict::Deny)]), Judgement::AllowedButForShadow);
        assert_eq!(of(Verdict::Allow, vec![shadow(Verdict::Allow)]), Judgement::Allowed);
        assert!(matches!(of(Verdict::Deny, vec![shadow(Verdict::Allow)]), Judgement::Denied { .. }));
        // What stands behind the rule that decides is not asked.
        let behind = vec![rule(Verdict::Allow, "10.0.0.0/8"), shadow(Verdict::Deny)];
        assert_eq!(of(Verdict::Allow, behind), Judgement::Allowed);
    }
}
