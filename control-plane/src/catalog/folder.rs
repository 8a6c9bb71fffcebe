//! Certificates that lie in folders of the control plane: the chain that was read last, and how a new one takes its place, without a
//! revision. Who reads them is [`crate::folders`].

use std::sync::Arc;

use awe4lb_model::{Certificate, FolderCertificate, acme::KeyType, placed::PlacedCertificate};

use super::{
    Catalog, Chain, ChainOrigin, Entry, InstallError, Kind, Model, WriteError,
    draft::Drafts,
    entry::Noun,
    issued::{load_chains, placeholder},
};
use crate::store::Store;

/// Under which its chain is stored: there is one, whatever its key.
pub const SLOT: KeyType = KeyType::P256;

/// A certificate in a folder, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// What the user wants.
    pub wanted: Arc<FolderCertificate>,
    /// What was read last; a placeholder before that.
    pub chain: Chain,
}

impl Folder {
    pub(super) fn placed(&self) -> PlacedCertificate {
        let name = self.wanted.name.clone();
        PlacedCertificate {
            certificate: Certificate { name, chain_pem: self.chain.chain_pem.clone() },
            key: self.chain.key.clone(),
            ocsp: None,
        }
    }

    /// Whether nothing was read yet.
    pub fn is_placeholder(&self) -> bool {
        self.chain.origin == ChainOrigin::Placeholder
    }
}

/// A write of a certificate in a folder: with the chain that is known, or a placeholder.
pub(super) async fn draft(
    store: &Store,
    model: &Model,
    wanted: FolderCertificate,
    drafts: &mut Drafts,
) -> Result<Noun, WriteError> {
    let known = match model.get(Kind::Certificate, wanted.name.as_str()).map(|entry| &entry.noun) {
        Some(Noun::Folder(folder)) => Some(folder.clone()),
        _ => None,
    };
    let folder = match known {
        // From another folder comes another certificate; the old one serves until it is read.
        Some(folder) => Folder { wanted: Arc::new(wanted), ..folder },
        None => load(store, wanted).await?,
    };
    drafts.new_chains.push(folder.wanted.name.to_string());
    Ok(Noun::Folder(folder))
}

/// What is stored of it.
pub(super) async fn load(store: &Store, wanted: FolderCertificate) -> anyhow::Result<Folder> {
    let stored = load_chains(store, wanted.name.as_str()).await?;
    let chain = match stored.into_iter().find(|chain| chain.origin == ChainOrigin::Folder) {
        Some(chain) => chain,
        None => placeholder(&wanted.name, Vec::new()).map_err(anyhow::Error::msg)?,
    };
    Ok(Folder { wanted: Arc::new(wanted), chain })
}

impl Catalog {
    /// Puts what was read from a folder in the place of what was there before.
    pub async fn install_read(&self, wanted: &FolderCertificate, chain: Chain) -> Result<(), InstallError> {
        let (this, wanted) = (self.clone(), wanted.clone());
        tokio::spawn(async move { this.install_read_now(&wanted, chain).await })
            .await
            .unwrap_or_else(|error| Err(InstallError::Storage(format!("the write ended: {error}"))))
    }

    async fn install_read_now(&self, wanted: &FolderCertificate, chain: Chain) -> Result<(), InstallError> {
        let _writing = self.next_number.lock().await;
        let head = self.head();
        let name = wanted.name.as_str();
        let Some(entry) = head.model.get(Kind::Certificate, name) else { return Err(InstallError::Changed) };
        let Noun::Folder(folder) = &entry.noun else { return Err(InstallError::Changed) };
        if *folder.wanted != *wanted {
            return Err(InstallError::Changed);
        }
        self.store_install(name, std::slice::from_ref(&folder.chain), &chain, |_| true)
            .await
            .map_err(|error| InstallError::Storage(error.to_string()))?;
        let noun = Noun::Folder(Folder { wanted: folder.wanted.clone(), chain });
        self.publish_beside(&head, name, Entry { noun, ..Entry::clone(entry) });
        Ok(())
    }
}
