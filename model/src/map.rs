//! Maps: from server names to pools, so that a thousand tenants are one rule.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{Name, SniPattern};

/// The most entries of one map.
pub const MAX_MAP_ENTRIES: usize = 200_000;

/// A named map from server names to pools. The exact name wins, then the longest wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SniMap {
    /// Unique among maps.
    pub name: Name,
    /// The pool of each name. Shared: there may be a hundred thousand.
    pub entries: Arc<BTreeMap<MapKey, Name>>,
}

impl SniMap {
    /// The pools that entries name, each once.
    pub fn pools(&self) -> std::collections::BTreeSet<&Name> {
        self.entries.values().collect()
    }
}

/// A name that a map knows: lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapKey {
    /// Exactly this name.
    Exact(Box<str>),
    /// `*.example.com`, stored as `example.com`: one or more labels before it.
    Wildcard(Box<str>),
}

impl MapKey {
    /// The same as a pattern of a rule; `None` for patterns that a map has no entries for.
    pub fn of(pattern: SniPattern) -> Option<Self> {
        match pattern {
            SniPattern::Exact(name) => Some(Self::Exact(name)),
            SniPattern::Wildcard(name) => Some(Self::Wildcard(name)),
            SniPattern::Prefix(_)
            | SniPattern::Suffix(_)
            | SniPattern::Regex(_)
            | SniPattern::Map(_)
            | SniPattern::None => None,
        }
    }
}

impl fmt::Display for MapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}
