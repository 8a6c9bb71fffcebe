//! From a model and what a write leaves behind to the next model: numbers given, references checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use awe4lb_model::{
    Defaults,
    acme::{AcmeAccount, Secret},
    document::{self, CertificateObject, Change, Node, NodeKind, Violation},
    placed::PrivateKeyPem,
};
use serde_json::Value;

use super::{
    CertificateFacts, Edit, EntriesChange, Entry, Kind, Model, Operation, WriteError,
    entry::Noun,
    folder, issued, lists,
    model::{document_of, stored_key},
};
use crate::store::Store;

/// An object that a write leaves behind.
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// `None`: deleted.
    pub(super) new: Option<(Value, Noun)>,
}

/// Everything a write leaves behind.
#[derive(Default)]
pub(super) struct Drafts {
    /// `Some`: the defaults are changed too.
    pub(super) defaults: Option<(Option<Value>, Defaults)>,
    pub(super) objects: Vec<Draft>,
    pub(super) warnings: Vec<Violation>,
    /// Keys that came with the write, by certificate.
    pub(super) new_keys: Vec<(String, PrivateKeyPem)>,
    /// Secrets that came with the write: of what kind, its name, what they belong to.
    pub(super) new_secrets: Vec<(Kind, String, String, Secret)>,
    /// Certificates that are issued and were written.
    pub(super) new_chains: Vec<String>,
    /// Address lists whose entries change.
    pub(super) new_entries: Vec<String>,
}

/// Single objects: only what is touched is decoded.
pub(super) async fn draft_edits(store: &Store, model: &Model, edits: &[Edit]) -> Result<Drafts, WriteError> {
    let mut bodies: BTreeMap<(Kind, String), (Option<Value>, String, String)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for edit in edits.iter().filter(|edit| !matches!(edit.operation, Operation::Entries(_))) {
        let key = (edit.kind, edit.name.clone());
        let current = match bodies.get(&key) {
            Some((body, ..)) => body.as_ref(),
            None => model.get(edit.kind, &edit.name).map(|entry| &entry.body),
        };
        match edit.apply(model, current) {
            Ok(edited) => {
                bodies.insert(key, (edited.body, edited.pointer, edited.cut));
            }
            Err(WriteError::Invalid(violations)) => wrong.extend(violations),
            Err(other) => return Err(other),
        }
    }
    let mut drafts = Drafts::default();
    for edit in edits {
        if let Operation::Entries(change) = &edit.operation {
            draft_entries(model, edit, change, &mut drafts)?;
        }
    }
    for ((kind, name), (body, pointer, cut)) in bodies {
        let relative = |violation: Violation| {
            let rest = violation.pointer.strip_prefix(&cut).unwrap_or(&violation.pointer);
            Violation { pointer: format!("{pointer}{rest}"), ..violation }
        };
        let Some(body) = body else {
            drafts.objects.push(Draft { kind, name, new: None });
            continue;
        };
        match decode(store, model, kind, &name, body, &mut drafts).await? {
            Ok(new) => drafts.objects.push(Draft { kind, name, new: Some(new) }),
            Err(violations) => wrong.extend(violations.into_iter().map(relative)),
        }
    }
    if wrong.is_empty() { Ok(drafts) } else { Err(WriteError::Invalid(wrong)) }
}

/// The entries of a list that is there.
fn draft_entries(
    model: &Model,
    edit: &Edit,
    change: &EntriesChange,
    drafts: &mut Drafts,
) -> Result<(), WriteError> {
    let entry = model.get(edit.kind, &edit.name);
    edit.precondition.check(edit.kind, &edit.name, entry.map(|entry| &**entry))?;
    let Some((entry, list)) = entry.and_then(|entry| Some((entry, entry.address_list()?))) else {
        return Err(WriteError::NotFound(format!("there is no {} {:?}", edit.kind.word(), edit.name)));
    };
    if let Some(changed) = lists::change(list, change)? {
        let noun = Noun::AddressList(changed, entry.edition() + 1);
        drafts.new_entries.push(edit.name.clone());
        let new = Some((entry.body.clone(), noun));
        drafts.objects.push(Draft { kind: edit.kind, name: edit.name.clone(), new });
    }
    Ok(())
}

