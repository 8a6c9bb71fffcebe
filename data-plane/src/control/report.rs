//! Counter reports: cumulative values, only those that changed since the last acknowledged report. No I/O.
//!
//! A lost report, a reconnection or a replay costs resolution, never truth: what is not acknowledged is sent again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use awe4lb_proto::v1;
use bytes::Bytes;

use super::hot::CounterSample;

/// Entries in one message: keeps it below 64 KiB also with all reasons.
const ENTRIES_A_MESSAGE: usize = 80;
/// After this long an unanswered report no longer holds back the next one.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reports kept for a late acknowledgement.
const MAX_IN_FLIGHT: usize = 4096;

/// What was reported and what was acknowledged.
#[derive(Debug)]
pub struct Reporter {
    boot_id: Bytes,
    sequence: u64,
    acknowledged: HashMap<u64, CounterSample>,
    in_flight: VecDeque<(u64, Vec<CounterSample>)>,
    last_sent: Option<Instant>,
    last_gauges: Option<Instant>,
}

impl Reporter {
    /// Nothing was reported in this boot.
    pub fn new(boot_id: [u8; 16]) -> Self {
        Self {
            boot_id: Bytes::copy_from_slice(&boot_id),
            sequence: 0,
            acknowledged: HashMap::new(),
            in_flight: VecDeque::new(),
            last_sent: None,
            last_gauges: None,
        }
    }

    /// A new connection: what was not acknowledged on the last one must be sent again.
    pub fn reconnected(&mut self) {
        self.in_flight.clear();
        self.last_sent = None;
        self.last_gauges = None;
    }

    /// The last sequence that was given out.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether everything given out was acknowledged.
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The messages to send now; none when nothing changed or the last report is not answered yet. `last`: the node goes,
    /// everything is sent whatever is in flight.
    pub fn report(
        &mut self,
        samples: Vec<CounterSample>,
        gauges: v1::NodeGauges,
        now: Instant,
        last: bool,
    ) -> Vec<v1::CounterReport> {
        let is_waiting = !self.in_flight.is_empty()
            && self.last_sent.is_some_and(|sent| now.duration_since(sent) < PATIENCE);
        if is_waiting && !last {
            return Vec::new();
        }
        let changed: Vec<CounterSample> = samples
            .into_iter()
            .filter(|sample| match self.acknowledged.get(&sample.number) {
                Some(before) => before != sample,
                None => *sample != CounterSample { number: sample.number, ..CounterSample::default() },
            })
            .collect();
        let gauges_are_old =
            self.last_gauges.is_none_or(|sent| now.duration_since(sent) >= Duration::from_secs(5));
        if changed.is_empty() && !gauges_are_old && !last {
            return Vec::new();
        }
        self.last_sent = Some(now);
        self.last_gauges = Some(now);
        let chunks: Vec<&[CounterSample]> =
            if changed.is_empty() { vec![&[]] } else { changed.chunks(ENTRIES_A_MESSAGE).collect() };
        let count = chunks.len();
        let mut messages = Vec::with_capacity(count);
        for (index, chunk) in chunks.into_iter().enumerate() {
            self.sequence += 1;
            self.in_flight.push_back((self.sequence, chunk.to_vec()));
            messages.push(v1::CounterReport {
                boot_id: self.boot_id.clone(),
                sequence: self.sequence,
                counters: chunk.iter().map(to_wire).collect(),
                r#final: last && index + 1 == count,
                node: (index == 0).then_some(gauges),
            });
        }
        while self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        messages
    }

    /// The control plane has this report, and all before it, for good.
    pub fn acknowledge(&mut self, ack: &v1::CounterAck) {
        if ack.boot_id != self.boot_id || ack.sequence > self.sequence {
            return;
        }
        while self.in_flight.front().is_some_and(|(sequence, _)| *sequence <= ack.sequence) {
            let Some((_, samples)) = self.in_flight.pop_front() else { break };
            for sample in samples {
                self.acknowledged.insert(sample.number, sample);
            }
        }
    }

    /// Of `samples`, the numbers of objects that are gone, idle and acknowledged to the last byte: they need no counter
    /// any more. They are forgotten here too.
    pub fn finished(&mut self, samples: &[CounterSample], is_known: impl Fn(u64) -> bool) -> Vec<u64> {
        let in_flight: HashSet<u64> = self
            .in_flight
            .iter()
            .flat_map(|(_, samples)| samples.iter().map(|sample| sample.number))
            .collect();
        let finished: Vec<u64> = samples
            .iter()
            .filter(|sample| {
                sample.connections_active == 0
                    && !is_known(sample.number)
                    && !in_flight.contains(&sample.number)
                    && self.acknowledged.get(&sample.number) == Some(sample)
            })
            .map(|sample| sample.number)
            .collect();
        for number in &finished {
            self.acknowledged.remove(number);
        }
        finished
    }
}

