//! Entries of address lists, which change without a revision, and of maps, one by one.

use awe4lb_model::{
    MapKey,
    document::{self, Violation},
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, patch, put},
};
use http::{HeaderMap, Method, header};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Problem,
    body::Text,
    objects::{Caller, DELETED, TAG, WRITE_QUERY, WRITTEN, missing, with_etag},
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::Role,
    catalog::{EntriesChange, Kind, Operation, entry_text},
};

const ENTRIES: &str = "/api/v1/address-lists/{name}/entries";
const MAP_ENTRIES: &str = "/api/v1/maps/{name}/entries";
const MAP_ENTRY: &str = "/api/v1/maps/{name}/entries/{key}";
const FOUND: &[(u16, &str)] = &[(200, "What is there"), (304, "Not changed"), (404, "There is none")];

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    let row = |method, path, role, handler, doc| Route::new(method, path, role, handler, doc);
    vec![
        row(
            Method::GET,
            ENTRIES,
            Role::Viewer,
            get(entries),
            Doc::new("getAddressListEntries", TAG, "All entries, in order").responses(FOUND),
        ),
        row(
            Method::PUT,
            ENTRIES,
            Role::Operator,
            put(async |caller: Caller, Path(name): Path<String>, body: Text| {
                let change = EntriesChange::Replace(replacement(&body)?);
                caller.edit(Kind::AddressList, name, Operation::Entries(change)).await
            }),
            Doc::new("putAddressListEntries", TAG, "Replaces all entries, without a revision")
                .query(WRITE_QUERY)
                .request(|| json!({"type": "array", "items": {"type": "string"}}))
                .responses(WRITTEN),
        ),
        row(
            Method::PATCH,
            ENTRIES,
            Role::Operator,
            patch(async |caller: Caller, Path(name): Path<String>, body: Text| {
                let change = change_of(&body.value()?)?;
                caller.edit(Kind::AddressList, name, Operation::Entries(change)).await
            }),
            Doc::new("patchAddressListEntries", TAG, "Adds and removes entries, without a revision")
                .query(WRITE_QUERY)
                .request(patch_schema)
                .responses(WRITTEN),
        ),
        row(
            Method::GET,
            MAP_ENTRIES,
            Role::Viewer,
            get(map_entries),
            Doc::new("getMapEntries", TAG, "The pool of every name").responses(FOUND),
        ),
        row(
            Method::GET,
            MAP_ENTRY,
            Role::Viewer,
            get(map_entry),
            Doc::new("getMapEntry", TAG, "The pool of one name").responses(FOUND),
        ),
        row(
            Method::PUT,
            MAP_ENTRY,
            Role::Operator,
            put(async |caller: Caller, Path((name, key)): Path<(String, String)>, body: Text| {
                let operation = Operation::MapEntry(key_of(&key)?, Some(pool_of(&body.value()?)?));
                caller.edit(Kind::Map, name, operation).await
            }),
            Doc::new("putMapEntry", TAG, "Gives a name its pool")
                .query(WRITE_QUERY)
                .request(|| json!({"type": "object", "required": ["pool"], "properties": {"pool": {"type": "string"}}}))
                .responses(WRITTEN),
        ),
        row(
            Method::DELETE,
            MAP_ENTRY,
            Role::Operator,
            delete(async |caller: Caller, Path((name, key)): Path<(String, String)>| {
                caller.edit(Kind::Map, name, Operation::MapEntry(key_of(&key)?, None)).await
            }),
            Doc::new("deleteMapEntry", TAG, "Takes a name out").query(WRITE_QUERY).responses(DELETED),
        ),
    ]
}

fn patch_schema() -> Value {
    let prefixes = json!({"type": "array", "items": {"type": "string"}});
    json!({"type": "object", "properties": {"add": prefixes, "remove": prefixes}})
}

async fn entries(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(Kind::AddressList, &name);
    let (entry, list) = entry
        .and_then(|entry| Some((entry, entry.address_list()?)))
        .ok_or_else(|| missing(Kind::AddressList, &name))?;
    let wants_text = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("text/plain"));
    let answer = || {
        let items = list.entries.iter().map(entry_text);
        if wants_text {
            let text: String = items.flat_map(|item| [item, "\n".to_owned()]).collect();
            return text.into_response();
        }
        let items: Vec<String> = items.collect();
        axum::Json(json!({"total": items.len(), "items": items})).into_response()
    };
    Ok(with_etag(&headers, &entry.etag(), answer))
}

