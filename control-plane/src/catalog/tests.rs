//! What the catalog promises: all or nothing, numbers for life, history for free, keys that stay inside.

use awe4lb_model::document::{self, Format};
use serde_json::{Value, json};

use super::*;
use crate::store::data_dir::DataDir;

const DOCUMENT: &str = "
version: 1
listeners:
  - { name: web, bind: ['*:8080'], rules: [{ name: a, pool: app }, { name: b, reject: {} }] }
pools:
  - { name: app, backends: [{ name: one, address: '10.0.0.1:80' }, { name: two, address: '10.0.0.2:80' }] }
";

struct Bench {
    dir: tempfile::TempDir,
    catalog: Catalog,
}

async fn open(dir: &std::path::Path) -> Catalog {
    let store = Store::open(DataDir::open(dir).unwrap(), None).await.unwrap();
    Catalog::open(store).await.unwrap()
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(dir.path()).await;
        Self { dir, catalog }
    }

    async fn with_document() -> Self {
        let bench = Self::new().await;
        bench.document(DOCUMENT, true).await.unwrap();
        bench
    }

    async fn document(&self, text: &str, prune: bool) -> Result<Outcome, WriteError> {
        let document = document::parse(text, Format::Yaml).unwrap();
        self.write(WriteWhat::Document { document, prune }).await
    }

    async fn write(&self, what: WriteWhat) -> Result<Outcome, WriteError> {
        let origin = Origin { author: "ada".into(), source: "api".into(), message: "why".into() };
        self.catalog.write(Write { origin, what, expected_head: Precondition::None, dry_run: false }).await
    }

    async fn edit(&self, kind: Kind, name: &str, operation: Operation) -> Result<Outcome, WriteError> {
        self.edit_if(kind, name, operation, Precondition::None).await
    }

    async fn edit_if(
        &self,
        kind: Kind,
        name: &str,
        operation: Operation,
        precondition: Precondition,
    ) -> Result<Outcome, WriteError> {
        let edit = Edit { kind, name: name.into(), operation, precondition, pointer: String::new() };
        self.write(WriteWhat::Edits(vec![edit])).await
    }

    /// A new process on the same data.
    async fn restart(&mut self) {
        self.catalog.store().close().await;
        let empty = tempfile::tempdir().unwrap();
        self.catalog = open(empty.path()).await;
        self.catalog = open(self.dir.path()).await;
    }

    fn number(&self, kind: Kind, name: &str) -> u64 {
        self.catalog.head().model.get(kind, name).unwrap().number
    }
}

fn app(backends: Value) -> Operation {
    Operation::Put(json!({"backends": backends}))
}

#[tokio::test]
async fn a_document_becomes_a_revision_and_survives_a_restart() {
    let mut bench = Bench::with_document().await;
    let before = bench.catalog.head();
    assert_eq!(before.revision, 1);
    assert_eq!(before.placed.listeners[0].rule_numbers.len(), 2);
    bench.restart().await;
    let after = bench.catalog.head();
    assert_eq!((after.revision, &after.lineage), (1, &before.lineage));
    assert_eq!(after.placed, before.placed);
    assert_eq!(after.model.intent(), before.model.intent());
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let bench = Bench::with_document().await;
    let outcome = bench.document(DOCUMENT, true).await.unwrap();
    assert!(!outcome.changed);
    assert_eq!(bench.catalog.head().revision, 1);
    let body = bench.catalog.head().model.get(Kind::Pool, "app").unwrap().to_json();
    assert!(!bench.edit(Kind::Pool, "app", Operation::Put(body)).await.unwrap().changed);
}

