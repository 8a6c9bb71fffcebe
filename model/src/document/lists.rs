//! Address lists and maps, and how listeners refer to them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    build::{Findings, name, one_or_many},
    scalars,
    tree::{Node, NodeKind},
    violation::Path,
};
use crate::{AddressList, Addresses, SniMap, addresses::MAX_LIST_ENTRIES, map::MAX_MAP_ENTRIES};

pub(super) fn address_list(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<AddressList> {
    let entries = node.field("entries").map(Node::items).unwrap_or_default();
    if entries.len() > MAX_LIST_ENTRIES {
        let detail = format!("{} entries, and a list has at most {MAX_LIST_ENTRIES}", entries.len());
        found.error(&Path::Field(path, "entries"), node, "too-large", detail);
    }
    let prefixes = entries.iter().filter_map(|entry| scalars::prefix(entry.as_text()?).ok());
    Some(AddressList::new(name(node, "name")?, prefixes.collect()))
}

pub(super) fn map(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<SniMap> {
    let entries_path = Path::Field(path, "entries");
    let NodeKind::Object(fields) = &node.field("entries")?.kind else { return None };
    if fields.len() > MAX_MAP_ENTRIES {
        let detail = format!("{} entries, and a map has at most {MAX_MAP_ENTRIES}", fields.len());
        found.error(&entries_path, node, "too-large", detail);
    }
    let mut entries = BTreeMap::new();
    for field in fields {
        let (Ok(key), Some(Ok(pool))) =
            (scalars::map_key(&field.key), field.value.as_text().map(|text| text.parse()))
        else {
            continue;
        };
        if entries.insert(key, pool).is_some() {
            let detail = format!("{:?} is there in another spelling already", field.key);
            found.error(&Path::Field(&entries_path, &field.key), &field.value, "duplicate-name", detail);
        }
    }
    Some(SniMap { name: name(node, "name")?, entries: Arc::new(entries) })
}

/// Prefixes and lists of a field.
pub(super) fn addresses(node: Option<&Node>) -> Addresses {
    let mut addresses = Addresses::default();
    for item in one_or_many(node) {
        match item.as_text() {
            Some(text) => addresses.prefixes.extend(scalars::prefix(text)),
            None => addresses.lists.extend(name(item, "list")),
        }
    }
    addresses
}
