//! Nodes, join tokens, and backends at run time.

use std::{collections::BTreeMap, time::Duration};

use awe4lb_model::document;
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::{Query, Text},
    objects::ListQuery,
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::Role,
    fleet::{Admin, FleetError, JoinToken, NewToken, NodeView, time},
};

const TAG: &str = "Fleet";
const NODE: &[(u16, &str)] = &[(200, "The node"), (404, "There is none")];
const BACKEND: &[(u16, &str)] = &[(200, "The backend"), (404, "There is none"), (422, "What is wrong")];
const LIST_QUERY: &[(&str, &str)] = &[
    ("limit", "At most so many (default 100, at most 1,000)"),
    ("cursor", "Where the page before ended"),
    ("filter", "Text that it contains"),
];

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    let mut table = vec![
        Route::new(
            Method::GET,
            "/api/v1/nodes",
            Role::Viewer,
            get(nodes),
            Doc::new("listNodes", TAG, "All nodes: what each is to run, and what it runs").query(LIST_QUERY),
        ),
        Route::new(
            Method::GET,
            "/api/v1/nodes/{name}",
            Role::Viewer,
            get(async |State(app): State<App>, Path(name): Path<String>| answer(app.fleet.node(&name))),
            Doc::new("getNode", TAG, "One node").responses(NODE),
        ),
        Route::new(
            Method::POST,
            "/api/v1/nodes/{name}:drain",
            Role::Admin,
            post(async |State(app): State<App>, Path(name): Path<String>| {
                answer(app.fleet.drain(&name, true).await)
            }),
            Doc::new(
                "drainNode",
                TAG,
                "Takes it out of service: its readiness goes off, its connections stay",
            )
            .responses(NODE),
        ),
        Route::new(
            Method::POST,
            "/api/v1/nodes/{name}:undrain",
            Role::Admin,
            post(async |State(app): State<App>, Path(name): Path<String>| {
                answer(app.fleet.drain(&name, false).await)
            }),
            Doc::new("undrainNode", TAG, "Takes back drain").responses(NODE),
        ),
        Route::new(
            Method::POST,
            "/api/v1/nodes/{name}:ban",
            Role::Admin,
            post(async |State(app): State<App>, Path(name): Path<String>| answer(app.fleet.ban(&name).await)),
            Doc::new(
                "banNode",
                TAG,
                "Cuts it off within a second; its certificate is worth nothing any more",
            )
            .responses(NODE),
        ),
        Route::new(
            Method::POST,
            "/api/v1/nodes/{name}:forget",
            Role::Admin,
            post(forget),
            Doc::new("forgetNode", TAG, "Removes its record; it may join again with a token")
                .responses(&[(204, "Gone"), (404, "There is none")]),
        ),
    ];
    table.extend(join_token_routes());
    table.extend(backend_routes());
    table
}

fn join_token_routes() -> [Route; 3] {
    [
        Route::new(
            Method::GET,
            "/api/v1/join-tokens",
            Role::Admin,
            get(join_tokens),
            Doc::new("listJoinTokens", TAG, "Join tokens that still live, without their secrets"),
        ),
        Route::new(
            Method::POST,
            "/api/v1/join-tokens",
            Role::Admin,
            post(make_join_token),
            Doc::new("makeJoinToken", TAG, "Makes a join token and shows it once")
                .request(join_token_schema)
                .responses(&[(201, "The token"), (422, "What is wrong")]),
        ),
        Route::new(
            Method::DELETE,
            "/api/v1/join-tokens/{id}",
            Role::Admin,
            delete(delete_join_token),
            Doc::new("deleteJoinToken", TAG, "Takes it back; nodes that joined with it stay")
                .responses(&[(204, "Gone"), (404, "There is none")]),
        ),
    ]
}

