//! Whom to pick: over a view of a pool that is made once per change and read by every connection.
//!
//! A [`View`] holds the usable members in tiers. [`View::pick`] gives one candidate; called again with those that were
//! tried, it gives the next, so that a fallback needs no logic of its own.

use awe4lb_model::Balance;
use rand::RngCore;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// One backend as balancing sees it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Made from its name by [`seed`]: what rendezvous hashing knows it by.
    pub seed: u64,
    /// Its share in its tier. 0 gets nothing.
    pub weight: u32,
    /// Its tier: the lowest number with a usable member leads.
    pub priority: u32,
    /// Whether health, admin state and presence allow it.
    pub usable: bool,
}

/// The seed of a backend's name. Pinned: nodes and versions must agree.
pub fn seed(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// The usable members of a pool, in tiers.
#[derive(Debug, Clone, Default)]
pub struct View {
    members: Vec<Member>,
    /// Indices into `members`, by tier.
    order: Vec<u32>,
    tiers: Vec<Tier>,
}

#[derive(Debug, Clone)]
struct Tier {
    start: usize,
    end: usize,
    total_weight: u64,
    equal_weights: bool,
}

/// What roundRobin remembers, one a worker and pool.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Smooth weighted turns: the current value of each place in `order`.
    current: Vec<i64>,
}

/// How a candidate is found.
pub struct Request<'a> {
    /// The method.
    pub balance: Balance,
    /// For `hash`: the bytes to hash.
    pub key: &'a [u8],
    /// Members that were tried already, by index.
    pub tried: &'a [u32],
    /// Open connections of a member.
    pub active: &'a dyn Fn(usize) -> u32,
    /// Whether a member is full.
    pub full: &'a dyn Fn(usize) -> bool,
}

/// Why there is no candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCandidate {
    /// No member is usable (any more).
    NoneUsable,
    /// The usable ones of the leading tier are full.
    AllFull,
}

impl View {
    /// Sorts the usable members into tiers. With `any_when_all_down`, all of them count when none is usable.
    pub fn new(members: Vec<Member>, any_when_all_down: bool) -> Self {
        let none_usable = !members.iter().any(|member| member.usable && member.weight > 0);
        let counts =
            |member: &Member| member.weight > 0 && (member.usable || (any_when_all_down && none_usable));
        let mut order: Vec<u32> =
            (0u32..).zip(&members).filter(|(_, member)| counts(member)).map(|(index, _)| index).collect();
        order.sort_by_key(|index| members[*index as usize].priority);
        let mut tiers = Vec::new();
        let mut start = 0;
        for group in order.chunk_by(|a, b| members[*a as usize].priority == members[*b as usize].priority) {
            let weight = |index: &u32| members[*index as usize].weight;
            tiers.push(Tier {
                start,
                end: start + group.len(),
                total_weight: group.iter().map(|index| u64::from(weight(index))).sum(),
                equal_weights: group.iter().all(|index| weight(index) == weight(&group[0])),
            });
            start += group.len();
        }
        Self { members, order, tiers }
    }

    /// Members that may be picked.
    pub fn usable(&self) -> usize {
        self.order.len()
    }

    /// The next candidate, by index into the members. A tier is left when all of it were tried; being full only ends
    /// in [`NoCandidate::AllFull`].
    pub fn pick(
        &self,
        request: &Request<'_>,
        turns: &mut Turns,
        rng: &mut impl RngCore,
    ) -> Result<usize, NoCandidate> {
        let mut any_full = false;
        for tier in &self.tiers {
            let places = &self.order[tier.start..tier.end];
            if let Some(place) = self.pick_in(tier, places, request, turns, rng) {
                return Ok(places[place] as usize);
            }
            if places.iter().any(|index| !request.tried.contains(index)) {
                any_full = true;
                break;
            }
        }
        Err(if any_full { NoCandidate::AllFull } else { NoCandidate::NoneUsable })
    }

    fn pick_in(
        &self,
        tier: &Tier,
        places: &[u32],
        request: &Request<'_>,
        turns: &mut Turns,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let open = |place: usize| {
            let index = places[place];
            !request.tried.contains(&index) && !(request.full)(index as usize)
        };
        match request.balance {
            Balance::Random => self.random(tier, places, &open, rng),
            Balance::RoundRobin => {
                turns.current.resize(self.order.len(), 0);
                self.in_turn(places, &open, &mut turns.current[tier.start..tier.end])
            }
            Balance::LeastConn => self.least(places, &open, request.active, rng),
            Balance::Hash => self.rendezvous(tier, places, &open, request.key),
        }
    }

    fn weight(&self, index: u32) -> u64 {
        u64::from(self.members[index as usize].weight)
    }

