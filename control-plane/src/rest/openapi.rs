//! OpenAPI 3.1, made from the table of routes and the schema of documents.

use awe4lb_model::document;
use axum::{Json, extract::State, routing::get};
use http::Method;
use serde_json::{Map, Value, json};

use super::routes::{Access, Doc, Route};
use crate::app::App;

const TAG: &str = "Description";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::public(
            Method::GET,
            "/api/openapi.json",
            get(async |State(_): State<App>| Json(describe(&super::table()))),
            Doc::new("openapi", TAG, "This description"),
        ),
        Route::public(
            Method::GET,
            "/api/schema.json",
            get(async |State(_): State<App>| Json(document::schema())),
            Doc::new("schema", TAG, "JSON Schema of configuration documents"),
        ),
    ]
}

/// The description of a table.
pub fn describe(table: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in table {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "awe4lb control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Configuration, fleet, statistics and events of awe4lb.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token, awl_…"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-awe4lb"},
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let doc = &route.doc;
    let in_path = route
        .path
        .split(['{', '}'])
        .skip(1)
        .step_by(2)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = doc.query.iter().map(|(name, what)| {
        json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}})
    });
    let mut responses: Map<String, Value> = doc
        .responses
        .iter()
        .map(|(status, what)| {
            let content = match status {
                400.. => {
                    json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}})
                }
                204 | 304 => json!({}),
                _ if what.contains("text/event-stream") => json!({"text/event-stream": {}}),
                _ => json!({"application/json": {}}),
            };
            (status.to_string(), json!({"description": what, "content": content}))
        })
        .collect();
    responses.entry("default").or_insert_with(|| {
        json!({"description": "What went wrong",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}})
    });
    let mut operation = json!({
        "operationId": doc.id,
        "tags": [doc.tag],
        "summary": doc.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    });
    match route.access {
        Access::Public => operation["security"] = json!([]),
        Access::Role(role) => {
            operation["security"] = json!([{"token": []}, {"session": []}]);
            operation["x-role"] = role.word().into();
        }
        Access::Push => {
            operation["security"] = json!([{"token": []}, {"session": []}]);
            operation["x-role"] = "pusher".into();
        }
    }
    if let Some(request) = doc.request {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": request()}}});
    }
    operation
}

/// The document and its parts, and problems.
fn schemas() -> Value {
    let mut document = document::schema();
    let parts = document.as_object_mut().and_then(|document| document.remove("$defs"));
    let mut schemas = match parts {
        Some(Value::Object(parts)) => parts,
        _ => Map::new(),
    };
    schemas.insert("Document".into(), document);
    schemas.insert("Problem".into(), problem());
    let mut schemas = Value::Object(schemas);
    rebase(&mut schemas);
    schemas
}

/// References to parts of a schema become references to components.
fn rebase(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "$ref" => {
                        *text = text.replace("#/$defs/", "#/components/schemas/");
                    }
                    field => rebase(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rebase),
        _ => {}
    }
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable, for programs"},
            "detail": {"type": "string"},
            "traceId": {"type": "string"},
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901)"},
                    "line": {"type": "integer"},
                    "column": {"type": "integer"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                    "hint": {"type": "string"},
                },
            }},
        },
    })
}
