//! One object: what the user wrote, what it means, and its numbers.

use std::collections::BTreeMap;

use awe4lb_model::placed::{Number, PlacedCertificate, PlacedListener, PlacedPool, PrivateKeyPem};
use awe4lb_model::{
    AddressList, Certificate, Listener, Pool, SniMap,
    acme::{AcmeAccount, Secret},
};
use serde_json::{Value, json};

use super::{CertificateFacts, Chain, Folder, Issued};

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The one object `defaults`.
    Defaults,
    /// Where traffic enters.
    Listener,
    /// Where it goes.
    Pool,
    /// What TLS is terminated with.
    Certificate,
    /// Addresses by name.
    AddressList,
    /// From server names to pools.
    Map,
    /// An account with a certificate authority.
    AcmeAccount,
}

impl Kind {
    /// Those that come by name.
    pub const NAMED: [Self; 6] =
        [Self::Listener, Self::Pool, Self::Certificate, Self::AddressList, Self::Map, Self::AcmeAccount];

    /// As in changes and in the store.
    pub fn word(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Listener => "listener",
            Self::Pool => "pool",
            Self::Certificate => "certificate",
            Self::AddressList => "addressList",
            Self::Map => "map",
            Self::AcmeAccount => "acmeAccount",
        }
    }

    /// As in documents.
    pub fn field(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Listener => "listeners",
            Self::Pool => "pools",
            Self::Certificate => "certificates",
            Self::AddressList => "addressLists",
            Self::Map => "maps",
            Self::AcmeAccount => "acmeAccounts",
        }
    }

    /// The field of an object that holds its parts.
    pub fn parts_field(self) -> Option<&'static str> {
        match self {
            Self::Listener => Some("rules"),
            Self::Pool => Some("backends"),
            Self::Defaults | Self::Certificate | Self::AddressList | Self::Map | Self::AcmeAccount => None,
        }
    }

    /// By [`Self::word`].
    pub fn of_word(word: &str) -> Option<Self> {
        std::iter::once(Self::Defaults).chain(Self::NAMED).find(|kind| kind.word() == word)
    }
}

/// What an object means, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Noun {
    Listener(Listener),
    Pool(Pool),
    Certificate(Certificate, PrivateKeyPem, CertificateFacts),
    /// With the edition of its entries.
    AddressList(AddressList, u64),
    Map(SniMap),
    /// A certificate that is issued.
    Issued(Issued),
    /// A certificate in a folder.
    Folder(Folder),
    /// With the key of its external binding.
    AcmeAccount(AcmeAccount, Option<Secret>),
}

impl Noun {
    /// Names of its parts, in order.
    pub(super) fn part_names(&self) -> Vec<&str> {
        match self {
            Self::Listener(listener) => listener.rules.iter().map(|rule| rule.name.as_str()).collect(),
            Self::Pool(pool) => pool.backends.iter().map(|backend| backend.name.as_str()).collect(),
            Self::Certificate(..)
            | Self::AddressList(..)
            | Self::Map(_)
            | Self::Issued(_)
            | Self::Folder(_)
            | Self::AcmeAccount(..) => Vec::new(),
        }
    }
}

/// An object of the newest revision.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Never reused.
    pub number: u64,
    /// The revision that last changed it: its ETag.
    pub revision: u64,
    /// When that was, RFC 3339.
    pub updated_at: String,
    /// What the user wrote, names made where there were none, without keys.
    pub body: Value,
    /// Numbers of rules or backends.
    pub parts: BTreeMap<String, u64>,
    pub(super) noun: Noun,
}

impl Entry {
    /// Its ETag.
    pub fn etag(&self) -> String {
        match self.edition() {
            0 => format!("\"{}\"", self.revision),
            edition => format!("\"{}.{edition}\"", self.revision),
        }
    }

    /// Of an address list: how often its entries changed. Else 0.
    pub fn edition(&self) -> u64 {
        if let Noun::AddressList(_, edition) = &self.noun { *edition } else { 0 }
    }

    /// Of an address list: with its entries.
    pub fn address_list(&self) -> Option<&AddressList> {
        if let Noun::AddressList(list, _) = &self.noun { Some(list) } else { None }
    }

    /// Of a map: with its entries.
    pub fn map(&self) -> Option<&SniMap> {
        if let Noun::Map(map) = &self.noun { Some(map) } else { None }
    }

    /// What the user wrote, with the entries of an address list.
    pub fn intent(&self) -> Value {
        let mut body = self.body.clone();
        if let (Some(list), Some(body)) = (self.address_list(), body.as_object_mut()) {
            body.insert("entries".into(), super::lists::entries_json(list));
        }
        body
    }