fn backend_routes() -> [Route; 4] {
    let summary = "Admin state: kept over restarts, not part of the document";
    [
        Route::new(
            Method::GET,
            "/api/v1/backends",
            Role::Viewer,
            get(backends),
            Doc::new("listBackends", TAG, "Backends as the nodes see them")
                .query(&[("pool", "Only those of this pool")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/pools/{name}/backends/{part}:drain",
            Role::Operator,
            post(async |wish: AdminWish| wish.set(Admin::Drain).await),
            Doc::new("drainBackend", TAG, summary).request(admin_schema).responses(BACKEND),
        ),
        Route::new(
            Method::POST,
            "/api/v1/pools/{name}/backends/{part}:maintain",
            Role::Operator,
            post(async |wish: AdminWish| wish.set(Admin::Maintenance).await),
            Doc::new("maintainBackend", TAG, summary).request(admin_schema).responses(BACKEND),
        ),
        Route::new(
            Method::POST,
            "/api/v1/pools/{name}/backends/{part}:ready",
            Role::Operator,
            post(async |wish: AdminWish| wish.set(Admin::Ready).await),
            Doc::new("readyBackend", TAG, summary).request(admin_schema).responses(BACKEND),
        ),
    ]
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        let detail = error.to_string();
        match error {
            FleetError::NotFound(_) => Self::not_found(detail),
            FleetError::Conflict(_) => Self::conflict(detail),
            FleetError::Invalid(_) => invalid(detail),
            FleetError::Refused(_) => Self::refused(detail),
            FleetError::Database(error) => error.into(),
            FleetError::Authority(_) | FleetError::Seal(_) | FleetError::Wire(_) => Self::internal(detail),
        }
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
}

fn answer(node: Result<NodeView, FleetError>) -> Result<Json<NodeView>, Problem> {
    Ok(Json(node?))
}

async fn nodes(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<Value>, Problem> {
    let nodes = app.fleet.nodes();
    let items = nodes.iter().map(|node| (node.name.as_str(), node));
    Ok(Json(query.page(items, |node| serde_json::to_value(node).unwrap_or_default())))
}

async fn forget(State(app): State<App>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    app.fleet.forget(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn join_token_schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {
        "uses": {"type": "integer", "minimum": 1, "default": 1},
        "expiresIn": {"type": "string", "default": "10m"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}}}})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct JoinTokenWish {
    uses: Option<u32>,
    expires_in: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

async fn make_join_token(
    State(app): State<App>,
    headers: HeaderMap,
    body: Text,
) -> Result<Response, Problem> {
    let wish: JoinTokenWish = body.json()?;
    let default = NewToken::default();
    let life = match &wish.expires_in {
        Some(text) => document::duration(text).map_err(|why| invalid(format!("expiresIn: {why}")))?,
        None => default.life,
    };
    let uses = wish.uses.unwrap_or(default.uses);
    let (token, text) = app.fleet.make_join_token(NewToken { uses, life, labels: wish.labels }).await?;
    let mut answer = token_view(&token);
    answer["token"] = text.into();
    answer["controlPlane"] = control_plane(&app, &headers).into();
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// By which address nodes reach this control plane, as far as it can know.
fn control_plane(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.options.grpc_advertise {
        return url.clone();
    }
    if !app.grpc.ip().is_unspecified() {
        return format!("https://{}", app.grpc);
    }
    // The name by which whoever asks has reached it is good for nodes, too.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let host = host.as_ref().map_or("localhost", http::uri::Authority::host);
    format!("https://{host}:{}", app.grpc.port())
}

fn token_view(token: &JoinToken) -> Value {
    json!({
        "id": token.id,
        "uses": token.uses,
        "used": token.used,
        "labels": token.labels,
        "expiresAt": time(token.expires_at),
        "createdAt": time(token.created_at),
    })
}

async fn join_tokens(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let tokens = app.fleet.join_tokens().await?;
    let items: Vec<Value> = tokens.iter().map(token_view).collect();
    Ok(Json(json!({"total": items.len(), "items": items})))
}

async fn delete_join_token(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    app.fleet.delete_join_token(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct BackendsQuery {
    pool: Option<String>,
}

async fn backends(
    State(app): State<App>,
    Query(query): Query<BackendsQuery>,
) -> Result<Json<Value>, Problem> {
    let items = app.fleet.backends(query.pool.as_deref());
    Ok(Json(json!({"total": items.len(), "items": items})))
}

fn admin_schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {
        "deadline": {"type": "string", "examples": ["10m"]}, "reason": {"type": "string", "maxLength": 500}}})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminBody {
    deadline: Option<String>,
    #[serde(default)]
    reason: String,
}

/// Somebody wants a backend to have an admin state.
struct AdminWish {
    app: App,
    pool: String,
    backend: String,
    lasts: Option<Duration>,
    reason: String,
}

impl axum::extract::FromRequest<App> for AdminWish {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, app: &App) -> Result<Self, Problem> {
        use axum::RequestExt as _;
        let mut request = request;
        let path = request.extract_parts::<Path<(String, String)>>().await;
        let Path((pool, backend)) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        let body: AdminBody = Text::from_request(request, app).await?.json()?;
        let lasts = match &body.deadline {
            Some(text) => Some(document::duration(text).map_err(|why| invalid(format!("deadline: {why}")))?),
            None => None,
        };
        Ok(Self { app: app.clone(), pool, backend, lasts, reason: body.reason })
    }
}

impl AdminWish {
    async fn set(self, admin: Admin) -> Result<Response, Problem> {
        let fleet = &self.app.fleet;
        let view = fleet.set_admin(&self.pool, &self.backend, admin, self.lasts, &self.reason).await?;
        Ok(Json(view).into_response())
    }
}
