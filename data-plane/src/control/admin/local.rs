//! The local socket: status and drain, without the control plane. Who may open it is who may read the state directory.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::connections;
use crate::control::{
    file_source::describe,
    hot::{AdminState, MemberView},
    node::{Node, unix_millis},
};
use awe4lb_engine::health::Health;

pub(super) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/drain", post(drain))
        .route("/undrain", post(undrain))
        .route("/connections", get(connections::list))
        .route("/connections/close", post(connections::close))
        .with_state(node)
}

async fn status(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(describe_node(&node))
}

async fn drain(State(node): State<Arc<Node>>) -> Json<Value> {
    tracing::warn!("draining, as told on the local socket");
    node.draining.send_modify(|draining| draining.local = true);
    Json(describe_node(&node))
}

async fn undrain(State(node): State<Arc<Node>>) -> Json<Value> {
    tracing::warn!("no longer draining, as told on the local socket");
    node.draining.send_modify(|draining| draining.local = false);
    Json(describe_node(&node))
}

fn describe_node(node: &Node) -> Value {
    let running = node.live.running();
    let missing: Vec<String> = running.missing.iter().map(describe).collect();
    let draining = *node.draining.borrow();
    let assignment = running.assignment.as_ref().map(|assignment| {
        json!({
            "lineage": assignment.lineage,
            "epoch": assignment.epoch,
            "sequence": assignment.sequence,
            "manifestHash": hex::encode(&assignment.manifest_hash),
            "revision": assignment.revision,
        })
    });
    let pools: Vec<Value> = node
        .live
        .path()
        .pools()
        .iter()
        .map(|pool| {
            let placed = pool.placed();
            let backends: Vec<Value> = placed
                .pool
                .backends
                .iter()
                .zip(pool.members())
                .map(|(backend, view)| {
                    describe_backend(backend.name.as_str(), &backend.address.to_string(), &view)
                })
                .collect();
            json!({ "name": placed.pool.name.as_str(), "backends": backends })
        })
        .collect();
    let listeners: Vec<Value> = running
        .config
        .listeners
        .iter()
        .map(|placed| {
            let bind: Vec<String> = placed.listener.bind.iter().map(ToString::to_string).collect();
            json!({ "name": placed.listener.name.as_str(), "bind": bind })
        })
        .collect();
    json!({
        "name": node.name(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "startedAt": unix_millis(node.started),
        "threads": node.threads,
        "configured": running.is_configured(),
        "ready": node.not_ready().is_empty(),
        "notReady": node.not_ready(),
        "draining": { "local": draining.local, "commanded": draining.commanded, "stopping": draining.stopping },
        "link": node.link.borrow().clone(),
        "running": assignment,
        "builtHash": hex::encode(&running.built_hash),
        "missing": missing,
        "connections": node.live.path().active_connections(),
        "listeners": listeners,
        "pools": pools,
    })
}

fn describe_backend(name: &str, address: &str, view: &MemberView) -> Value {
    json!({
        "name": name,
        "address": address,
        "resolved": view.addresses,
        "health": match view.health {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        },
        "reason": view.reason,
        "ejected": view.ejected,
        "admin": match view.admin {
            AdminState::Ready => "ready",
            AdminState::Drain => "drain",
            AdminState::Maintenance => "maintenance",
        },
        "connections": view.active,
    })
}
