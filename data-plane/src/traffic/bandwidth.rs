//! What each backend of a pool moved lately on this worker, for balancing by `leastBandwidth`.

use std::{cell::RefCell, sync::Arc};

use super::counters::Counters;

/// Between two looks at the counters.
const PERIOD_MILLIS: u64 = 1_000;

/// By the members' places. Empty until it is asked for.
#[derive(Default)]
pub(super) struct Bandwidth {
    sampled_at: u64,
    /// Bytes each way at that time.
    totals: Vec<u64>,
    /// Bytes a second, half of it from the period before, and so on.
    rates: Vec<u64>,
    /// What is expected of each connection that was given away since.
    expected: u64,
    given: RefCell<Vec<u64>>,
}

impl Bandwidth {
    /// Looks at the counters when it is time.
    pub(super) fn sample(&mut self, now: u64, counters: &[Arc<Counters>]) {
        let since = now.saturating_sub(self.sampled_at);
        if since < PERIOD_MILLIS && self.totals.len() == counters.len() {
            return;
        }
        let total =
            |counters: &Arc<Counters>| counters.bytes_in.value().wrapping_add(counters.bytes_out.value());
        let totals: Vec<u64> = counters.iter().map(total).collect();
        if self.totals.len() == totals.len() {
            for ((rate, before), after) in self.rates.iter_mut().zip(&self.totals).zip(&totals) {
                let lately = after.wrapping_sub(*before).saturating_mul(1_000) / since.max(1);
                *rate = rate.saturating_add(lately) / 2;
            }
            let given: u64 = self.given.borrow().iter().sum();
            // A new connection will move about as much as the others do: so a burst does not go to one backend.
            self.expected = (self.rates.iter().sum::<u64>() / given.max(1)).max(1);
        } else {
            self.rates = vec![0; totals.len()];
            self.expected = 1;
        }
        self.sampled_at = now;
        self.given = RefCell::new(vec![0; totals.len()]);
        self.totals = totals;
    }

    /// What a member has to carry, one more connection included.
    pub(super) fn load(&self, index: usize) -> u64 {
        let given = self.given.borrow().get(index).copied().unwrap_or(0);
        let rate = self.rates.get(index).copied().unwrap_or(0);
        rate.saturating_add((given + 1).saturating_mul(self.expected))
    }

    /// A connection was given to a member.
    pub(super) fn picked(&self, index: usize) {
        if let Some(given) = self.given.borrow_mut().get_mut(index) {
            *given += 1;
        }
    }
}
