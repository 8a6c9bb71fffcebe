//! Connections on the local socket: what is open, what ended and why, and closing by hand.

use std::sync::Arc;

use awe4lb_model::EndReason;
use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::{
    access_log::Names,
    hot::ConnectionFilter,
    live::{Named, names},
    node::{Node, unix_millis},
};

/// More are not listed at once.
const MOST: usize = 10_000;

/// As the query says it: by names.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    listener: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    client: Option<String>,
    sni: Option<String>,
    id: Option<u64>,
    #[serde(default)]
    ended: bool,
    reason: Option<String>,
    limit: Option<usize>,
}

type Refused = (StatusCode, Json<Value>);

pub(super) async fn list(
    State(node): State<Arc<Node>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Refused> {
    let filter = filter(&node, asked)?;
    let (path, names) = (node.live.path().clone(), Names::of(&node));
    let records = tokio::task::spawn_blocking(move || path.connections(&filter)).await.unwrap_or_default();
    let started = unix_millis(node.started);
    let connections: Vec<Value> = records.iter().map(|record| names.describe(record, started)).collect();
    Ok(Json(json!({ "connections": connections })))
}

pub(super) async fn close(
    State(node): State<Arc<Node>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Refused> {
    let filter = filter(&node, asked)?;
    tracing::warn!(?filter, "closing connections, as told on the local socket");
    let path = node.live.path().clone();
    let closing = tokio::task::spawn_blocking(move || path.close_connections(&filter)).await.unwrap_or(0);
    Ok(Json(json!({ "closing": closing })))
}

fn filter(node: &Node, asked: Asked) -> Result<ConnectionFilter, Refused> {
    let refuse = |detail: String| (StatusCode::BAD_REQUEST, Json(json!({ "error": detail })));
    let names = names(&node.live);
    let number = |wanted: &dyn Fn(&Named) -> bool, what: String| {
        let found = names.iter().find(|(_, named)| wanted(named)).map(|(number, _)| *number);
        found.ok_or_else(|| refuse(format!("this node has no {what}")))
    };
    let listener = asked
        .listener
        .map(|name| {
            number(
                &|named| matches!(named, Named::Listener(own) if *own == name),
                format!("listener {name:?}"),
            )
        })
        .transpose()?;
    let pool = asked
        .pool
        .as_ref()
        .map(|name| {
            number(&|named| matches!(named, Named::Pool(own) if own == name), format!("pool {name:?}"))
        })
        .transpose()?;
    let of = asked.pool.unwrap_or_default();
    let backend = asked
        .backend
        .map(|name| {
            let is_meant =
                |named: &Named| matches!(named, Named::Backend(pool, own) if *pool == of && *own == name);
            number(&is_meant, format!("backend {name:?} in pool {of:?}"))
        })
        .transpose()?;
    let client =
        asked.client.map(|text| awe4lb_model::document::prefix(&text).map_err(&refuse)).transpose()?;
    let reason = asked
        .reason
        .map(|word| {
            let known = EndReason::ALL.iter().copied().find(|reason| reason.label() == word);
            known.ok_or_else(|| refuse(format!("{word:?} is no reason of an end")))
        })
        .transpose()?;
    Ok(ConnectionFilter {
        listener,
        pool,
        backend,
        client,
        server_name: asked.sni,
        id: asked.id,
        ended: asked.ended,
        reason,
        limit: asked.limit.unwrap_or(100).min(MOST),
    })
}
