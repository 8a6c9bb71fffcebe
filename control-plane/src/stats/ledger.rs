//! Exactly-once sums of cumulative counters, over the process starts ("boots") of every node. No I/O.
//!
//! Within a boot values only grow, so the largest is the last, however often and in whatever order reports come. A few
//! boots of each node are kept apart, for reports that come late; older ones are folded into one sum.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use awe4lb_proto::v1;
use bytes::Bytes;

use super::values::Values;

/// Boots of a node that may still report. More than two need a node that restarts faster than its last words arrive.
const BOOTS: usize = 4;
/// How many numbers are stored together.
pub const SHARD: u64 = 256;
/// A node that says nothing for so long has no open connections that we know of.
const SILENT: Duration = Duration::from_secs(30);
/// Of a node; more are not ours.
const MAX_NUMBERS: usize = 1_000_000;

/// One process start of a node.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// Random, from the node; empty: the sum of those that are over.
    pub id: Bytes,
    /// Of the last report.
    pub sequence: u64,
    /// By number.
    pub values: HashMap<u64, Values>,
}

#[derive(Debug, Default)]
struct Node {
    past: Boot,
    /// The newest is the last.
    boots: Vec<Boot>,
    heard: Option<Instant>,
}

/// All nodes.
#[derive(Debug, Default)]
pub struct Ledger {
    nodes: HashMap<String, Node>,
}

/// What has to be stored after reports were taken.
#[derive(Debug, Default)]
pub struct Touched {
    /// (node, boot, shard).
    pub shards: BTreeSet<(String, Bytes, u64)>,
    /// (node, boot).
    pub boots: BTreeSet<(String, Bytes)>,
    /// (node, boot): folded into the past.
    pub over: BTreeSet<(String, Bytes)>,
}

impl Ledger {
    /// Puts back what was stored. Boots come in the order in which they began.
    pub fn restore(&mut self, node: &str, boot: Boot) {
        let node = self.nodes.entry(node.to_owned()).or_default();
        if boot.id.is_empty() { node.past = boot } else { node.boots.push(boot) }
    }

    /// Takes a report.
    pub fn take(&mut self, name: &str, report: v1::CounterReport, now: Instant, touched: &mut Touched) {
        let node = self.nodes.entry(name.to_owned()).or_default();
        node.heard = Some(now);
        let at = node.boots.iter().position(|boot| boot.id == report.boot_id);
        let at = at.unwrap_or_else(|| {
            node.boots.push(Boot { id: report.boot_id.clone(), ..Boot::default() });
            node.boots.len() - 1
        });
        if let Some(boot) = node.boots.get_mut(at) {
            let is_newest = report.sequence >= boot.sequence;
            boot.sequence = boot.sequence.max(report.sequence);
            touched.boots.insert((name.to_owned(), boot.id.clone()));
            for counters in report.counters {
                let number = counters.number;
                if boot.values.len() >= MAX_NUMBERS && !boot.values.contains_key(&number) {
                    continue;
                }
                boot.values.entry(number).or_default().follow(counters.into(), is_newest);
                touched.shards.insert((name.to_owned(), boot.id.clone(), number / SHARD));
            }
        }
        while node.boots.len() > BOOTS {
            let over = node.boots.remove(0);
            for (number, values) in &over.values {
                node.past.values.entry(*number).or_default().add(values, false);
                touched.shards.insert((name.to_owned(), Bytes::new(), number / SHARD));
            }
            touched.shards.retain(|(of, boot, _)| of != name || *boot != over.id);
            touched.boots.retain(|(of, boot)| of != name || *boot != over.id);
            touched.over.insert((name.to_owned(), over.id));
        }
    }

    /// What is known of a boot.
    pub fn boot(&self, name: &str, id: &[u8]) -> Option<&Boot> {
        let node = self.nodes.get(name)?;
        if id.is_empty() { Some(&node.past) } else { node.boots.iter().find(|boot| boot.id == id) }
    }

    /// The nodes that have ever reported.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Sums by number over the boots of one node, or over all nodes.
    pub fn sums(&self, of: Option<&str>, now: Instant) -> HashMap<u64, Values> {
        let mut sums: HashMap<u64, Values> = HashMap::new();
        for (_, node) in self.nodes.iter().filter(|(name, _)| of.is_none_or(|of| of == name.as_str())) {
            let speaks = node.heard.is_some_and(|heard| now.saturating_duration_since(heard) < SILENT);
            let newest = node.boots.len().checked_sub(1);
            for (index, boot) in node.boots.iter().enumerate() {
                // What was open in an earlier boot is not any more.
                let is_open = speaks && Some(index) == newest;
                for (number, values) in &boot.values {
                    sums.entry(*number).or_default().add(values, is_open);
                }
            }
            for (number, values) in &node.past.values {
                sums.entry(*number).or_default().add(values, false);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(boot: u8, sequence: u64, bytes: u64, active: u64) -> v1::CounterReport {
        let counters = v1::Counters {
            number: 7,
            bytes_in: bytes,
            connections_active: active,
            ends: vec![v1::ReasonCount { reason: "finished".to_owned(), count: bytes / 10 }],
            ..v1::Counters::default()
        };
        v1::CounterReport {
            boot_id: Bytes::copy_from_slice(&[boot; 16]),
            sequence,
            counters: vec![counters],
            ..v1::CounterReport::default()
        }
    }

    fn sum(ledger: &Ledger) -> Values {
        ledger.sums(None, Instant::now()).remove(&7).unwrap_or_default()
    }

    #[test]
    fn replays_and_late_reports_count_once() {
        let (mut ledger, now, mut touched) = (Ledger::default(), Instant::now(), Touched::default());
        for (sequence, bytes) in [(1, 10), (2, 30), (2, 30), (1, 10), (3, 50), (2, 30)] {
            ledger.take("n", report(1, sequence, bytes, sequence), now, &mut touched);
        }
        let sum = sum(&ledger);
        assert_eq!((sum.bytes_in, sum.connections_active), (50, 3));
        assert_eq!(sum.ends["finished"], 5);
    }

    #[test]
    fn boots_add_up_and_only_the_newest_has_open_connections() {
        let (mut ledger, now, mut touched) = (Ledger::default(), Instant::now(), Touched::default());
        for boot in 1..=10 {
            ledger.take("n", report(boot, 1, 100, 4), now, &mut touched);
            // The last words of the process before come late.
            if boot > 1 {
                ledger.take("n", report(boot - 1, 2, 110, 4), now, &mut touched);
            }
        }
        ledger.take("other", report(1, 1, 1_000, 1), now, &mut touched);
        let sum = sum(&ledger);
        assert_eq!(sum.bytes_in, 9 * 110 + 100 + 1_000);
        assert_eq!(sum.connections_active, 5);
        assert_eq!(touched.over.len(), 6);
        assert_eq!(ledger.sums(Some("other"), now)[&7].bytes_in, 1_000);
    }

    #[test]
    fn a_silent_node_has_no_open_connections() {
        let (mut ledger, now, mut touched) = (Ledger::default(), Instant::now(), Touched::default());
        ledger.take("n", report(1, 1, 100, 4), now, &mut touched);
        assert_eq!(ledger.sums(None, now)[&7].connections_active, 4);
        assert_eq!(ledger.sums(None, now + SILENT)[&7].connections_active, 0);
    }
}
