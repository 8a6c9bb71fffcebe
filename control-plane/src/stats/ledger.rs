//! Exactly-once sums of cumulative counters, over the process starts ("boots") of every node. No I/O, no clock:
//! times are Unix milliseconds from outside.
//!
//! Within a boot values only grow, so the largest is the last, however often and in whatever order reports come. A few
//! boots of each node are kept apart, for reports that come late; older ones are folded into one sum.

use std::collections::{BTreeSet, HashMap, VecDeque};

use awe4lb_proto::v1;
use bytes::Bytes;

use super::{
    burst::{BURST, Burst},
    values::Values,
};

/// Boots of a node that may still report. More than two need a node that restarts faster than its last words arrive.
const BOOTS: usize = 4;
/// How many numbers are stored together.
pub const SHARD: u64 = 256;
/// Ids of boots that are over and whose replays are known as such.
pub const OVER: usize = 64;
/// A node that says nothing for so many milliseconds has no open connections that we know of.
const SILENT: i64 = 30_000;
/// Of a node; more are not ours.
const MAX_NUMBERS: usize = 1_000_000;
/// For how long the rate of the last report stands when no other comes.
const STANDS: i64 = 2_500;

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
    /// Boots that are in the past, the newest last.
    over: VecDeque<Bytes>,
    heard: Option<i64>,
    /// Over all boots, by number.
    sums: HashMap<u64, Sum>,
    burst: Burst,
}

/// Of one number on one node.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    values: Values,
    /// When it changed last, and what it was before: bytes in, bytes out, connections.
    burst: u64,
    before: [u64; 3],
    rate: Rate,
}

/// A second: bytes in, bytes out, connections.
pub type Rate = [f32; 3];

fn flows(values: &Values) -> [u64; 3] {
    [values.bytes_in, values.bytes_out, values.connections_total]
}

/// What came in a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Of which node, see [`Ledger::name`].
    pub node: usize,
    /// Of what.
    pub number: u64,
    /// Unix milliseconds.
    pub from: i64,
    /// Unix milliseconds.
    pub to: i64,
    /// Bytes in, bytes out, connections.
    pub grown: [u64; 3],
}

/// All nodes.
#[derive(Debug, Default)]
pub struct Ledger {
    nodes: Vec<(String, Node)>,
    index: HashMap<String, usize>,
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
    fn node(&mut self, name: &str) -> (usize, &mut Node) {
        let next = self.nodes.len();
        let index = *self.index.entry(name.to_owned()).or_insert(next);
        if index == next {
            self.nodes.push((name.to_owned(), Node::default()));
        }
        (index, &mut self.nodes[index].1)
    }

    /// Puts back what was stored. Boots come in the order in which they began.
    pub fn restore(&mut self, name: &str, boot: Boot) {
        let (_, node) = self.node(name);
        for (number, values) in &boot.values {
            node.sums.entry(*number).or_default().values.add(values);
        }
        if boot.id.is_empty() { node.past = boot } else { node.boots.push(boot) }
    }

    /// Puts back that a boot is in the past.
    pub fn restore_over(&mut self, name: &str, id: Bytes) {
        self.node(name).1.over.push_back(id);
    }

