//! Listeners, pools and certificates, and their parts: read, put, patch, delete.

use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, patch, put},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::{Query, Text, WriteQuery, origin, precondition},
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::{Principal, Role},
    catalog::{Edit, Kind, Operation, Outcome, Precondition, Write, WriteWhat},
};

pub(super) const TAG: &str = "Configuration";
pub(super) const WRITE_QUERY: &[(&str, &str)] =
    &[("dryRun", "true: check it and store nothing"), ("message", "Kept in the history")];
const LIST_QUERY: &[(&str, &str)] = &[
    ("limit", "At most so many (default 100, at most 1,000)"),
    ("cursor", "Where the page before ended"),
    ("filter", "Text that the object contains"),
];
pub(super) const WRITTEN: &[(u16, &str)] = &[
    (200, "Replaced"),
    (201, "Created"),
    (409, "Others need what would change"),
    (412, "The ETag is stale"),
    (422, "Everything that is wrong"),
];
pub(super) const DELETED: &[(u16, &str)] =
    &[(204, "Gone"), (404, "There is none"), (409, "Others need it"), (412, "The ETag is stale")];

/// The header that says which revision a write led to.
pub const REVISION: HeaderName = HeaderName::from_static("awe4lb-revision");

macro_rules! object_routes {
    ($table:ident, $kind:expr, $one:literal, $path:literal, $role:expr) => {
        $table.extend([
            Route::new(
                Method::GET,
                concat!("/api/v1/", $path),
                Role::Viewer,
                get(async |state: State<App>, query: Query<ListQuery>| list(state, query, $kind).await),
                Doc::new(concat!("list", $one, "s"), TAG, concat!("Lists them in order of name: ", $path))
                    .query(LIST_QUERY),
            ),
            Route::new(
                Method::GET,
                concat!("/api/v1/", $path, "/{name}"),
                Role::Viewer,
                get(async |state: State<App>, path: Path<String>, headers: HeaderMap| {
                    read(state, path, headers, $kind).await
                }),
                Doc::new(concat!("get", $one), TAG, "One object as it was written, with its ETag")
                    .responses(&[(200, "The object"), (304, "Not changed"), (404, "There is none")]),
            ),
            Route::new(
                Method::PUT,
                concat!("/api/v1/", $path, "/{name}"),
                $role,
                put(async |caller: Caller, Path(name): Path<String>, body: Text| {
                    caller.edit($kind, name, Operation::Put(body.value()?)).await
                }),
                Doc::new(concat!("put", $one), TAG, "Creates or replaces it")
                    .query(WRITE_QUERY)
                    .request(any_object)
                    .responses(WRITTEN),
            ),
            Route::new(
                Method::PATCH,
                concat!("/api/v1/", $path, "/{name}"),
                $role,
                patch(async |caller: Caller, Path(name): Path<String>, body: Text| {
                    caller.edit($kind, name, Operation::Patch(body.value()?)).await
                }),
                Doc::new(concat!("patch", $one), TAG, "Merge-patch (RFC 7396)")
                    .query(WRITE_QUERY)
                    .request(any_object)
                    .responses(WRITTEN),
            ),
            Route::new(
                Method::DELETE,
                concat!("/api/v1/", $path, "/{name}"),
                $role,
                delete(async |caller: Caller, Path(name): Path<String>| {
                    caller.edit($kind, name, Operation::Delete).await
                }),
                Doc::new(concat!("delete", $one), TAG, "Removes it").query(WRITE_QUERY).responses(DELETED),
            ),
        ]);
    };
}

