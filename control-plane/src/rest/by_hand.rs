//! Certificates by hand: imported, issued for development, exported.

use awe4lb_model::{acme::KeyType, document::Violation};
use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    Problem,
    body::Text,
    objects::{Caller, TAG, missing},
    routes::{Doc, Route},
};
use crate::{
    app::App,
    auth::Role,
    catalog::{Edit, Kind, Operation, Precondition, WriteWhat},
    import::{self, Oddity, Unreadable},
    internal_ca::{self, InternalAuthority, IssueError, Wish},
};

static READING: Semaphore = Semaphore::const_new(1);
const PEM: &str = "application/pem-certificate-chain";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/api/v1/certificates:import",
            Role::Operator,
            post(import),
            Doc::new(
                "importCertificate",
                TAG,
                "Stores chain and key from PEM or PKCS#12; tells what is odd about them",
            )
            .request(import_schema)
            .responses(&[
                (200, "Stored, or would be"),
                (409, "It is issued by ACME, and force is not set"),
                (422, "It cannot be used"),
            ]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/certificates/{name}/chain",
            Role::Viewer,
            get(chain),
            Doc::new("getCertificateChain", TAG, "What serves, as PEM, without keys")
                .responses(&[(200, "The chain"), (404, "There is none")]),
        ),
        Route::new(
            Method::POST,
            "/api/v1/certificates/{name}:issue",
            Role::Operator,
            post(issue),
            Doc::new("issueCertificate", TAG, "Signs one for development or for a backend")
                .request(issue_schema)
                .responses(&[(200, "Stored, or given back with its key"), (422, "The wish is wrong")]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/certificate-authority",
            Role::Viewer,
            get(authority),
            Doc::new("getCertificateAuthority", TAG, "The certificate of the internal authority, as PEM"),
        ),
    ]
}

/// The body of an import.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Import {
    name: Option<String>,
    #[serde(default)]
    pem: String,
    pkcs12: Option<String>,
    password: Option<String>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

fn import_schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {"name": text, "pem": text, "pkcs12": text, "password": text,
        "dryRun": {"type": "boolean"}, "force": {"type": "boolean"}}})
}

fn issue_schema() -> Value {
    json!({"type": "object", "required": ["domains"], "properties": {
        "ca": {"enum": ["internal", "self-signed"]},
        "domains": {"type": "array", "items": {"type": "string"}},
        "days": {"type": "integer", "minimum": 1, "maximum": internal_ca::MAX_DAYS},
        "keyType": {"enum": ["p256", "p384", "rsa2048"]},
        "deliver": {"enum": ["store", "return"]}}})
}

async fn import(caller: Caller, body: Text) -> Result<Response, Problem> {
    let wish: Import = body.json()?;
    let archive = match &wish.pkcs12 {
        Some(text) => Some(BASE64_STANDARD.decode(text.trim()).map_err(|_| {
            Problem::invalid(vec![Violation::new("/pkcs12", None, "bad-value", "this is no base64")])
        })?),
        None => None,
    };
    if wish.pem.len().max(archive.as_ref().map_or(0, Vec::len)) > import::MAX_BYTES {
        let detail = format!("an import has at most {} KiB", import::MAX_BYTES / 1024);
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
    }
    let (pem, password) = (wish.pem, wish.password.map(Zeroizing::new));
    // Passwords are stretched on purpose: one at a time, so that nobody fills the machine with it.
    // The turn lasts as long as the work does, also when nobody waits for the answer any more.
    let turn = READING.acquire().await.map_err(Problem::internal)?;
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        import::read(&pem, archive.as_deref(), password.as_deref().map(String::as_str))
    });
    let bundle = read.await.map_err(Problem::internal)?.map_err(unreadable)?;
    let name = match wish.name {
        Some(name) if !name.is_empty() => name,
        _ => import::name_of(&bundle.chain_pem).ok_or_else(|| {
            let violation =
                Violation::new("/name", None, "missing-field", "the certificate has no name to call it by");
            Problem::invalid(vec![violation.hint("send \"name\" along")])
        })?,
    };
    let body = json!({"name": name, "chain": bundle.chain_pem, "key": bundle.key.0});
    store(&caller, &name, body, bundle.warnings, wish.dry_run, wish.force).await
}

