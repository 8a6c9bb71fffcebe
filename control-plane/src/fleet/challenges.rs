//! What certificate authorities may ask of the nodes (RFC 8555 section 8): put before all of them, confirmed by each, gone
//! by itself after its time. Nothing of it is stored: whoever put a challenge here puts it here again after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_proto::{MAX_MESSAGE_DATA, v1};
use prost::Message as _;
use tokio::{sync::watch, time::Instant};

use super::{Fleet, Inner, registry::Node};

/// Nodes come back within half a minute after a stream of theirs has ended. For so long one that has left, or that this
/// process has not seen yet, is waited for: it serves clients meanwhile, and may be asked.
const RETURN: Duration = Duration::from_secs(60);
/// Live challenges at a time.
const MAX_CHALLENGES: usize = 4_096;
/// A field's tag and length.
const FRAME: usize = 6;

/// A challenge that nodes answer.
#[derive(Clone)]
pub struct Challenge {
    /// Unique; a challenge of the same id takes the place of the one before.
    pub id: String,
    /// What is asked, and what is answered.
    pub kind: ChallengeKind,
    /// Nodes forget it at this time by themselves.
    pub expires_at: SystemTime,
}

/// How a certificate authority asks.
#[derive(Clone)]
pub enum ChallengeKind {
    /// RFC 8555 8.3: what is answered at /.well-known/acme-challenge/TOKEN for this host.
    Http01 {
        /// A domain, or an address (RFC 8738).
        host: String,
        /// base64url.
        token: String,
        /// The body of the answer.
        key_authorization: String,
    },
    /// RFC 8737: the certificate for a ClientHello with ALPN acme-tls/1 and this name.
    TlsAlpn01 {
        /// As in the server name.
        host: String,
        /// The certificate with the acmeIdentifier extension.
        chain_der: Vec<Vec<u8>>,
        /// PKCS#8.
        key_der: Vec<u8>,
    },
}

impl ChallengeKind {
    /// The name that is validated.
    pub fn host(&self) -> &str {
        match self {
            Self::Http01 { host, .. } | Self::TlsAlpn01 { host, .. } => host,
        }
    }

    /// As RFC 8555 calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Http01 { .. } => "http-01",
            Self::TlsAlpn01 { .. } => "tls-alpn-01",
        }
    }
}

// Written by hand, so that no key gets into a log.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({}, {} for {})", self.id, self.kind.word(), self.kind.host())
    }
}

/// All challenges that are live.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Goes up with each change; 0: nothing was ever put here.
    pub(super) version: u64,
    pub(super) challenges: BTreeMap<String, Challenge>,
}

impl State {
    /// All of it for a node, as of now.
    pub(super) fn messages(&self) -> Vec<v1::Challenges> {
        let now = SystemTime::now();
        let mut messages = vec![v1::Challenges::default()];
        let mut length = 0;
        for challenge in self.challenges.values() {
            let Ok(lasts) = challenge.expires_at.duration_since(now) else { continue };
            let wire = to_wire(challenge, lasts);
            length += wire.encoded_len() + FRAME;
            if length > MAX_MESSAGE_DATA {
                length = wire.encoded_len() + FRAME;
                messages.push(v1::Challenges::default());
            }
            messages.last_mut().into_iter().for_each(|last| last.challenges.push(wire.clone()));
        }
        let parts = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        for (part, message) in (0..).zip(&mut messages) {
            (message.version, message.part, message.parts) = (self.version, part, parts);
        }
        messages
    }
}

fn to_wire(challenge: &Challenge, lasts: Duration) -> v1::Challenge {
    let kind = match challenge.kind.clone() {
        ChallengeKind::Http01 { host, token, key_authorization } => {
            v1::challenge::Kind::Http01(v1::Http01 { host, token, key_authorization })
        }
        ChallengeKind::TlsAlpn01 { host, chain_der, key_der } => {
            let chain_der = chain_der.into_iter().map(Into::into).collect();
            v1::challenge::Kind::TlsAlpn01(v1::TlsAlpn01 { host, chain_der, key_der: key_der.into() })
        }
    };
    let lasts_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    v1::Challenge { id: challenge.id.clone(), lasts_ms, kind: Some(kind) }
}

