//! What the node says of itself: `/healthz`, `/readyz` and `/metrics` over TCP, and the local socket for whoever is on
//! the machine at 3 am.

pub mod client;
mod connections;
mod local;
mod metrics;

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::node::Node;

/// Binds the admin address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("--admin {address}"))
}

/// Binds the local socket, 0600. The state directory is locked, so what is there is a leftover.
pub fn bind_local(path: &PathBuf) -> anyhow::Result<UnixListener> {
    super::state_dir::remove_durably(path).with_context(|| path.display().to_string())?;
    let listener = UnixListener::bind(path).with_context(|| format!("local socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the admin address until told to stop.
pub async fn serve(listener: TcpListener, node: Arc<Node>, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(node);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Serves the local socket until told to stop.
pub async fn serve_local(
    listener: UnixListener,
    node: Arc<Node>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, local::router(node)).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[derive(serde::Deserialize)]
struct ReadyQuery {
    listener: Option<String>,
}

/// 200 when this node is to get traffic; 503 with the reasons, and the listeners that are missing by name.
async fn ready(State(node): State<Arc<Node>>, Query(query): Query<ReadyQuery>) -> Response {
    let running = node.live.running();
    let missing = running.missing_listeners();
    let reasons = match &query.listener {
        None => node.not_ready(),
        Some(name) => {
            let mut reasons = Vec::new();
            if node.draining.borrow().is_on() {
                reasons.push("draining".to_owned());
            }
            if !running.config.listeners.iter().any(|placed| placed.listener.name.as_str() == name) {
                reasons.push(format!("no listener {name:?} runs here"));
            }
            let of_it = running.missing.iter().filter(|problem| problem.resource.name.as_str() == name);
            reasons.extend(of_it.map(super::file_source::describe));
            reasons
        }
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons, "missing": missing });
    (status, Json(body)).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    ([(header::CONTENT_TYPE, awe4lb_telemetry::exposition::CONTENT_TYPE)], metrics::write(&node))
        .into_response()
}
