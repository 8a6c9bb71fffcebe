//! What is counted of one number.

use std::collections::BTreeMap;

use awe4lb_model::EndReason;
use awe4lb_proto::v1;

/// Cumulative values, and one gauge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    /// Client to backend, bytes.
    pub bytes_in: u64,
    /// Backend to client, bytes.
    pub bytes_out: u64,
    /// Connections and flows that began.
    pub connections_total: u64,
    /// Those that are open.
    pub connections_active: u64,
    /// Datagrams from clients.
    pub datagrams_in: u64,
    /// Datagrams to clients.
    pub datagrams_out: u64,
    /// Sum over all dials.
    pub dial_micros: u64,
    /// How many.
    pub dials: u64,
    /// Sum over all TLS handshakes.
    pub handshake_micros: u64,
    /// How many.
    pub handshakes: u64,
    /// How connections ended, by [`EndReason::label`].
    pub ends: BTreeMap<String, u64>,
}

impl From<v1::Counters> for Values {
    fn from(wire: v1::Counters) -> Self {
        Self {
            bytes_in: wire.bytes_in,
            bytes_out: wire.bytes_out,
            connections_total: wire.connections_total,
            connections_active: wire.connections_active,
            datagrams_in: wire.datagrams_in,
            datagrams_out: wire.datagrams_out,
            dial_micros: wire.dial_micros_total,
            dials: wire.dials_total,
            handshake_micros: wire.handshake_micros_total,
            handshakes: wire.handshakes_total,
            ends: wire
                .ends
                .into_iter()
                .map(|end| (end.reason.chars().take(64).collect(), end.count))
                .collect(),
        }
    }
}

impl Values {
    /// For storage.
    pub fn to_wire(&self, number: u64) -> v1::Counters {
        let end =
            |(reason, count): (&String, &u64)| v1::ReasonCount { reason: reason.clone(), count: *count };
        v1::Counters {
            number,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            connections_total: self.connections_total,
            connections_active: self.connections_active,
            ends: self.ends.iter().map(end).collect(),
            datagrams_in: self.datagrams_in,
            datagrams_out: self.datagrams_out,
            dial_micros_total: self.dial_micros,
            dials_total: self.dials,
            handshake_micros_total: self.handshake_micros,
            handshakes_total: self.handshakes,
        }
    }

    fn cumulative(&mut self) -> [&mut u64; 9] {
        [
            &mut self.bytes_in,
            &mut self.bytes_out,
            &mut self.connections_total,
            &mut self.datagrams_in,
            &mut self.datagrams_out,
            &mut self.dial_micros,
            &mut self.dials,
            &mut self.handshake_micros,
            &mut self.handshakes,
        ]
    }

    /// Later values of the same boot: nothing goes back, whatever comes in which order. `is_newest`: the gauge counts.
    pub fn follow(&mut self, mut later: Self, is_newest: bool) {
        for (mine, theirs) in self.cumulative().into_iter().zip(later.cumulative()) {
            *mine = (*mine).max(*theirs);
        }
        if is_newest {
            self.connections_active = later.connections_active;
        }
        for (reason, count) in later.ends {
            let mine = self.ends.entry(reason).or_default();
            *mine = (*mine).max(count);
        }
    }

    /// Values of another boot, node or object.
    pub fn add(&mut self, other: &Self, with_gauge: bool) {
        let mut theirs = other.clone();
        for (mine, theirs) in self.cumulative().into_iter().zip(theirs.cumulative()) {
            *mine = mine.saturating_add(*theirs);
        }
        if with_gauge {
            self.connections_active += other.connections_active;
        }
        for (reason, count) in &other.ends {
            *self.ends.entry(reason.clone()).or_default() += count;
        }
    }

    /// Whether the label of an end is that of a failure.
    pub fn is_failure(label: &str) -> bool {
        EndReason::ALL.iter().find(|reason| reason.label() == label).is_some_and(|reason| reason.is_failure())
    }
}
