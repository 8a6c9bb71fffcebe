//! `/healthz`: the process answers. `/readyz`: and the database takes writes.

use axum::{extract::State, routing::get};
use http::Method;
use serde_json::{Value, json};

use super::{Doc, Problem, Route};
use crate::app::App;

const TAG: &str = "Health";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::public(
            Method::GET,
            "/healthz",
            get(async || axum::Json(json!({"status": "ok"}))),
            Doc::new("healthz", TAG, "The process answers"),
        ),
        Route::public(
            Method::GET,
            "/readyz",
            get(ready),
            Doc::new("readyz", TAG, "The database answers and takes writes")
                .responses(&[(200, "Ready"), (503, "Not ready, with the cause")]),
        ),
    ]
}

async fn ready(State(app): State<App>) -> Result<axum::Json<Value>, Problem> {
    if app.stop.is_cancelled() {
        return Err(Problem::unavailable("the control plane is stopping"));
    }
    // A transaction that takes the write lock and changes nothing: a database that became read-only fails here.
    let mut tx = app.store.writer().begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("UPDATE meta SET value = value WHERE key = 'lineage'").execute(&mut *tx).await?;
    tx.rollback().await?;
    Ok(axum::Json(json!({"status": "ready"})))
}
