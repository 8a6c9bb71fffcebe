//! The nodes: their records in the store, and what is known of each right now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use awe4lb_proto::{Hash, v1};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use tokio::{sync::watch, time::Instant};

use super::{FleetError, authority::PeerIdentity, now, tokens};
use crate::store::Store;

/// What is stored of a node.
#[derive(Debug, Clone)]
pub struct Record {
    /// Unique.
    pub name: String,
    /// From its join token.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of its public key.
    pub key_hash: Hash,
    /// The key before the last renewal.
    pub previous_key_hash: Option<Hash>,
    /// Of its certificate, Unix seconds.
    pub not_after: i64,
    /// May not connect.
    pub banned: bool,
    /// Is told to take no new connections.
    pub draining: bool,
    /// Unix seconds.
    pub last_seen: Option<i64>,
    /// From its last hello.
    pub facts: Facts,
    /// Of its assignment.
    pub epoch: u64,
    /// Of its assignment; 0: none yet.
    pub sequence: u64,
    /// What it is assigned.
    pub manifest: Option<Hash>,
    /// The manifest that it rejected last.
    pub rejected: Option<Hash>,
    /// Why.
    pub rejection: Option<Rejection>,
}

/// What a hello says about the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Of the software.
    pub version: String,
    /// Hex.
    pub boot_id: String,
    /// Unix milliseconds.
    pub started_unix_ms: i64,
    /// Worker threads.
    pub threads: u32,
    /// Where its `/metrics` are.
    pub admin_address: String,
}

/// A rejection, as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// For people.
    pub message: String,
    /// RFC 3339.
    pub at: String,
    /// Which revision it was.
    pub revision: u64,
    /// The resources at fault.
    pub resources: Vec<Fault>,
}

/// One resource that does not work on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// `listener`, `pool`, …; `node` for the node as a whole.
    pub kind: String,
    /// Which.
    pub name: String,
    /// Stable.
    pub code: String,
    /// JSON pointer in the resource.
    pub field_path: String,
    /// For people.
    pub message: String,
}

/// What is true while a node is connected, or was when it left.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Unix seconds; `None`: not connected.
    pub connected_since: Option<i64>,
    /// What it says it runs.
    pub running: Option<v1::Assignment>,
    /// How far it came with what it was sent last.
    pub phase: Option<v1::Phase>,
    /// It built something else than it was sent.
    pub diverged: bool,
    /// Says so itself, by command or by its local socket.
    pub draining: bool,
    /// What does not work although it runs.
    pub faults: Vec<Fault>,
    /// Listeners that it could not start from its cache.
    pub missing_listeners: Vec<String>,
    /// Of the process.
    pub gauges: Option<v1::NodeGauges>,
    /// By backend number.
    pub health: HashMap<u64, v1::BackendHealth>,
    /// Of the sources that it asks itself, by number of the pool and id.
    pub sources: HashMap<(u64, String), v1::SourceStatus>,
    /// Why its stream was refused, if it was.
    pub refused: Option<Fault>,
    /// Whether it can answer the challenges of certificate authorities, once it has said so.
    pub takes_challenges: Option<bool>,
    /// Whether it can send the answers of OCSP responders along with certificates, once it has said so.
    pub takes_staples: Option<bool>,
    /// The version of the challenges that it holds.
    pub challenges: u64,
    /// It has said its last word: the process ends.
    pub is_gone: bool,
    /// When its stream ended.
    pub left: Option<Instant>,
}

/// What a stream is to do.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// End the stream, and say why.
    pub stop: Option<&'static str>,
    /// The wish of the operator; `None`: none yet.
    pub drain: Option<bool>,
    /// Goes up when a rejected manifest is to be tried again.
    pub retry: u64,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Stored.
    pub record: Record,
    /// Now.
    pub live: Live,
    session: Option<(u64, watch::Sender<Orders>)>,
}

/// All nodes, in order of name.
pub struct Registry {
    nodes: Mutex<BTreeMap<String, Node>>,
    next_session: std::sync::atomic::AtomicU64,
}

impl Registry {
    /// Loads the records.
    pub async fn open(store: &Store) -> Result<Self, FleetError> {
        let rows = sqlx::query("SELECT * FROM nodes").fetch_all(store.reader()).await?;
        let mut nodes = BTreeMap::new();
        for row in &rows {
            let record = record_of(row)?;
            nodes.insert(record.name.clone(), Node { record, live: Live::default(), session: None });
        }
        Ok(Self { nodes: Mutex::new(nodes), next_session: 1.into() })
    }

