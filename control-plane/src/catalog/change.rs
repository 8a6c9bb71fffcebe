//! What a write wants: operations on objects and their parts, each with its precondition.

use awe4lb_model::{
    MapKey,
    document::{self, Violation},
};
use serde_json::{Map, Value};

use super::{EntriesChange, Entry, Kind, Model};

/// One operation of a write.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Of what.
    pub kind: Kind,
    /// Which.
    pub name: String,
    /// What to do.
    pub operation: Operation,
    /// What must hold before.
    pub precondition: Precondition,
    /// Where the object stands in what was sent, as the beginning of pointers: ``, `/changes/3/object`.
    pub pointer: String,
}

/// What to do with an object.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Create or replace it.
    Put(Value),
    /// JSON merge-patch (RFC 7396) on it.
    Patch(Value),
    /// Remove it.
    Delete,
    /// Create or replace a part (rule, backend) by name; a new one goes to the end.
    PutPart(String, Value),
    /// Merge-patch on a part.
    PatchPart(String, Value),
    /// Remove a part.
    DeletePart(String),
    /// Change the entries of an address list: no revision.
    Entries(EntriesChange),
    /// Give (`Some`) or take away the pool of a name in a map.
    MapEntry(MapKey, Option<String>),
}

/// What must hold of an object before it is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// It is as this revision left it.
    Revision(u64),
    /// It is as this revision, and for an address list this edition of its entries, left it.
    Edition(u64, u64),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
}

/// Why a write was not done. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// All that is wrong.
    #[error("{} violations", .0.len())]
    Invalid(Vec<Violation>),
    /// A precondition does not hold.
    #[error("{0}")]
    Stale(String),
    /// What was to be changed is not there.
    #[error("{0}")]
    NotFound(String),
    /// Others need what was to be removed.
    #[error("{0}")]
    Conflict(String, Vec<Violation>),
    /// The database did not take it.
    #[error("{0}")]
    Storage(String),
    /// The disk is full.
    #[error("{0}")]
    Full(String),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        // SQLITE_FULL
        let is_full = error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("13"));
        if is_full {
            Self::Full(format!("the disk is full: {error}"))
        } else {
            Self::Storage(format!("the database did not take it: {error}"))
        }
    }
}

impl From<anyhow::Error> for WriteError {
    fn from(error: anyhow::Error) -> Self {
        Self::Storage(format!("{error:#}"))
    }
}

impl Precondition {
    pub(super) fn check(self, kind: Kind, name: &str, entry: Option<&Entry>) -> Result<(), WriteError> {
        let what = || format!("{} {name:?}", kind.word());
        match (self, entry) {
            (Self::Revision(wanted), Some(entry)) if entry.revision != wanted => {
                Err(WriteError::Stale(format!(
                    "{} was changed by revision {} since revision {wanted}: load it again",
                    what(),
                    entry.revision
                )))
            }
            (Self::Edition(revision, edition), Some(entry))
                if (entry.revision, entry.edition()) != (revision, edition) =>
            {
                Err(WriteError::Stale(format!("{} was changed since: load it again", what())))
            }
            (Self::Revision(_) | Self::Edition(..) | Self::Exists, None) => {
                Err(WriteError::Stale(format!("{} is not there (any more)", what())))
            }
            (Self::Absent, Some(_)) => Err(WriteError::Stale(format!("{} is there already", what()))),
            _ => Ok(()),
        }
    }
}

/// The body that an edit leaves behind (`None`: deleted), and where its violations point to.
pub(super) struct Edited {
    pub(super) body: Option<Value>,
    /// Begins the pointers of what is wrong with it; for a part, what is cut off before.
    pub(super) pointer: String,
    pub(super) cut: String,
}