async fn decode(
    store: &Store,
    model: &Model,
    kind: Kind,
    name: &str,
    body: Value,
    drafts: &mut Drafts,
) -> Result<Result<(Value, Noun), Vec<Violation>>, WriteError> {
    let mut node = Node::from_json(&body);
    document::fill_names(kind.word(), &mut node);
    let noun = match kind {
        Kind::Listener => document::decode_listener(&node, &model.defaults).map(Noun::Listener),
        Kind::Pool => document::decode_pool(&node, &model.defaults).map(Noun::Pool),
        Kind::Defaults => {
            return Err(WriteError::NotFound("the defaults are part of the whole document".into()));
        }
        Kind::Map => document::decode_map(&node).map(Noun::Map),
        Kind::AddressList => match document::decode_address_list(&node) {
            Err(violations) => Err(violations),
            Ok(list) => {
                let is_given = node.field("entries").is_some();
                if let NodeKind::Object(entries) = &mut node.kind {
                    entries.retain(|entry| entry.key != "entries");
                }
                Ok(lists::enlist(store, model, list, is_given, drafts).await?)
            }
        },
        Kind::AcmeAccount => match document::decode_acme_account(&node) {
            Err(violations) => Err(violations),
            Ok(account) => {
                let secret = document::take_secret(kind.word(), &mut node);
                Ok(enrol(store, account, secret, drafts).await?)
            }
        },
        Kind::Certificate => match document::decode_certificate(&node) {
            Err(violations) => Err(violations),
            Ok(CertificateObject::Acme(wanted)) => {
                let secret = document::take_secret(kind.word(), &mut node);
                issued::draft(store, model, *wanted, secret, drafts).await?
            }
            Ok(CertificateObject::Folder(wanted)) => Ok(folder::draft(store, model, wanted, drafts).await?),
            Ok(CertificateObject::Chain(certificate, key)) => {
                if let NodeKind::Object(entries) = &mut node.kind {
                    entries.retain(|entry| entry.key != "key");
                }
                certify(store, model, name, certificate, key, drafts).await?
            }
        },
    };
    Ok(noun.map(|noun| (node.to_json(), noun)))
}

/// An account with the secret that binds it.
async fn enrol(
    store: &Store,
    account: AcmeAccount,
    given: Option<Secret>,
    drafts: &mut Drafts,
) -> Result<Noun, WriteError> {
    let (name, of) = (account.name.as_str(), account.external_key_id.as_deref());
    let secret = issued::draft_secret(store, Kind::AcmeAccount, name, of, given, drafts).await?;
    if of.is_some() && secret.is_none() {
        let detail = format!("account {name:?} comes without the secret of its key, and none is stored");
        let violation = Violation::new("/externalAccountBinding", None, "missing-secret", detail);
        return Err(WriteError::Invalid(vec![
            violation.hint("send the secret along; it never comes back out"),
        ]));
    }
    Ok(Noun::AcmeAccount(account, secret))
}

/// A certificate with its key: the one that came with it, or the stored one that fits.
async fn certify(
    store: &Store,
    model: &Model,
    name: &str,
    certificate: awe4lb_model::Certificate,
    key: Option<PrivateKeyPem>,
    drafts: &mut Drafts,
) -> Result<Result<Noun, Vec<Violation>>, WriteError> {
    let facts = match CertificateFacts::read(&certificate) {
        Ok(facts) => facts,
        Err(violation) => return Ok(Err(vec![violation])),
    };
    let key = match key {
        Some(key) => {
            if let Err(violation) = facts.check_key(&key) {
                return Ok(Err(vec![violation]));
            }
            drafts.new_keys.push((name.to_owned(), key.clone()));
            key
        }
        None => match known_key(store, model, name, &facts).await? {
            Some(key) => key,
            None => {
                let detail = format!("certificate {name:?} comes without a key, and no stored key fits it");
                let violation = Violation::new("/key", None, "missing-key", detail);
                return Ok(Err(vec![violation.hint("send the key along; it never comes back out")]));
            }
        },
    };
    drafts.warnings.extend(facts.check_time(jiff::Timestamp::now()));
    Ok(Ok(Noun::Certificate(certificate, key, facts)))
}

