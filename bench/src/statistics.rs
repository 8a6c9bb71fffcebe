//! Medians, ratios pair by pair, and how sure they are.

use serde::Serialize;

use crate::bytes::mix;

/// The median; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        length => sorted[length / 2],
    }
}

/// A median with its bootstrap interval of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The median of the values.
    pub median: f64,
    /// 2.5 % of the resampled medians are lower.
    pub low: f64,
    /// 2.5 % are higher.
    pub high: f64,
    /// How many values there were.
    pub rounds: usize,
}

/// Resamples with a fixed seed: the same values always give the same interval.
pub fn bootstrap(values: &[f64]) -> Option<Estimate> {
    const RESAMPLES: usize = 5000;
    if values.is_empty() {
        return None;
    }
    let mut state = 0x0bad_5eed_u64;
    let mut draw = |bound: usize| {
        state = state.wrapping_add(1);
        (mix(state) % bound as u64) as usize
    };
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let resample: Vec<f64> = values.iter().map(|_| values[draw(values.len())]).collect();
            median(&resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Estimate {
        median: median(values),
        low: medians[RESAMPLES * 25 / 1000],
        high: medians[RESAMPLES * 975 / 1000],
        rounds: values.len(),
    })
}

/// What an estimate says about a mark that it must not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Even the upper bound keeps the mark.
    Met,
    /// Even the lower bound exceeds it.
    Missed,
    /// More rounds are needed.
    Undecided,
}

impl Estimate {
    /// Judges against a mark. Fewer than three rounds decide nothing.
    pub fn against(&self, mark: f64) -> Verdict {
        if self.rounds < 3 {
            Verdict::Undecided
        } else if self.high <= mark {
            Verdict::Met
        } else if self.low > mark {
            Verdict::Missed
        } else {
            Verdict::Undecided
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_even_and_odd() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let estimate = bootstrap(&[0.9, 1.0, 1.1, 1.0, 0.95]).unwrap();
        assert!(estimate.low <= estimate.median && estimate.median <= estimate.high);
        assert_eq!(estimate.against(1.2), Verdict::Met);
        assert_eq!(estimate.against(1.0), Verdict::Undecided);
        assert_eq!(estimate.against(0.5), Verdict::Missed);
        assert_eq!(bootstrap(&[0.1]).unwrap().against(1.0), Verdict::Undecided);
        assert_eq!(bootstrap(&[]), None);
    }

    #[test]
    fn the_same_values_give_the_same_interval() {
        let values = [1.0, 1.3, 0.8, 1.1];
        assert_eq!(bootstrap(&values), bootstrap(&values));
    }
}
