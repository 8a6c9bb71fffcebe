//! The newest revision in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use awe4lb_model::{
    Config, Defaults, FolderCertificate, Name,
    acme::AcmeCertificate,
    document::{self, CertificateObject, Node, Violation},
    placed::{NodeConfig, PrivateKeyPem},
};
use serde_json::{Map, Value};

use super::{
    CertificateFacts, Kind, Staples,
    entry::{Entry, Noun},
    folder, issued,
};
use crate::store::{Store, objects::StoredObject};

/// All objects by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub(super) defaults: Defaults,
    pub(super) defaults_body: Option<Value>,
    pub(super) objects: BTreeMap<Kind, BTreeMap<String, Arc<Entry>>>,
    /// What OCSP responders say of certificates.
    pub(super) staples: Staples,
}

impl Model {
    pub(super) async fn load(store: &Store, revision: u64) -> anyhow::Result<Self> {
        let mut model = Self::default();
        let mut stored = store.objects_as_of(revision).await?;
        // The defaults first: the others are built with them.
        stored.sort_by_key(|object| object.kind);
        for object in stored {
            let what =
                format!("stored {} {:?} of revision {}", object.kind.word(), object.name, object.revision);
            model.add(store, object).await.context(what)?;
        }
        Ok(model)
    }

    async fn add(&mut self, store: &Store, stored: StoredObject) -> anyhow::Result<()> {
        let node = Node::from_json(&stored.body);
        let noun = match stored.kind {
            Kind::Defaults => {
                self.defaults = document::decode_defaults(&node).map_err(broken)?;
                self.defaults_body = Some(stored.body);
                return Ok(());
            }
            Kind::Listener => {
                Noun::Listener(document::decode_listener(&node, &self.defaults).map_err(broken)?)
            }
            Kind::Pool => Noun::Pool(document::decode_pool(&node, &self.defaults).map_err(broken)?),
            Kind::AddressList => {
                let list = document::decode_address_list(&node).map_err(broken)?;
                let stored = store.list_entries(&stored.name).await?;
                stored
                    .map_or(Noun::AddressList(list, 0), |known| Noun::AddressList(known.list, known.edition))
            }
            Kind::Map => Noun::Map(document::decode_map(&node).map_err(broken)?),
            Kind::AcmeAccount => {
                let account = document::decode_acme_account(&node).map_err(broken)?;
                let secret = match &account.external_key_id {
                    Some(id) => store.secret(stored.kind.word(), &stored.name, id).await?,
                    None => None,
                };
                Noun::AcmeAccount(account, secret)
            }
            Kind::Certificate => match document::decode_certificate(&node).map_err(broken)? {
                CertificateObject::Chain(certificate, _) => {
                    let facts =
                        CertificateFacts::read(&certificate).map_err(|violation| broken(vec![violation]))?;
                    let key =
                        stored_key(store, &stored.name, &facts).await?.context("its key is not stored")?;
                    Noun::Certificate(certificate, key, facts)
                }
                CertificateObject::Folder(wanted) => Noun::Folder(folder::load(store, wanted).await?),
                CertificateObject::Acme(wanted) => Noun::Issued(issued::load(store, *wanted).await?),
            },
        };
        let entry = Entry {
            number: stored.number,
            revision: stored.revision,
            updated_at: stored.updated_at,
            body: stored.body,
            parts: stored.parts,
            noun,
        };
        self.objects.entry(stored.kind).or_default().insert(stored.name, Arc::new(entry));
        Ok(())
    }

