//! The configuration: the model in memory, its one writer, and the head that everything else watches.
//!
//! A write decodes what it touches, checks what that touches, and is one transaction; only what is committed is
//! published.

mod certificate;
mod change;
mod draft;
mod draft_document;
mod entry;
mod folder;
mod issued;
mod lists;
mod model;
mod next;
mod replace;
mod staples;
#[cfg(test)]
mod tests;
mod uses;
mod write;

use std::sync::Arc;

use awe4lb_model::placed::NodeConfig;
use tokio::sync::{Mutex, watch};

use crate::store::Store;

pub use certificate::CertificateFacts;
pub use change::{Edit, Operation, Precondition, WriteError};
pub use entry::{Entry, Kind};
pub use folder::{Folder, SLOT as FOLDER_SLOT};
pub use issued::{Chain, InstallError, Issued, Origin as ChainOrigin};
pub use lists::{EntriesChange, text as entry_text};
pub use model::Model;
pub use staples::Staples;
pub use write::{Origin, Outcome, Write, WriteWhat};

/// One revision of the configuration, as it is now.
#[derive(Debug, Clone)]
pub struct Head {
    /// Identity of the database.
    pub lineage: String,
    /// The newest revision; 0: nothing was ever written.
    pub revision: u64,
    /// What nodes run, with numbers and keys.
    pub placed: Arc<NodeConfig>,
    /// What users wrote, and what is known of it.
    pub model: Arc<Model>,
}

impl Head {
    /// Of the whole document: entries of address lists count, too.
    pub fn etag(&self) -> String {
        match self.model.editions() {
            0 => format!("\"{}\"", self.revision),
            editions => format!("\"{}.{editions}\"", self.revision),
        }
    }
}

/// The configuration. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    store: Store,
    head: Arc<watch::Sender<Arc<Head>>>,
    /// Held by the one write at a time; the next number that was never given.
    next_number: Arc<Mutex<u64>>,
}

impl Catalog {
    /// Loads the newest revision.
    pub async fn open(store: Store) -> anyhow::Result<Self> {
        let lineage = store.lineage().await?;
        let revision = store.head().await?;
        let next_number = store.next_number().await?;
        let model = Model::load(&store, revision).await?;
        let placed = Arc::new(model.placed());
        let head = Head { lineage, revision, placed, model: Arc::new(model) };
        let head = watch::Sender::new(Arc::new(head));
        Ok(Self { store, head: Arc::new(head), next_number: Arc::new(Mutex::new(next_number)) })
    }

    /// The newest revision.
    pub fn head(&self) -> Arc<Head> {
        self.head.borrow().clone()
    }

    /// Every revision from now on, the newest first when several come at once.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Head>> {
        self.head.subscribe()
    }

    /// Where the history is.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
