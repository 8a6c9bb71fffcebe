//! Counters next to the work: one block a worker and object, written by that worker alone, read by anyone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use awe4lb_model::{EndReason, placed::Number};

use crate::control::hot::CounterSample;

/// One object's counters on one worker. Aligned, so that workers do not share cache lines.
#[repr(align(128))]
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) total: Counter,
    pub(super) ended: Counter,
    pub(super) datagrams_in: Counter,
    pub(super) datagrams_out: Counter,
    pub(super) dial_micros: Counter,
    pub(super) dials: Counter,
    pub(super) handshake_micros: Counter,
    pub(super) handshakes: Counter,
    ends: [Counter; EndReason::ALL.len()],
}

/// A number with one writer: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    fn new() -> Self {
        let zero = Counter::default;
        Self {
            bytes_in: zero(),
            bytes_out: zero(),
            total: zero(),
            ended: zero(),
            datagrams_in: zero(),
            datagrams_out: zero(),
            dial_micros: zero(),
            dials: zero(),
            handshake_micros: zero(),
            handshakes: zero(),
            ends: std::array::from_fn(|_| zero()),
        }
    }

    /// Something that began here ended so.
    pub(super) fn end(&self, reason: EndReason) {
        self.ends[reason.as_index()].add(1);
    }
}

impl Counters {
    /// Datagrams that went nowhere.
    pub(super) fn dropped(&self, datagrams: u64, why: EndReason) {
        self.ends[why.as_index()].add(datagrams);
    }
}

/// A connection or flow that is open here; ends when it is dropped, on whatever way.
pub(super) struct Open(Arc<Counters>);

impl Open {
    pub(super) fn new(counters: &Arc<Counters>) -> Self {
        counters.total.add(1);
        Self(counters.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.ended.add(1);
    }
}

/// The blocks of one worker, by number.
#[derive(Debug, Default)]
pub(super) struct CounterTable(Mutex<BTreeMap<Number, Arc<Counters>>>);

impl CounterTable {
    /// The block of a number; made when it is new. Not for the hot path: connections keep what they got.
    pub(super) fn of(&self, number: Number) -> Arc<Counters> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(number).or_insert_with(|| Arc::new(Counters::new())).clone()
    }

    /// Drops blocks that nobody writes any more.
    pub(super) fn forget(&self, numbers: &[u64]) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            if table.get(&Number(*number)).is_some_and(|counters| Arc::strong_count(counters) == 1) {
                table.remove(&Number(*number));
            }
        }
    }
}

/// The sums over all workers, in order of number.
pub(super) fn sum<'a>(tables: impl Iterator<Item = &'a CounterTable>) -> Vec<CounterSample> {
    let mut sums: BTreeMap<u64, (CounterSample, Vec<u64>)> = BTreeMap::new();
    for table in tables {
        for (number, counters) in table.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (sample, ends) = sums.entry(number.0).or_default();
            // The end before the total: an active count is never negative.
            let ended = counters.ended.value();
            let total = counters.total.value();
            sample.connections_total += total;
            sample.connections_active += total.saturating_sub(ended);
            sample.bytes_in += counters.bytes_in.value();
            sample.bytes_out += counters.bytes_out.value();
            sample.datagrams_in += counters.datagrams_in.value();
            sample.datagrams_out += counters.datagrams_out.value();
            sample.dial_micros_total += counters.dial_micros.value();
            sample.dials_total += counters.dials.value();
            sample.handshake_micros_total += counters.handshake_micros.value();
            sample.handshakes_total += counters.handshakes.value();
            ends.resize(EndReason::ALL.len(), 0);
            for (sum, counter) in ends.iter_mut().zip(&counters.ends) {
                *sum += counter.value();
            }
        }
    }
    sums.into_iter()
        .map(|(number, (mut sample, ends))| {
            sample.number = number;
            sample.ends = EndReason::ALL.iter().copied().zip(ends).filter(|(_, count)| *count > 0).collect();
            sample
        })
        .collect()
}
