//! The difference of two documents, by object.

use std::collections::BTreeMap;

use serde_json::Value;
use similar::TextDiff;

use super::print::to_yaml;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It is new.
    Create,
    /// It is changed.
    Update,
    /// It is gone.
    Delete,
}

/// One object that differs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Change {
    /// What happens to it.
    pub op: Operation,
    /// `listener`, `pool`, `certificate`, `addressList`, `map`, `acmeAccount` or `defaults`.
    pub kind: &'static str,
    /// Its name; of `defaults`: `defaults`.
    pub name: String,
    /// As it was.
    pub before: Option<Value>,
    /// As it is to be.
    pub after: Option<Value>,
}

/// Objects that differ between two intents, in order of kind and name.
pub fn diff(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    let defaults = |document: &Value| document.get("defaults").filter(|value| !value.is_null()).cloned();
    push(&mut changes, "defaults", "defaults", defaults(old), defaults(new));
    for (kind, field) in super::KINDS {
        let (old, new) = (by_name(old, field), by_name(new, field));
        let names: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for name in names {
            push(
                &mut changes,
                kind,
                name,
                old.get(name).map(|v| (*v).clone()),
                new.get(name).map(|v| (*v).clone()),
            );
        }
    }
    changes
}

fn push(
    changes: &mut Vec<Change>,
    kind: &'static str,
    name: &str,
    before: Option<Value>,
    after: Option<Value>,
) {
    let op = match (&before, &after) {
        (None, Some(_)) => Operation::Create,
        (Some(_), None) => Operation::Delete,
        (Some(before), Some(after)) if before != after => Operation::Update,
        _ => return,
    };
    changes.push(Change { op, kind, name: name.to_owned(), before, after });
}

fn by_name<'a>(document: &'a Value, field: &str) -> BTreeMap<&'a str, &'a Value> {
    let items = document.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Some((item.get("name")?.as_str()?, item))).collect()
}

/// The changes as a unified difference of YAML, one object after another, with three lines around.
pub fn unified(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let text = |value: &Option<Value>| value.as_ref().map(to_yaml).unwrap_or_default();
        let (before, after) = (text(&change.before), text(&change.after));
        let header = |there: bool| {
            if there { format!("{}/{}", change.kind, change.name) } else { "/dev/null".to_owned() }
        };
        let diff = TextDiff::from_lines(&before, &after);
        let mut unified = diff.unified_diff();
        unified.context_radius(3).header(&header(change.before.is_some()), &header(change.after.is_some()));
        out.push_str(&unified.to_string());
    }
    out
}
