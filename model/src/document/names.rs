//! Names that the user did not give, the stored order, and keys that must not stay in the intent.

use std::collections::HashSet;

use super::tree::{Entry, Node, NodeKind};
use crate::{Name, acme::Secret, placed::PrivateKeyPem};

/// Fills in names of rules and backends that have none.
pub(super) fn fill(document: &mut Node) {
    for (kind, field) in super::KINDS {
        if let Some(Node { kind: NodeKind::List(objects), .. }) = document.field_mut(field) {
            for object in objects {
                fill_object(kind, object);
            }
        }
    }
}

pub(super) fn fill_object(kind: &str, object: &mut Node) {
    match kind {
        "listener" => {
            fill_items(object, "rules", "name", |rule| match rule.field("pool").and_then(Node::as_text) {
                Some(pool) => pool.to_owned(),
                None if rule.field("reject").is_some() => "reject".to_owned(),
                None => "rule".to_owned(),
            })
        }
        "pool" => {
            let text = |node: &Node, field| node.field(field).and_then(Node::as_text).map(str::to_owned);
            fill_items(object, "backends", "name", |backend| {
                text(backend, "address").as_deref().map(made_backend_name).unwrap_or_default()
            });
            fill_items(object, "discovery", "id", |source| text(source, "type").unwrap_or_default());
        }
        _ => {}
    }
}

/// Gives those of a list a name that have none.
fn fill_items(object: &mut Node, list: &str, field: &str, base: impl Fn(&Node) -> String) {
    let Some(Node { kind: NodeKind::List(items), .. }) = object.field_mut(list) else { return };
    let mut taken: HashSet<String> =
        items.iter().filter_map(|item| Some(item.field(field)?.as_text()?.to_owned())).collect();
    for item in items {
        let made = (item.field(field).is_none()).then(|| base(item));
        if let (Some(made), NodeKind::Object(entries)) = (made, &mut item.kind) {
            let name = free_name(&made, &taken);
            taken.insert(name.clone());
            entries.insert(0, Entry { key: field.to_owned(), key_at: None, value: Node::text(name) });
        }
    }
}

/// The name a backend gets from its address: `10.0.1.1:3000` becomes `10-0-1-1-3000`.
pub fn made_backend_name(address: &str) -> String {
    let folded: String = address
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mut name = String::new();
    for part in folded.split('-').filter(|part| !part.is_empty()) {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
    }
    name
}

fn free_name(base: &str, taken: &HashSet<String>) -> String {
    let mut base: String = base.chars().take(Name::MAX_LEN - 8).collect();
    while base.ends_with('-') {
        base.pop();
    }
    if base.parse::<Name>().is_err() {
        base = "unnamed".to_owned();
    }
    if !taken.contains(&base) {
        return base;
    }
    (2..).map(|n| format!("{base}-{n}")).find(|name| !taken.contains(name)).unwrap_or(base)
}

/// Takes the keys out of the certificates.
pub(super) fn take_keys(document: &mut Node) -> Vec<(Name, PrivateKeyPem)> {
    let mut keys = Vec::new();
    if let Some(Node { kind: NodeKind::List(certificates), .. }) = document.field_mut("certificates") {
        for certificate in certificates {
            let name = certificate.field("name").and_then(Node::as_text).and_then(|name| name.parse().ok());
            let key = certificate.field("key").and_then(Node::as_text).map(str::to_owned);
            if let (Some(name), Some(key)) = (name, key) {
                keys.push((name, PrivateKeyPem(key)));
            }
            if let NodeKind::Object(entries) = &mut certificate.kind {
                entries.retain(|entry| entry.key != "key");
            }
        }
    }
    keys
}

/// Where the secret of an object lies.
fn place_of_secret(kind: &str) -> &'static [&'static str] {
    match kind {
        "acmeAccount" => &["externalAccountBinding"],
        "certificate" => &["acme", "dns"],
        _ => &[],
    }
}

/// Takes the secret out of an object.
pub(super) fn take_secret(kind: &str, object: &mut Node) -> Option<Secret> {
    let mut place = object;
    let path = place_of_secret(kind);
    if path.is_empty() {
        return None;
    }
    for field in path {
        place = place.field_mut(field)?;
    }
    let secret = place.field("secret").and_then(Node::as_text).map(|text| Secret(text.to_owned()));
    if let NodeKind::Object(entries) = &mut place.kind {
        entries.retain(|entry| entry.key != "secret");
    }
    secret
}

/// Takes the secrets out of a document.
pub(super) fn take_secrets(document: &mut Node) -> Vec<super::GivenSecret> {
    let mut secrets = Vec::new();
    for (kind, field) in super::KINDS {
        let Some(Node { kind: NodeKind::List(objects), .. }) = document.field_mut(field) else { continue };
        for object in objects {
            let name = name_of(object).unwrap_or_default().to_owned();
            let secret = take_secret(kind, object);
            secrets.extend(secret.map(|secret| super::GivenSecret { kind, name, secret }));
        }
    }
    secrets
}

/// Takes the entries out of the address lists, which are not a part of revisions; gives the lists that had any.
pub(super) fn take_entries(document: &mut Node) -> HashSet<Name> {
    let mut given = HashSet::new();
    if let Some(Node { kind: NodeKind::List(lists), .. }) = document.field_mut("addressLists") {
        for list in lists {
            let name = list.field("name").and_then(Node::as_text).and_then(|name| name.parse().ok());
            if list.field("entries").is_some() {
                given.extend(name);
            }
            if let NodeKind::Object(entries) = &mut list.kind {
                entries.retain(|entry| entry.key != "entries");
            }
        }
    }
    given
}

/// Objects in order of name.
pub(super) fn sort(document: &mut Node) {
    for (_, field) in super::KINDS {
        if let Some(Node { kind: NodeKind::List(objects), .. }) = document.field_mut(field) {
            objects.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
        }
    }
}

fn name_of(node: &Node) -> Option<&str> {
    node.field("name").and_then(Node::as_text)
}
