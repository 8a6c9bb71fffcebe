//! Sources of backends: how they do, what they would yield, and what is pushed.

use awe4lb_discovery::format;
use awe4lb_model::{
    Defaults, Pool,
    discovery::Format,
    document::{self, Node},
};
use axum::{
    Json,
    extract::{Path, State},
    routing::{get, post, put},
};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::{Query, Text},
    routes::{Doc, Route},
};
use crate::{app::App, auth::Role, discovery::PushError};

const TAG: &str = "Discovery";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/discovery",
            Role::Viewer,
            get(sources),
            Doc::new("listSources", TAG, "How the sources of backends do")
                .query(&[("pool", "Of this pool alone")])
                .responses(&[(200, "All sources, in order of pool")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/discovery/preview",
            Role::Operator,
            post(preview),
            Doc::new(
                "previewSources",
                TAG,
                "What the sources of a pool yield now, asked once from the control plane",
            )
            .request(|| json!({"type": "object", "description": "A pool, or a document with pools"}))
            .responses(&[
                (200, "By source: backends, what was rejected, or why it failed"),
                (422, "Not valid"),
            ]),
        ),
        Route::push(
            Method::PUT,
            "/api/v1/pools/{name}/sources/{id}",
            put(push),
            Doc::new("pushBackends", TAG, "Tells a source of type push which backends it has: all of them")
                .request(|| json!({"type": "array", "items": {}, "examples": [["10.0.1.1:80"]]}))
                .responses(&[
                    (200, "How many count now, and which items are no backends"),
                    (404, "There is no such source of type push"),
                    (422, "Nothing of it counts, and why"),
                ]),
        ),
    ]
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    pool: Option<String>,
}

async fn sources(State(app): State<App>, Query(filter): Query<Filter>) -> Json<Value> {
    let config = app.catalog.head().placed.clone();
    let items = app.discovery.sources(&config, filter.pool.as_deref());
    Json(json!({"total": items.len(), "items": items}))
}

async fn preview(State(app): State<App>, body: Text) -> Result<Json<Value>, Problem> {
    let mut pools = Vec::new();
    for node in pools_of(body.document()?) {
        pools.push(app.discovery.preview(&decode(node)?).await);
    }
    Ok(Json(json!({"pools": pools})))
}

/// A document has pools; anything else is one.
fn pools_of(document: Node) -> Vec<Node> {
    match document.field("pools") {
        Some(pools) => pools.items().to_vec(),
        None => vec![document],
    }
}

fn decode(mut node: Node) -> Result<Pool, Problem> {
    document::fill_names("pool", &mut node);
    document::decode_pool(&node, &Defaults::default()).map_err(Problem::invalid)
}

async fn push(
    State(app): State<App>,
    Path((name, id)): Path<(String, String)>,
    body: Text,
) -> Result<Json<Value>, Problem> {
    let refused = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-taken", detail);
    let config = app.catalog.head().placed.clone();
    let placed = config.pools.iter().find(|placed| placed.pool.name.as_str() == name);
    let placed = placed.ok_or_else(|| Problem::not_found(format!("there is no pool {name:?}")))?;
    let answer = format::read(body.text.as_bytes(), &Format::Auto).map_err(|failure| refused(failure.0))?;
    let rejected = answer.rejected.clone();
    match app.discovery.push(placed, &id, answer).await {
        Ok(backends) => Ok(Json(json!({"backends": backends, "rejected": rejected}))),
        Err(none @ PushError::NoSource(..)) => Err(Problem::not_found(none.to_string())),
        Err(PushError::Refused(why)) => Err(refused(why)),
    }
}
