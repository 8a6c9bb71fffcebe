//! Certificates that are issued: what was asked for, the chains that are there, and how a new one takes its place, without
//! a revision.

use std::sync::Arc;

use awe4lb_model::{
    Certificate, Name,
    acme::{AcmeCertificate, KeyType, Secret},
    document::Violation,
    placed::{PlacedCertificate, PrivateKeyPem},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};

use super::{
    Catalog, CertificateFacts, Entry, Head, Kind, Model, WriteError, draft::Drafts, entry::Noun,
    model::stored_key,
};
use crate::store::{
    Store,
    issued::{StoredChain, forget_private_key, write_issued_chain},
    objects::write_private_key,
};

/// Where a chain comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An authority, known by its directory and profile, with the names that were ordered.
    Acme(String),
    /// A folder of the control plane.
    Folder,
    /// A user, before ACME was asked for: it serves until the first chain is issued.
    Uploaded,
    /// Made here and signed by nobody, so that the listener can run.
    Placeholder,
}

impl Origin {
    /// In the API and the store.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Acme(_) => "acme",
            Self::Folder => "directory",
            Self::Uploaded => "uploaded",
            Self::Placeholder => "placeholder",
        }
    }

    fn of(stored: &StoredChain) -> Self {
        match stored.origin.as_str() {
            "acme" => Self::Acme(stored.source.clone()),
            "uploaded" => Self::Uploaded,
            "directory" => Self::Folder,
            _ => Self::Placeholder,
        }
    }

    fn source(&self) -> &str {
        if let Self::Acme(source) = self { source } else { "" }
    }
}

/// A chain with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Of its leaf.
    pub key_type: KeyType,
    /// Who made it.
    pub origin: Origin,
    /// PEM, leaf first.
    pub chain_pem: String,
    /// The leaf's.
    pub key: PrivateKeyPem,
    /// What the leaf says.
    pub facts: CertificateFacts,
    /// RFC 3339.
    pub issued_at: String,
}

/// A certificate that is issued, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What the user wants.
    pub wanted: Arc<AcmeCertificate>,
    /// Of its hook.
    pub secret: Option<Secret>,
    /// At least one; of each key type at most one.
    pub chains: Arc<[Chain]>,
}

impl Issued {
    /// The chain of a key type.
    pub fn chain(&self, key_type: KeyType) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.key_type == key_type)
    }

    /// Whether nothing is issued yet, and nothing was there before.
    pub fn is_placeholder(&self) -> bool {
        self.chains.iter().all(|chain| chain.origin == Origin::Placeholder)
    }

    /// The chains that nodes get.
    pub fn serving(&self) -> impl Iterator<Item = &Chain> {
        self.placed_chains().into_iter().map(|(_, chain)| chain)
    }

    /// What nodes get: a placeholder only where there is nothing else.
    fn placed_chains(&self) -> Vec<(Name, &Chain)> {
        let real = self.chains.iter().any(|chain| chain.origin != Origin::Placeholder);
        let mut placed: Vec<(Name, &Chain)> = Vec::new();
        for key_type in &self.wanted.key_types {
            let chain = self.chain(*key_type).filter(|chain| !real || chain.origin != Origin::Placeholder);
            placed.extend(chain.and_then(|chain| Some((self.wanted.placed_name(*key_type)?, chain))));
        }
        if placed.is_empty() {
            // Of a key type that is no longer wanted: it serves until the first wanted one is there.
            let any = self.chains.iter().find(|chain| !real || chain.origin != Origin::Placeholder);
            placed.extend(any.map(|chain| (self.wanted.name.clone(), chain)));
        }
        placed
    }

    pub(super) fn placed_names(&self) -> Vec<Name> {
        self.placed_chains().into_iter().map(|(name, _)| name).collect()
    }

    pub(super) fn placed(&self) -> impl Iterator<Item = PlacedCertificate> {
        self.placed_chains().into_iter().map(|(name, chain)| PlacedCertificate {
            certificate: Certificate { name, chain_pem: chain.chain_pem.clone() },
            key: chain.key.clone(),
            ocsp: None,
        })
    }

    /// The first of what nodes get.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        self.placed_chains().first().map(|(_, chain)| &chain.facts)
    }
}