    fn random(
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
    fn in_turn(&self, places: &[u32], open: &dyn Fn(usize) -> bool, current: &mut [i64]) -> Option<usize> {
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

    /// The fewest connections after this one, by weight; ties at random.
    fn least(
        &self,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        active: &dyn Fn(usize) -> u32,
        rng: &mut impl RngCore,
    ) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        let mut ties = 0;
        for (place, index) in places.iter().copied().enumerate().filter(|(place, _)| open(*place)) {
            let (load, weight) = (u64::from(active(index as usize)) + 1, self.weight(index));
            let order =
                best.map_or(std::cmp::Ordering::Less, |(_, least, of)| (load * of).cmp(&(least * weight)));
            let take = match order {
                std::cmp::Ordering::Less => {
                    ties = 1;
                    true
                }
                std::cmp::Ordering::Equal => {
                    ties += 1;
                    rng.next_u64().is_multiple_of(ties)
                }
                std::cmp::Ordering::Greater => false,
            };
            if take {
                best = Some((place, load, weight));
            }
        }
        best.map(|(place, ..)| place)
    }

    /// Weighted rendezvous: the member whose draw for this key, `-log(draw) / weight`, is the smallest. In integers, so
    /// that every node agrees to the bit.
    fn rendezvous(
        &self,
        tier: &Tier,
        places: &[u32],
        open: &dyn Fn(usize) -> bool,
        key: &[u8],
    ) -> Option<usize> {
        let mut best: Option<(usize, u64, u64, u64)> = None;
        for (place, index) in places.iter().copied().enumerate().filter(|(place, _)| open(*place)) {
            let member = &self.members[index as usize];
            let draw = xxh3_64_with_seed(key, member.seed);
            let (distance, weight) =
                if tier.equal_weights { (!draw, 1) } else { (negative_log2(draw), u64::from(member.weight)) };
            let nearer = best.is_none_or(|(_, least, of, least_draw)| {
                let (ours, theirs) =
                    (u128::from(distance) * u128::from(of), u128::from(least) * u128::from(weight));
                ours < theirs || (ours == theirs && draw > least_draw)
            });
            if nearer {
                best = Some((place, distance, weight, draw));
            }
        }
        best.map(|(place, ..)| place)
    }

    /// The sum of the weights of the leading tier.
    pub fn leading_weight(&self) -> u64 {
        self.tiers.first().map_or(0, |tier| tier.total_weight)
    }
}

/// `-log2(draw / 2^64)` with 32 bits behind the point, by squaring (Knuth, TAOCP 1.2.2, exercise 25).
fn negative_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let zeros = draw.leading_zeros();
    // The mantissa in [1, 2), 63 bits behind the point.
    let mut mantissa = draw << zeros;
    let mut fraction: u64 = 0;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        fraction <<= 1;
        mantissa = if square >> 64 != 0 {
            fraction |= 1;
            (square >> 1) as u64
        } else {
            square as u64
        };
    }
    ((u64::from(zeros) + 1) << 32) - fraction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Member {
                seed: seed(&format!("b{index}")),
                weight: *weight,
                priority: 0,
                usable: true,
            })
            .collect()
    }

    fn pick(
        view: &View,
        balance: Balance,
        key: &[u8],
        tried: &[u32],
        turns: &mut Turns,
        rng: &mut SmallRng,
    ) -> Result<usize, NoCandidate> {
        let request = Request { balance, key, tried, active: &|_| 0, full: &|_| false };
        view.pick(&request, turns, rng)
    }

    const ALL: [Balance; 4] = [Balance::Random, Balance::RoundRobin, Balance::LeastConn, Balance::Hash];

    #[test]
    fn vectors_of_hash_are_pinned() {
        let view = View::new(members(&[1, 1, 1, 1, 1]), false);
        let weighted = View::new(members(&[1, 2, 3, 4, 5]), false);
        let mut rng = SmallRng::seed_from_u64(1);
        let picks = |view: &View, rng: &mut SmallRng| -> Vec<usize> {
            (0..12u8)
                .map(|last| {
                    pick(view, Balance::Hash, &[10, 0, 0, last], &[], &mut Turns::default(), rng)
                        .expect("one")
                })
                .collect()
        };
        assert_eq!(picks(&view, &mut rng), PINNED_EQUAL);
        assert_eq!(picks(&weighted, &mut rng), PINNED_WEIGHTED);
        assert_eq!(seed("app-1"), PINNED_SEED);
    }
    const PINNED_EQUAL: [usize; 12] = [3, 0, 1, 4, 2, 1, 3, 2, 4, 0, 2, 1];
    const PINNED_WEIGHTED: [usize; 12] = [3, 3, 4, 4, 2, 1, 3, 4, 4, 0, 2, 1];
    const PINNED_SEED: u64 = 217503107042899280;

    #[test]
    fn the_logarithm_is_one() {
        for draw in [1u64, 2, 3, 1 << 20, 1 << 40, u64::MAX / 3, 1 << 63, u64::MAX - 1] {
            let exact = 64.0 - (draw as f64).log2();
            let ours = negative_log2(draw) as f64 / f64::from(u32::MAX);
            assert!((exact - ours).abs() < 1e-6, "{draw}: {exact} {ours}");
        }
    }

    #[test]
    fn hash_moves_only_what_it_must() {
        let all = View::new(members(&[1; 10]), false);
        let mut fewer = members(&[1; 10]);
        fewer[3].usable = false;
        let fewer = View::new(fewer, false);
        let mut rng = SmallRng::seed_from_u64(1);
        for key in 0..2000u32 {
            let key = key.to_be_bytes();
            let before = pick(&all, Balance::Hash, &key, &[], &mut Turns::default(), &mut rng).expect("one");
            let after = pick(&fewer, Balance::Hash, &key, &[], &mut Turns::default(), &mut rng).expect("one");
            assert!(before == after || before == 3);
        }
    }

    #[test]
    fn shares_follow_weights() {
        let view = View::new(members(&[1, 2, 3, 4, 0]), false);
        for balance in [Balance::Random, Balance::Hash, Balance::LeastConn] {
            let mut rng = SmallRng::seed_from_u64(7);
            let mut counts = [0u32; 5];
            for key in 0..20_000u32 {
                let active = counts;
                let load = move |index: usize| active[index];
                let request =
                    Request { balance, key: &key.to_le_bytes(), tried: &[], active: &load, full: &|_| false };
                counts[view.pick(&request, &mut Turns::default(), &mut rng).expect("one")] += 1;
            }
            assert_eq!(counts[4], 0);
            for (index, count) in counts[..4].iter().enumerate() {
                let wanted = 2000.0 * (index + 1) as f64;
                assert!((f64::from(*count) - wanted).abs() < 0.06 * wanted, "{balance:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn tiers_lead_by_priority_and_full_only_waits() {
        let mut list = members(&[1, 1, 1]);
        list[1].priority = 1;
        list[2].priority = 1;
        let view = View::new(list.clone(), false);
        let mut rng = SmallRng::seed_from_u64(1);
        for balance in ALL {
            let mut turns = Turns::default();
            assert_eq!(pick(&view, balance, b"k", &[], &mut turns, &mut rng), Ok(0));
            assert!(pick(&view, balance, b"k", &[0], &mut turns, &mut rng).is_ok_and(|index| index > 0));
            let request =
                Request { balance, key: b"k", tried: &[], active: &|_| 0, full: &|index| index == 0 };
            assert_eq!(view.pick(&request, &mut turns, &mut rng), Err(NoCandidate::AllFull));
        }
        list.iter_mut().for_each(|member| member.usable = false);
        assert_eq!(View::new(list.clone(), false).usable(), 0);
        assert_eq!(View::new(list, true).usable(), 3);
    }

    proptest! {
        #[test]
        fn turns_are_exact_over_the_sum_of_weights(weights in prop::collection::vec(0u32..9, 1..8)) {
            let view = View::new(members(&weights), false);
            let mut turns = Turns::default();
            let mut rng = SmallRng::seed_from_u64(1);
            let total: u32 = weights.iter().sum();
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..total {
                counts[pick(&view, Balance::RoundRobin, b"", &[], &mut turns, &mut rng).expect("one")] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn every_usable_member_is_a_candidate_once(weights in prop::collection::vec(0u32..4, 0..8), priorities in prop::collection::vec(0u32..3, 8), round in any::<u64>()) {
            let mut list = members(&weights);
            for (member, priority) in list.iter_mut().zip(&priorities) {
                member.priority = *priority;
            }
            let view = View::new(list.clone(), false);
            let mut rng = SmallRng::seed_from_u64(round);
            for balance in ALL {
                let mut tried: Vec<u32> = Vec::new();
                let mut turns = Turns::default();
                while let Ok(index) = pick(&view, balance, b"key", &tried, &mut turns, &mut rng) {
                    prop_assert!(!tried.contains(&(index as u32)));
                    let rank = tried.last().map_or(0, |last| list[*last as usize].priority);
                    prop_assert!(list[index].priority >= rank);
                    tried.push(index as u32);
                }
                prop_assert_eq!(tried.len(), view.usable());
            }
        }
    }
}
