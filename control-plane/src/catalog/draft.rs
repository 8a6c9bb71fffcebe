//! What a write of single objects leaves behind: decoded, with the keys and secrets that came along or are stored.

use std::collections::BTreeMap;

use awe4lb_model::{
    Defaults,
    acme::{AcmeAccount, Secret},
    document::{self, CertificateObject, Node, NodeKind, Violation},
    placed::PrivateKeyPem,
};
use serde_json::Value;

use super::{
    CertificateFacts, Edit, EntriesChange, Kind, Model, Operation, WriteError, entry::Noun, folder, issued,
    lists, model::stored_key,
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
pub(super) async fn enrol(
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
pub(super) async fn certify(
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
