//! The JSON Schema and the table of fields, from the same declarations as the decoder.

use serde_json::{Map, Value, json};

use super::spec::{DOCUMENT, Kind, LIST_REFERENCE, ObjectSpec, SNI};

/// One row of the table of fields.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldDoc {
    /// `/listeners/*/bind`.
    pub pointer: String,
    /// In words.
    pub kind: String,
    /// As JSON; empty: none.
    pub default: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it is.
    pub doc: String,
}

/// JSON Schema 2020-12 of a document.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    define(&DOCUMENT, &mut definitions);
    let mut root = definitions.remove(DOCUMENT.name).unwrap_or_default();
    if let Some(fields) = root.as_object_mut() {
        fields.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".to_owned(), json!("awe4lb configuration"));
        fields.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// Every field with its default and what it is, in the order of the declarations.
pub fn fields() -> Vec<FieldDoc> {
    let mut out = Vec::new();
    walk(&DOCUMENT, "", &mut out);
    out
}

fn walk(spec: &ObjectSpec, parent: &str, out: &mut Vec<FieldDoc>) {
    for field in spec.fields {
        let pointer = format!("{parent}/{}", field.name);
        out.push(FieldDoc {
            pointer: pointer.clone(),
            kind: words(&field.kind),
            default: field.default.to_owned(),
            required: field.required,
            doc: field.doc.to_owned(),
        });
        match field.kind {
            // Conditions inside conditions have the same fields again.
            Kind::Object(inner) if inner.name != spec.name => walk(inner, &pointer, out),
            Kind::List(Kind::Object(inner)) if inner.name != spec.name => {
                walk(inner, &format!("{pointer}/*"), out);
            }
            Kind::OneOrMany(Kind::Sni) => walk(&SNI, &format!("{pointer}/*"), out),
            _ => {}
        }
    }
}

fn words(kind: &Kind) -> String {
    match kind {
        Kind::Name => "name".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Integer { min, max } => format!("{min}–{max}"),
        Kind::Constant(value) => value.to_string(),
        Kind::Limit { max } => format!("1–{max} or unlimited"),
        Kind::Duration => "duration".to_owned(),
        Kind::DurationLimit => "duration or unlimited".to_owned(),
        Kind::Word { words, .. } => words.join(" \\| "),
        Kind::Labels => "labels".to_owned(),
        Kind::LabelSelector => "expression over labels".to_owned(),
        Kind::NameTemplate => "name with variables".to_owned(),
        Kind::Bind => "address".to_owned(),
        Kind::BackendAddress => "host:port".to_owned(),
        Kind::Prefix => "prefix".to_owned(),
        Kind::Address => "prefix or list".to_owned(),
        Kind::MapEntries => "pools by server name".to_owned(),
        Kind::Sni => "server name".to_owned(),
        Kind::NamePart => "part of a server name".to_owned(),
        Kind::Regex => "expression".to_owned(),
        Kind::Ports => "port or range".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Share => "0–1".to_owned(),
        Kind::Ip => "address".to_owned(),
        Kind::Statuses => "status or range".to_owned(),
        Kind::Hex => "hexadecimal".to_owned(),
        Kind::BytesRegex => "expression".to_owned(),
        Kind::TextOr(spec) => {
            let words: Vec<_> =
                spec.fields.iter().map(|field| format!("`{{ {}: … }}`", field.name)).collect();
            format!("text or {}", words.join(" or "))
        }
        Kind::Pem(_) => "PEM".to_owned(),
        Kind::Object(_) => "object".to_owned(),
        Kind::List(item) => format!("list of {}", words(item)),
        Kind::OneOrMany(item) => format!("{}, or a list", words(item)),
        Kind::Empty => "{}".to_owned(),
    }
}

fn define(spec: &'static ObjectSpec, definitions: &mut Map<String, Value>) {
    if definitions.contains_key(spec.name) {
        return;
    }
    // Holds the place while the fields are defined.
    definitions.insert(spec.name.to_owned(), Value::Null);
    let mut properties = Map::new();
    for field in spec.fields {
        let mut property = schema_of(&field.kind, definitions);
        if let Some(fields) = property.as_object_mut() {
            fields.insert("description".to_owned(), json!(field.doc));
            if let Ok(default) = serde_json::from_str::<Value>(field.default) {
                fields.insert("default".to_owned(), default);
            }
        }
        properties.insert(field.name.to_owned(), property);
    }
    let required: Vec<_> =
        spec.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    definitions.insert(spec.name.to_owned(), schema);
}

fn schema_of(kind: &Kind, definitions: &mut Map<String, Value>) -> Value {
    const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
    match kind {
        Kind::Name => json!({ "type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" }),
        Kind::Text
        | Kind::LabelSelector
        | Kind::NameTemplate
        | Kind::Bind
        | Kind::BackendAddress
        | Kind::Prefix
        | Kind::NamePart
        | Kind::Ip
        | Kind::Regex
        | Kind::BytesRegex
        | Kind::Pem(_) => json!({ "type": "string" }),
        Kind::Address => {
            define(&LIST_REFERENCE, definitions);
            json!({ "oneOf": [{ "type": "string" }, { "$ref": format!("#/$defs/{}", LIST_REFERENCE.name) }] })
        }
        Kind::MapEntries => {
            json!({ "type": "object", "additionalProperties": schema_of(&Kind::Name, definitions) })
        }
        Kind::Sni => {
            define(&SNI, definitions);
            json!({ "oneOf": [{ "type": "string" }, { "$ref": format!("#/$defs/{}", SNI.name) }] })
        }
        Kind::Ports => json!({ "oneOf": [
            { "type": "integer", "minimum": 1, "maximum": 65_535 },
            { "type": "string", "pattern": "^[0-9]+(-[0-9]+)?$" },
        ] }),
        Kind::TextOr(spec) => {
            define(spec, definitions);
            json!({ "oneOf": [{ "type": "string" }, { "$ref": format!("#/$defs/{}", spec.name) }] })
        }
        Kind::Statuses => json!({ "oneOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
        ] }),
        Kind::Hex => json!({ "type": "string", "pattern": "^([0-9a-fA-F]{2})+$" }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Constant(value) => json!({ "const": value }),
        Kind::Limit { max } => {
            json!({ "oneOf": [{ "type": "integer", "minimum": 1, "maximum": max }, { "const": "unlimited" }] })
        }
        Kind::Duration => json!({ "type": "string", "pattern": DURATION }),
        Kind::DurationLimit => {
            json!({ "oneOf": [{ "type": "string", "pattern": DURATION }, { "const": "unlimited" }] })
        }
        Kind::Word { words, .. } => json!({ "enum": words }),
        Kind::Labels => {
            json!({ "type": "object", "additionalProperties": { "type": "string", "maxLength": 255 } })
        }
        Kind::Empty => json!({ "type": "object", "maxProperties": 0 }),
        Kind::Object(spec) => {
            define(spec, definitions);
            json!({ "$ref": format!("#/$defs/{}", spec.name) })
        }
        Kind::List(item) => json!({ "type": "array", "items": schema_of(item, definitions) }),
        Kind::OneOrMany(item) => {
            let item = schema_of(item, definitions);
            json!({ "oneOf": [item.clone(), { "type": "array", "items": item }] })
        }
    }
}
