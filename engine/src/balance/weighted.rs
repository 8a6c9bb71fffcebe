//! By weight alone: at random, and in turn.

use rand::RngCore;

use super::{Tier, View};

impl View {
    pub(super) fn random(
        &self,
        tier: &Tier,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        if tier.equal_weights {
            // The common case costs one number: only when it hits a closed place is the rest looked at.
            let place = (rng.next_u64() % places.len() as u64) as usize;
            if open(place) {
                return Some(place);
            }
        }
        let weights = (0..places.len()).map(|place| if open(place) { self.weight(places[place]) } else { 0 });
        let total: u64 = weights.clone().sum();
        let mut at = rng.next_u64().checked_rem(total)?;
        for (place, weight) in weights.enumerate() {
            if at < weight {
                return Some(place);
            }
            at -= weight;
        }
        None
    }

    /// Smooth weighted round robin: over any total of the weights each is picked exactly its weight's times.
    pub(super) fn in_turn(
        &self,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        current: &mut [i64],
    ) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for place in 0..places.len() {
            if !open(place) {
                continue;
            }
            let weight = i64::from(self.members[places[place] as usize].weight);
            total += weight;
            current[place] += weight;
            if best.is_none_or(|best| current[place] > current[best]) {
                best = Some(place);
            }
        }
        current[best?] -= total;
        best
    }
}
