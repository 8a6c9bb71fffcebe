//! From a model and what a write leaves behind to the next model: numbers given, what changes nothing left out.

use std::{collections::BTreeMap, sync::Arc};

use awe4lb_model::document::{self, Change};
use serde_json::Value;

use super::{Entry, Kind, Model, draft::Drafts, model::document_of};

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
