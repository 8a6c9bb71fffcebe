//! Rules: what a connection must look like, and what becomes of it.

use ipnet::IpNet;

use crate::Name;

/// One entry of a listener's ordered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its listener. Made and stored when the user gives none.
    pub name: Name,
    /// What a connection must look like.
    pub matches: Match,
    /// What becomes of it.
    pub action: RuleAction,
    /// Whether TLS is terminated here or passed on untouched. `Passthrough` on a listener without `tls`.
    pub tls: TlsMode,
}

/// Conditions: the fields are ANDed, the items of one field are ORed, an empty field holds always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Server names of the ClientHello.
    pub sni: Vec<SniPattern>,
    /// The client's address (behind a PROXY header, once that is spoken).
    pub client: Vec<IpNet>,
    /// The address of the socket's peer.
    pub peer: Vec<IpNet>,
}

impl Match {
    /// True for the catch-all.
    pub fn is_empty(&self) -> bool {
        self.sni.is_empty() && self.client.is_empty() && self.peer.is_empty()
    }
}

/// A server name to compare with: lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SniPattern {
    /// Exactly this name.
    Exact(Box<str>),
    /// `*.example.com`, stored as `example.com`: one or more labels before it.
    Wildcard(Box<str>),
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAction {
    /// To a backend of this pool.
    Pool(Name),
    /// To one of several pools, by weight. Never empty, the weights add up to more than 0.
    Split(Vec<SplitTarget>),
    /// Closed at once and counted with the rule's name.
    Reject,
}

impl RuleAction {
    /// The pools this action may lead to.
    pub fn pools(&self) -> impl Iterator<Item = &Name> {
        let (one, many): (Option<&Name>, &[SplitTarget]) = match self {
            Self::Pool(pool) => (Some(pool), &[]),
            Self::Split(targets) => (None, targets),
            Self::Reject => (None, &[]),
        };
        one.into_iter().chain(many.iter().map(|target| &target.pool))
    }
}

/// One side of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitTarget {
    /// The pool.
    pub pool: Name,
    /// Its share. 0 gets nothing.
    pub weight: u32,
}

/// What a rule does with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// The node speaks TLS with the client, and plain bytes with the backend.
    Terminate,
    /// The bytes go on as they are.
    Passthrough,
}
