//! Signing in and out, and the first admin.

use axum::{
    Extension, Json,
    extract::{ConnectInfo, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::Text,
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::{Principal, SignIn, Via, cookie_name},
};

const TAG: &str = "Signing in";
const PATH: &str = "/api/v1/session";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::public(
            Method::GET,
            PATH,
            get(read),
            Doc::new("getSession", TAG, "Who is signed in, or that the first admin is still to be made")
                .responses(&[(200, "Who, or bootstrapNeeded"), (401, "Nobody")]),
        ),
        Route::public(
            Method::POST,
            PATH,
            post(sign_in),
            Doc::new("signIn", TAG, "Signs in with a password: sets the cookie")
                .request(password_schema)
                .responses(&[(200, "Signed in"), (401, "Wrong user or password"), (429, "Too many tries")]),
        ),
        Route::public(
            Method::DELETE,
            PATH,
            delete(sign_out),
            Doc::new("signOut", TAG, "Signs out").responses(&[(204, "Signed out")]),
        ),
        Route::public(
            Method::POST,
            "/api/v1/session:bootstrap",
            post(bootstrap),
            Doc::new(
                "bootstrap",
                TAG,
                "Makes the first admin with the code of the data directory, and signs in",
            )
            .request(bootstrap_schema)
            .responses(&[
                (200, "Signed in"),
                (401, "Wrong code"),
                (409, "There is an admin"),
                (429, "Too many tries"),
            ]),
        ),
    ]
}

fn password_schema() -> Value {
    json!({"type": "object", "required": ["user", "password"], "additionalProperties": false,
        "properties": {"user": {"type": "string"}, "password": {"type": "string", "format": "password"}}})
}

fn bootstrap_schema() -> Value {
    json!({"type": "object", "required": ["code", "user", "password"], "additionalProperties": false, "properties": {
        "code": {"type": "string"}, "user": {"type": "string"}, "password": {"type": "string", "format": "password", "minLength": 10}}})
}

async fn read(State(app): State<App>, who: Option<Extension<Principal>>) -> Result<Response, Problem> {
    if app.auth.bootstrap_needed() {
        return Ok(Json(json!({"bootstrapNeeded": true})).into_response());
    }
    let Some(Extension(who)) = who else { return Err(Problem::unauthorized("nobody is signed in")) };
    let via = if who.via == Via::Cookie { "cookie" } else { "token" };
    Ok(Json(json!({"user": who.user, "role": who.role, "via": via})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    user: String,
    password: String,
}

async fn sign_in(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>,
    body: Text,
) -> Result<Response, Problem> {
    let Password { user, password } = body.json()?;
    let done = app.auth.sign_in(&user, &password, Some(peer.ip().to_canonical())).await?;
    Ok(signed_in(&app, &done))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bootstrap {
    code: String,
    user: String,
    password: String,
}

async fn bootstrap(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>,
    body: Text,
) -> Result<Response, Problem> {
    let Bootstrap { code, user, password } = body.json()?;
    let done = app.auth.bootstrap(&code, &user, &password, Some(peer.ip().to_canonical())).await?;
    Ok(signed_in(&app, &done))
}

fn signed_in(app: &App, done: &SignIn) -> Response {
    let cookie = done.cookie(app.options.http_speaks_tls());
    let body = json!({"user": done.user, "role": done.role});
    ([(header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store".to_owned())], Json(body))
        .into_response()
}

async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    app.auth.sign_out(&headers).await?;
    let is_tls = app.options.http_speaks_tls();
    let secure = if is_tls { "; Secure" } else { "" };
    let cookie = format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}", cookie_name(is_tls));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
