//! API tokens.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::Text,
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::{Principal, PushTarget, Role},
};

const TAG: &str = "API tokens";
const MAX_NAME: usize = 64;

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/tokens",
            Role::Admin,
            get(list),
            Doc::new("listTokens", TAG, "All tokens, without their secrets"),
        ),
        Route::new(
            Method::POST,
            "/api/v1/tokens",
            Role::Admin,
            post(make),
            Doc::new("makeToken", TAG, "Makes a token and shows it once").request(schema).responses(&[
                (201, "The token with its secret"),
                (409, "The name is taken"),
                (422, "What is wrong"),
            ]),
        ),
        Route::new(
            Method::DELETE,
            "/api/v1/tokens/{id}",
            Role::Admin,
            delete(remove),
            Doc::new("deleteToken", TAG, "Ends a token at once")
                .responses(&[(204, "Gone"), (404, "There is none")]),
        ),
    ]
}

fn schema() -> Value {
    json!({"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
        "role": {"enum": ["viewer", "operator", "admin"]},
        "push": {"type": "object", "required": ["pool", "source"], "additionalProperties": false,
            "description": "In place of a role: may tell this source of type push which backends it has, and nothing else",
            "properties": {"pool": {"type": "string"}, "source": {"type": "string"}}},
        "expiresIn": {"type": "string", "examples": ["30d"]}}})
}

async fn list(State(app): State<App>) -> Result<Response, Problem> {
    let items = app.auth.tokens().await?;
    Ok(Json(json!({"total": items.len(), "items": items})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wish {
    name: String,
    role: Option<Role>,
    push: Option<PushTarget>,
    expires_in: Option<String>,
}

async fn make(
    State(app): State<App>,
    Extension(who): Extension<Principal>,
    body: Text,
) -> Result<Response, Problem> {
    let wish: Wish = body.json()?;
    let name = wish.name.trim();
    let is_printable =
        !name.is_empty() && name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
    if !is_printable {
        let detail = format!("a name has 1 to {MAX_NAME} characters, none of them a control character");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
    }
    let lifetime = match wish.expires_in.as_deref() {
        Some(text) => Some(seconds(text, "expiresIn")?),
        None => None,
    };
    let auth = &app.auth;
    let (token, secret) = match (wish.role, &wish.push) {
        (Some(role), None) if role != Role::Pusher => {
            auth.make_token(name, role, lifetime, &who.user).await?
        }
        (None | Some(Role::Pusher), Some(target)) => {
            auth.make_push_token(name, target, lifetime, &who.user).await?
        }
        _ => {
            let detail = "a token has a \"role\" (viewer, operator or admin), or a \"push\" that names a pool and its source";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail));
        }
    };
    let mut answer = serde_json::to_value(token).map_err(Problem::internal)?;
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("token".into(), secret.into());
    }
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// A duration of a request in whole seconds, at least one.
fn seconds(text: &str, field: &str) -> Result<i64, Problem> {
    let duration = awe4lb_model::document::duration(text).map_err(|why| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{field}: {why}"))
    })?;
    Ok(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).max(1))
}

async fn remove(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    match app.auth.delete_token(&id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("there is no token {id:?}"))),
    }
}