impl Edit {
    /// The new body, given the one that is there (`current` may be that of an edit before in the same write).
    pub(super) fn apply(&self, model: &Model, current: Option<&Value>) -> Result<Edited, WriteError> {
        self.precondition.check(
            self.kind,
            &self.name,
            model.get(self.kind, &self.name).map(|entry| &**entry),
        )?;
        let missing = || WriteError::NotFound(format!("there is no {} {:?}", self.kind.word(), self.name));
        let mut cut = String::new();
        let body = match &self.operation {
            Operation::Put(body) => Some(self.named(body.clone())?),
            Operation::Patch(patch) => {
                let mut body = current.ok_or_else(missing)?.clone();
                merge_patch(&mut body, without_meta(patch.clone()));
                Some(self.named(body)?)
            }
            Operation::Delete => {
                current.ok_or_else(missing)?;
                None
            }
            Operation::Entries(_) => {
                return Err(WriteError::NotFound(format!(
                    "a {} has no entries of that kind",
                    self.kind.word()
                )));
            }
            Operation::MapEntry(key, pool) => {
                let mut body = current.ok_or_else(missing)?.clone();
                edit_map(&mut body, key, pool.as_deref()).ok_or_else(|| {
                    WriteError::NotFound(format!("map {:?} has no entry {:?}", self.name, key.to_string()))
                })?;
                cut = format!("/entries/{key}");
                Some(body)
            }
            Operation::PutPart(name, _) | Operation::PatchPart(name, _) | Operation::DeletePart(name) => {
                let mut body = current.ok_or_else(missing)?.clone();
                cut = self.edit_part(&mut body, name)?;
                Some(body)
            }
        };
        Ok(Edited { body, pointer: self.pointer.clone(), cut })
    }

    /// The object without `meta`, with the name that it has in the path.
    fn named(&self, body: Value) -> Result<Value, WriteError> {
        named(without_meta(body), &self.name, &self.pointer)
    }

    fn edit_part(&self, body: &mut Value, name: &str) -> Result<String, WriteError> {
        let field = self.kind.parts_field().unwrap_or_default();
        let missing = || {
            WriteError::NotFound(format!("{} {:?} has no {name:?} in {field}", self.kind.word(), self.name))
        };
        let Some(object) = body.as_object_mut() else { return Err(missing()) };
        let list = object.entry(field).or_insert_with(|| Value::Array(Vec::new()));
        let Some(items) = list.as_array_mut() else { return Err(missing()) };
        let found = items.iter().position(|item| item.get("name").and_then(Value::as_str) == Some(name));
        let at = match &self.operation {
            Operation::PutPart(_, part) => {
                let part = named(without_meta(part.clone()), name, &self.pointer)?;
                match found {
                    Some(at) => {
                        items[at] = part;
                        at
                    }
                    None => {
                        items.push(part);
                        items.len() - 1
                    }
                }
            }
            Operation::PatchPart(_, patch) => {
                let at = found.ok_or_else(missing)?;
                merge_patch(&mut items[at], without_meta(patch.clone()));
                items[at] = named(items[at].take(), name, &self.pointer)?;
                at
            }
            _ => {
                let at = found.ok_or_else(missing)?;
                items.remove(at);
                at
            }
        };
        Ok(format!("/{field}/{at}"))
    }
}

/// `None`: there is no such entry to take away. The name may be there in another spelling.
fn edit_map(body: &mut Value, key: &MapKey, pool: Option<&str>) -> Option<()> {
    let entries = body.get_mut("entries")?.as_object_mut()?;
    let mut name = key.to_string();
    if !entries.contains_key(&name)
        && let Some(other) =
            entries.keys().find(|other| document::map_key(other).is_ok_and(|other| other == *key))
    {
        name = other.clone();
    }
    match pool {
        Some(pool) => drop(entries.insert(name, pool.into())),
        None => drop(entries.shift_remove(&name)?),
    }
    Some(())
}

fn without_meta(mut body: Value) -> Value {
    if let Some(object) = body.as_object_mut() {
        object.shift_remove("meta");
    }
    body
}

/// An object under the name of its path; another name in it is an error, for a rename is another object.
fn named(body: Value, name: &str, pointer: &str) -> Result<Value, WriteError> {
    let Value::Object(fields) = body else { return Ok(body) };
    match fields.get("name") {
        Some(Value::String(inside)) if inside != name => {
            let detail = format!("the path says {name:?}, the object {inside:?}");
            let violation = Violation::new(format!("{pointer}/name"), None, "name-mismatch", detail)
                .hint("a rename is a new object: create it, then delete the old one");
            Err(WriteError::Invalid(vec![violation]))
        }
        Some(_) => Ok(Value::Object(fields)),
        None => {
            let mut with_name = Map::new();
            with_name.insert("name".into(), name.into());
            with_name.extend(fields);
            Ok(Value::Object(with_name))
        }
    }
}

/// RFC 7396.
fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(&key);
        } else {
            merge_patch(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        for (target, patch, wanted) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut got = target.clone();
            merge_patch(&mut got, patch.clone());
            assert_eq!(got, wanted, "{target} with {patch}");
        }
    }
}
