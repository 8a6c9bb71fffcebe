//! The address lists and maps of a configuration, each compiled once and shared by every listener that refers to it.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use awe4lb_model::{Addresses, Name};

use super::{NameTable, PrefixSet};

/// Lists and maps by name. What is not there holds nothing: references are checked before.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Address lists.
    pub lists: HashMap<Name, Arc<PrefixSet>>,
    /// Maps.
    pub maps: HashMap<Name, Arc<NameTable>>,
}

impl Tables {
    /// A list.
    pub fn list(&self, name: &Name) -> Arc<PrefixSet> {
        self.lists.get(name).cloned().unwrap_or_default()
    }

    /// A map.
    pub fn map(&self, name: &Name) -> Arc<NameTable> {
        self.maps.get(name).cloned().unwrap_or_default()
    }

    /// Prefixes and lists together.
    pub fn addresses(&self, addresses: &Addresses) -> AddressSet {
        AddressSet {
            own: addresses.prefixes.iter().collect(),
            lists: addresses.lists.iter().map(|name| self.list(name)).collect(),
        }
    }
}

/// Prefixes of one's own, and lists that are shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    own: PrefixSet,
    lists: Vec<Arc<PrefixSet>>,
}

impl AddressSet {
    /// Whether nobody was named. (A list without entries was named.)
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.lists.is_empty()
    }

    /// Whether the address is among them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.own.contains(address) || self.lists.iter().any(|list| list.contains(address))
    }
}
