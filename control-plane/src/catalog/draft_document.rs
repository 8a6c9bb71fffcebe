//! What a write of a whole document leaves behind.

use std::collections::{BTreeMap, BTreeSet};

use awe4lb_model::document::{self, Node, NodeKind, Violation};
use serde_json::Value;

use super::{
    Kind, Model, WriteError,
    draft::{Draft, Drafts, certify, enrol},
    entry::Noun,
    folder, issued, lists,
};
use crate::store::Store;

/// A whole document; what it does not name goes when `prune` is set.
pub(super) async fn draft_document(
    store: &Store,
    model: &Model,
    mut document: Node,
    prune: bool,
) -> Result<Drafts, WriteError> {
    strip_meta(&mut document);
    if !prune {
        fill_up(model, &mut document);
    }
    let places = places_of_certificates(&document);
    let placed = |certificate: &str, violation: Violation| {
        let (pointer, at) = places.get(certificate).cloned().unwrap_or_default();
        Violation {
            pointer: format!("{pointer}{}", violation.pointer),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            ..violation
        }
    };
    let compiled = document::compile(document).map_err(WriteError::Invalid)?;
    let mut drafts = Drafts { warnings: compiled.warnings, ..Drafts::default() };
    let new_defaults = compiled.intent.get("defaults").filter(|value| !value.is_null()).cloned();
    if new_defaults != model.defaults_body {
        drafts.defaults = Some((new_defaults, compiled.defaults));
    }
    let mut bodies = bodies_by_name(&compiled.intent);
    let mut add = |kind: Kind, name: &str, noun: Noun| {
        let body = bodies.remove(&(kind, name.to_owned())).unwrap_or_default();
        drafts.objects.push(Draft { kind, name: name.to_owned(), new: Some((body, noun)) });
    };
    for listener in compiled.config.listeners {
        add(Kind::Listener, listener.name.clone().as_str(), Noun::Listener(listener));
    }
    for pool in compiled.config.pools {
        add(Kind::Pool, pool.name.clone().as_str(), Noun::Pool(pool));
    }
    for map in compiled.config.maps {
        add(Kind::Map, map.name.clone().as_str(), Noun::Map(map));
    }
    for list in compiled.config.address_lists {
        let name = list.name.to_string();
        let is_given = compiled.lists_with_entries.contains(&list.name);
        let noun = lists::enlist(store, model, list, is_given, &mut drafts).await?;
        let body = bodies.remove(&(Kind::AddressList, name.clone())).unwrap_or_default();
        drafts.objects.push(Draft { kind: Kind::AddressList, name, new: Some((body, noun)) });
    }
    let secret_of = |kind: Kind, name: &str| {
        let mut given =
            compiled.secrets.iter().filter(|given| given.kind == kind.word() && given.name == name);
        given.next().map(|given| given.secret.clone())
    };
    for account in compiled.config.acme_accounts {
        let name = account.name.to_string();
        let noun = enrol(store, account, secret_of(Kind::AcmeAccount, &name), &mut drafts).await?;
        let body = bodies.remove(&(Kind::AcmeAccount, name.clone())).unwrap_or_default();
        drafts.objects.push(Draft { kind: Kind::AcmeAccount, name, new: Some((body, noun)) });
    }
    let mut wrong = Vec::new();
    for wanted in compiled.config.acme_certificates {
        let name = wanted.name.to_string();
        let secret = secret_of(Kind::Certificate, &name);
        match issued::draft(store, model, wanted, secret, &mut drafts).await? {
            Ok(noun) => {
                let body = bodies.remove(&(Kind::Certificate, name.clone())).unwrap_or_default();
                drafts.objects.push(Draft { kind: Kind::Certificate, name, new: Some((body, noun)) });
            }
            Err(violations) => {
                wrong.extend(violations.into_iter().map(|violation| placed(&name, violation)));
            }
        }
    }
    for wanted in compiled.config.folder_certificates {
        let name = wanted.name.to_string();
        let noun = folder::draft(store, model, wanted, &mut drafts).await?;
        let body = bodies.remove(&(Kind::Certificate, name.clone())).unwrap_or_default();
        drafts.objects.push(Draft { kind: Kind::Certificate, name, new: Some((body, noun)) });
    }
    for certificate in compiled.config.certificates {
        let name = certificate.name.clone();
        let key = compiled.keys.iter().find(|(of, _)| *of == name).map(|(_, key)| key.clone());
        let warned = drafts.warnings.len();
        let noun = certify(store, model, name.as_str(), certificate, key, &mut drafts).await?;
        let warnings = drafts.warnings.split_off(warned);
        drafts.warnings.extend(warnings.into_iter().map(|warning| placed(name.as_str(), warning)));
        match noun {
            Ok(noun) => {
                let body = bodies.remove(&(Kind::Certificate, name.to_string())).unwrap_or_default();
                drafts.objects.push(Draft {
                    kind: Kind::Certificate,
                    name: name.to_string(),
                    new: Some((body, noun)),
                });
            }
            Err(violations) => {
                wrong.extend(violations.into_iter().map(|violation| placed(name.as_str(), violation)))
            }
        }
    }
    if !wrong.is_empty() {
        return Err(WriteError::Invalid(wrong));
    }
    let named: BTreeSet<(Kind, String)> =
        drafts.objects.iter().map(|draft| (draft.kind, draft.name.clone())).collect();
    for kind in Kind::NAMED {
        for (name, _) in model.all(kind) {
            if !named.contains(&(kind, name.to_owned())) {
                drafts.objects.push(Draft { kind, name: name.to_owned(), new: None });
            }
        }
    }
    Ok(drafts)
}