/// A write of a certificate by ACME: with the chains that are known, or a placeholder.
pub(super) async fn draft(
    store: &Store,
    model: &Model,
    wanted: AcmeCertificate,
    given: Option<Secret>,
    drafts: &mut Drafts,
) -> Result<Result<Noun, Vec<Violation>>, WriteError> {
    let name = wanted.name.to_string();
    let belongs_to = wanted.dns.as_ref().and_then(|dns| dns.hook.secret_of());
    let secret = match draft_secret(store, Kind::Certificate, &name, belongs_to, given, drafts).await? {
        Some(secret) => Some(secret),
        // HTTP services may do without one, a key is nothing without.
        None if wanted.dns.as_ref().is_some_and(|dns| dns.hook.word() == "rfc2136")
            && belongs_to.is_some() =>
        {
            let detail =
                format!("certificate {name:?} comes without the secret of its key, and none is stored");
            let violation = Violation::new("/acme/dns", None, "missing-secret", detail);
            return Ok(Err(vec![violation.hint("send the secret along; it never comes back out")]));
        }
        None => None,
    };
    let mut chains = match model.get(Kind::Certificate, &name).map(|entry| &entry.noun) {
        Some(Noun::Issued(issued)) => issued.chains.to_vec(),
        Some(Noun::Certificate(certificate, key, facts)) => {
            vec![uploaded(&wanted, certificate, key, facts)]
        }
        _ => load_chains(store, &name).await?,
    };
    if chains.is_empty() {
        let names = wanted.domains.iter().map(|domain| domain.to_string()).collect();
        let chain = placeholder(&wanted.name, names).map_err(|error| {
            WriteError::Storage(format!("no placeholder can be made for {name:?}: {error}"))
        })?;
        chains.push(chain);
    }
    drafts.new_chains.push(name);
    Ok(Ok(Noun::Issued(Issued { wanted: Arc::new(wanted), secret, chains: chains.into() })))
}

/// The secret that came along, or the stored one. One that is new is stored with the write.
pub(super) async fn draft_secret(
    store: &Store,
    kind: Kind,
    name: &str,
    belongs_to: Option<&str>,
    given: Option<Secret>,
    drafts: &mut Drafts,
) -> anyhow::Result<Option<Secret>> {
    let Some(belongs_to) = belongs_to else { return Ok(None) };
    let stored = store.secret(kind.word(), name, belongs_to).await?;
    if let Some(given) = given
        && stored.as_ref() != Some(&given)
    {
        let new = (kind, name.to_owned(), belongs_to.to_owned(), given.clone());
        drafts.new_secrets.push(new);
        return Ok(Some(given));
    }
    Ok(stored)
}

/// What was uploaded serves on until something is issued.
fn uploaded(
    wanted: &AcmeCertificate,
    certificate: &Certificate,
    key: &PrivateKeyPem,
    facts: &CertificateFacts,
) -> Chain {
    let key_type = match facts.key_type.as_str() {
        "ecdsa-256" => KeyType::P256,
        "ecdsa-384" => KeyType::P384,
        "rsa-2048" => KeyType::Rsa2048,
        _ => wanted.key_types.first().copied().unwrap_or(KeyType::P256),
    };
    Chain {
        key_type,
        origin: Origin::Uploaded,
        chain_pem: certificate.chain_pem.clone(),
        key: key.clone(),
        facts: facts.clone(),
        issued_at: facts.not_before.clone(),
    }
}

/// What is stored of a certificate.
pub(super) async fn load(store: &Store, wanted: AcmeCertificate) -> anyhow::Result<Issued> {
    let name = wanted.name.as_str();
    let secret = match wanted.dns.as_ref().and_then(|dns| dns.hook.secret_of()) {
        Some(of) => store.secret(Kind::Certificate.word(), name, of).await?,
        None => None,
    };
    let chains = load_chains(store, name).await?.into();
    Ok(Issued { wanted: Arc::new(wanted), secret, chains })
}

/// The chains that are stored.
pub(super) async fn load_chains(store: &Store, name: &str) -> anyhow::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    let Ok(of) = name.parse::<Name>() else { return Ok(chains) };
    for stored in store.issued_chains(name).await? {
        let certificate = Certificate { name: of.clone(), chain_pem: stored.chain.clone() };
        let Ok(facts) = CertificateFacts::read(&certificate) else {
            tracing::error!(certificate = name, "a stored chain cannot be read: it is ordered anew");
            continue;
        };
        let Some(key) = stored_key(store, name, &facts).await? else {
            tracing::error!(certificate = name, "the key of a stored chain is not there: it is ordered anew");
            continue;
        };
        chains.push(Chain {
            key_type: stored.key_type,
            origin: Origin::of(&stored),
            chain_pem: stored.chain,
            key,
            facts,
            issued_at: stored.issued_at,
        });
    }
    Ok(chains)
}

/// Signed by itself: clients do not trust it, but the listener runs, and all its other certificates with it.
pub(super) fn placeholder(name: &Name, names: Vec<String>) -> Result<Chain, String> {
    let text = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(names).map_err(text)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "awe4lb placeholder: not issued yet");
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(3_650);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
    let chain_pem = params.self_signed(&key).map_err(text)?.pem();
    let facts = CertificateFacts::read(&Certificate { name: name.clone(), chain_pem: chain_pem.clone() })
        .map_err(|violation| violation.detail)?;
    Ok(Chain {
        key_type: KeyType::P256,
        origin: Origin::Placeholder,
        chain_pem,
        key: PrivateKeyPem(key.serialize_pem()),
        facts,
        issued_at: jiff::Timestamp::now().to_string(),
    })
}