    /// All of them. Held shortly, never over an await.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a stored record into memory, or takes one out that is no longer stored.
    pub async fn reload(&self, store: &Store, name: &str) -> Result<(), FleetError> {
        let row = sqlx::query("SELECT * FROM nodes WHERE name = ?")
            .bind(name)
            .fetch_optional(store.writer())
            .await?;
        let record = row.as_ref().map(record_of).transpose()?;
        let mut nodes = self.lock();
        match record {
            Some(record) => match nodes.get_mut(name) {
                Some(node) => node.record = record,
                None => {
                    let node = Node { record, live: Live::default(), session: None };
                    nodes.insert(name.to_owned(), node);
                }
            },
            None => {
                if let Some(node) = nodes.remove(name) {
                    node.order(|orders| orders.stop = Some("forgotten"));
                }
            }
        }
        Ok(())
    }

    /// Whether the certificate's owner is a node that may connect.
    pub fn admit(&self, peer: &PeerIdentity) -> Result<(), FleetError> {
        let nodes = self.lock();
        let Some(node) = nodes.get(&peer.name) else {
            return Err(FleetError::Refused(format!(
                "there is no node {:?} (any more): join again",
                peer.name
            )));
        };
        if node.record.banned {
            return Err(FleetError::Refused(format!("the node {:?} is banned", peer.name)));
        }
        let known = [Some(node.record.key_hash), node.record.previous_key_hash];
        if !known.contains(&Some(peer.key_hash)) {
            return Err(FleetError::Refused(format!(
                "{:?} is the name of another node: join again",
                peer.name
            )));
        }
        Ok(())
    }

    /// Makes a stream the one of its node; the one before is told to end.
    pub fn begin_session(&self, name: &str) -> Option<(u64, watch::Receiver<Orders>)> {
        let mut nodes = self.lock();
        let node = nodes.get_mut(name).filter(|node| !node.record.banned)?;
        node.order(|orders| orders.stop = Some("replaced"));
        let id = self.next_session.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let orders = Orders { drain: node.record.draining.then_some(true), ..Orders::default() };
        let (sender, receiver) = watch::channel(orders);
        node.session = Some((id, sender));
        node.live = Live { connected_since: Some(now()), ..Live::default() };
        Some((id, receiver))
    }

    /// Notes that a stream has ended, if it is still the one of its node.
    pub fn end_session(&self, name: &str, id: u64) -> bool {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(name).filter(|node| node.is_session(id)) else { return false };
        node.session = None;
        node.live.connected_since = None;
        node.live.left = Some(Instant::now());
        node.record.last_seen = Some(now());
        true
    }

    /// Changes what is known, on behalf of a stream; `None` when the stream is no longer the one of its node.
    pub fn update<T>(&self, name: &str, id: u64, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        self.lock().get_mut(name).filter(|node| node.is_session(id)).map(change)
    }
}

impl Node {
    /// Tells the stream, if there is one.
    pub fn order(&self, change: impl FnOnce(&mut Orders)) {
        if let Some((_, orders)) = &self.session {
            orders.send_modify(change);
        }
    }

    fn is_session(&self, id: u64) -> bool {
        self.session.as_ref().is_some_and(|(of, _)| *of == id)
    }
}

fn record_of(row: &sqlx::sqlite::SqliteRow) -> Result<Record, FleetError> {
    let hash = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| bytes.try_into().ok()).map(Hash);
    let number = |column: &str| row.try_get::<i64, _>(column).map(|value| u64::try_from(value).unwrap_or(0));
    let rejection: Option<String> = row.try_get("rejection")?;
    Ok(Record {
        name: row.try_get("name")?,
        labels: tokens::labels_of(row.try_get("labels")?),
        key_hash: hash(row.try_get("key_hash")?).unwrap_or(Hash([0; 32])),
        previous_key_hash: hash(row.try_get("previous_key_hash")?),
        not_after: row.try_get("not_after")?,
        banned: row.try_get("banned")?,
        draining: row.try_get("draining")?,
        last_seen: row.try_get("last_seen")?,
        facts: serde_json::from_str(row.try_get("facts")?).unwrap_or_default(),
        epoch: number("epoch")?,
        sequence: number("sequence")?,
        manifest: hash(row.try_get("manifest")?),
        rejected: hash(row.try_get("rejected")?),
        rejection: rejection.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

/// A fault as a node reports it.
pub fn fault_of(status: &v1::ResourceStatus) -> Fault {
    let kind = awe4lb_proto::manifest::kind_from_wire(status.kind);
    Fault {
        kind: kind.map_or("node", awe4lb_proto::manifest::kind_word).to_owned(),
        name: limited(&status.name),
        code: limited(&status.code),
        field_path: limited(&status.field_path),
        message: limited(&status.message),
    }
}

/// What a node says is shown to people: not more than fits.
pub fn limited(text: &str) -> String {
    text.chars().take(1_000).collect()
}
