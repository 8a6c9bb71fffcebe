//! What is true of backends now, as the control plane is told: all after hello, then what changed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use awe4lb_discovery::is_discovered;
use awe4lb_engine::health::Health;
use awe4lb_model::{
    Backend,
    placed::{Number, PlacedPool},
};
use awe4lb_proto::v1;

use super::{hot::MemberView, live::Live, node::unix_millis};

/// Entries in one message.
const ENTRIES_A_MESSAGE: usize = 400;

/// What was sent on this connection, and since when things are as they are.
#[derive(Debug, Default)]
pub struct Board {
    since: HashMap<u64, (Health, i64)>,
    sent: HashMap<u64, v1::BackendHealth>,
    sent_node: Option<(bool, Vec<String>)>,
    sent_sources: Vec<v1::SourceStatus>,
    /// By number.
    pools: HashMap<u64, Known>,
}

/// A pool as it was looked at last.
#[derive(Debug, Clone)]
struct Known {
    edition: u64,
    /// An ejection ends without another edition.
    is_ejecting: bool,
    /// Of its backends.
    numbers: Arc<HashSet<u64>>,
}

impl Board {
    /// A new connection: everything is to be said again.
    pub fn reconnected(&mut self) {
        self.sent.clear();
        self.pools.clear();
        self.sent_node = None;
        self.sent_sources.clear();
    }

    /// The messages to send now; none when nothing changed.
    pub fn changes(
        &mut self,
        live: &Live,
        draining: bool,
        sources: Vec<v1::SourceStatus>,
        now: SystemTime,
    ) -> Vec<v1::Status> {
        let (changed, gone) = self.look_at_pools(live, now);
        let node = (draining, live.running().missing_listeners());
        let is_node_changed = self.sent_node.as_ref() != Some(&node);
        let told = |status: &v1::SourceStatus| self.sent_sources.contains(status);
        let news: Vec<v1::SourceStatus> = sources.iter().filter(|status| !told(status)).cloned().collect();
        self.sent_sources = sources;
        if changed.is_empty() && !is_node_changed && gone.is_empty() && news.is_empty() {
            return Vec::new();
        }
        let chunks: Vec<&[v1::BackendHealth]> =
            if changed.is_empty() { vec![&[]] } else { changed.chunks(ENTRIES_A_MESSAGE).collect() };
        let status = |backends: &[v1::BackendHealth]| v1::Status {
            backends: backends.to_vec(),
            draining: node.0,
            missing_listeners: node.1.clone(),
            ..v1::Status::default()
        };
        let mut messages: Vec<v1::Status> = chunks.into_iter().map(status).collect();
        messages.extend(
            gone.chunks(ENTRIES_A_MESSAGE).map(|gone| v1::Status { gone: gone.to_vec(), ..status(&[]) }),
        );
        messages.extend(
            news.chunks(ENTRIES_A_MESSAGE).map(|news| v1::Status { sources: news.to_vec(), ..status(&[]) }),
        );
        self.sent.extend(changed.into_iter().map(|entry| (entry.number, entry)));
        self.sent_node = Some(node);
        messages
    }

    /// What is to be said of backends, and which discovered ones are none any more. Pools where nothing happened are passed
    /// over: a node may have a hundred thousand backends, of which one changes.
    fn look_at_pools(&mut self, live: &Live, now: SystemTime) -> (Vec<v1::BackendHealth>, Vec<u64>) {
        let (mut changed, mut left) = (Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.pools);
        for pool in live.path().pools() {
            // Read first: what changes meanwhile is looked at again.
            let edition = pool.edition();
            let placed = pool.placed();
            let known = before.remove(&placed.number.0);
            if let Some(known) = known.as_ref().filter(|known| known.edition == edition && !known.is_ejecting)
            {
                self.pools.insert(placed.number.0, known.clone());
                continue;
            }
            let members = pool.members();
            let discovered = discovered(&placed);
            let numbers: Arc<HashSet<u64>> = Arc::new(members.iter().map(|member| member.number.0).collect());
            let is_ejecting = members.iter().any(|member| member.ejected);
            for member in members {
                let discovered = discovered.get(&member.number).copied().map(|backend| v1::Discovered {
                    pool: placed.number.0,
                    name: backend.name.to_string(),
                    address: backend.address.to_string(),
                    zone: backend.zone.as_deref().unwrap_or_default().to_owned(),
                    priority: backend.priority,
                });
                let entry = v1::BackendHealth { discovered, ..self.entry(member, now) };
                if self.sent.get(&entry.number) != Some(&entry) {
                    changed.push(entry);
                }
            }
            let known = known.into_iter().flat_map(|known| known.numbers.iter().copied().collect::<Vec<_>>());
            left.extend(known.filter(|number| !numbers.contains(number)));
            self.pools.insert(placed.number.0, Known { edition, is_ejecting, numbers });
        }
        // Pools that are gone.
        left.extend(before.values().flat_map(|known| known.numbers.iter().copied()));
        for number in &left {
            self.since.remove(number);
        }
        let was_sent: Vec<u64> =
            left.into_iter().filter(|number| self.sent.remove(number).is_some()).collect();
        let gone = was_sent.into_iter().filter(|number| is_discovered(Number(*number))).collect();
        (changed, gone)
    }

    fn entry(&mut self, member: MemberView, now: SystemTime) -> v1::BackendHealth {
        let since = self.since.entry(member.number.0).or_insert((member.health, unix_millis(now)));
        if since.0 != member.health {
            *since = (member.health, unix_millis(now));
        }
        v1::BackendHealth {
            number: member.number.0,
            health: match member.health {
                Health::Unknown => v1::Health::Unknown,
                Health::Up => v1::Health::Up,
                Health::Down => v1::Health::Down,
            }
            .into(),
            reason: member.reason,
            since_unix_ms: since.1,
            ejected: member.ejected,
            resolved: member.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            discovered: None,
        }
    }
}

/// The backends that sources added to a pool.
fn discovered(placed: &PlacedPool) -> HashMap<Number, &Backend> {
    let both = placed.backend_numbers.iter().copied().zip(&placed.pool.backends);
    both.filter(|(number, _)| is_discovered(*number)).collect()
}