fn to_wire(sample: &CounterSample) -> v1::Counters {
    v1::Counters {
        number: sample.number,
        bytes_in: sample.bytes_in,
        bytes_out: sample.bytes_out,
        connections_total: sample.connections_total,
        connections_active: sample.connections_active,
        ends: sample
            .ends
            .iter()
            .map(|(reason, count)| v1::ReasonCount { reason: reason.label().to_owned(), count: *count })
            .collect(),
        datagrams_in: sample.datagrams_in,
        datagrams_out: sample.datagrams_out,
        dial_micros_total: sample.dial_micros_total,
        dials_total: sample.dials_total,
        handshake_micros_total: sample.handshake_micros_total,
        handshakes_total: sample.handshakes_total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [5; 16];

    fn sample(number: u64, bytes_in: u64) -> CounterSample {
        CounterSample { number, bytes_in, ..CounterSample::default() }
    }

    fn ack(sequence: u64) -> v1::CounterAck {
        v1::CounterAck { boot_id: BOOT.to_vec().into(), sequence }
    }

    fn numbers(messages: &[v1::CounterReport]) -> Vec<(u64, u64)> {
        messages.iter().flat_map(|m| m.counters.iter().map(|c| (c.number, c.bytes_in))).collect()
    }

    #[test]
    fn only_what_changed_since_the_acknowledged() {
        let mut reporter = Reporter::new(BOOT);
        let now = Instant::now();
        let gauges = v1::NodeGauges::default();
        let first = reporter.report(vec![sample(1, 10), sample(2, 20), sample(3, 0)], gauges, now, false);
        assert_eq!(numbers(&first), [(1, 10), (2, 20)]);
        // Not answered yet: nothing piles up.
        assert!(reporter.report(vec![sample(1, 11)], gauges, now, false).is_empty());
        reporter.acknowledge(&ack(first[0].sequence));
        assert!(reporter.report(vec![sample(1, 10), sample(2, 20)], gauges, now, false).is_empty());
        let next = reporter.report(vec![sample(1, 12), sample(2, 20)], gauges, now, false);
        assert_eq!(numbers(&next), [(1, 12)]);
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_after_a_reconnection() {
        let mut reporter = Reporter::new(BOOT);
        let now = Instant::now();
        let gauges = v1::NodeGauges::default();
        let lost = reporter.report(vec![sample(1, 10)], gauges, now, false);
        reporter.reconnected();
        let again = reporter.report(vec![sample(1, 10)], gauges, now, false);
        assert_eq!(numbers(&again), [(1, 10)]);
        assert!(again[0].sequence > lost[0].sequence);
        // A late answer to the lost one says nothing about the second.
        reporter.acknowledge(&ack(lost[0].sequence));
        assert!(!reporter.is_settled());
        reporter.acknowledge(&ack(again[0].sequence));
        assert!(reporter.is_settled());
    }

    #[test]
    fn foreign_and_impossible_acknowledgements_mean_nothing() {
        let mut reporter = Reporter::new(BOOT);
        let sent = reporter.report(vec![sample(1, 1)], v1::NodeGauges::default(), Instant::now(), false);
        reporter.acknowledge(&v1::CounterAck { boot_id: Bytes::new(), sequence: sent[0].sequence });
        reporter.acknowledge(&ack(u64::MAX));
        assert!(!reporter.is_settled());
    }

    #[test]
    fn an_unanswered_report_is_overtaken_after_a_while() {
        let mut reporter = Reporter::new(BOOT);
        let now = Instant::now();
        let gauges = v1::NodeGauges::default();
        reporter.report(vec![sample(1, 1)], gauges, now, false);
        let later = reporter.report(vec![sample(1, 2)], gauges, now + PATIENCE, false);
        assert_eq!(numbers(&later), [(1, 2)]);
        reporter.acknowledge(&ack(later[0].sequence));
        assert!(reporter.report(vec![sample(1, 2)], gauges, now + PATIENCE, false).is_empty());
    }

    #[test]
    fn many_counters_come_in_messages_of_bounded_size() {
        let mut reporter = Reporter::new(BOOT);
        let ends: Vec<_> = awe4lb_model::EndReason::ALL.iter().map(|reason| (*reason, u64::MAX)).collect();
        let samples: Vec<_> = (1..=950)
            .map(|number| CounterSample {
                number: u64::MAX - number,
                bytes_in: u64::MAX,
                bytes_out: u64::MAX,
                ends: ends.clone(),
                ..CounterSample::default()
            })
            .collect();
        let messages = reporter.report(samples, v1::NodeGauges::default(), Instant::now(), true);
        assert_eq!(messages.len(), 12);
        assert!(messages.iter().all(|message| prost::Message::encoded_len(message) <= 128 * 1024));
        assert_eq!(messages.iter().filter(|message| message.r#final).count(), 1);
        assert!(messages[11].r#final);
    }

    #[test]
    fn a_removed_object_is_forgotten_only_when_acknowledged_and_idle() {
        let mut reporter = Reporter::new(BOOT);
        let now = Instant::now();
        let gauges = v1::NodeGauges::default();
        let mut last = sample(1, 10);
        last.connections_active = 1;
        let sent = reporter.report(vec![last.clone()], gauges, now, false);
        assert!(reporter.finished(&[last.clone()], |_| false).is_empty());
        reporter.acknowledge(&ack(sent[0].sequence));
        assert!(reporter.finished(&[last.clone()], |_| false).is_empty(), "still has a connection");
        last.connections_active = 0;
        let sent = reporter.report(vec![last.clone()], gauges, now, false);
        reporter.acknowledge(&ack(sent[0].sequence));
        assert!(reporter.finished(&[last.clone()], |_| true).is_empty());
        assert_eq!(reporter.finished(&[last], |_| false), [1]);
    }
}
