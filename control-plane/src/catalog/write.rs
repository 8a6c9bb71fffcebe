//! The one writer: drafts, checks, commits, publishes.

use std::sync::Arc;

use awe4lb_model::{
    acme::Secret,
    document::{self, Change, Node, Violation},
};
use serde_json::Value;

use super::{
    Catalog, Edit, Head, Kind, Model, Precondition, WriteError,
    draft::{Drafts, draft_edits},
    draft_document::draft_document,
    entry::Noun,
    issued::write_chains,
    lists,
    model::document_of,
    next::Next,
    replace,
};
use crate::store::{
    issued::write_secret,
    lists::write_list_entries,
    objects::{Revision, Summary, Written, write_private_key, write_revision},
};

/// Who writes, and why.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The user.
    pub author: String,
    /// `api`, `console` or `cli`.
    pub source: String,
    /// In the author's words; may be empty.
    pub message: String,
}

/// What to write.
#[derive(Debug)]
pub enum WriteWhat {
    /// Objects: all or none.
    Edits(Vec<Edit>),
    /// A document: objects it does not name are deleted when `prune` is set, and stay when not.
    Document {
        /// What was parsed.
        document: Node,
        /// Whether what is absent goes.
        prune: bool,
    },
    /// The content of an old revision.
    Restore(u64),
}

/// A write.
#[derive(Debug)]
pub struct Write {
    /// Who and why.
    pub origin: Origin,
    /// What.
    pub what: WriteWhat,
    /// The head must be as this says: [`Precondition::Revision`] or [`Precondition::Edition`], of all lists together.
    pub expected_head: Precondition,
    /// Check only.
    pub dry_run: bool,
}

/// What a write did, or (dry run) would do.
#[derive(Debug)]
pub struct Outcome {
    /// The head afterwards.
    pub head: Arc<Head>,
    /// Whether there is anything new.
    pub changed: bool,
    /// Whether that is a revision: entries of address lists alone make none.
    pub has_revision: bool,
    /// What.
    pub changes: Vec<Change>,
    /// What looks wrong but is allowed.
    pub warnings: Vec<Violation>,
}

impl Catalog {
    /// Writes. A caller that goes away does not stop a write half way: what is committed is published.
    pub async fn write(&self, write: Write) -> Result<Outcome, WriteError> {
        let this = self.clone();
        tokio::spawn(async move { this.write_now(write).await })
            .await
            .unwrap_or_else(|error| Err(WriteError::Storage(format!("the write ended: {error}"))))
    }

    async fn write_now(&self, write: Write) -> Result<Outcome, WriteError> {
        let mut next_number = self.next_number.lock().await;
        let head = self.head();
        let stale = match write.expected_head {
            Precondition::Revision(revision) => revision != head.revision,
            Precondition::Edition(revision, editions) => {
                (revision, editions) != (head.revision, head.model.editions())
            }
            Precondition::Absent => head.revision != 0,
            Precondition::None | Precondition::Exists => false,
        };
        if stale {
            let detail = format!("the configuration is at {}, not as expected: load it again", head.etag());
            return Err(WriteError::Stale(detail));
        }
        let mut drafts = self.draft(&head.model, write.what).await?;
        let mut warnings = std::mem::take(&mut drafts.warnings);
        let new_keys = std::mem::take(&mut drafts.new_keys);
        let new_entries = std::mem::take(&mut drafts.new_entries);
        let new_secrets = std::mem::take(&mut drafts.new_secrets);
        let new_chains = std::mem::take(&mut drafts.new_chains);
        let now = jiff::Timestamp::now().to_string();
        let mut next = Next::of(&head.model, drafts, head.revision + 1, &now, *next_number);
        let has_revision = !next.touched.is_empty();
        if !has_revision && new_entries.is_empty() && new_secrets.is_empty() {
            return Ok(Outcome { head, changed: false, has_revision, changes: Vec::new(), warnings });
        }
        check_references(&next)?;
        warnings.extend(worse(&head.model, &next));
        lists::tell(&mut next.changes, &head.model, &next.model, &new_entries);
        let revision = Revision {
            number: head.revision + u64::from(has_revision),
            created_at: now,
            author: write.origin.author,
            message: write.origin.message,
            source: write.origin.source,
            summary: Summary::of(&next.changes),
        };
        if !write.dry_run {
            self.commit(&revision, &next, &new_keys, &new_entries, &new_secrets, &new_chains).await?;
            *next_number = next.next_number;
        }
        let new_head = Arc::new(Head {
            lineage: head.lineage.clone(),
            revision: revision.number,
            placed: Arc::new(next.model.placed()),
            model: Arc::new(next.model),
        });
        if !write.dry_run {
            self.head.send_replace(new_head.clone());
        }
        Ok(Outcome { head: new_head, changed: true, has_revision, changes: next.changes, warnings })
    }

    async fn draft(&self, model: &Model, what: WriteWhat) -> Result<Drafts, WriteError> {
        match what {
            WriteWhat::Edits(edits) => draft_edits(&self.store, model, &edits).await,
            WriteWhat::Document { document, prune } => {
                draft_document(&self.store, model, document, prune).await
            }
            WriteWhat::Restore(revision) => {
                let intent = self.intent_as_of(revision).await?;
                draft_document(&self.store, model, Node::from_json(&intent), true).await
            }
        }
    }

