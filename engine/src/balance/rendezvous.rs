//! Weighted rendezvous hashing (Thaler and Ravishankar 1998, weights after Schindelhauer and Schomaker 2005).

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Tier, View};

impl View {
    /// Weighted rendezvous: the member whose draw for this key, `-log(draw) / weight`, is the smallest. In integers, so
    /// that every node agrees to the bit.
    pub(super) fn rendezvous(
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
}

/// `-log2(draw / 2^64)` with 32 bits behind the point, by squaring (Knuth, TAOCP 1.2.2, exercise 25).
pub(super) fn negative_log2(draw: u64) -> u64 {
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
