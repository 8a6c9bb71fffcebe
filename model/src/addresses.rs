//! Who is meant: prefixes, and lists of prefixes that change without a revision.

use std::sync::Arc;

use ipnet::IpNet;

use crate::Name;

/// The most entries of one list.
pub const MAX_LIST_ENTRIES: usize = 500_000;

/// Addresses as they are asked for: by prefix, and by the name of a list. Either is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Prefixes, written where they are used.
    pub prefixes: Vec<IpNet>,
    /// Names of [`AddressList`]s.
    pub lists: Vec<Name>,
}

impl Addresses {
    /// Whether nobody was named. (A list without entries was named, and holds nobody.)
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.lists.is_empty()
    }
}

/// A named list of prefixes. What refers to it does so by its name: its entries change without a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressList {
    /// Unique among address lists.
    pub name: Name,
    /// In order, each once. Shared: there may be half a million.
    pub entries: Arc<[IpNet]>,
}

impl AddressList {
    /// Of these entries, in whatever order.
    pub fn new(name: Name, entries: Vec<IpNet>) -> Self {
        Self { name, entries: in_order(entries) }
    }
}

/// Entries as a list holds them: in order, each once.
pub fn in_order(mut entries: Vec<IpNet>) -> Arc<[IpNet]> {
    entries.sort_unstable();
    entries.dedup();
    entries.into()
}