/// What was answered may be sent back: `meta` is not part of the object.
fn strip_meta(document: &mut Node) {
    for kind in Kind::NAMED {
        let Some(Node { kind: NodeKind::List(items), .. }) = document.field_mut(kind.field()) else {
            continue;
        };
        for item in items {
            if let NodeKind::Object(entries) = &mut item.kind {
                entries.retain(|entry| entry.key != "meta");
            }
        }
    }
}

/// Adds to a document what is there already and not named by it.
fn fill_up(model: &Model, document: &mut Node) {
    if matches!(document.kind, NodeKind::Null) {
        document.kind = NodeKind::Object(Vec::new());
    }
    let NodeKind::Object(entries) = &mut document.kind else { return };
    let entry = |key: &str, value| document::Entry { key: key.to_owned(), key_at: None, value };
    if let Some(defaults) = &model.defaults_body
        && !entries.iter().any(|entry| entry.key == "defaults")
    {
        entries.push(entry("defaults", Node::from_json(defaults)));
    }
    for kind in Kind::NAMED {
        if !entries.iter().any(|entry| entry.key == kind.field()) {
            entries.push(entry(kind.field(), Node::new(NodeKind::List(Vec::new()))));
        }
        let Some(list) = entries.iter_mut().find(|entry| entry.key == kind.field()) else { continue };
        if matches!(list.value.kind, NodeKind::Null) {
            list.value.kind = NodeKind::List(Vec::new());
        }
        let NodeKind::List(items) = &mut list.value.kind else { continue };
        let named: BTreeSet<String> =
            items.iter().filter_map(|item| Some(item.field("name")?.as_text()?.to_owned())).collect();
        let others = model.all(kind).filter(|(name, _)| !named.contains(*name));
        items.extend(others.map(|(_, entry)| Node::from_json(&entry.body)));
    }
}

type Place = (String, Option<document::Position>);

fn places_of_certificates(document: &Node) -> BTreeMap<String, Place> {
    let items = document.field("certificates").map(Node::items).unwrap_or_default();
    let named = items.iter().enumerate().filter_map(|(index, item)| {
        Some((item.field("name")?.as_text()?.to_owned(), (format!("/certificates/{index}"), item.at)))
    });
    named.collect()
}

fn bodies_by_name(intent: &Value) -> BTreeMap<(Kind, String), Value> {
    let mut bodies = BTreeMap::new();
    for kind in Kind::NAMED {
        for body in intent.get(kind.field()).and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = body.get("name").and_then(Value::as_str) {
                bodies.insert((kind, name.to_owned()), body.clone());
            }
        }
    }
    bodies
}
