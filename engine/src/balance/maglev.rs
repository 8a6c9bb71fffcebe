//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): a table in which every member has its share of places, found
//! with one look, and of which little changes when members come and go.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Sizes of tables. The paper asks for a prime, and for a hundred times as many places as members.
const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];
const PLACES_A_MEMBER: usize = 100;

/// One table, made of the members of one tier.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// By place of the table: a member, by its place in the tier.
    places: Vec<u32>,
}

impl Table {
    /// Members are pairs of seed and weight; weights are above 0.
    pub(super) fn new(members: &[(u64, u32)]) -> Self {
        let Some(heaviest) = members.iter().map(|(_, weight)| *weight).max() else { return Self::default() };
        let wanted = members.len() * PLACES_A_MEMBER;
        let size = SIZES.iter().copied().find(|size| *size as usize >= wanted);
        let size = u64::from(size.unwrap_or(SIZES[SIZES.len() - 1]));
        // Each member goes through all places in an order of its own: from its offset, by its skip.
        let mut orders: Vec<(u64, u64)> = members
            .iter()
            .map(|(seed, _)| {
                let draw = |of| xxh3_64_with_seed(&seed.to_be_bytes(), of);
                (draw(0) % size, draw(1) % (size - 1) + 1)
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut places = vec![FREE; size as usize];
        let mut left = places.len();
        // Turns by weight: the heaviest member takes a place in each round, the others whenever their credit is full.
        let mut credit = vec![0u64; members.len()];
        'all: loop {
            for (member, (at, skip)) in orders.iter_mut().enumerate() {
                credit[member] += u64::from(members[member].1);
                if credit[member] < u64::from(heaviest) {
                    continue;
                }
                credit[member] -= u64::from(heaviest);
                while places[*at as usize] != FREE {
                    *at = (*at + *skip) % size;
                }
                places[*at as usize] = member as u32;
                left -= 1;
                if left == 0 {
                    break 'all;
                }
            }
        }
        Self { places }
    }

    /// The member of a key. Where it is closed, that of the next places.
    pub(super) fn look_up(&self, key: &[u8], open: &dyn Fn(usize) -> bool) -> Option<usize> {
        let size = self.places.len();
        let start = xxh3_64(key).checked_rem(size as u64)? as usize;
        let around = self.places[start..].iter().chain(&self.places[..start]);
        around.map(|member| *member as usize).find(|member| open(*member))
    }
}