    /// Takes a report that came at `at`; `grown` learns what is new in it, and in which time that was.
    pub fn take(
        &mut self,
        name: &str,
        report: &v1::CounterReport,
        at: i64,
        touched: &mut Touched,
        mut grown: impl FnMut(Growth),
    ) {
        let (index, node) = self.node(name);
        if node.over.contains(&report.boot_id) {
            return;
        }
        let place = node.boots.iter().position(|boot| boot.id == report.boot_id).unwrap_or_else(|| {
            node.boots.push(Boot { id: report.boot_id.clone(), ..Boot::default() });
            node.boots.len() - 1
        });
        if place + 1 == node.boots.len() {
            node.heard = (!report.r#final).then_some(at);
        }
        node.burst.part(at, !report.counters.is_empty());
        let Some(boot) = node.boots.get_mut(place) else { return };
        let is_newest = report.sequence >= boot.sequence;
        boot.sequence = boot.sequence.max(report.sequence);
        touched.boots.insert((name.to_owned(), boot.id.clone()));
        let mut last_shard = None;
        for counters in &report.counters {
            let number = counters.number;
            if boot.values.len() >= MAX_NUMBERS && !boot.values.contains_key(&number) {
                continue;
            }
            let new = boot.values.entry(number).or_default().follow(&counters.into(), is_newest);
            if last_shard.replace(number / SHARD) != Some(number / SHARD) {
                touched.shards.insert((name.to_owned(), boot.id.clone(), number / SHARD));
            }
            let sum = node.sums.entry(number).or_default();
            if sum.burst != node.burst.index {
                (sum.burst, sum.before) = (node.burst.index, flows(&sum.values));
            }
            sum.values.add(&new);
            sum.rate = Rate::default();
            if let Some(covers) = node.burst.covers {
                let now = flows(&sum.values);
                for ((rate, now), before) in sum.rate.iter_mut().zip(now).zip(sum.before) {
                    *rate = (now - before) as f32 * 1e3 / covers as f32;
                }
                grown(Growth { node: index, number, from: at - covers, to: at, grown: flows(&new) });
            }
        }
        Self::fold(name, node, touched);
    }

    fn fold(name: &str, node: &mut Node, touched: &mut Touched) {
        while node.boots.len() > BOOTS {
            let over = node.boots.remove(0);
            for (number, values) in &over.values {
                node.past.values.entry(*number).or_default().add(values);
                touched.shards.insert((name.to_owned(), Bytes::new(), number / SHARD));
            }
            touched.shards.retain(|(of, boot, _)| of != name || *boot != over.id);
            touched.boots.retain(|(of, boot)| of != name || *boot != over.id);
            touched.over.insert((name.to_owned(), over.id.clone()));
            node.over.push_back(over.id);
            while node.over.len() > OVER {
                node.over.pop_front();
            }
        }
    }

    /// What is known of a boot.
    pub fn boot(&self, name: &str, id: &[u8]) -> Option<&Boot> {
        let (_, node) = self.nodes.get(*self.index.get(name)?)?;
        if id.is_empty() { Some(&node.past) } else { node.boots.iter().find(|boot| boot.id == id) }
    }

    /// The nodes that have ever reported; the place of each is its index in [`Growth`].
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|(name, _)| name.as_str())
    }

    /// By its index.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.nodes.get(index).map(|(name, _)| name.as_str())
    }

    /// Open connections by index of the node and number, where there are any.
    pub fn active(&self, now: i64) -> impl Iterator<Item = (usize, u64, u64)> {
        self.nodes.iter().enumerate().flat_map(move |(index, (_, node))| {
            let open = node.open(now).into_iter().flat_map(|boot| &boot.values);
            let open = open.filter(|(_, values)| values.connections_active > 0);
            open.map(move |(number, values)| (index, *number, values.connections_active))
        })
    }

    /// Sums and rates by number of one node, or over all nodes.
    pub fn sums(&self, of: Option<&str>, now: i64) -> HashMap<u64, (Values, Rate)> {
        let mut sums: HashMap<u64, (Values, Rate)> = HashMap::new();
        for (number, values, rate) in self.each(of, now) {
            let (all, all_rate) = sums.entry(number).or_default();
            all.add(&values);
            all.connections_active += values.connections_active;
            all_rate.iter_mut().zip(rate).for_each(|(all, own)| *all += own);
        }
        sums
    }

    /// The same, node by node.
    pub fn each(&self, of: Option<&str>, now: i64) -> impl Iterator<Item = (u64, Values, Rate)> {
        let nodes = match of {
            None => &self.nodes[..],
            Some(name) => {
                self.index.get(name).and_then(|index| self.nodes.get(*index..=*index)).unwrap_or_default()
            }
        };
        nodes.iter().flat_map(move |(_, node)| {
            let open = node.open(now);
            node.sums.iter().map(move |(number, sum)| {
                let active =
                    open.and_then(|boot| boot.values.get(number)).map_or(0, |of| of.connections_active);
                let rate = if node.stands(sum, now) { sum.rate } else { Rate::default() };
                let mut values = sum.values;
                values.connections_active = active;
                (*number, values, rate)
            })
        })
    }
}

impl Node {
    /// The boot whose connections are open: what was open in an earlier one is not any more.
    fn open(&self, now: i64) -> Option<&Boot> {
        let speaks = self.heard.is_some_and(|heard| (now - heard).abs() < SILENT);
        self.boots.last().filter(|_| speaks)
    }

