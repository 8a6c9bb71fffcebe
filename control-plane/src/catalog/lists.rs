//! Entries of address lists: not a part of revisions. A document that does not name them leaves them as they are.

use std::sync::Arc;

use awe4lb_model::{
    AddressList,
    addresses::{MAX_LIST_ENTRIES, in_order},
    document::{Change, Operation, Violation},
};
use ipnet::IpNet;
use serde_json::Value;

use super::{Kind, Model, WriteError, draft::Drafts, entry::Noun};
use crate::store::Store;

/// A change of more entries than this is told by their number.
const SHOWN: usize = 1_000;

/// What becomes of the entries of a list.
#[derive(Debug, Clone)]
pub enum EntriesChange {
    /// These take the place of all.
    Replace(Vec<IpNet>),
    /// Some come, some go; what is there already, or is not there, is fine.
    Patch {
        /// New ones.
        add: Vec<IpNet>,
        /// Gone ones.
        remove: Vec<IpNet>,
    },
}

/// A list with the entries that came with it (`is_given`), or those that are stored.
pub(super) async fn enlist(
    store: &Store,
    model: &Model,
    list: AddressList,
    is_given: bool,
    drafts: &mut Drafts,
) -> anyhow::Result<Noun> {
    let name = list.name.clone();
    let known = match model.get(Kind::AddressList, name.as_str()).map(|entry| &entry.noun) {
        Some(Noun::AddressList(known, edition)) => Some((known.clone(), *edition)),
        _ => store.list_entries(name.as_str()).await?.map(|stored| (stored.list, stored.edition)),
    };
    Ok(match known {
        Some((known, edition)) if !is_given || known.entries == list.entries => {
            Noun::AddressList(known, edition)
        }
        known => {
            drafts.new_entries.push(name.to_string());
            Noun::AddressList(list, known.map_or(0, |(_, edition)| edition) + 1)
        }
    })
}

/// The list after a change of its entries alone. Nothing is said when they stay as they are.
pub(super) fn change(list: &AddressList, change: &EntriesChange) -> Result<Option<AddressList>, WriteError> {
    let entries: Arc<[IpNet]> = match change {
        EntriesChange::Replace(entries) => in_order(entries.clone()),
        EntriesChange::Patch { add, remove } => {
            let gone = in_order(remove.clone());
            let stays = list.entries.iter().filter(|entry| gone.binary_search(entry).is_err());
            in_order(stays.chain(add).copied().collect())
        }
    };
    if entries.len() > MAX_LIST_ENTRIES {
        let detail = format!("{} entries, and a list has at most {MAX_LIST_ENTRIES}", entries.len());
        return Err(WriteError::Invalid(vec![Violation::new("/entries", None, "too-large", detail)]));
    }
    let is_same = entries == list.entries;
    Ok((!is_same).then(|| AddressList { name: list.name.clone(), entries }))
}

/// Entries as they are shown in a document.
pub(super) fn entries_json(list: &AddressList) -> Value {
    list.entries.iter().map(|entry| Value::from(text(entry))).collect()
}

/// An address alone is written without its length.
pub fn text(entry: &IpNet) -> String {
    if entry.prefix_len() == entry.max_prefix_len() { entry.addr().to_string() } else { entry.to_string() }
}

/// Adds to the differences what changes in entries.
pub(super) fn tell(changes: &mut Vec<Change>, before: &Model, after: &Model, names: &[String]) {
    let shown = |model: &Model, name: &str| {
        let entry = model.get(Kind::AddressList, name)?;
        let Noun::AddressList(list, edition) = &entry.noun else { return None };
        let entries = match list.entries.len() {
            ..=SHOWN => entries_json(list),
            many => format!("{many} entries (edition {edition})").into(),
        };
        let mut body = entry.body.clone();
        body.as_object_mut()?.insert("entries".to_owned(), entries);
        Some(body)
    };
    for name in names {
        let (before, after) = (shown(before, name), shown(after, name));
        let known =
            changes.iter_mut().find(|change| change.kind == Kind::AddressList.word() && change.name == *name);
        match known {
            Some(change) => (change.before, change.after) = (before, after),
            None => {
                let op = if before.is_some() { Operation::Update } else { Operation::Create };
                let kind = Kind::AddressList.word();
                changes.push(Change { op, kind, name: name.clone(), before, after });
            }
        }
    }
}
