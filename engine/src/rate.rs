//! Rates as GCRA (ITU-T I.371): one number of state, no timer that fills anything.
//!
//! The number is the place on the axis of all units that were ever allowed, up to which they are used. With time the axis
//! grows by the rate; what is ahead of it by less than the burst may still be taken.

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// Neither is 0.
    pub fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second: per_second.max(1), burst: burst.max(1) }
    }

    /// How many at once.
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// Takes up to `want` units (at least 1) at `now_ms`, any monotonic clock. Gives how many, and the state then;
    /// `None`: not one now. A clock that is a little behind is fine: it only sees less.
    pub fn take(self, used: u64, now_ms: u64, want: u64) -> Option<(u64, u64)> {
        let position = self.position(now_ms);
        let from = used.max(position);
        let available = position.saturating_add(self.burst).checked_sub(from).filter(|units| *units > 0)?;
        let granted = available.min(want.max(1));
        Some((granted, from.saturating_add(granted)))
    }

    /// Whether this state says no more than none at all would.
    pub fn is_idle(self, used: u64, now_ms: u64) -> bool {
        used <= self.position(now_ms)
    }

    fn position(self, now_ms: u64) -> u64 {
        u64::try_from(u128::from(now_ms) * u128::from(self.per_second) / 1_000).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However it is asked: between any two moments no more than the burst and what the time is worth.
        #[test]
        fn no_window_holds_more_than_its_time_and_the_burst(
            per_second in 1u64..100_000,
            burst in 1u64..10_000,
            asks in prop::collection::vec((0u64..500, 1u64..20_000), 1..60),
        ) {
            let rate = Rate::new(per_second, burst);
            let (mut used, mut now, mut given) = (0, 1_000_000, Vec::new());
            for (pause, want) in asks {
                now += pause;
                if let Some((granted, next)) = rate.take(used, now, want) {
                    prop_assert!((1..=want).contains(&granted));
                    used = next;
                    given.push((now, granted));
                }
            }
            for first in 0..given.len() {
                let mut sum = 0;
                for (at, granted) in &given[first..] {
                    sum += granted;
                    let worth = (at - given[first].0) * per_second / 1_000 + 1;
                    prop_assert!(sum <= burst + worth, "{sum} in {} ms", at - given[first].0);
                }
            }
        }

        /// Whoever stays below the rate is never refused, and whoever asks for all there is gets what the time is worth.
        #[test]
        fn the_rate_is_reached_and_not_refused(per_second in 1u64..10_000, seconds in 1u64..50) {
            let rate = Rate::new(per_second, per_second);
            let (mut polite, mut greedy, mut total) = (0, 0, 0);
            for second in 0..seconds {
                let now = 7_000 + second * 1_000;
                let (granted, next) = rate.take(polite, now, per_second).expect("below the rate");
                prop_assert_eq!(granted, per_second);
                polite = next;
                for tick in 0..10 {
                    while let Some((granted, next)) = rate.take(greedy, now + tick * 100, u64::MAX) {
                        total += granted;
                        greedy = next;
                    }
                }
            }
            prop_assert!(total >= per_second * seconds, "{total}");
            prop_assert!(rate.is_idle(polite, 7_000 + seconds * 1_000));
        }
    }

    #[test]
    fn the_ends_of_the_range_hold() {
        let fast = Rate::new(u64::MAX, u64::MAX);
        assert_eq!(fast.take(0, u64::MAX, 5), None, "an axis that has ended gives nothing more");
        let slow = Rate::new(0, 0);
        assert_eq!(slow.take(0, 0, 0), Some((1, 1)));
        assert_eq!(slow.take(1, 999, 9), None);
        assert_eq!(slow.take(1, 1_000, 9), Some((1, 2)));
    }
}