    /// One object.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Entry>> {
        self.objects.get(&kind)?.get(name)
    }

    /// All of a kind, in order of name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Arc<Entry>)> {
        self.objects.get(&kind).into_iter().flatten().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The document as users wrote it, with the entries of address lists and without keys.
    pub fn intent(&self) -> Value {
        let lists = Kind::NAMED
            .map(|kind| (kind.field(), self.all(kind).map(|(_, entry)| entry.intent()).collect::<Vec<_>>()));
        document_of(self.defaults_body.clone(), lists)
    }

    /// How often entries of the address lists changed, all together.
    pub fn editions(&self) -> u64 {
        self.all(Kind::AddressList).map(|(_, entry)| entry.edition()).sum()
    }

    /// What nodes run.
    pub(super) fn placed(&self) -> NodeConfig {
        let mut listeners: Vec<_> =
            self.all(Kind::Listener).filter_map(|(_, entry)| entry.placed_listener()).collect();
        for tls in listeners.iter_mut().filter_map(|placed| placed.listener.tls.as_mut()) {
            self.name_chains(&mut tls.certificates);
        }
        // A key is where a listener needs it, and nowhere else.
        let used: BTreeSet<&Name> = listeners
            .iter()
            .filter_map(|placed| placed.listener.tls.as_ref())
            .flat_map(|tls| &tls.certificates)
            .collect();
        let certificates = self
            .all(Kind::Certificate)
            .flat_map(|(_, entry)| entry.placed_certificates())
            .filter(|placed| used.contains(&placed.certificate.name))
            .collect();
        let mut config = NodeConfig {
            listeners,
            pools: self.all(Kind::Pool).filter_map(|(_, entry)| entry.placed_pool()).collect(),
            certificates,
            address_lists: self
                .all(Kind::AddressList)
                .filter_map(|(_, entry)| entry.address_list().cloned())
                .collect(),
            maps: self.all(Kind::Map).filter_map(|(_, entry)| entry.map().cloned()).collect(),
        };
        self.staples.attach(&mut config);
        config
    }

    /// A certificate of several key types is several on nodes.
    fn name_chains(&self, certificates: &mut Vec<Name>) {
        let chains = |name: &Name| match self.get(Kind::Certificate, name.as_str()).map(|entry| &entry.noun) {
            Some(Noun::Issued(issued)) => issued.placed_names(),
            _ => vec![name.clone()],
        };
        *certificates = certificates.iter().flat_map(chains).collect();
    }

    /// The nouns alone, to check references.
    pub(super) fn config(&self) -> Config {
        let mut config = Config::default();
        for entry in self.objects.values().flat_map(BTreeMap::values) {
            match &entry.noun {
                Noun::Listener(listener) => config.listeners.push(listener.clone()),
                Noun::Pool(pool) => config.pools.push(pool.clone()),
                Noun::Certificate(certificate, ..) => config.certificates.push(certificate.clone()),
                Noun::AddressList(list, _) => config.address_lists.push(list.clone()),
                Noun::Map(map) => config.maps.push(map.clone()),
                Noun::Issued(issued) => config.acme_certificates.push(AcmeCertificate::clone(&issued.wanted)),
                Noun::Folder(folder) => {
                    config.folder_certificates.push(FolderCertificate::clone(&folder.wanted));
                }
                Noun::AcmeAccount(account, _) => config.acme_accounts.push(account.clone()),
            }
        }
        config
    }
}

/// A document in the stored order of fields.
pub(super) fn document_of<const N: usize>(defaults: Option<Value>, lists: [(&str, Vec<Value>); N]) -> Value {
    let mut document = Map::new();
    document.insert("version".into(), 1.into());
    if let Some(defaults) = defaults {
        document.insert("defaults".into(), defaults);
    }
    for (field, objects) in lists {
        document.insert(field.to_owned(), Value::Array(objects));
    }
    Value::Object(document)
}

/// The key that was stored for a certificate with this public key.
pub(super) async fn stored_key(
    store: &Store,
    name: &str,
    facts: &CertificateFacts,
) -> anyhow::Result<Option<PrivateKeyPem>> {
    let Some(sealed) = store.private_key(name, &facts.public_key_hash()).await? else { return Ok(None) };
    let plain = store.unseal(&sealed)?;
    Ok(Some(PrivateKeyPem(std::str::from_utf8(&plain)?.to_owned())))
}

fn broken(violations: Vec<Violation>) -> anyhow::Error {
    let lines = violations.iter().map(|violation| format!("{}: {}", violation.pointer, violation.detail));
    anyhow!("does not decode: {}", lines.collect::<Vec<_>>().join("; "))
}