/// Stores an uploaded certificate; answers with what it says, and what is odd about it.
async fn store(
    caller: &Caller,
    name: &str,
    body: Value,
    oddities: Vec<Oddity>,
    dry_run: bool,
    force: bool,
) -> Result<Response, Problem> {
    let dry_run = dry_run || caller.is_dry_run();
    let before = caller.app().catalog.head();
    let old = before.model.get(Kind::Certificate, name);
    if !force && old.is_some_and(|old| old.issued().is_some() || old.folder().is_some()) {
        let detail = format!(
            "certificate {name:?} renews itself: what is stored in its place does not; send \"force\": true for that"
        );
        return Err(Problem::new(StatusCode::CONFLICT, "renews-itself", detail));
    }
    let edit = Edit {
        kind: Kind::Certificate,
        name: name.to_owned(),
        operation: Operation::Put(body),
        precondition: Precondition::None,
        pointer: String::new(),
    };
    let message = caller.message().to_owned();
    let outcome =
        caller.write_with(WriteWhat::Edits(vec![edit]), Precondition::None, dry_run, &message).await?;
    let entry = outcome.head.model.get(Kind::Certificate, name);
    let facts =
        entry.and_then(|entry| entry.certificate()).ok_or_else(|| missing(Kind::Certificate, name))?;
    let mut answer = serde_json::to_value(facts).map_err(Problem::internal)?;
    let told =
        outcome.warnings.iter().map(|one| json!({"code": one.code, "detail": one.detail, "hint": one.hint}));
    let odd = oddities.iter().map(|one| json!(one));
    let replaces = old.and_then(|old| old.certificate());
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("name".into(), name.into());
        answer.insert("chain".into(), entry.map(|entry| entry.body["chain"].clone()).unwrap_or_default());
        answer.insert("key".into(), "present".into());
        answer.insert("warnings".into(), odd.chain(told).collect());
        answer.insert("usedBy".into(), outcome.head.model.used_by(name).into());
        if let Some(old) = replaces {
            answer.insert("replaces".into(), json!({"notAfter": old.not_after, "names": old.names}));
        }
    }
    Ok(axum::Json(answer).into_response())
}

fn unreadable(error: Unreadable) -> Problem {
    let pointer = if error.code == "bad-pkcs12" { "/pkcs12" } else { "/pem" };
    Problem::invalid(vec![Violation::new(pointer, None, error.code, error.detail).hint(error.hint)])
}

async fn chain(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let head = app.catalog.head();
    let entry = head.model.get(Kind::Certificate, &name).ok_or_else(|| missing(Kind::Certificate, &name))?;
    let file = format!("attachment; filename=\"{name}.pem\"");
    let chain = entry.chain_pem().unwrap_or_default().to_owned();
    Ok(([(header::CONTENT_TYPE, PEM.to_owned()), (header::CONTENT_DISPOSITION, file)], chain).into_response())
}

/// The body of an issue.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issue {
    #[serde(default = "internal")]
    ca: String,
    domains: Vec<String>,
    #[serde(default = "ninety")]
    days: u32,
    #[serde(default = "p256")]
    key_type: String,
    #[serde(default = "stored")]
    deliver: String,
    #[serde(default)]
    force: bool,
}

fn internal() -> String {
    "internal".to_owned()
}

fn ninety() -> u32 {
    90
}

fn p256() -> String {
    "p256".to_owned()
}

fn stored() -> String {
    "store".to_owned()
}

async fn issue(caller: Caller, Path(name): Path<String>, body: Text) -> Result<Response, Problem> {
    let asked: Issue = body.json()?;
    let wrong = |pointer: &str, detail: String| {
        Problem::invalid(vec![Violation::new(pointer, None, "bad-value", detail)])
    };
    let key_type = KeyType::of_word(&asked.key_type)
        .ok_or_else(|| wrong("/keyType", format!("{:?}: p256, p384 or rsa2048", asked.key_type)))?;
    let wish = Wish { names: asked.domains, days: asked.days, key_type };
    let ca = match asked.ca.as_str() {
        "internal" => Some(InternalAuthority::open(&caller.app().store).await.map_err(Problem::internal)?),
        "self-signed" => None,
        other => return Err(wrong("/ca", format!("{other:?}: internal or self-signed"))),
    };
    let root = ca.as_ref().map(InternalAuthority::certificate_pem);
    let made = tokio::task::spawn_blocking(move || match ca {
        Some(ca) => ca.issue(&wish),
        None => internal_ca::self_signed(&wish),
    });
    let made = made.await.map_err(Problem::internal)?.map_err(|error| match error {
        IssueError::Invalid(detail) => wrong("/domains", detail),
        IssueError::Failed(error) => Problem::internal(format!("{error:#}")),
    })?;
    match asked.deliver.as_str() {
        "store" => {
            let body = json!({"name": name, "chain": made.chain, "key": *made.key});
            store(&caller, &name, body, Vec::new(), false, asked.force).await
        }
        // The one answer with a key in it: nobody else has it.
        "return" => Ok((
            [(header::CACHE_CONTROL, "no-store")],
            axum::Json(json!({"chain": made.chain, "key": *made.key, "ca": root})),
        )
            .into_response()),
        other => Err(wrong("/deliver", format!("{other:?}: store or return"))),
    }
}

async fn authority(State(app): State<App>) -> Result<Response, Problem> {
    let authority =
        InternalAuthority::open(&app.store).await.map_err(|error| Problem::internal(format!("{error:#}")))?;
    Ok(([(header::CONTENT_TYPE, PEM)], authority.certificate_pem()).into_response())
}
