//! Rules: what a connection must look like, and what becomes of it.

use crate::{Addresses, Name};

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
    /// Of a split: a client stays on its side, by its address, on every node the same.
    pub sticky: bool,
    /// Of UDP: who gets copies of what clients send.
    pub mirror: Option<Mirror>,
}

impl Rule {
    /// All pools that this rule names itself.
    pub fn pools(&self) -> impl Iterator<Item = &Name> {
        self.action.pools().chain(self.mirror.iter().map(|mirror| &mirror.pool))
    }
}

/// Copies of the datagrams of some flows, for somebody whose answers nobody gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets them.
    pub pool: Name,
    /// Of how many of a million flows ([`MIRROR_ALL`]), at random.
    pub share: u32,
}

/// Every flow.
pub const MIRROR_ALL: u32 = 1_000_000;

/// Conditions inside conditions: more levels than this are refused.
pub const MAX_MATCH_DEPTH: usize = 8;

/// Conditions: the fields are ANDed, the items of one field are ORed, an empty field holds always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Server names of the ClientHello.
    pub sni: Vec<SniPattern>,
    /// Application protocols of the ClientHello: one that the client offers.
    pub alpn: Vec<Box<str>>,
    /// Whether the client speaks TLS.
    pub tls: Option<bool>,
    /// The client's address (behind a PROXY header, once that is spoken).
    pub client: Addresses,
    /// The address of the socket's peer.
    pub peer: Addresses,
    /// The port of the listener that the client came to.
    pub port: Vec<PortRange>,
    /// At least one of these holds.
    pub any: Vec<Match>,
    /// All of these hold.
    pub all: Vec<Match>,
    /// None of these holds.
    pub not: Vec<Match>,
}

impl Match {
    /// True for the catch-all.
    pub fn is_empty(&self) -> bool {
        self.client.is_empty()
            && self.peer.is_empty()
            && self.port.is_empty()
            && !self.asks_hello_itself()
            && self.parts().next().is_none()
    }

    /// Whether the client's first bytes must be seen to tell whether this holds.
    pub fn needs_client_hello(&self) -> bool {
        self.asks_hello_itself() || self.parts().any(Self::needs_client_hello)
    }

    /// Whether it asks for what UDP has not: names, protocols, TLS.
    fn asks_hello_itself(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty() || self.tls.is_some()
    }

    /// How many levels of conditions there are inside each other.
    pub fn depth(&self) -> usize {
        1 + self.parts().map(Self::depth).max().unwrap_or(0)
    }

    /// All names of address lists in here, inner conditions included.
    pub fn lists(&self) -> Vec<&Name> {
        let own = self.client.lists.iter().chain(&self.peer.lists);
        own.chain(self.parts().flat_map(Self::lists)).collect()
    }

    /// The conditions inside this one.
    pub fn parts(&self) -> impl Iterator<Item = &Self> {
        self.any.iter().chain(&self.all).chain(&self.not)
    }
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Whether the port is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A server name to compare with: lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SniPattern {
    /// Exactly this name.
    Exact(Box<str>),
    /// `*.example.com`, stored as `example.com`: one or more labels before it.
    Wildcard(Box<str>),
    /// Names that begin so.
    Prefix(Box<str>),
    /// Names that end so.
    Suffix(Box<str>),
    /// Names that the whole of this expression describes; checked to compile.
    Regex(Box<str>),
    /// Names that this map knows. Stands alone in the rule's own match, whose action is [`RuleAction::Map`].
    Map(Name),
    /// TLS without a server name (or with one that is no host name).
    None,
}

/// The longest expression for names.
pub const MAX_REGEX_BYTES: usize = 256;

/// What an expression may compile to, in bytes: enough for names, and what it costs to build and to ask stays bounded.
const MAX_PROGRAM_BYTES: usize = 16 * 1024;

/// Compiles a [`SniPattern::Regex`]: it describes the whole name, in linear time, in ASCII.
pub fn sni_regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    if pattern.len() > MAX_REGEX_BYTES {
        return Err(regex::Error::CompiledTooBig(MAX_PROGRAM_BYTES));
    }
    let compile = |pattern: &str| {
        regex::bytes::RegexBuilder::new(pattern)
            .unicode(false)
            .case_insensitive(true)
            .size_limit(MAX_PROGRAM_BYTES)
            .build()
    };
    // Alone first: `a)|(b` would become well-formed by what is put around it.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleAction {
    /// To a backend of this pool.
    Pool(Name),
    /// To one of several pools, by weight. Never empty, the weights add up to more than 0.
    Split(Vec<SplitTarget>),
    /// To the pool that the entry of this map names.
    Map(Name),
    /// Closed at once and counted with the rule's name.
    Reject,
}

impl RuleAction {
    /// The pools this action names itself; those of a map are its entries' to name.
    pub fn pools(&self) -> impl Iterator<Item = &Name> {
        let (one, many): (Option<&Name>, &[SplitTarget]) = match self {
            Self::Pool(pool) => (Some(pool), &[]),
            Self::Split(targets) => (None, targets),
            Self::Map(_) | Self::Reject => (None, &[]),
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