    /// The document as it was at a revision.
    pub async fn intent_as_of(&self, revision: u64) -> Result<Value, WriteError> {
        if revision > 0 && self.store.revision(revision).await?.is_none() {
            return Err(WriteError::NotFound(format!("there is no revision {revision}")));
        }
        let mut objects = self.store.objects_as_of(revision).await?;
        objects.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let of = |kind: Kind| {
            objects.iter().filter(move |object| object.kind == kind).map(|object| object.body.clone())
        };
        let defaults = of(Kind::Defaults).next();
        Ok(document_of(defaults, Kind::NAMED.map(|kind| (kind.field(), of(kind).collect()))))
    }

    async fn commit(
        &self,
        revision: &Revision,
        next: &Next,
        new_keys: &[(String, awe4lb_model::placed::PrivateKeyPem)],
        new_entries: &[String],
        new_secrets: &[(Kind, String, String, Secret)],
        new_chains: &[String],
    ) -> Result<(), WriteError> {
        let mut tx = self.store.writer().begin_with("BEGIN IMMEDIATE").await?;
        let no_parts = std::collections::BTreeMap::new();
        let written: Vec<Written<'_>> = next
            .touched
            .iter()
            .map(|(kind, name)| Written {
                kind: *kind,
                name,
                new: match kind {
                    Kind::Defaults => next.model.defaults_body.as_ref().map(|body| (0, body, &no_parts)),
                    _ => next.model.get(*kind, name).map(|entry| (entry.number, &entry.body, &entry.parts)),
                },
            })
            .collect();
        if !next.touched.is_empty() {
            write_revision(&mut tx, revision, &written, next.next_number).await?;
        }
        for name in new_entries {
            let Some(entry) = next.model.get(Kind::AddressList, name) else { continue };
            let Some(list) = entry.address_list() else { continue };
            write_list_entries(&mut tx, list, entry.edition(), &revision.created_at).await?;
        }
        for (name, key) in new_keys {
            let Some(entry) = next.model.get(Kind::Certificate, name) else { continue };
            let Noun::Certificate(_, _, facts) = &entry.noun else { continue };
            let sealed = self.store.seal(key.0.as_bytes())?;
            write_private_key(&mut tx, name, &facts.public_key_hash(), &sealed, &revision.created_at).await?;
        }
        for (kind, name, belongs_to, secret) in new_secrets {
            let sealed = self.store.seal(secret.0.as_bytes())?;
            write_secret(&mut tx, (kind.word(), name, belongs_to), &sealed, &revision.created_at).await?;
        }
        for name in new_chains {
            let Some(entry) = next.model.get(Kind::Certificate, name) else { continue };
            write_chains(&mut tx, &self.store, name, entry.kept_chains()).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// What gets worse by certificates that are replaced. A write of one points into it; one of several says which.
fn worse(before: &Model, next: &Next) -> Vec<Violation> {
    let certificates = next.touched.iter().filter(|(kind, _)| *kind == Kind::Certificate);
    let pointer = |name: &str| match next.touched.len() {
        1 => String::new(),
        _ => format!("/certificates/{name}"),
    };
    certificates.flat_map(|(_, name)| replace::warnings(before, &next.model, name, &pointer(name))).collect()
}

/// Everything still refers to what is there. A fault in an object that the write did not touch is a conflict.
fn check_references(next: &Next) -> Result<(), WriteError> {
    let violations = document::check_references(&next.model.config());
    if violations.is_empty() {
        return Ok(());
    }
    // Whose fault it is: the object that a pointer names.
    let holder = |violation: &Violation| {
        let kinds =
            [(Kind::Listener, "/listeners/"), (Kind::Map, "/maps/"), (Kind::Certificate, "/certificates/")];
        kinds.into_iter().find_map(|(kind, start)| {
            let rest = violation.pointer.strip_prefix(start)?;
            Some((kind, rest.split('/').next().unwrap_or(rest).to_owned()))
        })
    };
    let touched = |violation: &Violation| holder(violation).is_some_and(|of| next.touched.contains(&of));
    if violations.iter().any(touched) {
        // A write of one object points into it; one of several says which.
        let holders = next
            .touched
            .iter()
            .filter(|(kind, _)| matches!(kind, Kind::Listener | Kind::Map | Kind::Certificate))
            .count();
        let relative = |violation: Violation| match (holders, holder(&violation)) {
            (1, Some(of)) if next.touched.contains(&of) => Violation {
                pointer: violation.pointer[format!("/{}/{}", of.0.field(), of.1).len()..].to_owned(),
                ..violation
            },
            _ => violation,
        };
        return Err(WriteError::Invalid(violations.into_iter().map(relative).collect()));
    }
    let holders: std::collections::BTreeSet<(Kind, String)> = violations.iter().filter_map(holder).collect();
    let holders: Vec<String> =
        holders.into_iter().map(|(kind, name)| format!("{} {name:?}", kind.word())).collect();
    let detail = format!("still needed by {}", holders.join(", "));
    Err(WriteError::Conflict(detail, violations))
}
