//! Every request has an id: it is in problems, in the log and in a header of the answer.

use std::{
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};

use super::Problem;
use crate::app::App;

tokio::task_local! {
    static TRACE_ID: String;
}

/// Of the request that is being answered; empty outside of one.
pub fn id() -> String {
    TRACE_ID.try_with(Clone::clone).unwrap_or_default()
}

/// Answers by status class, for `/metrics`.
#[derive(Debug, Default)]
pub struct Answers([AtomicU64; 6]);

impl Answers {
    /// (`2xx`, how many) for each class.
    pub fn by_class(&self) -> [(&'static str, u64); 5] {
        let count = |class: usize| self.0[class].load(Ordering::Relaxed);
        [("1xx", count(1)), ("2xx", count(2)), ("3xx", count(3)), ("4xx", count(4)), ("5xx", count(5))]
    }
}

/// Around everything: the id, the log line, and an answer also for a handler that panics.
pub async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = of_headers(request.headers()).unwrap_or_else(|| hex::encode(rand::random::<[u8; 16]>()));
    let (method, path) = (request.method().clone(), request.uri().path().replace("/~", ":"));
    let started = Instant::now();
    let mut response = TRACE_ID
        .scope(id.clone(), async move {
            match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                Ok(response) => response,
                Err(panic) => {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                    Problem::internal(format!("panic: {}", text.unwrap_or_default())).into_response()
                }
            }
        })
        .await;
    let status = response.status().as_u16();
    app.answers.0[usize::from(status / 100).min(5)].fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%method, path, status, trace_id = id, micros = started.elapsed().as_micros(), "answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("trace-id", value);
    }
    response
}

/// The trace id of a W3C `traceparent`, so that our log joins the caller's.
fn of_headers(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let id = text.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_ascii_lowercase())
}
