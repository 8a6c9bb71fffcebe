//! What is too much of datagrams is dropped: nobody waits, as there is no one to tell to wait.

use std::sync::Arc;

use super::{Bucket, Limiter, Permit, byte_rate};

/// Judges the datagrams of a flow, both directions together: by its own rate, its client's and the listener's.
pub(in crate::traffic) struct Policer {
    bytes: [Option<Arc<Bucket>>; 3],
    packets: [Option<Arc<Bucket>>; 2],
}

impl Limiter {
    /// What drops a flow's datagrams, if anything does.
    pub(in crate::traffic) fn policer(&self, permit: Option<&Permit>) -> Option<Policer> {
        let own = self.limits.bytes_per_second_per_connection;
        let own = own.map(|rate| Arc::new(Bucket::new(byte_rate(rate))));
        let bytes = [own, permit.and_then(|permit| permit.bytes.clone()), self.bytes.clone()];
        let packets = [permit.and_then(|permit| permit.packets.clone()), self.packets.clone()];
        let is_any = bytes.iter().chain(&packets).any(Option::is_some);
        is_any.then_some(Policer { bytes, packets })
    }
}

impl Policer {
    /// All of it or nothing; what is not allowed uses up nothing.
    pub(in crate::traffic) fn allows(&self, datagrams: u64, bytes: u64, now_ms: u64) -> bool {
        let wanted = || {
            let bytes = self.bytes.iter().flatten().map(move |bucket| (bucket, bytes));
            bytes.chain(self.packets.iter().flatten().map(move |bucket| (bucket, datagrams)))
        };
        for (place, (bucket, want)) in wanted().enumerate() {
            let taken = bucket.take(want, now_ms);
            // A datagram larger than what may come at once would never pass: it does when there is all there can be.
            if taken == want || (taken > 0 && taken >= bucket.rate.burst()) {
                continue;
            }
            bucket.settle(taken, 0);
            wanted().take(place).for_each(|(before, want)| before.settle(want, 0));
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{super::packet_rate, *};

    fn bucket(rate: awe4lb_engine::rate::Rate) -> Option<Arc<Bucket>> {
        Some(Arc::new(Bucket::new(rate)))
    }

    #[test]
    fn a_second_lets_through_what_the_rate_says_and_refusals_cost_nothing() {
        let policer = Policer {
            bytes: [None, None, bucket(byte_rate(10_000))],
            packets: [bucket(packet_rate(50)), None],
        };
        let passed = (0..1_000u64).filter(|tick| policer.allows(1, 100, 10_000 + tick)).count();
        assert!((50..=61).contains(&passed), "{passed} of 50 a second and 10 at once");
        let later = (0..1_000u64).filter(|tick| policer.allows(1, 1_000, 20_000 + tick)).count();
        assert!((9..=13).contains(&later), "{later} of 10,000 bytes a second and 2,000 at once");
    }
}
