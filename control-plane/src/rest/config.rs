//! The whole document, and several objects at once.

use awe4lb_model::document::{self, Format, Node, Violation};
use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::{Query, Text, precondition_of_etag},
    objects::{Caller, set_revision, with_etag},
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::Role,
    catalog::{Edit, Kind, Operation, Outcome, Precondition, WriteWhat},
    store::objects::Summary,
};

const TAG: &str = "Configuration";
const WRITE_QUERY: &[(&str, &str)] =
    &[("dryRun", "true: check it and store nothing"), ("message", "Kept in the history")];
const ANSWERS: &[(u16, &str)] = &[
    (200, "What changed"),
    (409, "Others need what would change"),
    (412, "The ETag is stale"),
    (422, "Everything that is wrong"),
];

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/config",
            Role::Viewer,
            get(read),
            Doc::new("getConfig", TAG, "The whole document, without keys")
                .query(&[("format", "json or yaml or toml")]),
        ),
        Route::new(
            Method::PUT,
            "/api/v1/config",
            Role::Operator,
            put(replace),
            Doc::new("putConfig", TAG, "Replaces the whole document")
                .query(WRITE_QUERY)
                .request(whole)
                .responses(ANSWERS),
        ),
        Route::new(
            Method::POST,
            "/api/v1/config:apply",
            Role::Operator,
            post(apply),
            Doc::new(
                "applyConfig",
                TAG,
                "Creates and changes what a document names; deletes the rest only with prune",
            )
            .query(WRITE_QUERY)
            .request(apply_schema)
            .responses(ANSWERS),
        ),
        Route::new(
            Method::POST,
            "/api/v1/config:validate",
            Role::Viewer,
            post(validate),
            Doc::new("validateConfig", TAG, "What is wrong with a document, and what it would change")
                .request(whole),
        ),
        Route::new(
            Method::POST,
            "/api/v1/changesets",
            Role::Operator,
            post(changeset),
            Doc::new("createChangeset", TAG, "Several objects: all or none")
                .query(WRITE_QUERY)
                .request(changeset_schema)
                .responses(ANSWERS),
        ),
    ]
}

fn whole() -> Value {
    json!({"$ref": "/api/schema.json"})
}

fn apply_schema() -> Value {
    json!({"type": "object", "required": ["document"], "properties": {
        "document": {"description": "The document, as an object or as text"},
        "format": {"enum": ["json", "yaml", "toml"], "description": "Of a document that is text"},
        "prune": {"type": "boolean", "default": false},
        "message": {"type": "string"},
    }})
}

fn changeset_schema() -> Value {
    json!({"type": "object", "required": ["changes"], "properties": {
        "message": {"type": "string"},
        "changes": {"type": "array", "items": {"type": "object", "required": ["op", "kind", "name"], "properties": {
            "op": {"enum": ["put", "delete"]},
            "kind": {"enum": Kind::NAMED.map(Kind::word)},
            "name": {"type": "string"},
            "object": {"type": "object"},
            "ifMatch": {"type": "string"},
        }}},
    }})
}

#[derive(Debug, Deserialize)]
pub(super) struct FormatQuery {
    format: Option<String>,
}

