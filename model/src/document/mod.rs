//! Documents: what users write, and how it becomes a [`Config`].
//!
//! Text (YAML, JSON, TOML) → one tree with places ([`Node`]) → checked along the declared fields → the nouns. Every
//! violation is reported at once. The document itself is the user's intent and is kept as written: defaults are filled
//! in only in the nouns, so that a difference compares like with like.

mod access;
mod acme;
mod build;
mod check;
mod diff;
mod discovery;
mod health;
mod json;
mod lists;
mod names;
mod print;
mod references;
mod scalars;
mod schema;
mod spec;
#[cfg(test)]
mod tests;
mod toml;
mod tree;
mod udp;
mod violation;
mod yaml;

pub use diff::{Change, Operation, diff, unified};
pub use discovery::containers::container_port;
pub use names::made_backend_name;
pub use print::{to_toml, to_yaml};
pub use references::check_references;
pub use scalars::{backend_address, bind, duration, map_key, prefix, print_duration, sni};
pub use schema::{FieldDoc, fields, schema};
pub use tree::{Entry, Node, NodeKind, Position};
pub use violation::Violation;

use serde_json::Value;

use crate::{
    AddressList, Certificate, Config, Defaults, FolderCertificate, Listener, Name, Pool, SniMap,
    acme::{AcmeAccount, AcmeCertificate, Secret},
    placed::PrivateKeyPem,
};
use build::Findings;
use violation::Path;

/// The languages of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// RFC 8259.
    Json,
    /// TOML 1.
    Toml,
}

impl Format {
    /// By the file's ending; what is not `.json` or `.toml` is YAML.
    pub fn of_file_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".json") {
            Self::Json
        } else if name.ends_with(".toml") {
            Self::Toml
        } else {
            Self::Yaml
        }
    }

    /// By its word: `yaml`, `json`, `toml`.
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// The kinds of objects that a document holds by name, and the field of each.
pub const KINDS: [(&str, &str); 6] = [
    ("listener", "listeners"),
    ("pool", "pools"),
    ("certificate", "certificates"),
    ("addressList", "addressLists"),
    ("map", "maps"),
    ("acmeAccount", "acmeAccounts"),
];

/// A document that holds.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// All of it as nouns, defaults filled in.
    pub config: Config,
    /// The defaults of the document.
    pub defaults: Defaults,
    /// What looks wrong but is allowed.
    pub warnings: Vec<Violation>,
    /// The intent in its stored form: made names filled in, objects in order of name, no keys.
    pub intent: Value,
    /// The keys that came with it, by certificate.
    pub keys: Vec<(Name, PrivateKeyPem)>,
    /// The secrets that came with it.
    pub secrets: Vec<GivenSecret>,
    /// The address lists that came with entries; for the others those that are stored stay.
    pub lists_with_entries: std::collections::HashSet<Name>,
}

/// A secret that came with an object. It is no part of the intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenSecret {
    /// `acmeAccount` or `certificate`.
    pub kind: &'static str,
    /// Of the object.
    pub name: String,
    /// The secret.
    pub secret: Secret,
}

/// What an object of `certificates` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateObject {
    /// A chain, and the key that came with it.
    Chain(Certificate, Option<PrivateKeyPem>),
    /// To be issued.
    Acme(Box<AcmeCertificate>),
    /// In a folder.
    Folder(FolderCertificate),
}

/// Text to tree.
pub fn parse(text: &str, format: Format) -> Result<Node, Vec<Violation>> {
    if text.len() > tree::MAX_BYTES {
        let detail = format!("a document has at most {} MiB", tree::MAX_BYTES / 1024 / 1024);
        return Err(vec![Violation::new("", None, "too-large", detail)]);
    }
    let node = match format {
        Format::Yaml => yaml::parse(text),
        Format::Json => json::parse(text),
        Format::Toml => toml::parse(text),
    };
    node.map_err(|violation| vec![violation])
}

