//! When a responder is asked again. No clock; `jitter` is between 0 and 1, all times are unix seconds.

/// A responder is not asked about the same certificate again within so many seconds.
const FLOOR: i64 = 300;
/// After failures, at the latest after so many.
const LONGEST_WAIT: i64 = 3_600;
/// However long an answer counts, a revocation is to be noticed within so many.
const DAY: i64 = 86_400;

/// After an answer that counts from `from` until `until`: at half of its life, give or take a twentieth, and each day.
pub(super) fn after_answer(now: i64, from: i64, until: i64, jitter: f64) -> i64 {
    let life = until.saturating_sub(from).max(0);
    let half = from.saturating_add((life as f64 * (0.45 + 0.1 * jitter)) as i64);
    let daily = now.saturating_add((DAY as f64 * (0.9 + 0.1 * jitter)) as i64);
    half.min(daily).max(now.saturating_add(FLOOR))
}

/// After so many failures in a row, this one included.
pub(super) fn after_failure(now: i64, failures: u32, jitter: f64) -> i64 {
    let wait = FLOOR.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    now.saturating_add((wait as f64 * (1.0 + 0.1 * jitter)) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600;

    #[test]
    fn asks_at_half_of_its_life() {
        assert_eq!(after_answer(1_000, 1_000, 1_000 + 10 * HOUR, 0.5), 1_000 + 5 * HOUR);
        assert_eq!(after_answer(1_000, 1_000, 1_000 + 10 * HOUR, 0.0), 1_000 + 45 * HOUR / 10);
        assert_eq!(after_answer(1_000, 1_000, 1_000 + 10 * HOUR, 1.0), 1_000 + 55 * HOUR / 10);
    }

    #[test]
    fn asks_each_day_however_long_an_answer_counts() {
        assert_eq!(after_answer(0, 0, 365 * DAY, 1.0), DAY);
    }

    #[test]
    fn waits_longer_and_longer_up_to_an_hour() {
        let waits: Vec<i64> = (1..8).map(|failures| after_failure(0, failures, 0.0)).collect();
        assert_eq!(waits, [300, 600, 1_200, 2_400, 3_600, 3_600, 3_600]);
        assert_eq!(after_failure(0, u32::MAX, 0.0), 3_600);
    }

    proptest! {
        #[test]
        fn never_more_often_than_once_in_five_minutes(
            now in 0..2_000_000_000_i64, from in any::<i64>(), until in any::<i64>(), failures in any::<u32>(), jitter in 0.0..1.0,
        ) {
            let next = after_answer(now, from, until, jitter);
            prop_assert!((now + FLOOR..=now + DAY).contains(&next));
            let next = after_failure(now, failures, jitter);
            prop_assert!((now + FLOOR..=now + LONGEST_WAIT + LONGEST_WAIT / 10).contains(&next));
        }
    }
}