    /// Whether a rate is of now. What the last report does not name has not changed; but it may still be coming in.
    fn stands(&self, sum: &Sum, now: i64) -> bool {
        let Some(age) = self.burst.began.map(|began| now - began) else { return false };
        let is_last = sum.burst == self.burst.index || (sum.burst + 1 == self.burst.index && age < BURST);
        is_last && age < STANDS
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

    fn take(ledger: &mut Ledger, name: &str, report: v1::CounterReport, at: i64) -> Vec<Growth> {
        let mut all = Vec::new();
        ledger.take(name, &report, at, &mut Touched::default(), |growth| all.push(growth));
        all
    }

    fn sum(ledger: &Ledger, of: Option<&str>, now: i64) -> Values {
        ledger.sums(of, now).remove(&7).unwrap_or_default().0
    }

    #[test]
    fn replays_and_late_reports_count_once() {
        let mut ledger = Ledger::default();
        for (sequence, bytes) in [(1, 10), (2, 30), (2, 30), (1, 10), (3, 50), (2, 30)] {
            take(&mut ledger, "n", report(1, sequence, bytes, sequence), 0);
        }
        let sum = sum(&ledger, None, 0);
        assert_eq!((sum.bytes_in, sum.connections_active), (50, 3));
        assert_eq!(sum.ends().collect::<Vec<_>>(), [("finished", 5)]);
    }

    #[test]
    fn boots_add_up_and_only_the_newest_has_open_connections() {
        let mut ledger = Ledger::default();
        for boot in 1..=10 {
            take(&mut ledger, "n", report(boot, 1, 100, 4), 0);
            // The last words of the process before come late.
            if boot > 1 {
                take(&mut ledger, "n", report(boot - 1, 2, 110, 4), 0);
            }
        }
        // Those of one that was folded long ago were counted.
        take(&mut ledger, "n", report(1, 2, 110, 4), 0);
        take(&mut ledger, "other", report(1, 1, 1_000, 1), 0);
        let all = sum(&ledger, None, 0);
        assert_eq!(all.bytes_in, 9 * 110 + 100 + 1_000);
        assert_eq!(all.connections_active, 5);
        assert_eq!(sum(&ledger, Some("other"), 0).bytes_in, 1_000);
        assert_eq!(sum(&ledger, Some("nobody"), 0), Values::default());
    }

    #[test]
    fn a_silent_node_and_one_that_has_gone_have_no_open_connections() {
        let mut ledger = Ledger::default();
        take(&mut ledger, "n", report(1, 1, 100, 4), 0);
        assert_eq!(sum(&ledger, None, 1_000).connections_active, 4);
        assert_eq!(ledger.active(1_000).collect::<Vec<_>>(), [(0, 7, 4)]);
        assert_eq!(sum(&ledger, None, SILENT).connections_active, 0);
        take(&mut ledger, "n", v1::CounterReport { r#final: true, ..report(1, 2, 100, 4) }, 2_000);
        assert_eq!(sum(&ledger, None, 2_001).connections_active, 0);
    }

    fn rate(ledger: &Ledger, now: i64) -> f32 {
        ledger.sums(None, now)[&7].1[0]
    }

    #[test]
    fn rates_are_over_the_time_between_reports() {
        let mut ledger = Ledger::default();
        // Since when the first is counted, nobody knows.
        assert!(take(&mut ledger, "n", report(1, 1, 1_000, 0), 10_000).is_empty());
        assert_eq!(rate(&ledger, 10_000), 0.0);
        let grown = take(&mut ledger, "n", report(1, 2, 4_000, 0), 11_500);
        assert_eq!(grown, [Growth { node: 0, number: 7, from: 10_000, to: 11_500, grown: [3_000, 0, 0] }]);
        assert_eq!(rate(&ledger, 12_000), 2_000.0);
        // A replay changes nothing …
        take(&mut ledger, "n", report(1, 2, 4_000, 0), 11_600);
        assert_eq!(rate(&ledger, 12_000), 2_000.0);
        // … a report without this number ends it, and so does silence.
        assert_eq!(rate(&ledger, 11_500 + STANDS), 0.0);
        take(&mut ledger, "n", v1::CounterReport { counters: Vec::new(), ..report(1, 3, 0, 0) }, 13_000);
        assert_eq!(rate(&ledger, 13_500), 0.0);
        // A control plane that was away for a minute sees no flood.
        take(&mut ledger, "n", report(1, 4, 64_000, 0), 73_000);
        assert_eq!(rate(&ledger, 73_000), 1_000.0);
    }

    #[test]
    fn traffic_after_silence_is_of_the_last_second() {
        let mut ledger = Ledger::default();
        let silent = v1::CounterReport { counters: Vec::new(), ..report(1, 1, 0, 0) };
        take(&mut ledger, "n", silent, 0);
        let grown = take(&mut ledger, "n", report(1, 2, 500, 0), 4_000);
        assert_eq!(grown, [Growth { node: 0, number: 7, from: 3_000, to: 4_000, grown: [500, 0, 0] }]);
        assert_eq!(rate(&ledger, 4_000), 500.0);
    }
}
