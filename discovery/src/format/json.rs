//! JSON: the shapes that are known, or any other by pointers (RFC 6901).
//!
//! Known are awe4lb's ancestor's `{"hosts": [{"addr": {"host", "port"}, "weight", "priority"}]}`, gobetween's
//! `[{"host", "port", "weight", "priority"}]`, a list of texts, and lists within `backends`, `items`, `endpoints`.

use awe4lb_model::discovery::Pointers;
use serde_json::Value;

use super::{joined, port, share};
use crate::{Answer, Endpoint, Failure};

/// Longer items are told shortened.
const TOLD: usize = 80;

pub(super) fn read(text: &str, pointers: Option<&Pointers>) -> Result<Answer, Failure> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| Failure::new(format!("no JSON: {error}")))?;
    let list = match pointers {
        Some(pointers) => document.pointer(&pointers.items).ok_or_else(|| {
            Failure::new(format!("there is nothing at the pointer items ({:?})", pointers.items))
        })?,
        None => list_of(&document),
    };
    let items: Vec<&Value> = match list {
        Value::Array(items) => items.iter().collect(),
        Value::Object(items) if pointers.is_some() => items.values().collect(),
        _ => return Err(Failure::new("no list of backends: use pointers to say where it is")),
    };
    let mut answer = Answer::default();
    for (index, item) in items.into_iter().enumerate() {
        let read = match pointers {
            Some(pointers) => by_pointers(item, pointers),
            None => known(item),
        };
        match read {
            Ok(endpoint) => answer.endpoints.push(endpoint),
            Err(why) => {
                let shown: String = item.to_string().chars().take(TOLD).collect();
                answer.rejected.push(format!("item {index} ({shown}): {why}"));
            }
        }
    }
    Ok(answer)
}

fn list_of(document: &Value) -> &Value {
    let within = ["hosts", "backends", "items", "endpoints", "targets"];
    within
        .into_iter()
        .find_map(|field| document.get(field).filter(|list| list.is_array()))
        .unwrap_or(document)
}

fn known(item: &Value) -> Result<Endpoint, String> {
    if let Value::String(text) = item {
        return Ok(Endpoint::at(joined(text, None)?));
    }
    let place = item.get("addr").unwrap_or(item);
    let host = ["host", "address", "ip"].into_iter().find_map(|field| place.get(field));
    let host = host.and_then(Value::as_str).ok_or("it has no \"host\"")?;
    let mut endpoint = Endpoint::at(joined(host, optional(place.get("port"), port)?)?);
    endpoint.weight = optional(item.get("weight"), share)?;
    endpoint.priority = optional(item.get("priority"), share)?;
    if let Some(zone) = item.get("zone").and_then(Value::as_str) {
        endpoint = endpoint.label("zone", zone);
    }
    Ok(labelled(endpoint, item.get("labels")))
}

fn by_pointers(item: &Value, pointers: &Pointers) -> Result<Endpoint, String> {
    let at = |pointer: &Option<Box<str>>| pointer.as_deref().and_then(|pointer| item.pointer(pointer));
    let host = item.pointer(&pointers.host).and_then(Value::as_str);
    let host = host.ok_or_else(|| format!("no text at the pointer host ({:?})", pointers.host))?;
    let mut endpoint = Endpoint::at(joined(host, optional(at(&pointers.port), port)?)?);
    endpoint.weight = optional(at(&pointers.weight), share)?;
    endpoint.priority = optional(at(&pointers.priority), share)?;
    Ok(labelled(endpoint, item.pointer(&pointers.labels)))
}

/// With the labels of an object: its texts, numbers and truths.
fn labelled(mut endpoint: Endpoint, labels: Option<&Value>) -> Endpoint {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        endpoint = match value {
            Value::String(text) => endpoint.label(key, text),
            Value::Number(number) => endpoint.label(key, &number.to_string()),
            Value::Bool(value) => endpoint.label(key, &value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => endpoint,
        };
    }
    endpoint
}

/// Numbers may be written as numbers or as text.
fn optional<T>(value: Option<&Value>, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => read(text).map(Some),
        Some(Value::Number(number)) => read(&number.to_string()).map(Some),
        Some(other) => Err(format!("{other} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let answer = read(text, None).unwrap();
        assert!(answer.rejected.is_empty(), "{:?}", answer.rejected);
        answer.endpoints.iter().map(|one| one.address.to_string()).collect()
    }

    #[test]
    fn the_known_shapes() {
        let both = ["10.0.0.1:80", "app.internal:81"];
        let ancestor = r#"{"hosts": [{"addr": {"host": "10.0.0.1", "port": 80}, "weight": 3, "state": "Up"},
            {"addr": {"host": "app.internal", "port": 81}}]}"#;
        assert_eq!(addresses(ancestor), both);
        let gobetween =
            r#"[{"host": "10.0.0.1", "port": "80", "weight": 1}, {"host": "app.internal", "port": 81}]"#;
        assert_eq!(addresses(gobetween), both);
        assert_eq!(addresses(r#"["10.0.0.1:80", "app.internal:81"]"#), both);
        assert_eq!(
            addresses(r#"{"backends": [{"address": "10.0.0.1:80"}, {"address": "app.internal:81"}]}"#),
            both
        );
    }

    #[test]
    fn any_shape_by_pointers() {
        let text = r#"{"data": {"a": {"net": {"ip": "10.0.0.1"}, "p": 80, "w": "4", "tags": {"zone": "east", "n": 3, "up": true, "x": []}}, "b": {"net": {}}}}"#;
        let pointers = Pointers {
            items: "/data".into(),
            host: "/net/ip".into(),
            port: Some("/p".into()),
            weight: Some("/w".into()),
            priority: None,
            labels: "/tags".into(),
        };
        let answer = read(text, Some(&pointers)).unwrap();
        assert_eq!(answer.endpoints[0].address.to_string(), "10.0.0.1:80");
        assert_eq!((answer.endpoints[0].weight, answer.rejected.len()), (Some(4), 1));
        let labels: Vec<_> = answer.endpoints[0].labels.values().map(String::as_str).collect();
        assert_eq!(labels, ["3", "true", "east"]);
    }

    #[test]
    fn a_malformed_item_is_told_and_the_others_count() {
        let answer =
            read(r#"["10.0.0.1:80", 5, {"host": "10.0.0.2", "port": -1}, "0.0.0.0:1"]"#, None).unwrap();
        assert_eq!((answer.endpoints.len(), answer.rejected.len()), (1, 3));
        assert!(read(r#"{"a": 1}"#, None).unwrap_err().0.contains("no list"));
        assert!(read("[1, ", None).unwrap_err().0.starts_with("no JSON"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:a-z0-9. ]{0,80}") {
            let _ = read(&text, None);
        }
    }
}