/// In which language a document is wanted: by the query, else by `Accept`.
pub(super) fn wanted_format(query: &FormatQuery, headers: &HeaderMap) -> Result<Format, Problem> {
    if let Some(word) = &query.format {
        return Format::of_word(word)
            .ok_or_else(|| Problem::bad_request(format!("{word:?} is no format: json, yaml, toml")));
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(match accept {
        accept if accept.contains("yaml") => Format::Yaml,
        accept if accept.contains("toml") => Format::Toml,
        _ => Format::Json,
    })
}

/// A document in one of three languages.
pub(super) fn render(intent: &Value, format: Format) -> Result<Response, Problem> {
    let (kind, text) = match format {
        Format::Json => return Ok(axum::Json(intent).into_response()),
        Format::Yaml => ("application/yaml", document::to_yaml(intent)),
        Format::Toml => ("application/toml", document::to_toml(intent).map_err(Problem::internal)?),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn read(
    State(app): State<App>,
    Query(query): Query<FormatQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let document = render(&head.model.intent(), wanted_format(&query, &headers)?)?;
    let mut answer = with_etag(&headers, &head.etag(), || document);
    set_revision(&mut answer, head.revision);
    Ok(answer)
}

async fn replace(caller: Caller, body: Text) -> Result<Response, Problem> {
    let what = WriteWhat::Document { document: body.document()?, prune: true };
    let outcome = caller.write(what, caller.expected_head()?).await?;
    Ok(answer(&caller, &outcome))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Apply {
    document: Value,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    prune: bool,
    #[serde(default)]
    message: Option<String>,
}

async fn apply(caller: Caller, body: Text) -> Result<Response, Problem> {
    // A document that is sent itself, not wrapped, is understood too.
    let (document, prune, message) = if body.format == Format::Json {
        let request: Apply = body.json()?;
        let document = match (&request.document, &request.format) {
            (Value::String(text), format) => {
                let format = format.as_deref().unwrap_or("yaml");
                let format = Format::of_word(format).ok_or_else(|| {
                    Problem::bad_request(format!("{format:?} is no format: json, yaml, toml"))
                })?;
                document::parse(text, format).map_err(Problem::invalid)?
            }
            (value, _) => Node::from_json(value),
        };
        (document, request.prune, request.message.unwrap_or_else(|| caller.message().to_owned()))
    } else {
        (body.document()?, false, caller.message().to_owned())
    };
    let what = WriteWhat::Document { document, prune };
    let outcome = caller.write_with(what, caller.expected_head()?, caller.is_dry_run(), &message).await?;
    Ok(answer(&caller, &outcome))
}

async fn validate(State(app): State<App>, body: Text) -> Response {
    let errors = |errors: Vec<Violation>| {
        axum::Json(json!({"valid": false, "errors": errors, "warnings": [], "changes": [], "summary": Summary::default()}))
            .into_response()
    };
    let document = match document::parse(&body.text, body.format) {
        Ok(document) => document,
        Err(violations) => return errors(violations),
    };
    let write = crate::catalog::Write {
        origin: crate::catalog::Origin::default(),
        what: WriteWhat::Document { document, prune: true },
        expected_head: Precondition::None,
        dry_run: true,
    };
    match app.catalog.write(write).await {
        Ok(outcome) => axum::Json(json!({
            "valid": true,
            "errors": [],
            "warnings": outcome.warnings,
            "changes": short(&outcome),
            "summary": Summary::of(&outcome.changes),
        }))
        .into_response(),
        Err(crate::catalog::WriteError::Invalid(violations)) => errors(violations),
        Err(other) => Problem::from(other).into_response(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Changeset {
    #[serde(default)]
    message: Option<String>,
    changes: Vec<ChangesetItem>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChangesetItem {
    op: ItemOperation,
    kind: String,
    name: String,
    #[serde(default)]
    object: Option<Value>,
    #[serde(default)]
    if_match: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ItemOperation {
    Put,
    Delete,
}

async fn changeset(caller: Caller, body: Text) -> Result<Response, Problem> {
    let request: Changeset = body.json()?;
    let mut edits = Vec::new();
    for (index, item) in request.changes.into_iter().enumerate() {
        let pointer = format!("/changes/{index}");
        let invalid = |field: &str, code, detail: String| {
            Problem::invalid(vec![Violation::new(format!("{pointer}/{field}"), None, code, detail)])
        };
        let kind = Kind::of_word(&item.kind).filter(|kind| Kind::NAMED.contains(kind)).ok_or_else(|| {
            invalid(
                "kind",
                "unknown-value",
                format!("{:?} is no kind: {}", item.kind, Kind::NAMED.map(Kind::word).join(", ")),
            )
        })?;
        let operation = match (item.op, item.object) {
            (ItemOperation::Delete, None) => Operation::Delete,
            (ItemOperation::Delete, Some(_)) => {
                return Err(invalid("object", "conflict", "a deletion has no object".to_owned()));
            }
            (ItemOperation::Put, Some(object)) => Operation::Put(object),
            (ItemOperation::Put, None) => {
                return Err(invalid("object", "required", "what is put is missing".to_owned()));
            }
        };
        let precondition = match item.if_match.as_deref() {
            None => Precondition::None,
            Some("*") => Precondition::Exists,
            Some(etag) => precondition_of_etag(etag)?,
        };
        edits.push(Edit {
            kind,
            name: item.name,
            operation,
            precondition,
            pointer: format!("{pointer}/object"),
        });
    }
    let message = request.message.unwrap_or_else(|| caller.message().to_owned());
    let outcome = caller
        .write_with(WriteWhat::Edits(edits), caller.expected_head()?, caller.is_dry_run(), &message)
        .await?;
    Ok(answer(&caller, &outcome))
}

fn short(outcome: &Outcome) -> Vec<Value> {
    let change =
        |change: &document::Change| json!({"op": change.op, "kind": change.kind, "name": change.name});
    outcome.changes.iter().map(change).collect()
}

/// What a write of several objects answers.
pub(super) fn answer(caller: &Caller, outcome: &Outcome) -> Response {
    let stored = if caller.is_dry_run() && outcome.has_revision {
        outcome.head.revision - 1
    } else {
        outcome.head.revision
    };
    let etag = if caller.is_dry_run() { format!("\"{stored}\"") } else { outcome.head.etag() };
    let body = json!({
        "revision": stored,
        "changed": outcome.changed,
        "summary": Summary::of(&outcome.changes),
        "changes": short(outcome),
        "warnings": outcome.warnings,
    });
    let mut answer = (StatusCode::OK, [(header::ETAG, etag)], axum::Json(body)).into_response();
    set_revision(&mut answer, stored);
    answer
}
