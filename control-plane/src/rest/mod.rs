//! REST, the console, `/metrics`: everything that speaks HTTP.

pub mod body;
mod by_hand;
mod certificates;
mod config;
mod console;
mod discovery;
mod events;
mod explain;
mod fleet;
mod health;
mod lists;
mod metrics;
mod objects;
mod openapi;
mod problem;
mod revisions;
pub mod routes;
pub mod server;
mod session;
mod stats;
#[cfg(test)]
mod tests;
pub mod tls;
mod tokens;
pub mod trace;

use axum::{Router, middleware};
use http::Uri;

pub use problem::Problem;
pub use routes::{Access, Doc, Route};

use crate::app::App;

/// The one table.
pub fn table() -> Vec<Route> {
    let mut table = Vec::new();
    table.extend(health::routes());
    table.extend(session::routes());
    table.extend(tokens::routes());
    table.extend(objects::routes());
    table.extend(certificates::routes());
    table.extend(by_hand::routes());
    table.extend(lists::routes());
    table.extend(config::routes());
    table.extend(explain::routes());
    table.extend(discovery::routes());
    table.extend(revisions::routes());
    table.extend(fleet::routes());
    table.extend(stats::routes());
    table.extend(metrics::routes());
    table.extend(events::routes());
    table.extend(openapi::routes());
    table
}

/// All of it. Serve it behind [`routes::rewrite_verb`].
pub fn router(app: &App) -> Router {
    routes::router(table(), app)
        .fallback(async |method: http::Method, uri: Uri, headers: http::HeaderMap| {
            let path = uri.path();
            if path.starts_with("/api/") || path == "/api" {
                return axum::response::IntoResponse::into_response(Problem::not_found(format!(
                    "there is no {path}"
                )));
            }
            console::serve(&method, &uri, &headers)
        })
        .layer(middleware::from_fn_with_state(app.clone(), trace::around))
        .with_state(app.clone())
}