/// The challenges, and who has confirmed them.
pub(super) struct Challenges {
    current: watch::Sender<Arc<State>>,
    /// Changes whenever a node may have confirmed, come or gone.
    moved: watch::Sender<()>,
    started: Instant,
}

impl Default for Challenges {
    fn default() -> Self {
        Self { current: watch::Sender::default(), moved: watch::Sender::default(), started: Instant::now() }
    }
}

impl Challenges {
    /// Starts with a value.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.current.subscribe()
    }

    /// A node has confirmed a version, came or went.
    pub(super) fn moved(&self) {
        self.moved.send_replace(());
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Challenge>)) -> u64 {
        let mut version = 0;
        self.current.send_modify(|state| {
            let now = SystemTime::now();
            let mut next = State::clone(state);
            next.challenges.retain(|_, challenge| challenge.expires_at > now);
            change(&mut next.challenges);
            next.version += 1;
            version = next.version;
            *state = Arc::new(next);
        });
        version
    }
}

impl Fleet {
    /// Puts challenges before all nodes; gives the version to wait for.
    pub fn add_challenges(&self, challenges: Vec<Challenge>) -> u64 {
        self.0.challenges.change(|live| {
            for challenge in challenges {
                if live.len() >= MAX_CHALLENGES && !live.contains_key(&challenge.id) {
                    tracing::warn!(
                        host = challenge.kind.host(),
                        "not put before the nodes: too many challenges"
                    );
                    continue;
                }
                live.insert(challenge.id.clone(), challenge);
            }
        })
    }

    /// Waits until every connected node that could be asked holds this version. Err: those that did not confirm in time, by
    /// name. A node that was here lately counts, too: it goes on to serve clients without us. Nodes that cannot answer
    /// challenges are named without waiting for them.
    pub async fn challenges_confirmed(&self, version: u64, deadline: Duration) -> Result<(), Vec<String>> {
        let inner = &self.0;
        let deadline = Instant::now() + deadline;
        let mut moved = inner.challenges.moved.subscribe();
        let mut seen = BTreeSet::new();
        loop {
            moved.mark_unchanged();
            let open = inner.unconfirmed(version, &mut seen);
            if open.awaited.is_empty() || Instant::now() >= deadline {
                let mut names = open.awaited;
                names.extend(open.unable);
                names.sort_unstable();
                return if names.is_empty() { Ok(()) } else { Err(names) };
            }
            // Looked at again each second, as a node that does not come back ceases to count.
            let look = deadline.min(Instant::now() + Duration::from_secs(1));
            tokio::select! {
                _ = moved.changed() => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    /// Waits until all nodes are assigned this revision or a later one.
    pub async fn planned(&self, revision: u64) {
        self.0.planner.planned(revision).await;
    }

    /// Takes challenges back. Unknown ids are those that have expired.
    pub fn remove_challenges(&self, ids: &[String]) {
        self.0.challenges.change(|live| live.retain(|id, _| !ids.contains(id)));
    }
}

#[derive(Default)]
struct Unconfirmed {
    awaited: Vec<String>,
    unable: Vec<String>,
}

impl Inner {
    /// Who does not hold this version. `seen`: who was connected while this is waited for.
    fn unconfirmed(&self, version: u64, seen: &mut BTreeSet<String>) -> Unconfirmed {
        let mut open = Unconfirmed::default();
        let nodes = self.registry.lock();
        for (name, node) in nodes.iter().filter(|(_, node)| !node.record.banned) {
            if node.live.connected_since.is_some() {
                seen.insert(name.clone());
                if node.live.takes_challenges == Some(false) {
                    open.unable.push(name.clone());
                } else if node.live.challenges < version {
                    open.awaited.push(name.clone());
                }
            } else if seen.contains(name) && !node.live.is_gone || self.may_return(node) {
                open.awaited.push(name.clone());
            }
        }
        open
    }

    /// Whether a node that is not connected is likely to serve clients.
    fn may_return(&self, node: &Node) -> bool {
        let away_since = node.live.left.unwrap_or(self.challenges.started);
        !node.live.is_gone && away_since.elapsed() < RETURN
    }
}
