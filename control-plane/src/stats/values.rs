//! What is counted of one number.

use awe4lb_model::EndReason;
use awe4lb_proto::v1;

/// One more than there are: reasons of a newer node, which this version has no word for.
const REASONS: usize = EndReason::ALL.len() + 1;
/// The word for those.
const OTHER: &str = "other";

/// Cumulative values, and one gauge. Thousands of these are copied each second, so it is flat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// How connections ended, by [`EndReason::as_index`]; the last: in a way that this version does not know.
    ends: [u64; REASONS],
}

impl Default for Values {
    fn default() -> Self {
        Self {
            bytes_in: 0,
            bytes_out: 0,
            connections_total: 0,
            connections_active: 0,
            datagrams_in: 0,
            datagrams_out: 0,
            dial_micros: 0,
            dials: 0,
            handshake_micros: 0,
            handshakes: 0,
            ends: [0; REASONS],
        }
    }
}

impl From<&v1::Counters> for Values {
    fn from(wire: &v1::Counters) -> Self {
        let mut ends = [0_u64; REASONS];
        for end in &wire.ends {
            let known = EndReason::ALL.iter().find(|reason| reason.label() == end.reason);
            let at = known.map_or(REASONS - 1, |reason| reason.as_index());
            ends[at] = ends[at].saturating_add(end.count);
        }
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
            ends,
        }
    }
}

impl Values {
    /// For storage.
    pub fn to_wire(self, number: u64) -> v1::Counters {
        let end = |(reason, count): (&'static str, u64)| v1::ReasonCount { reason: reason.to_owned(), count };
        v1::Counters {
            number,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            connections_total: self.connections_total,
            connections_active: self.connections_active,
            ends: self.ends().map(end).collect(),
            datagrams_in: self.datagrams_in,
            datagrams_out: self.datagrams_out,
            dial_micros_total: self.dial_micros,
            dials_total: self.dials,
            handshake_micros_total: self.handshake_micros,
            handshakes_total: self.handshakes,
        }
    }

    /// Word and count of each way in which a connection ended.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = EndReason::ALL.iter().map(|reason| reason.label()).chain([OTHER]);
        words.zip(self.ends).filter(|(_, count)| *count > 0)
    }

    fn merge(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        let pairs = [
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.connections_total, other.connections_total),
            (&mut self.datagrams_in, other.datagrams_in),
            (&mut self.datagrams_out, other.datagrams_out),
            (&mut self.dial_micros, other.dial_micros),
            (&mut self.dials, other.dials),
            (&mut self.handshake_micros, other.handshake_micros),
            (&mut self.handshakes, other.handshakes),
        ];
        for (mine, theirs) in pairs.into_iter().chain(self.ends.iter_mut().zip(other.ends)) {
            *mine = with(*mine, theirs);
        }
    }

    /// Later values of the same boot: nothing goes back, whatever comes in which order. `is_newest`: the gauge counts.
    /// Gives what is new.
    pub fn follow(&mut self, later: &Self, is_newest: bool) -> Self {
        let mut growth = *self;
        self.merge(later, u64::max);
        if is_newest {
            self.connections_active = later.connections_active;
        }
        growth.merge(self, |before, now| now - before);
        Self { connections_active: 0, ..growth }
    }

    /// Values of another boot, node or object; gauges are not added.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
    }

    /// Only the dials of others.
    pub fn add_dials(&mut self, other: &Self) {
        self.dial_micros = self.dial_micros.saturating_add(other.dial_micros);
        self.dials = self.dials.saturating_add(other.dials);
    }

    /// Whether the label of an end is that of a failure.
    pub fn is_failure(label: &str) -> bool {
        EndReason::ALL.iter().find(|reason| reason.label() == label).is_some_and(|reason| reason.is_failure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_newer_node_are_counted_together() {
        let end = |reason: &str, count| v1::ReasonCount { reason: reason.to_owned(), count };
        let ends = vec![end("finished", 3), end("eaten-by-a-grue", 2), end("sunk", 1)];
        let values = Values::from(&v1::Counters { ends, ..v1::Counters::default() });
        assert_eq!(values.ends().collect::<Vec<_>>(), [("finished", 3), ("other", 3)]);
        assert_eq!(Values::from(&values.to_wire(1)), values);
        assert!(Values::is_failure("dial-failed") && !Values::is_failure("other"));
    }
}
