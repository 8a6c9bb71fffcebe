//! Address lists and maps of a configuration: each compiled once, shared by the listeners that refer to it, and kept from
//! configuration to configuration while its entries are the same.

use std::{collections::HashMap, sync::Arc};

use awe4lb_engine::route::{NameTable, Tables};
use awe4lb_model::{AddressList, Name, SniMap, placed::NodeConfig};

/// What was compiled, and from what.
#[derive(Default)]
pub(super) struct Lookups {
    pub(super) tables: Tables,
    lists: HashMap<Name, AddressList>,
    maps: HashMap<Name, SniMap>,
}

impl Lookups {
    pub(super) fn compile(config: &NodeConfig, before: &Self) -> Self {
        let mut new = Self::default();
        for list in &config.address_lists {
            // The entries of a resource that stayed are the same memory, so that this does not look at them.
            let kept = before.lists.get(&list.name).filter(|old| old.entries == list.entries);
            let set = kept.and_then(|_| before.tables.lists.get(&list.name).cloned());
            let set = set.unwrap_or_else(|| Arc::new(list.entries.iter().collect()));
            new.tables.lists.insert(list.name.clone(), set);
            new.lists.insert(list.name.clone(), list.clone());
        }
        for map in &config.maps {
            let kept = before.maps.get(&map.name).filter(|old| old.entries == map.entries);
            let table = kept.and_then(|_| before.tables.maps.get(&map.name).cloned());
            let table = table.unwrap_or_else(|| Arc::new(NameTable::compile(map)));
            new.tables.maps.insert(map.name.clone(), table);
            new.maps.insert(map.name.clone(), map.clone());
        }
        new
    }
}