/// Stores the chains of a certificate with their keys.
pub(super) async fn write_chains(
    tx: &mut sqlx::Transaction<'_, sqlx::Sqlite>,
    store: &Store,
    name: &str,
    chains: &[Chain],
) -> Result<(), WriteError> {
    for chain in chains {
        let stored = StoredChain {
            key_type: chain.key_type,
            origin: chain.origin.word().to_owned(),
            source: chain.origin.source().to_owned(),
            chain: chain.chain_pem.clone(),
            issued_at: chain.issued_at.clone(),
        };
        write_issued_chain(tx, name, &stored).await?;
        let sealed = store.seal(chain.key.0.as_bytes())?;
        write_private_key(tx, name, &chain.facts.public_key_hash(), &sealed, &chain.issued_at).await?;
    }
    Ok(())
}

/// Why a chain was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It cannot be used.
    #[error("{0}")]
    Unfit(String),
    /// The user wants something else by now.
    #[error("the certificate was changed while it was issued")]
    Changed,
    /// It is not stored.
    #[error("{0}")]
    Storage(String),
}

impl Catalog {
    /// Reads a chain, and whether its key fits.
    pub fn read_chain(
        name: &Name,
        key_type: KeyType,
        chain_pem: String,
        key: PrivateKeyPem,
        origin: Origin,
    ) -> Result<Chain, InstallError> {
        let unfit = |violation: Violation| InstallError::Unfit(violation.detail);
        let certificate = Certificate { name: name.clone(), chain_pem };
        let facts = CertificateFacts::read(&certificate).map_err(unfit)?;
        facts.check_key(&key).map_err(unfit)?;
        Ok(Chain {
            key_type,
            origin,
            chain_pem: certificate.chain_pem,
            key,
            facts,
            issued_at: jiff::Timestamp::now().to_string(),
        })
    }

    /// Puts a chain in the place of the one of its key type, and of all that were only there meanwhile. No revision: the
    /// nodes get it as a changed resource.
    pub async fn install(&self, wanted: &AcmeCertificate, chain: Chain) -> Result<(), InstallError> {
        // A caller that goes away does not stop it half way: what is committed is published.
        let (this, wanted) = (self.clone(), wanted.clone());
        tokio::spawn(async move { this.install_now(&wanted, chain).await })
            .await
            .unwrap_or_else(|error| Err(InstallError::Storage(format!("the write ended: {error}"))))
    }

    async fn install_now(&self, wanted: &AcmeCertificate, chain: Chain) -> Result<(), InstallError> {
        let _writing = self.next_number.lock().await;
        let head = self.head();
        let name = wanted.name.as_str();
        let Some(entry) = head.model.get(Kind::Certificate, name) else { return Err(InstallError::Changed) };
        let Noun::Issued(issued) = &entry.noun else { return Err(InstallError::Changed) };
        if *issued.wanted != *wanted {
            return Err(InstallError::Changed);
        }
        let goes = |old: &Chain| {
            old.key_type == chain.key_type
                || old.origin == Origin::Placeholder
                || !wanted.key_types.contains(&old.key_type)
        };
        let mut chains: Vec<Chain> = issued.chains.iter().filter(|old| !goes(old)).cloned().collect();
        chains.push(chain.clone());
        self.store_install(name, &issued.chains, &chain, goes)
            .await
            .map_err(|error| InstallError::Storage(error.to_string()))?;
        let noun = Noun::Issued(Issued { chains: chains.into(), ..issued.clone() });
        self.publish_beside(&head, name, Entry { noun, ..Entry::clone(entry) });
        Ok(())
    }

    /// A new head without a revision: the same configuration, with another chain. Called by who holds the lock of writes.
    pub(super) fn publish_beside(&self, head: &Head, name: &str, entry: Entry) {
        let mut model = Model::clone(&head.model);
        model.objects.entry(Kind::Certificate).or_default().insert(name.to_owned(), Arc::new(entry));
        self.head.send_replace(Arc::new(Head {
            lineage: head.lineage.clone(),
            revision: head.revision,
            placed: Arc::new(model.placed()),
            model: Arc::new(model),
        }));
    }

    /// Stores a chain, and forgets those of `old` that go.
    pub(super) async fn store_install(
        &self,
        name: &str,
        old: &[Chain],
        chain: &Chain,
        goes: impl Fn(&Chain) -> bool,
    ) -> Result<(), WriteError> {
        let mut tx = self.store.writer().begin_with("BEGIN IMMEDIATE").await?;
        for old in old.iter().filter(|old| goes(old)) {
            sqlx::query("DELETE FROM issued_chains WHERE certificate = ? AND key_type = ?")
                .bind(name)
                .bind(old.key_type.word())
                .execute(&mut *tx)
                .await?;
            // What a user uploaded belongs to a revision, which may be restored.
            if old.origin != Origin::Uploaded {
                forget_private_key(&mut tx, name, &old.facts.public_key_hash()).await?;
            }
        }
        write_chains(&mut tx, &self.store, name, std::slice::from_ref(chain)).await?;
        tx.commit().await?;
        Ok(())
    }
}
