//! What is true of backends now, as the control plane is told: all after hello, then what changed.

use std::{collections::HashMap, time::SystemTime};

use awe4lb_engine::health::Health;
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
}

impl Board {
    /// A new connection: everything is to be said again.
    pub fn reconnected(&mut self) {
        self.sent.clear();
        self.sent_node = None;
    }

    /// The messages to send now; none when nothing changed.
    pub fn changes(&mut self, live: &Live, draining: bool, now: SystemTime) -> Vec<v1::Status> {
        let current: Vec<v1::BackendHealth> = live
            .path()
            .pools()
            .iter()
            .flat_map(|pool| pool.members())
            .map(|member| self.entry(member, now))
            .collect();
        let changed: Vec<v1::BackendHealth> =
            current.iter().filter(|entry| self.sent.get(&entry.number) != Some(entry)).cloned().collect();
        let node = (draining, live.running().missing_listeners());
        let is_node_changed = self.sent_node.as_ref() != Some(&node);
        let is_known: std::collections::HashSet<u64> = current.iter().map(|entry| entry.number).collect();
        self.sent.retain(|number, _| is_known.contains(number));
        self.since.retain(|number, _| is_known.contains(number));
        if changed.is_empty() && !is_node_changed {
            return Vec::new();
        }
        let chunks: Vec<&[v1::BackendHealth]> =
            if changed.is_empty() { vec![&[]] } else { changed.chunks(ENTRIES_A_MESSAGE).collect() };
        let messages = chunks
            .into_iter()
            .map(|chunk| v1::Status {
                backends: chunk.to_vec(),
                draining: node.0,
                missing_listeners: node.1.clone(),
            })
            .collect();
        self.sent.extend(changed.into_iter().map(|entry| (entry.number, entry)));
        self.sent_node = Some(node);
        messages
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
        }
    }
}