/// Reads `chainFile` and `keyFile` of certificates by `read` and puts the text in their place. For files only: what
/// comes over REST must not name paths.
pub fn inline_files(
    document: &mut Node,
    read: impl Fn(&str) -> std::io::Result<String>,
) -> Result<(), Vec<Violation>> {
    let mut wrong = Vec::new();
    let Some(Node { kind: NodeKind::List(certificates), .. }) = document.field_mut("certificates") else {
        return Ok(());
    };
    for (index, certificate) in certificates.iter_mut().enumerate() {
        let NodeKind::Object(entries) = &mut certificate.kind else { continue };
        for entry in entries {
            let Some(field) = ["chain", "key"].into_iter().find(|field| entry.key == format!("{field}File"))
            else {
                continue;
            };
            let Some(file) = entry.value.as_text() else { continue };
            match read(file) {
                Ok(text) => {
                    entry.value.kind = NodeKind::Text(text);
                    entry.key = field.to_owned();
                }
                Err(error) => {
                    let pointer = format!("/certificates/{index}/{}", entry.key);
                    let detail = format!("cannot read {file:?}: {error}");
                    wrong.push(Violation::new(pointer, entry.value.at, "unreadable-file", detail));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Tree to nouns, or everything that is wrong with it.
pub fn compile(mut document: Node) -> Result<Compiled, Vec<Violation>> {
    if matches!(document.kind, NodeKind::Null) {
        document.kind = NodeKind::Object(Vec::new());
    }
    names::fill(&mut document);
    let mut errors = Vec::new();
    check::check_object(&document, &spec::DOCUMENT, &Path::Root, &mut errors);

    let mut found = Findings { errors, warnings: Vec::new() };
    let defaults = build::defaults(document.field("defaults"));
    let mut config = Config {
        listeners: named(&document, "listeners", &mut found, |node, path, found| {
            build::listener(node, &defaults, path, found)
        }),
        pools: named(&document, "pools", &mut found, |node, path, found| {
            build::pool(node, &defaults, path, found)
        }),
        certificates: named(&document, "certificates", &mut found, |node, path, found| {
            let is_kept = node.field("acme").is_none() && node.field("directory").is_none();
            is_kept.then(|| build::certificate(node, path, found))?
        }),
        address_lists: named(&document, "addressLists", &mut found, lists::address_list),
        maps: named(&document, "maps", &mut found, lists::map),
        acme_accounts: named(&document, "acmeAccounts", &mut found, acme::account),
        acme_certificates: each(&document, "certificates", &mut found, acme::certificate),
        folder_certificates: each(&document, "certificates", &mut found, build::folder_certificate),
    };
    let pointers = references::Pointers::of(&document);
    config.listeners.sort_by(|a, b| a.name.cmp(&b.name));
    config.pools.sort_by(|a, b| a.name.cmp(&b.name));
    config.certificates.sort_by(|a, b| a.name.cmp(&b.name));
    config.address_lists.sort_by(|a, b| a.name.cmp(&b.name));
    config.maps.sort_by(|a, b| a.name.cmp(&b.name));
    config.acme_accounts.sort_by(|a, b| a.name.cmp(&b.name));
    config.acme_certificates.sort_by(|a, b| a.name.cmp(&b.name));
    config.folder_certificates.sort_by(|a, b| a.name.cmp(&b.name));
    // Objects that did not build are missing from `config`; references to them are no second mistake.
    references::check(&config, &pointers, &mut found.errors);
    references::warn(&config, &pointers, &mut found.warnings);
    if !found.errors.is_empty() {
        return Err(sorted(found.errors));
    }
    let keys = names::take_keys(&mut document);
    let secrets = names::take_secrets(&mut document);
    let lists_with_entries = names::take_entries(&mut document);
    names::sort(&mut document);
    let (warnings, intent) = (sorted(found.warnings), document.to_json());
    Ok(Compiled { config, defaults, warnings, intent, keys, secrets, lists_with_entries })
}

/// One object of `defaults:`, checked and built alone.
pub fn decode_defaults(node: &Node) -> Result<Defaults, Vec<Violation>> {
    let mut errors = Vec::new();
    check::check_object(node, &spec::DEFAULTS, &Path::Root, &mut errors);
    if errors.is_empty() { Ok(build::defaults(Some(node))) } else { Err(errors) }
}

/// One listener, checked and built alone; references are a matter of [`check_references`].
pub fn decode_listener(node: &Node, defaults: &Defaults) -> Result<Listener, Vec<Violation>> {
    decode(node, &spec::LISTENER, |node, found| build::listener(node, defaults, &Path::Root, found))
}

/// One pool, checked and built alone.
pub fn decode_pool(node: &Node, defaults: &Defaults) -> Result<Pool, Vec<Violation>> {
    decode(node, &spec::POOL, |node, found| build::pool(node, defaults, &Path::Root, found))
}

/// One certificate, checked and built alone, with the key that came with it; or one that is to be issued.
pub fn decode_certificate(node: &Node) -> Result<CertificateObject, Vec<Violation>> {
    decode(node, &spec::CERTIFICATE, |node, found| {
        if node.field("acme").is_some() {
            return acme::certificate(node, &Path::Root, found).map(Box::new).map(CertificateObject::Acme);
        }
        if node.field("directory").is_some() {
            return build::folder_certificate(node, &Path::Root, found).map(CertificateObject::Folder);
        }
        let certificate = build::certificate(node, &Path::Root, found)?;
        let key = node.field("key").and_then(Node::as_text).map(|key| PrivateKeyPem(key.to_owned()));
        Some(CertificateObject::Chain(certificate, key))
    })
}

/// One account, checked and built alone.
pub fn decode_acme_account(node: &Node) -> Result<AcmeAccount, Vec<Violation>> {
    decode(node, &spec::acme::ACCOUNT, |node, found| acme::account(node, &Path::Root, found))
}

/// Takes the secret out of an object of `kind`, which must not stay in the intent.
pub fn take_secret(kind: &str, object: &mut Node) -> Option<Secret> {
    names::take_secret(kind, object)
}

/// One address list, checked and built alone; without entries when there are none to read.
pub fn decode_address_list(node: &Node) -> Result<AddressList, Vec<Violation>> {
    decode(node, &spec::ADDRESS_LIST, |node, found| lists::address_list(node, &Path::Root, found))
}

/// One map, checked and built alone.
pub fn decode_map(node: &Node) -> Result<SniMap, Vec<Violation>> {
    decode(node, &spec::MAP, |node, found| lists::map(node, &Path::Root, found))
}

/// Fills in made names of an object of `kind` (`listener`, `pool`, …), as [`compile`] does for a whole document.
pub fn fill_names(kind: &str, object: &mut Node) {
    names::fill_object(kind, object);
}

fn decode<T>(
    node: &Node,
    spec: &spec::ObjectSpec,
    build: impl FnOnce(&Node, &mut Findings) -> Option<T>,
) -> Result<T, Vec<Violation>> {
    let mut found = Findings::default();
    check::check_object(node, spec, &Path::Root, &mut found.errors);
    let built = build(node, &mut found);
    match built {
        Some(built) if found.errors.is_empty() => Ok(built),
        _ => Err(sorted(found.errors)),
    }
}

/// As [`named`], for objects whose names are looked at elsewhere.
fn each<T>(
    document: &Node,
    field: &str,
    found: &mut Findings,
    build: impl Fn(&Node, &Path<'_>, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let path = Path::Field(&Path::Root, field);
    let items = document.field(field).map(Node::items).unwrap_or_default().iter().enumerate();
    items.filter_map(|(index, item)| build(item, &Path::Index(&path, index), found)).collect()
}

fn named<T>(
    document: &Node,
    field: &str,
    found: &mut Findings,
    build: impl Fn(&Node, &Path<'_>, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let path = Path::Field(&Path::Root, field);
    let mut seen = std::collections::HashMap::new();
    let mut built = Vec::new();
    for (index, item) in document.field(field).map(Node::items).unwrap_or_default().iter().enumerate() {
        let here = Path::Index(&path, index);
        if let Some(name) = item.field("name").and_then(Node::as_text)
            && let Some(first) = seen.insert(name, index)
        {
            let detail = format!("/{field}/{first} is called {name:?} too");
            found.errors.push(Violation::new(here.to_string(), item.at, "duplicate-name", detail));
        }
        built.extend(build(item, &here, found));
    }
    built
}

/// In the order of the document, each only once.
fn sorted(mut violations: Vec<Violation>) -> Vec<Violation> {
    violations.sort_by_key(|violation| (violation.line, violation.column));
    violations.dedup();
    violations
}
