//! The history: who changed what when, how it was then, and back.

use awe4lb_model::document::{self, Change, Operation};
use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::Query,
    config::{FormatQuery, answer, render, wanted_format},
    objects::Caller,
    routes::{Doc, Route},
};
use crate::{app::App, auth::Role, catalog::WriteWhat, store::objects::Revision};

const TAG: &str = "History";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/revisions",
            Role::Viewer,
            get(list),
            Doc::new("listRevisions", TAG, "The history, newest first").query(&[
                ("limit", "At most so many (default 100, at most 1,000)"),
                ("cursor", "Where the page before ended"),
            ]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/revisions/{number}",
            Role::Viewer,
            get(read),
            Doc::new("getRevision", TAG, "One revision and what it changed")
                .responses(&[(200, "The revision"), (404, "There is none")]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/revisions/{number}/config",
            Role::Viewer,
            get(as_of),
            Doc::new("getRevisionConfig", TAG, "The document as it was")
                .query(&[("format", "json or yaml or toml")])
                .responses(&[(200, "The document"), (404, "There is none")]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/revisions/{number}/diff",
            Role::Viewer,
            get(diff),
            Doc::new("diffRevisions", TAG, "What differs between two revisions")
                .query(&[("against", "The other revision; default: the one before")])
                .responses(&[(200, "The difference"), (404, "There is none")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/revisions/{number}:restore",
            Role::Operator,
            post(restore),
            Doc::new("restoreRevision", TAG, "A new revision with the old content")
                .query(&[("dryRun", "true: check it and store nothing"), ("message", "Kept in the history")])
                .responses(&[(200, "What changed"), (404, "There is none"), (422, "It is no longer valid")]),
        ),
    ]
}

#[derive(Debug, Deserialize)]
struct HistoryQuery {
    limit: Option<u32>,
    cursor: Option<u64>,
}

async fn list(State(app): State<App>, Query(query): Query<HistoryQuery>) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, 1_000);
    let items = app.store.revisions(query.cursor, limit).await?;
    let mut answer = json!({"items": items, "total": app.catalog.head().revision});
    if let (Some(Revision { number: last @ 2.., .. }), Some(answer)) = (items.last(), answer.as_object_mut())
        && items.len() == limit as usize
    {
        answer.insert("next".into(), last.to_string().into());
    }
    Ok(axum::Json(answer).into_response())
}

async fn read(State(app): State<App>, number: NumberInPath) -> Result<Response, Problem> {
    let number = number.0;
    let revision = app.store.revision(number).await?.ok_or_else(|| missing(number))?;
    let mut touched = std::collections::BTreeMap::new();
    for (kind, name, is_new, body) in app.store.touched_by(number).await? {
        let (before, after): &mut (Option<Value>, Option<Value>) = touched.entry((kind, name)).or_default();
        *(if is_new { after } else { before }) = Some(body);
    }
    let changes: Vec<Change> = touched
        .into_iter()
        .map(|((kind, name), (before, after))| {
            let op = match (&before, &after) {
                (None, _) => Operation::Create,
                (_, None) => Operation::Delete,
                _ => Operation::Update,
            };
            Change { op, kind: kind.word(), name, before, after }
        })
        .collect();
    let mut answer = serde_json::to_value(revision).map_err(Problem::internal)?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("changes".into(), serde_json::to_value(changes).map_err(Problem::internal)?);
    }
    Ok(axum::Json(answer).into_response())
}

async fn as_of(
    State(app): State<App>,
    number: NumberInPath,
    Query(query): Query<FormatQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let intent = app.catalog.intent_as_of(number.0).await?;
    render(&intent, wanted_format(&query, &headers)?)
}

#[derive(Debug, Deserialize)]
struct DiffQuery {
    against: Option<u64>,
}

async fn diff(
    State(app): State<App>,
    number: NumberInPath,
    Query(query): Query<DiffQuery>,
) -> Result<Response, Problem> {
    let to = number.0;
    let from = query.against.unwrap_or(to.saturating_sub(1));
    let before = app.catalog.intent_as_of(from).await?;
    let after = app.catalog.intent_as_of(to).await?;
    let changes = document::diff(&before, &after);
    let unified = document::unified(&changes);
    Ok(axum::Json(json!({"from": from, "to": to, "changes": changes, "unified": unified})).into_response())
}

async fn restore(caller: Caller, number: NumberInPath) -> Result<Response, Problem> {
    let message = match caller.message() {
        "" => format!("restore revision {}", number.0),
        message => message.to_owned(),
    };
    let outcome = caller
        .write_with(WriteWhat::Restore(number.0), caller.expected_head()?, caller.is_dry_run(), &message)
        .await?;
    Ok(answer(&caller, &outcome))
}

fn missing(number: u64) -> Problem {
    Problem::not_found(format!("there is no revision {number}"))
}

/// The number of a revision in the path; `head` is the newest.
struct NumberInPath(u64);

impl axum::extract::FromRequestParts<App> for NumberInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut http::request::Parts, app: &App) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, app).await.map_err(|rejection| {
            Problem::new(StatusCode::BAD_REQUEST, "bad-request", rejection.body_text())
        })?;
        if text == "head" {
            return Ok(Self(app.catalog.head().revision));
        }
        text.parse().map(Self).map_err(|_| Problem::not_found(format!("there is no revision {text:?}")))
    }
}
