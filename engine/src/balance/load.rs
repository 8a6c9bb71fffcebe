//! By load: the least of all, or the lesser of two.

use std::cmp::Ordering;

use rand::RngCore;

use super::View;

impl View {
    /// The least load by weight; ties at random.
    pub(super) fn least(
        &self,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        load: &dyn Fn(usize) -> u64,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut ties = 0;
        for place in (0..places.len()).filter(|place| open(*place)) {
            let order = best.map_or(Ordering::Less, |best| self.compare(places, place, best, load));
            let take = match order {
                Ordering::Less => {
                    ties = 1;
                    true
                }
                Ordering::Equal => {
                    ties += 1;
                    rng.next_u64().is_multiple_of(ties)
                }
                Ordering::Greater => false,
            };
            if take {
                best = Some(place);
            }
        }
        best
    }

    /// Two different places at random, and of them the one with the lesser load by weight (Mitzenmacher 2001). Only when
    /// they hit closed ones is the rest looked at.
    pub(super) fn lesser_of_two(
        &self,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        load: &dyn Fn(usize) -> u64,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let first = self.any_open(places, open, None, rng)?;
        let Some(second) = self.any_open(places, open, Some(first), rng) else { return Some(first) };
        Some(match self.compare(places, first, second, load) {
            Ordering::Greater => second,
            Ordering::Less | Ordering::Equal => first,
        })
    }

    /// An open place other than `not`, each with the same chance.
    fn any_open(
        &self,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        not: Option<usize>,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let fits = |place: usize| Some(place) != not && open(place);
        for _ in 0..3 {
            let place = rng.next_u64().checked_rem(places.len() as u64)? as usize;
            if fits(place) {
                return Some(place);
            }
        }
        let count = (0..places.len()).filter(|place| fits(*place)).count();
        let at = rng.next_u64().checked_rem(count as u64)? as usize;
        (0..places.len()).filter(|place| fits(*place)).nth(at)
    }

    fn compare(&self, places: &[u32], a: usize, b: usize, load: &dyn Fn(usize) -> u64) -> Ordering {
        let of = |place: usize| {
            let index = places[place];
            (u128::from(load(index as usize)), u128::from(self.weight(index)))
        };
        let ((load_a, weight_a), (load_b, weight_b)) = (of(a), of(b));
        (load_a * weight_b).cmp(&(load_b * weight_a))
    }
}
