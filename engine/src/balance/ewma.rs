//! Peak EWMA, the latency that balancing by `ewma` goes by (as Finagle and linkerd do): it follows a rise at once and
//! forgets it slowly, so that a backend that turned slow is left soon and tried again after a while.

/// A time after which two thirds of a peak are forgotten.
const DECAY_MILLIS: f64 = 10_000.0;
/// What a backend that was never measured costs while it has connections: it is not flooded before its first answer.
const UNKNOWN_COST: u64 = 1 << 40;

/// A latency and when it was measured, in one word: microseconds below, milliseconds of any clock above. 0: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeakEwma(pub u64);

impl PeakEwma {
    /// Takes a measurement.
    #[must_use]
    pub fn observe(self, now_millis: u64, micros: u64) -> Self {
        let micros = micros.clamp(1, u64::from(u32::MAX)) as f64;
        let latency = match self.parts() {
            Some((then, before)) if f64::from(before) > micros => {
                let keep = decay(now_millis, then);
                f64::from(before) * keep + micros * (1.0 - keep)
            }
            _ => micros,
        };
        Self(((now_millis & u64::from(u32::MAX)) << 32) | latency.max(1.0) as u64)
    }

    /// What one more connection costs where `active` are open.
    pub fn cost(self, now_millis: u64, active: u32) -> u64 {
        match self.parts() {
            None if active == 0 => 0,
            None => UNKNOWN_COST + u64::from(active),
            Some((then, latency)) => {
                let latency = (f64::from(latency) * decay(now_millis, then)).max(1.0) as u64;
                latency * (u64::from(active) + 1)
            }
        }
    }

    fn parts(self) -> Option<(u32, u32)> {
        (self.0 != 0).then_some(((self.0 >> 32) as u32, self.0 as u32))
    }
}

/// The part of a latency that is left. The clock may wrap around, after 49 days.
fn decay(now_millis: u64, then: u32) -> f64 {
    let since = (now_millis as u32).wrapping_sub(then);
    (-f64::from(since) / DECAY_MILLIS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let calm = PeakEwma::default().observe(1_000, 100);
        assert_eq!(calm.cost(1_000, 0), 100);
        assert_eq!(calm.cost(1_000, 3), 400);
        let peak = calm.observe(1_001, 50_000);
        assert_eq!(peak.cost(1_001, 0), 50_000);
        let after = peak.observe(2_001, 100);
        assert!((40_000..50_000).contains(&after.cost(2_001, 0)), "{after:?}");
        let later = peak.observe(61_001, 100);
        assert!((100..300).contains(&later.cost(61_001, 0)), "{later:?}");
        assert!(peak.cost(31_001, 0) < 3_000, "who is not tried is tried again");
    }

    #[test]
    fn a_stranger_is_tried_once_and_then_waited_for() {
        let known = PeakEwma::default().observe(0, 1_000);
        assert!(PeakEwma::default().cost(5, 0) < known.cost(5, 0));
        assert!(PeakEwma::default().cost(5, 1) > known.cost(5, 1_000));
    }

    #[test]
    fn the_clock_may_wrap() {
        let before = PeakEwma::default().observe(u64::from(u32::MAX), 1_000);
        assert!((900..=1_000).contains(&before.cost(u64::from(u32::MAX) + 500, 0)));
    }
}