    /// Of a certificate: what is in it.
    pub fn certificate(&self) -> Option<&CertificateFacts> {
        match &self.noun {
            Noun::Certificate(_, _, facts) => Some(facts),
            Noun::Issued(issued) => issued.facts(),
            Noun::Folder(folder) => Some(&folder.chain.facts),
            Noun::Listener(_)
            | Noun::Pool(_)
            | Noun::AddressList(..)
            | Noun::Map(_)
            | Noun::AcmeAccount(..) => None,
        }
    }

    /// Of a certificate that is issued.
    pub fn issued(&self) -> Option<&Issued> {
        if let Noun::Issued(issued) = &self.noun { Some(issued) } else { None }
    }

    /// Of a certificate in a folder.
    pub fn folder(&self) -> Option<&Folder> {
        if let Noun::Folder(folder) = &self.noun { Some(folder) } else { None }
    }

    /// Of a certificate: whether it only stands in for one.
    pub fn is_placeholder(&self) -> bool {
        self.issued().is_some_and(Issued::is_placeholder) || self.folder().is_some_and(Folder::is_placeholder)
    }

    /// Of a certificate: what serves, PEM; of several the first.
    pub fn chain_pem(&self) -> Option<&str> {
        match &self.noun {
            Noun::Certificate(certificate, ..) => Some(&certificate.chain_pem),
            Noun::Issued(issued) => issued.serving().next().map(|chain| chain.chain_pem.as_str()),
            Noun::Folder(folder) => Some(&folder.chain.chain_pem),
            _ => None,
        }
    }

    /// Chains that change without a revision.
    pub(super) fn kept_chains(&self) -> &[Chain] {
        match &self.noun {
            Noun::Issued(issued) => &issued.chains,
            Noun::Folder(folder) => std::slice::from_ref(&folder.chain),
            _ => &[],
        }
    }

    /// Of an account: with the key of its external binding.
    pub fn acme_account(&self) -> Option<(&AcmeAccount, Option<&Secret>)> {
        if let Noun::AcmeAccount(account, secret) = &self.noun {
            Some((account, secret.as_ref()))
        } else {
            None
        }
    }

    /// The object as it is answered: with `meta`.
    pub fn to_json(&self) -> Value {
        self.with_meta(self.intent())
    }

    /// The object in a list of objects: without what may be a hundred thousand entries, but with their number.
    pub fn to_short_json(&self) -> Value {
        let mut body = self.body.clone();
        if let (Noun::Map(_), Some(body)) = (&self.noun, body.as_object_mut()) {
            body.shift_remove("entries");
        }
        self.with_meta(body)
    }

    fn with_meta(&self, body: Value) -> Value {
        let mut meta = json!({
            "number": self.number,
            "etag": self.etag(),
            "revision": self.revision,
            "updatedAt": self.updated_at,
        });
        if let (Some(facts), Some(meta)) = (self.certificate(), meta.as_object_mut()) {
            meta.insert("hasKey".into(), true.into());
            if let Ok(Value::Object(facts)) = serde_json::to_value(facts) {
                meta.extend(facts);
            }
        }
        let entries = self.address_list().map(|list| list.entries.len());
        if let (Some(entries), Some(meta)) =
            (entries.or(self.map().map(|map| map.entries.len())), meta.as_object_mut())
        {
            meta.insert("entries".into(), entries.into());
        }
        let mut object = serde_json::Map::new();
        object.insert("meta".into(), meta);
        if let Value::Object(fields) = body {
            object.extend(fields);
        }
        Value::Object(object)
    }

    fn numbers_of_parts(&self) -> Vec<Number> {
        let number = |name: &str| Number(self.parts.get(name).copied().unwrap_or(0));
        self.noun.part_names().into_iter().map(number).collect()
    }

    pub(super) fn placed_listener(&self) -> Option<PlacedListener> {
        let Noun::Listener(listener) = &self.noun else { return None };
        Some(PlacedListener {
            number: Number(self.number),
            rule_numbers: self.numbers_of_parts(),
            listener: listener.clone(),
        })
    }

    pub(super) fn placed_pool(&self) -> Option<PlacedPool> {
        let Noun::Pool(pool) = &self.noun else { return None };
        Some(PlacedPool {
            number: Number(self.number),
            backend_numbers: self.numbers_of_parts(),
            pool: pool.clone(),
        })
    }

    pub(super) fn placed_certificates(&self) -> Vec<PlacedCertificate> {
        match &self.noun {
            Noun::Certificate(certificate, key, _) => {
                vec![PlacedCertificate { certificate: certificate.clone(), key: key.clone(), ocsp: None }]
            }
            Noun::Issued(issued) => issued.placed().collect(),
            Noun::Folder(folder) => vec![folder.placed()],
            Noun::Listener(_)
            | Noun::Pool(_)
            | Noun::AddressList(..)
            | Noun::Map(_)
            | Noun::AcmeAccount(..) => Vec::new(),
        }
    }
}