macro_rules! part_routes {
    ($table:ident, $kind:expr, $one:literal, $path:literal) => {
        $table.extend([
            Route::new(
                Method::GET,
                $path,
                Role::Viewer,
                get(async |state: State<App>, path: Path<(String, String)>| {
                    read_part(state, path, $kind).await
                }),
                Doc::new(concat!("get", $one), TAG, "One part of an object")
                    .responses(&[(200, "The part"), (404, "There is none")]),
            ),
            Route::new(
                Method::PUT,
                $path,
                Role::Operator,
                put(async |caller: Caller, Path((name, part)): Path<(String, String)>, body: Text| {
                    caller.edit($kind, name, Operation::PutPart(part, body.value()?)).await
                }),
                Doc::new(concat!("put", $one), TAG, "Creates (at the end) or replaces a part")
                    .query(WRITE_QUERY)
                    .request(any_object)
                    .responses(WRITTEN),
            ),
            Route::new(
                Method::PATCH,
                $path,
                Role::Operator,
                patch(async |caller: Caller, Path((name, part)): Path<(String, String)>, body: Text| {
                    caller.edit($kind, name, Operation::PatchPart(part, body.value()?)).await
                }),
                Doc::new(concat!("patch", $one), TAG, "Merge-patch on a part")
                    .query(WRITE_QUERY)
                    .request(any_object)
                    .responses(WRITTEN),
            ),
            Route::new(
                Method::DELETE,
                $path,
                Role::Operator,
                delete(async |caller: Caller, Path((name, part)): Path<(String, String)>| {
                    caller.edit($kind, name, Operation::DeletePart(part)).await
                }),
                Doc::new(concat!("delete", $one), TAG, "Removes a part")
                    .query(WRITE_QUERY)
                    .responses(DELETED),
            ),
        ]);
    };
}

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    let mut table = Vec::new();
    object_routes!(table, Kind::Listener, "Listener", "listeners", Role::Operator);
    object_routes!(table, Kind::Pool, "Pool", "pools", Role::Operator);
    object_routes!(table, Kind::Certificate, "Certificate", "certificates", Role::Operator);
    object_routes!(table, Kind::AddressList, "AddressList", "address-lists", Role::Operator);
    object_routes!(table, Kind::Map, "Map", "maps", Role::Operator);
    object_routes!(table, Kind::AcmeAccount, "AcmeAccount", "acme-accounts", Role::Operator);
    part_routes!(table, Kind::Listener, "Rule", "/api/v1/listeners/{name}/rules/{part}");
    part_routes!(table, Kind::Pool, "Backend", "/api/v1/pools/{name}/backends/{part}");
    table
}

fn any_object() -> Value {
    json!({"type": "object", "description": "As in /api/schema.json"})
}

/// `?limit=&cursor=&filter=` of lists.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    filter: Option<String>,
}

impl ListQuery {
    /// One page of `items`, which are in order of their names.
    pub fn page<'a, T: 'a>(
        &self,
        items: impl Iterator<Item = (&'a str, T)>,
        text: impl Fn(&T) -> Value,
    ) -> Value {
        let limit = self.limit.unwrap_or(100).clamp(1, 1_000);
        let filter = self.filter.as_deref().unwrap_or_default().to_lowercase();
        let (mut page, mut total, mut next, mut last) = (Vec::new(), 0, None, "");
        for (name, item) in items {
            let rendered = (!filter.is_empty()).then(|| text(&item));
            if rendered.as_ref().is_some_and(|value| !value.to_string().to_lowercase().contains(&filter)) {
                continue;
            }
            total += 1;
            if self.cursor.as_deref().is_some_and(|cursor| name <= cursor) {
                continue;
            }
            if page.len() < limit {
                page.push(rendered.unwrap_or_else(|| text(&item)));
                last = name;
            } else if next.is_none() {
                next = Some(last.to_owned());
            }
        }
        let mut answer = json!({"items": page, "total": total});
        if let (Some(next), Some(answer)) = (next, answer.as_object_mut()) {
            answer.insert("next".into(), next.into());
        }
        answer
    }
}

async fn list(State(app): State<App>, Query(query): Query<ListQuery>, kind: Kind) -> Response {
    let head = app.catalog.head();
    axum::Json(query.page(head.model.all(kind), |entry| entry.to_short_json())).into_response()
}

async fn read(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    kind: Kind,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(kind, &name).ok_or_else(|| missing(kind, &name))?;
    // The chains of an issued certificate change beside its ETag, which is that of what the user wrote.
    let none = HeaderMap::new();
    let headers = if entry.issued().is_some() { &none } else { &headers };
    Ok(with_etag(headers, &entry.etag(), || axum::Json(entry.to_json()).into_response()))
}

async fn read_part(
    State(app): State<App>,
    Path((name, part)): Path<(String, String)>,
    kind: Kind,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(kind, &name).ok_or_else(|| missing(kind, &name))?;
    let found = part_of(kind, &entry.body, &part)
        .ok_or_else(|| Problem::not_found(format!("{} {name:?} has no {part:?}", kind.word())))?;
    let mut answer = axum::Json(part_json(entry, &part, found)).into_response();
    set_etag(&mut answer, &entry.etag());
    Ok(answer)
}

fn part_of<'a>(kind: Kind, body: &'a Value, part: &str) -> Option<&'a Value> {
    let items = body.get(kind.parts_field()?)?.as_array()?;
    items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(part))
}

/// A part has the ETag of its object: both change together.
fn part_json(entry: &crate::catalog::Entry, name: &str, part: &Value) -> Value {
    let mut object = serde_json::Map::new();
    let number = entry.parts.get(name);
    object.insert(
        "meta".into(),
        json!({"number": number, "etag": entry.etag(), "revision": entry.revision, "updatedAt": entry.updated_at}),
    );
    if let Value::Object(fields) = part {
        object.extend(fields.clone());
    }
    Value::Object(object)
}