async fn map_entries(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(Kind::Map, &name).ok_or_else(|| missing(Kind::Map, &name))?;
    let answer = || {
        let entries = entry.body.get("entries").cloned().unwrap_or_default();
        let total = entries.as_object().map_or(0, serde_json::Map::len);
        axum::Json(json!({"entries": entries, "total": total})).into_response()
    };
    Ok(with_etag(&headers, &entry.etag(), answer))
}

async fn map_entry(
    State(app): State<App>,
    Path((name, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(Kind::Map, &name);
    let (entry, map) =
        entry.and_then(|entry| Some((entry, entry.map()?))).ok_or_else(|| missing(Kind::Map, &name))?;
    let known = key_of(&key).ok().and_then(|key| map.entries.get_key_value(&key));
    let (key, pool) =
        known.ok_or_else(|| Problem::not_found(format!("map {name:?} has no entry {key:?}")))?;
    let answer = || axum::Json(json!({"name": key.to_string(), "pool": pool.as_str()})).into_response();
    Ok(with_etag(&headers, &entry.etag(), answer))
}

fn wrong(pointer: String, code: &'static str, detail: String) -> Problem {
    Problem::invalid(vec![Violation::new(pointer, None, code, detail)])
}

fn key_of(text: &str) -> Result<MapKey, Problem> {
    document::map_key(text).map_err(|detail| wrong(String::new(), "bad-value", detail))
}

/// `{"pool": "app"}`, or the name alone.
fn pool_of(body: &Value) -> Result<String, Problem> {
    let pool = body.as_str().or_else(|| body.get("pool")?.as_str());
    let is_alone =
        body.as_object().is_none_or(|fields| fields.keys().all(|key| key == "pool" || key == "name"));
    match pool {
        Some(pool) if is_alone => Ok(pool.to_owned()),
        _ => Err(wrong("/pool".to_owned(), "missing-field", "an entry is {\"pool\": NAME}".to_owned())),
    }
}

/// A list of prefixes, or an object that has it under `entries` or `items`.
fn replacement(body: &Text) -> Result<Vec<IpNet>, Problem> {
    let value = body.value()?;
    match &value {
        Value::Array(_) => prefixes(&value, ""),
        _ => match value.get("entries").or_else(|| value.get("items")) {
            Some(entries) => prefixes(entries, "/entries"),
            None => Err(wrong(String::new(), "wrong-type", "expected a list of prefixes".to_owned())),
        },
    }
}

fn change_of(body: &Value) -> Result<EntriesChange, Problem> {
    let expected =
        || wrong(String::new(), "wrong-type", "expected {\"add\": […], \"remove\": […]}".to_owned());
    let fields = body.as_object().ok_or_else(expected)?;
    if fields.is_empty() || fields.keys().any(|key| key != "add" && key != "remove") {
        return Err(expected());
    }
    let part =
        |field: &str| body.get(field).map_or(Ok(Vec::new()), |list| prefixes(list, &format!("/{field}")));
    Ok(EntriesChange::Patch { add: part("add")?, remove: part("remove")? })
}

/// Of many that are wrong some are told.
const TOLD: usize = 100;

fn prefixes(list: &Value, pointer: &str) -> Result<Vec<IpNet>, Problem> {
    let Some(items) = list.as_array() else {
        return Err(wrong(pointer.to_owned(), "wrong-type", "expected a list of prefixes".to_owned()));
    };
    let mut errors = Vec::new();
    let mut prefixes = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let read = item.as_str().ok_or_else(|| "expected text".to_owned()).and_then(document::prefix);
        match read {
            Ok(prefix) => prefixes.push(prefix),
            Err(detail) if errors.len() < TOLD => {
                errors.push(Violation::new(format!("{pointer}/{index}"), None, "bad-value", detail));
            }
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(prefixes) } else { Err(Problem::invalid(errors)) }
}
