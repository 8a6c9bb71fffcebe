//! How certificates and accounts do, and what can be done about it.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{Method, StatusCode};
use serde_json::json;

use super::{
    Problem,
    body::Query,
    objects::{ListQuery, TAG, missing},
    routes::{Doc, Route},
};
use crate::{app::App, auth::Role, catalog::Kind};

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/certificate-status",
            Role::Viewer,
            get(list),
            Doc::new(
                "listCertificateStatus",
                TAG,
                "How all certificates do: what serves, how long, what happens next",
            )
            .query(&[
                ("limit", "At most so many (default 100, at most 1,000)"),
                ("cursor", "Where the page before ended"),
                ("filter", "Text that the answer contains"),
            ]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/certificates/{name}/status",
            Role::Viewer,
            get(status),
            Doc::new("getCertificateStatus", TAG, "How a certificate does")
                .responses(&[(200, "The status"), (404, "There is none")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/certificates/{name}:renew",
            Role::Operator,
            post(renew),
            Doc::new("renewCertificate", TAG, "Orders it now; the status says how it goes").responses(&[
                (202, "It is ordered"),
                (404, "There is none"),
                (409, "It is not issued by ACME"),
            ]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/acme-accounts/{name}/status",
            Role::Viewer,
            get(account_status),
            Doc::new("getAcmeAccountStatus", TAG, "Whether the authority knows the account")
                .responses(&[(200, "The status"), (404, "There is none")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/acme-accounts/{name}:rollover",
            Role::Operator,
            post(roll_over),
            Doc::new("rollOverAcmeAccount", TAG, "Gives the account another key").responses(&[
                (200, "It has another key"),
                (404, "There is none"),
                (503, "The authority did not take it"),
            ]),
        ),
    ]
}

async fn list(State(app): State<App>, Query(query): Query<ListQuery>) -> Response {
    let head = app.catalog.head();
    let text = |view: &crate::acme::CertificateView| serde_json::to_value(view).unwrap_or_default();
    axum::Json(query.page(app.acme.views(&head), text)).into_response()
}

async fn status(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let view = app.acme.view(&head, &name).ok_or_else(|| missing(Kind::Certificate, &name))?;
    Ok(axum::Json(view).into_response())
}

async fn renew(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let head = app.catalog.head();
    head.model.get(Kind::Certificate, &name).ok_or_else(|| missing(Kind::Certificate, &name))?;
    if !app.acme.renew(&name) {
        let detail = format!("certificate {name:?} was uploaded: replace it, or give it \"acme\"");
        return Err(Problem::new(StatusCode::CONFLICT, "not-issued", detail));
    }
    Ok((StatusCode::ACCEPTED, axum::Json(json!({"name": name}))).into_response())
}

async fn account_status(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let view = app.acme.account_view(&head, &name).await.map_err(Problem::internal)?;
    let view = view.ok_or_else(|| missing(Kind::AcmeAccount, &name))?;
    Ok(axum::Json(view).into_response())
}

async fn roll_over(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let outcome = app.acme.roll_over(&name).await.ok_or_else(|| missing(Kind::AcmeAccount, &name))?;
    outcome.map_err(|failure| {
        let detail = format!("{} ({}): {}", failure.detail, failure.r#type, failure.hint);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "authority-refused", detail)
    })?;
    account_status(State(app), Path(name)).await
}
