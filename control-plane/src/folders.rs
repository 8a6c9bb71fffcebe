//! Folders with certificates that somebody else renews (certbot, cert-manager, a script): looked at each second, read when a file has
//! changed. A pair that does not fit, as while files are replaced, changes nothing.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use awe4lb_discovery::Allowed;
use awe4lb_model::{FolderCertificate, placed::PrivateKeyPem};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Chain, ChainOrigin, FOLDER_SLOT, Kind},
    events::Events,
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The largest chain or key.
const MAX_FILE: u64 = 1024 * 1024;
/// Chain and key, as they are called by certbot, by Kubernetes, and by others.
const PAIRS: [(&str, &str); 4] = [
    ("fullchain.pem", "privkey.pem"),
    ("tls.crt", "tls.key"),
    ("cert.pem", "key.pem"),
    ("cert.crt", "cert.key"),
];

/// Who reads them. Cheap to clone.
#[derive(Clone)]
pub struct Folders(Arc<Inner>);

struct Inner {
    catalog: Catalog,
    events: Events,
    allowed: Arc<Allowed>,
    read: Mutex<BTreeMap<String, Read>>,
}

/// Of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Read {
    path: Box<str>,
    /// Of the files, when they were read last.
    stamps: Vec<Option<(SystemTime, u64)>>,
    /// Why what lies there does not serve.
    error: Option<String>,
    /// Whether that was told.
    is_told: bool,
}

impl Folders {
    /// Nothing is read yet.
    pub fn new(catalog: Catalog, events: Events, allowed: Allowed) -> Self {
        Self(Arc::new(Inner { catalog, events, allowed: Arc::new(allowed), read: Mutex::default() }))
    }

    /// Why what lies in the folder of a certificate does not serve.
    pub fn error_of(&self, certificate: &str) -> Option<String> {
        self.read().get(certificate)?.error.clone()
    }

    fn read(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Read>> {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut head = self.0.catalog.subscribe();
        let work = async {
            loop {
                let current = head.borrow_and_update().clone();
                let folders: Vec<Arc<FolderCertificate>> = current
                    .model
                    .all(Kind::Certificate)
                    .filter_map(|(_, entry)| Some(entry.folder()?.wanted.clone()))
                    .collect();
                self.read().retain(|name, _| folders.iter().any(|folder| *folder.name.as_str() == **name));
                for folder in &folders {
                    self.look(folder).await;
                }
                let next = async {
                    match folders.is_empty() {
                        true => std::future::pending().await,
                        false => tokio::time::sleep(LOOK).await,
                    }
                };
                tokio::select! {
                    () = next => {}
                    changed = head.changed() => if changed.is_err() { return },
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn look(&self, folder: &Arc<FolderCertificate>) {
        let name = folder.name.to_string();
        let (path, allowed) = (folder.path.clone(), self.0.allowed.clone());
        let known = self.read().get(&name).filter(|read| read.path == path).cloned();
        let before = known.as_ref().map(|read| read.stamps.clone());
        // Files may lie on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let stamps = stamps(&path);
            if before.as_ref() == Some(&stamps) {
                return None;
            }
            Some((stamps, read_pair(&path, &allowed)))
        });
        let Ok(looked) = looked.await else { return };
        let Some((stamps, pair)) = looked else {
            // The same for the second time: it is no file that is being replaced.
            return self.tell(&name);
        };
        let outcome = match pair {
            Ok((chain_pem, key)) => self.take(folder, chain_pem, key).await,
            Err(error) => Err(error),
        };
        let error = outcome.err();
        let read = Read { path: folder.path.clone(), stamps, error, is_told: false };
        self.read().insert(name, read);
    }

    /// Says once why something does not serve.
    fn tell(&self, name: &str) {
        let error = {
            let mut read = self.read();
            let Some(one) = read.get_mut(name).filter(|one| !one.is_told) else { return };
            one.is_told = true;
            one.error.clone()
        };
        if let Some(detail) = error {
            tracing::warn!(certificate = name, "what lies in the folder does not serve: {detail}");
            let error = json!({"type": "awe4lb:folder", "detail": detail});
            self.0.events.publish("certificate", &json!({"name": name, "what": "failed", "error": error}));
        }
    }

    async fn take(&self, folder: &FolderCertificate, chain_pem: String, key: String) -> Result<(), String> {
        let chain: Chain = Catalog::read_chain(
            &folder.name,
            FOLDER_SLOT,
            chain_pem,
            PrivateKeyPem(key),
            ChainOrigin::Folder,
        )
        .map_err(|error| error.to_string())?;
        let head = self.0.catalog.head();
        let serves = head.model.get(Kind::Certificate, folder.name.as_str()).and_then(|entry| entry.folder());
        if serves.is_some_and(|serves| {
            serves.chain.facts == chain.facts && serves.chain.chain_pem == chain.chain_pem
        }) {
            return Ok(());
        }
        let not_after = chain.facts.not_after.clone();
        self.0.catalog.install_read(folder, chain).await.map_err(|error| error.to_string())?;
        let (name, path) = (folder.name.as_str(), &*folder.path);
        tracing::info!(certificate = name, path, not_after, "read from its folder");
        self.0
            .events
            .publish("certificate", &json!({"name": name, "what": "changed", "notAfter": not_after}));
        Ok(())
    }
}

/// Times and lengths of what the files lead to: certbot replaces links.
fn stamps(folder: &str) -> Vec<Option<(SystemTime, u64)>> {
    let files = PAIRS.iter().flat_map(|(chain, key)| [chain, key]);
    let stamp = |file: &&str| {
        let metadata = std::fs::metadata(Path::new(folder).join(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.map(stamp).collect()
}

/// The first pair that is there.
fn read_pair(folder: &str, allowed: &Allowed) -> Result<(String, String), String> {
    let is_there = |file: &str| Path::new(folder).join(file).exists();
    let Some((chain, key)) = PAIRS.iter().find(|(chain, key)| is_there(chain) && is_there(key)) else {
        let known: Vec<String> = PAIRS.iter().map(|(chain, key)| format!("{chain} and {key}")).collect();
        return Err(format!("{folder} has no pair of files that is known: {}", known.join("; ")));
    };
    let read = |file: &str| {
        use std::io::Read as _;
        let path = format!("{}/{file}", folder.trim_end_matches('/'));
        allowed.file(&path).map_err(|failure| failure.0)?;
        let cannot = |error: std::io::Error| format!("{path}: {error}");
        let mut text = String::new();
        std::fs::File::open(&path)
            .map_err(cannot)?
            .take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(cannot)?;
        Ok::<_, String>(text)
    };
    Ok((read(chain)?, read(key)?))
}
