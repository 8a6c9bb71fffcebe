//! The one table of routes: what there is, who may use it, how it is described. Router, OpenAPI and the authorisation
//! test are made from it.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};
use http::{Method, StatusCode, Uri};
use serde_json::Value;

use super::Problem;
use crate::{
    app::App,
    auth::{self, Role},
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// Whoever has this role or a greater one.
    Role(Role),
    /// Operators, and whoever has a token for just this.
    Push,
}

/// Descriptions for OpenAPI.
#[derive(Debug, Clone, Copy)]
pub struct Doc {
    /// Unique: `listPools`.
    pub id: &'static str,
    /// The group it is shown in.
    pub tag: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Parameters of the query: name and what it does.
    pub query: &'static [(&'static str, &'static str)],
    /// JSON Schema of the body.
    pub request: Option<fn() -> Value>,
    /// Statuses and what they mean.
    pub responses: &'static [(u16, &'static str)],
}

impl Doc {
    /// The usual: answers 200, takes nothing.
    pub const fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self { id, tag, summary, query: &[], request: None, responses: &[(200, "Done")] }
    }

    /// With parameters of the query.
    #[must_use]
    pub const fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    /// With a body.
    #[must_use]
    pub const fn request(mut self, schema: fn() -> Value) -> Self {
        self.request = Some(schema);
        self
    }

    /// With other answers.
    #[must_use]
    pub const fn responses(mut self, responses: &'static [(u16, &'static str)]) -> Self {
        self.responses = responses;
        self
    }
}

/// One row.
pub struct Route {
    /// Of the request.
    pub method: Method,
    /// As it is documented: `/api/v1/pools/{name}`, `/api/v1/nodes/{name}:drain`.
    pub path: &'static str,
    /// Who.
    pub access: Access,
    /// Answers this method only.
    pub handler: MethodRouter<App>,
    /// For OpenAPI.
    pub doc: Doc,
}

impl Route {
    /// A row for those who have a role.
    pub fn new(method: Method, path: &'static str, role: Role, handler: MethodRouter<App>, doc: Doc) -> Self {
        Self { method, path, access: Access::Role(role), handler, doc }
    }

    /// A row for operators and for tokens that may tell just one source.
    pub fn push(method: Method, path: &'static str, handler: MethodRouter<App>, doc: Doc) -> Self {
        Self { method, path, access: Access::Push, handler, doc }
    }

    /// A row for everyone.
    pub fn public(method: Method, path: &'static str, handler: MethodRouter<App>, doc: Doc) -> Self {
        Self { method, path, access: Access::Public, handler, doc }
    }
}

/// The router of a table. It must be called with [`rewrite_verb`] before it.
pub fn router(table: Vec<Route>, app: &App) -> Router<App> {
    let mut router = Router::new();
    for route in table {
        let gate = middleware::from_fn_with_state((app.clone(), route.access), gate);
        router = router.route(&registered(route.path), route.handler.route_layer(gate));
    }
    router.method_not_allowed_fallback(async |method: Method, uri: Uri| {
        let detail = format!("{} does not take {method}", uri.path());
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
    })
}

/// Asks who it is, and lets through whom the row allows.
async fn gate(State((app, access)): State<(App, Access)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match auth::require(&app, access, &parts).await {
        Ok(principal) => {
            if let Some(principal) = &principal
                && !parts.method.is_safe()
            {
                let (method, path) = (&parts.method, parts.uri.path());
                tracing::info!(target: "audit", user = principal.user, via = ?principal.via, %method, path, "a write");
            }
            if let Some(principal) = principal {
                parts.extensions.insert(principal);
            }
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The router knows no parameter with a suffix, so `{name}:drain` is registered as `{name}/~drain` …
fn registered(path: &str) -> String {
    split_verb(path).map_or_else(|| path.to_owned(), |(path, verb)| format!("{path}/~{verb}"))
}

/// … and requests are rewritten the same way. No name has a colon or a tilde.
pub fn rewrite_verb<B>(mut request: http::Request<B>) -> http::Request<B> {
    let uri = request.uri();
    if uri.path().starts_with("/api/")
        && let Some((path, verb)) = split_verb(uri.path())
    {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{path}/~{verb}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn split_verb(path: &str) -> Option<(&str, &str)> {
    let (path, verb) = path.rsplit_once(':')?;
    let is_verb = !verb.is_empty() && verb.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_verb && !path.ends_with('/')).then_some((path, verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_rewritten() {
        let path = |uri: &str| {
            let request = http::Request::builder().uri(uri).body(()).unwrap();
            rewrite_verb(request).uri().to_string()
        };
        assert_eq!(path("/api/v1/nodes/n1:drain?x=1"), "/api/v1/nodes/n1/~drain?x=1");
        assert_eq!(path("/api/v1/config:apply"), "/api/v1/config/~apply");
        assert_eq!(path("/api/v1/config"), "/api/v1/config");
        assert_eq!(path("/api/v1/pools/a:"), "/api/v1/pools/a:");
        assert_eq!(path("/assets/a:b"), "/assets/a:b");
        assert_eq!(registered("/api/v1/revisions/{number}:restore"), "/api/v1/revisions/{number}/~restore");
    }
}