pub(super) fn missing(kind: Kind, name: &str) -> Problem {
    Problem::not_found(format!("there is no {} {name:?}", kind.word()))
}

/// 304 when the caller has this version, else the answer with its ETag.
pub fn with_etag(headers: &HeaderMap, etag: &str, answer: impl FnOnce() -> Response) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    set_etag(&mut response, etag);
    response
}

fn set_etag(response: &mut Response, etag: &str) {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

/// Whoever writes one object.
pub struct Caller {
    app: App,
    principal: Principal,
    headers: HeaderMap,
    query: WriteQuery,
}

impl axum::extract::FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, app: &App) -> Result<Self, Problem> {
        let Query(query) = Query::from_request_parts(parts, app).await?;
        let Extension(principal) =
            Extension::<Principal>::from_request_parts(parts, app).await.map_err(Problem::internal)?;
        Ok(Self { app: app.clone(), principal, headers: parts.headers.clone(), query })
    }
}

impl Caller {
    /// Does any write.
    pub async fn write(&self, what: WriteWhat, expected_head: Precondition) -> Result<Outcome, Problem> {
        self.write_with(what, expected_head, self.query.dry_run, &self.query.message).await
    }

    /// Does any write; `dry_run` and the message came in the body.
    pub async fn write_with(
        &self,
        what: WriteWhat,
        expected_head: Precondition,
        dry_run: bool,
        message: &str,
    ) -> Result<Outcome, Problem> {
        let origin = origin(&self.principal, &self.headers, message);
        let outcome = self.app.catalog.write(Write { origin, what, expected_head, dry_run }).await?;
        // Each revision is told once it is the head; entries of address lists alone make none.
        if outcome.changed && !outcome.has_revision && !dry_run {
            let summary = crate::store::objects::Summary::of(&outcome.changes);
            let event =
                json!({"revision": outcome.head.revision, "author": self.principal.user, "summary": summary});
            self.app.events.publish("revision", &event);
        }
        Ok(outcome)
    }

    /// What the headers say about the head.
    pub fn expected_head(&self) -> Result<Precondition, Problem> {
        precondition(&self.headers)
    }

    /// The parts of the control plane.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Whether only a check was asked for.
    pub fn is_dry_run(&self) -> bool {
        self.query.dry_run
    }

    /// The message in the query.
    pub fn message(&self) -> &str {
        &self.query.message
    }

    pub(super) async fn edit(
        self,
        kind: Kind,
        name: String,
        operation: Operation,
    ) -> Result<Response, Problem> {
        let (is_delete, part) = match &operation {
            Operation::PutPart(part, _) | Operation::PatchPart(part, _) => (false, Some(part.clone())),
            Operation::DeletePart(_) | Operation::Delete | Operation::MapEntry(_, None) => (true, None),
            Operation::Put(_)
            | Operation::Patch(_)
            | Operation::Entries(_)
            | Operation::MapEntry(_, Some(_)) => (false, None),
        };
        // Whoever changes one entry is not sent all of them.
        let is_short = matches!(operation, Operation::Entries(_) | Operation::MapEntry(..));
        let before = self.app.catalog.head();
        let precondition = precondition(&self.headers)?;
        let edit = Edit { kind, name: name.clone(), operation, precondition, pointer: String::new() };
        let outcome = self.write(WriteWhat::Edits(vec![edit]), Precondition::None).await?;
        let head = &outcome.head;
        let mut answer = match (is_delete, head.model.get(kind, &name)) {
            (false, Some(entry)) => {
                let was_there = before
                    .model
                    .get(kind, &name)
                    .is_some_and(|old| part.as_deref().is_none_or(|part| old.parts.contains_key(part)));
                let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
                let mut body = match part.as_deref() {
                    None if is_short => entry.to_short_json(),
                    None => entry.to_json(),
                    Some(part) => {
                        let found = part_of(kind, &entry.body, part).unwrap_or(&Value::Null);
                        part_json(entry, part, found)
                    }
                };
                if !outcome.warnings.is_empty()
                    && let Some(meta) = body.get_mut("meta").and_then(Value::as_object_mut)
                {
                    meta.insert("warnings".into(), json!(outcome.warnings));
                }
                let mut answer = (status, axum::Json(body)).into_response();
                set_etag(&mut answer, &entry.etag());
                answer
            }
            _ => StatusCode::NO_CONTENT.into_response(),
        };
        set_revision(&mut answer, if self.query.dry_run { before.revision } else { head.revision });
        Ok(answer)
    }
}

/// Says which revision the configuration is at.
pub fn set_revision(response: &mut Response, revision: u64) {
    response.headers_mut().insert(REVISION, HeaderValue::from(revision));
}