async fn known_key(
    store: &Store,
    model: &Model,
    name: &str,
    facts: &CertificateFacts,
) -> anyhow::Result<Option<PrivateKeyPem>> {
    if let Some(Noun::Certificate(_, key, old)) = model.get(Kind::Certificate, name).map(|entry| &entry.noun)
        && old.public_key == facts.public_key
    {
        return Ok(Some(key.clone()));
    }
    stored_key(store, name, facts).await
}

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
    let pointers = pointers_of_certificates(&document);
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
                let (pointer, at) = pointers.get(&name).cloned().unwrap_or_default();
                wrong.extend(violations.into_iter().map(|violation| Violation {
                    pointer: format!("{pointer}{}", violation.pointer),
                    line: at.map(|at| at.line),
                    column: at.map(|at| at.column),
                    ..violation
                }));
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
        let (pointer, at) = pointers.get(name.as_str()).cloned().unwrap_or_default();
        let placed = |violation: Violation| Violation {
            pointer: format!("{pointer}{}", violation.pointer),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            ..violation
        };
        let warnings = drafts.warnings.split_off(warned);
        drafts.warnings.extend(warnings.into_iter().map(placed));
        match noun {
            Ok(noun) => {
                let body = bodies.remove(&(Kind::Certificate, name.to_string())).unwrap_or_default();
                drafts.objects.push(Draft {
                    kind: Kind::Certificate,
                    name: name.to_string(),
                    new: Some((body, noun)),
                });
            }
            Err(violations) => wrong.extend(violations.into_iter().map(placed)),
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

fn pointers_of_certificates(document: &Node) -> BTreeMap<String, Place> {
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

/// The next model, not yet stored.
pub(super) struct Next {
    pub(super) model: Model,
    /// What differs, in order.
    pub(super) changes: Vec<Change>,
    /// What is stored anew: kind and name, `defaults` too.
    pub(super) touched: Vec<(Kind, String)>,
    pub(super) next_number: u64,
}

impl Next {
    /// Leaves out what changes nothing, gives numbers, and keeps what stays.
    pub(super) fn of(model: &Model, drafts: Drafts, revision: u64, now: &str, next_number: u64) -> Self {
        let mut next = Self { model: model.clone(), changes: Vec::new(), touched: Vec::new(), next_number };
        let (mut before, mut after) = (Sides::default(), Sides::default());
        if let Some((body, defaults)) = drafts.defaults {
            before.defaults.clone_from(&model.defaults_body);
            after.defaults.clone_from(&body);
            next.model.defaults = defaults;
            next.model.defaults_body = body;
            next.touched.push((Kind::Defaults, "defaults".to_owned()));
        }
        for draft in drafts.objects {
            let old = model.get(draft.kind, &draft.name);
            let objects = next.model.objects.entry(draft.kind).or_default();
            let Some((body, noun)) = draft.new else {
                if let Some(old) = old {
                    objects.remove(&draft.name);
                    before.push(draft.kind, old.body.clone());
                    next.touched.push((draft.kind, draft.name));
                }
                continue;
            };
            match old {
                Some(old) if old.body == body && old.noun == noun => {}
                // Other defaults, or other entries: the object means something else, but nobody wrote it anew.
                Some(old) if old.body == body => {
                    objects.insert(draft.name, Arc::new(Entry { noun, ..(**old).clone() }));
                }
                _ => {
                    let mut give = || {
                        next.next_number += 1;
                        next.next_number - 1
                    };
                    let number = old.map_or_else(&mut give, |old| old.number);
                    let mut parts = BTreeMap::new();
                    for name in noun.part_names() {
                        let kept = old.and_then(|old| old.parts.get(name).copied());
                        parts.insert(name.to_owned(), kept.unwrap_or_else(&mut give));
                    }
                    if let Some(old) = old {
                        before.push(draft.kind, old.body.clone());
                    }
                    after.push(draft.kind, body.clone());
                    let entry = Entry { number, revision, updated_at: now.to_owned(), body, parts, noun };
                    objects.insert(draft.name.clone(), Arc::new(entry));
                    next.touched.push((draft.kind, draft.name));
                }
            }
        }
        next.changes = document::diff(&before.document(), &after.document());
        next
    }
}

/// One side of a difference: only the objects that differ.
#[derive(Default)]
struct Sides {
    defaults: Option<Value>,
    objects: BTreeMap<Kind, Vec<Value>>,
}

impl Sides {
    fn push(&mut self, kind: Kind, body: Value) {
        self.objects.entry(kind).or_default().push(body);
    }

    fn document(mut self) -> Value {
        let lists = Kind::NAMED.map(|kind| (kind.field(), self.objects.remove(&kind).unwrap_or_default()));
        document_of(self.defaults, lists)
    }
}