#[tokio::test]
async fn numbers_are_kept_by_what_stays_and_never_given_again() {
    let mut bench = Bench::with_document().await;
    let pool = bench.number(Kind::Pool, "app");
    let parts = bench.catalog.head().model.get(Kind::Pool, "app").unwrap().parts.clone();
    let backends =
        json!([{"name": "two", "address": "10.0.0.9:80"}, {"name": "three", "address": "10.0.0.3:80"}]);
    bench.edit(Kind::Pool, "app", app(backends)).await.unwrap();
    let entry = bench.catalog.head().model.get(Kind::Pool, "app").unwrap().clone();
    assert_eq!(entry.number, pool);
    assert_eq!(entry.parts["two"], parts["two"], "another address is the same backend");
    assert!(!parts.values().any(|number| *number == entry.parts["three"]));
    bench.restart().await;
    let backends = json!([{"name": "one", "address": "10.0.0.1:80"}]);
    bench.edit(Kind::Pool, "app", app(backends)).await.unwrap();
    let again = bench.catalog.head().model.get(Kind::Pool, "app").unwrap().parts["one"];
    assert!(again > entry.parts["three"], "a backend that was gone is a new one: {again}");
}

#[tokio::test]
async fn every_violation_is_told_and_nothing_is_changed() {
    let bench = Bench::with_document().await;
    let text = "listeners: [{name: web, bnid: ['*:1'], rules: [{pool: gone}]}]\npools: [{name: app, balance: randm}]";
    let Err(WriteError::Invalid(violations)) = bench.document(text, true).await else {
        panic!("was accepted")
    };
    assert!(violations.len() >= 3, "{violations:?}");
    assert!(violations.iter().all(|violation| violation.line.is_some()), "{violations:?}");
    assert_eq!(bench.catalog.head().revision, 1);
    assert_eq!(bench.catalog.store().revisions(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pointers_of_one_object_begin_at_it() {
    let bench = Bench::with_document().await;
    let listener = json!({"bind": ["*:8080"], "rules": [{"pool": "app"}, {"pool": "gone"}]});
    let error = bench.edit(Kind::Listener, "web", Operation::Put(listener)).await.unwrap_err();
    let WriteError::Invalid(violations) = error else { panic!("{error}") };
    assert_eq!(violations[0].pointer, "/rules/1");
    let part = json!({"name": "b", "pool": "app", "match": {"sni": ["a..b"]}});
    let error = bench.edit(Kind::Listener, "web", Operation::PutPart("b".into(), part)).await.unwrap_err();
    let WriteError::Invalid(violations) = error else { panic!("{error}") };
    assert!(violations[0].pointer.starts_with("/match/sni/0"), "{violations:?}");
}

#[tokio::test]
async fn what_others_need_cannot_go() {
    let bench = Bench::with_document().await;
    let error = bench.edit(Kind::Pool, "app", Operation::Delete).await.unwrap_err();
    let WriteError::Conflict(detail, _) = error else { panic!("{error}") };
    assert!(detail.contains("\"web\""), "{detail}");
    // Together with what needs it, it goes.
    let edit = |kind, name: &str| Edit {
        kind,
        name: name.into(),
        operation: Operation::Delete,
        precondition: Precondition::None,
        pointer: String::new(),
    };
    let both = vec![edit(Kind::Pool, "app"), edit(Kind::Listener, "web")];
    bench.write(WriteWhat::Edits(both)).await.unwrap();
    assert!(bench.catalog.head().placed.pools.is_empty());
}

#[tokio::test]
async fn stale_writers_are_told() {
    let bench = Bench::with_document().await;
    let one = json!([{"name": "one", "address": "10.0.0.1:81"}]);
    bench.edit_if(Kind::Pool, "app", app(one.clone()), Precondition::Revision(1)).await.unwrap();
    for precondition in [Precondition::Revision(1), Precondition::Absent] {
        let error = bench.edit_if(Kind::Pool, "app", app(one.clone()), precondition).await.unwrap_err();
        assert!(matches!(error, WriteError::Stale(_)), "{error}");
    }
    let error = bench.edit_if(Kind::Pool, "other", app(one), Precondition::Exists).await.unwrap_err();
    assert!(matches!(error, WriteError::Stale(_)), "{error}");
}

#[tokio::test]
async fn apply_leaves_alone_what_it_does_not_name() {
    let bench = Bench::with_document().await;
    let more = "pools: [{name: more, backends: []}]";
    bench.document(more, false).await.unwrap();
    assert_eq!(bench.catalog.head().placed.pools.len(), 2);
    assert_eq!(bench.catalog.head().placed.listeners.len(), 1);
    let error = bench.document(more, true).await;
    assert!(error.is_ok(), "the listener goes with its pool");
    assert_eq!(bench.catalog.head().placed.listeners.len(), 0);
}

#[tokio::test]
async fn other_defaults_change_what_objects_mean_but_not_who_wrote_them() {
    let bench = Bench::with_document().await;
    let outcome = bench
        .document(&format!("{DOCUMENT}\ndefaults: {{ connect: {{ timeout: 9s }} }}"), true)
        .await
        .unwrap();
    assert_eq!(outcome.changes.len(), 1);
    assert_eq!(outcome.head.placed.pools[0].pool.connect.timeout, std::time::Duration::from_secs(9));
    assert_eq!(outcome.head.model.get(Kind::Pool, "app").unwrap().revision, 1);
}

#[tokio::test]
async fn history_shows_and_restores_what_was() {
    let mut bench = Bench::with_document().await;
    let first = bench.catalog.head().model.intent();
    bench.edit(Kind::Pool, "app", app(json!([]))).await.unwrap();
    bench.document("pools: []", true).await.unwrap();
    bench.restart().await;
    assert_eq!(bench.catalog.intent_as_of(1).await.unwrap(), first);
    assert_eq!(bench.catalog.intent_as_of(2).await.unwrap()["pools"][0]["backends"], json!([]));
    assert_eq!(bench.catalog.intent_as_of(3).await.unwrap()["pools"], json!([]));
    assert!(matches!(bench.catalog.intent_as_of(4).await, Err(WriteError::NotFound(_))));
    let outcome = bench.write(WriteWhat::Restore(1)).await.unwrap();
    assert_eq!(outcome.head.revision, 4);
    assert_eq!(outcome.head.model.intent(), first);
    let history = bench.catalog.store().revisions(None, 10).await.unwrap();
    assert_eq!(history.iter().map(|revision| revision.number).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(history[0].author, "ada");
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let bench = Bench::with_document().await;
    let what = WriteWhat::Edits(vec![Edit {
        kind: Kind::Pool,
        name: "app".into(),
        operation: app(json!([])),
        precondition: Precondition::None,
        pointer: String::new(),
    }]);
    let write = Write { origin: Origin::default(), what, expected_head: Precondition::None, dry_run: true };
    let outcome = bench.catalog.write(write).await.unwrap();
    assert!(outcome.changed && outcome.changes.len() == 1);
    assert_eq!(bench.catalog.head().revision, 1);
    assert_eq!(bench.catalog.store().head().await.unwrap(), 1);
}

fn certificate(names: &[&str]) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn keys_go_in_sealed_and_are_found_again() {
    let mut bench = Bench::new().await;
    let (chain, key) = certificate(&["a.test"]);
    let put = |chain: &str, key: Option<&str>| {
        let mut body = json!({"chain": chain});
        if let Some(key) = key {
            body["key"] = key.into();
        }
        Operation::Put(body)
    };
    bench.edit(Kind::Certificate, "site", put(&chain, Some(&key))).await.unwrap();
    // Another certificate, then the first again without its key: the stored one fits.
    let (other_chain, other_key) = certificate(&["b.test"]);
    let error = bench.edit(Kind::Certificate, "site", put(&other_chain, Some(&key))).await.unwrap_err();
    assert!(matches!(error, WriteError::Invalid(ref v) if v[0].code == "key-does-not-fit"), "{error:?}");
    let error = bench.edit(Kind::Certificate, "site", put(&other_chain, None)).await.unwrap_err();
    assert!(matches!(error, WriteError::Invalid(ref v) if v[0].code == "missing-key"), "{error:?}");
    bench.edit(Kind::Certificate, "site", put(&other_chain, Some(&other_key))).await.unwrap();
    bench.restart().await;
    bench.write(WriteWhat::Restore(1)).await.unwrap();
    let head = bench.catalog.head();
    assert_eq!(head.model.get(Kind::Certificate, "site").unwrap().placed_certificates()[0].key.0, key);
    // No listener uses it: no node gets its key.
    assert!(head.placed.certificates.is_empty());
    let shown = head.model.get(Kind::Certificate, "site").unwrap().to_json();
    assert_eq!(shown["meta"]["names"], json!(["a.test"]));
    assert!(!shown.to_string().contains("PRIVATE KEY"));
    // Nothing on disk has a key in the clear.
    let secret: String = key.lines().nth(1).unwrap().to_owned();
    for file in std::fs::read_dir(bench.dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_tear_memory_from_disk() {
    let bench = Bench::with_document().await;
    for port in 1..20 {
        let catalog = bench.catalog.clone();
        let what = WriteWhat::Edits(vec![Edit {
            kind: Kind::Pool,
            name: "app".into(),
            operation: app(json!([{"name": "one", "address": format!("10.0.0.1:{port}")}])),
            precondition: Precondition::None,
            pointer: String::new(),
        }]);
        let write =
            Write { origin: Origin::default(), what, expected_head: Precondition::None, dry_run: false };
        let mut future = Box::pin(catalog.write(write));
        let _ = futures_util::poll!(&mut future);
        drop(future);
    }
    // The writes are in order, so this one ends after them.
    let last = bench.edit(Kind::Pool, "last", app(json!([]))).await.unwrap();
    assert_eq!(bench.catalog.store().head().await.unwrap(), last.head.revision);
    assert_eq!(bench.catalog.intent_as_of(last.head.revision).await.unwrap(), last.head.model.intent());
}

const WITH_LIST: &str = "
listeners: [{ name: web, bind: ['*:8080'], rules: [{ name: a, match: { client: { list: offices } }, pool: app }] }]
pools: [{ name: app }]
addressLists: [{ name: offices, entries: [192.0.2.0/24, 10.0.0.1] }]
maps: [{ name: tenants, entries: { A.example.com: app } }]
";

impl Bench {
    fn entries(&self, list: &str) -> Vec<String> {
        let head = self.catalog.head();
        let entry = head.model.get(Kind::AddressList, list).unwrap();
        let own: Vec<_> = entry.address_list().unwrap().entries.iter().map(entry_text).collect();
        let placed = head.placed.address_lists.iter().find(|placed| placed.name.as_str() == list).unwrap();
        assert_eq!(placed.entries.iter().map(entry_text).collect::<Vec<_>>(), own, "what nodes run");
        own
    }

    async fn entries_by(&self, add: &str, remove: &str) -> Result<Outcome, WriteError> {
        let prefixes =
            |text: &str| text.split_whitespace().map(|text| document::prefix(text).unwrap()).collect();
        let change = EntriesChange::Patch { add: prefixes(add), remove: prefixes(remove) };
        self.edit(Kind::AddressList, "offices", Operation::Entries(change)).await
    }
}

#[tokio::test]
async fn entries_of_a_list_change_without_a_revision_and_outlive_a_restart() {
    let mut bench = Bench::new().await;
    bench.document(WITH_LIST, true).await.unwrap();
    assert_eq!(bench.entries("offices"), ["10.0.0.1", "192.0.2.0/24"]);
    let mut heads = bench.catalog.subscribe();
    heads.borrow_and_update();
    let before = bench.catalog.head();
    let outcome = bench.entries_by("198.51.100.7 10.0.0.1", "192.0.2.0/24 203.0.113.9").await.unwrap();
    assert!(outcome.changed && !outcome.has_revision && heads.has_changed().unwrap());
    assert_eq!(outcome.changes[0].after.as_ref().unwrap()["entries"], json!(["10.0.0.1", "198.51.100.7"]));
    assert_eq!(bench.catalog.head().revision, before.revision);
    assert_eq!(bench.entries("offices"), ["10.0.0.1", "198.51.100.7"]);
    assert!(!bench.entries_by("10.0.0.1", "").await.unwrap().changed);

    bench.restart().await;
    assert_eq!(bench.entries("offices"), ["10.0.0.1", "198.51.100.7"]);
    // The same document without entries, with the same entries, and the export: nothing to do.
    let export = bench.catalog.head().model.intent();
    assert_eq!(export["addressLists"][0]["entries"], json!(["10.0.0.1", "198.51.100.7"]));
    assert!(!bench.document(&export.to_string(), true).await.unwrap().changed);
    let silent = WITH_LIST.replace(", entries: [192.0.2.0/24, 10.0.0.1]", "");
    assert!(!bench.document(&silent, true).await.unwrap().changed);
    // A document with entries sets them, still without a revision.
    let outcome = bench.document(WITH_LIST, true).await.unwrap();
    assert!(outcome.changed && !outcome.has_revision);
    assert_eq!(bench.entries("offices"), ["10.0.0.1", "192.0.2.0/24"]);
}

#[tokio::test]
async fn a_deleted_list_finds_its_entries_again_and_one_in_use_stays() {
    let bench = Bench::new().await;
    bench.document(WITH_LIST, true).await.unwrap();
    let refused = bench.edit(Kind::AddressList, "offices", Operation::Delete).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Conflict(detail, _) if detail.contains("web")), "{refused}");
    bench.document(DOCUMENT, true).await.unwrap();
    assert!(bench.catalog.head().placed.address_lists.is_empty());
    bench.write(WriteWhat::Restore(1)).await.unwrap();
    assert_eq!(bench.entries("offices"), ["10.0.0.1", "192.0.2.0/24"]);
}

#[tokio::test]
async fn the_etag_of_a_list_knows_its_entries() {
    let bench = Bench::new().await;
    bench.document(WITH_LIST, true).await.unwrap();
    let edit = |precondition| {
        let change = EntriesChange::Replace(Vec::new());
        bench.edit_if(Kind::AddressList, "offices", Operation::Entries(change), precondition)
    };
    assert!(matches!(edit(Precondition::Edition(1, 0)).await, Err(WriteError::Stale(_))));
    let outcome = edit(Precondition::Edition(1, 1)).await.unwrap();
    assert_eq!(outcome.head.model.get(Kind::AddressList, "offices").unwrap().etag(), "\"1.2\"");
    assert!(bench.entries("offices").is_empty());
}

#[tokio::test]
async fn an_entry_of_a_map_is_one_small_write() {
    let bench = Bench::new().await;
    bench.document(WITH_LIST, true).await.unwrap();
    let entry = |key: &str, pool: Option<&str>| {
        let operation = Operation::MapEntry(document::map_key(key).unwrap(), pool.map(str::to_owned));
        bench.edit(Kind::Map, "tenants", operation)
    };
    entry("*.b.example.com", Some("app")).await.unwrap();
    entry("a.example.com", Some("app")).await.unwrap();
    let refused = entry("c.example.com", Some("nowhere")).await.unwrap_err();
    let WriteError::Invalid(violations) = refused else { panic!("{refused}") };
    assert_eq!(violations[0].pointer, "/entries/c.example.com");
    entry("A.Example.com", None).await.unwrap();
    assert!(matches!(entry("a.example.com", None).await, Err(WriteError::NotFound(_))));
    let head = bench.catalog.head();
    assert_eq!(
        head.model.get(Kind::Map, "tenants").unwrap().body["entries"],
        json!({"*.b.example.com": "app"})
    );
    assert!(matches!(bench.edit(Kind::Pool, "app", Operation::Delete).await, Err(WriteError::Conflict(..))));
}
