//! What comes in: documents in three languages, JSON, conditions in headers.

use std::time::Duration;

use awe4lb_model::document::{self, Format, Node};
use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde_json::Value;

use super::Problem;
use crate::{
    app::App,
    auth::Principal,
    catalog::{Origin, Precondition},
};

/// Whole documents.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// How long a body may take to come in.
const BODY_DEADLINE: Duration = Duration::from_secs(60);

/// A body as text, and its language by `Content-Type`.
pub struct Text {
    /// UTF-8.
    pub text: String,
    /// Without a header: JSON.
    pub format: Format,
}

impl FromRequest<App> for Text {
    type Rejection = Problem;

    async fn from_request(request: Request, _app: &App) -> Result<Self, Problem> {
        let format = format_of(request.headers())?;
        let read = tokio::time::timeout(BODY_DEADLINE, to_bytes(request.into_body(), MAX_BODY));
        let bytes = match read.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error);
                return Err(
                    if source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
                        let detail = format!("a body has at most {} MiB", MAX_BODY / 1024 / 1024);
                        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
                    } else {
                        Problem::bad_request(format!("the body did not come in whole: {error}"))
                    },
                );
            }
            Err(_) => {
                return Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "too-slow",
                    "the body took too long to come in",
                ));
            }
        };
        let text =
            String::from_utf8(bytes.into()).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
        Ok(Self { text, format })
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Json) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "application/merge-patch+json" | "" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Format::Yaml),
        "application/toml" | "text/toml" => Ok(Format::Toml),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            format!("{text:?} is not understood: application/json, application/yaml or application/toml"),
        )),
    }
}

impl Text {
    /// As a tree with places.
    pub fn document(&self) -> Result<Node, Problem> {
        document::parse(&self.text, self.format).map_err(Problem::invalid)
    }

    /// As a value; duplicate fields are errors.
    pub fn value(&self) -> Result<Value, Problem> {
        Ok(self.document()?.to_json())
    }

    /// As one of our own requests. An empty body is `{}`.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problem> {
        let text = if self.text.trim().is_empty() { "{}" } else { &self.text };
        serde_json::from_str(text).map_err(|error| {
            let code =
                if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            Problem::new(code, "bad-body", format!("the body cannot be used: {error}"))
        })
    }
}

/// `?dryRun=true&message=…` of writes.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WriteQuery {
    /// Check only.
    pub dry_run: bool,
    /// For the history.
    pub message: String,
}

/// A query string; what is wrong with it is said.
pub struct Query<T>(pub T);

impl<T: serde::de::DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, app).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// `If-Match` and `If-None-Match` of a write.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (Some(etag), None) => precondition_of_etag(etag),
        (None, Some("*")) => Ok(Precondition::Absent),
        _ => Err(Problem::bad_request(
            "writes take If-Match: \"N\", If-Match: * or If-None-Match: *, one of them",
        )),
    }
}

/// An ETag is the number of a revision; of an address list also that of the edition of its entries.
pub fn precondition_of_etag(etag: &str) -> Result<Precondition, Problem> {
    let text = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let condition = match text.split_once('.') {
        None => text.parse().ok().map(Precondition::Revision),
        Some((revision, edition)) => revision
            .parse()
            .ok()
            .and_then(|revision| Some(Precondition::Edition(revision, edition.parse().ok()?))),
    };
    // An ETag that we never gave matches nothing.
    condition.ok_or_else(|| Problem::precondition(format!("{etag} is no ETag of this object")))
}

/// Who writes, and by which way.
pub fn origin(principal: &Principal, headers: &HeaderMap, message: &str) -> Origin {
    let client = headers.get("awe4lb-client").and_then(|value| value.to_str().ok());
    let source = match client {
        Some("cli") => "cli",
        _ if principal.is_by_cookie() => "console",
        _ => "api",
    };
    Origin {
        author: principal.user.clone(),
        source: source.to_owned(),
        message: message.chars().take(2_000).collect(),
    }
}
