//! Near members before far ones, within their tier.

use super::{Member, Rules};

/// Whether the near members of a tier come before its others: `usable` of `all` of them can take something, and with a share
/// below `spill_below` percent the tier counts as one.
pub fn near_leads(usable: usize, all: usize, spill_below: u8) -> bool {
    usable > 0 && usable * 100 >= usize::from(spill_below) * all
}

/// The parts of a tier in the order in which they are used, each with whether it is the near one of two. `tier`: indices of
/// its members that may be picked.
pub(super) fn parts(tier: &[u32], members: &[Member], rules: &Rules) -> Vec<(Vec<u32>, bool)> {
    let mut parts = match rules.near_first {
        Some(spill_below) => split(tier, members, spill_below),
        None => vec![(tier.to_vec(), false)],
    };
    if rules.single_active {
        parts.truncate(1);
        parts.iter_mut().for_each(|(part, _)| part.truncate(1));
    }
    parts
}

fn split(tier: &[u32], members: &[Member], spill_below: u8) -> Vec<(Vec<u32>, bool)> {
    let (near, far): (Vec<u32>, Vec<u32>) = tier.iter().partition(|index| members[**index as usize].near);
    let priority = tier.first().map(|index| members[*index as usize].priority);
    let is_of_tier = |member: &&Member| member.near && member.weight > 0 && Some(member.priority) == priority;
    let all = members.iter().filter(is_of_tier).count();
    if far.is_empty() || !near_leads(near.len(), all, spill_below) {
        return vec![(tier.to_vec(), false)];
    }
    vec![(near, true), (far, false)]
}

#[cfg(test)]
mod tests {
    use awe4lb_model::Balance;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::balance::{NoCandidate, Request, Turns, View, seed};

    const ALL: [Balance; 8] = [
        Balance::Random,
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::Hash,
        Balance::Maglev,
        Balance::P2c,
        Balance::Ewma,
        Balance::LeastBandwidth,
    ];

    /// Near and usable, of each member.
    fn members(list: &[(bool, bool)]) -> Vec<Member> {
        let member = |(index, (near, usable)): (usize, &(bool, bool))| Member {
            seed: seed(&format!("b{index}")),
            weight: 1,
            priority: 0,
            usable: *usable,
            near: *near,
        };
        list.iter().enumerate().map(member).collect()
    }

    fn rules(balance: Balance, spill_below: u8) -> Rules {
        Rules { near_first: Some(spill_below), ..Rules::new(balance) }
    }

    /// Who is picked in so many tries, by clients of their own, of whom `full` take nothing.
    fn picked(view: &View, balance: Balance, full: &[usize]) -> std::collections::BTreeSet<usize> {
        let (mut turns, mut rng) = (Turns::default(), SmallRng::seed_from_u64(1));
        (0..400u32)
            .filter_map(|client| {
                let full = |index: usize| full.contains(&index);
                let key = client.to_be_bytes();
                let request = Request { balance, key: &key, tried: &[], load: &|_| 1, full: &full };
                view.pick(&request, &mut turns, &mut rng).ok()
            })
            .collect()
    }

    #[test]
    fn near_members_take_everything_while_enough_of_them_are_usable() {
        for balance in ALL {
            let well = [(true, true), (false, true), (true, true), (false, true), (true, true), (true, true)];
            let view = View::new(members(&well), &rules(balance, 70));
            assert_eq!(picked(&view, balance, &[]), [0, 2, 4, 5].into(), "{balance:?}");
            // Three of four are left.
            let mut one_down = well;
            one_down[0].1 = false;
            let view = View::new(members(&one_down), &rules(balance, 70));
            assert_eq!(picked(&view, balance, &[]), [2, 4, 5].into(), "{balance:?}");
            // Two of four are too few: everybody takes part, also the near ones that are left.
            let mut two_down = one_down;
            two_down[2].1 = false;
            let view = View::new(members(&two_down), &rules(balance, 70));
            assert_eq!(picked(&view, balance, &[]), [1, 3, 4, 5].into(), "{balance:?}");
            // Unless that is how it is wanted.
            let view = View::new(members(&two_down), &rules(balance, 0));
            assert_eq!(picked(&view, balance, &[]), [4, 5].into(), "{balance:?}");
        }
    }

    #[test]
    fn near_members_that_are_full_or_were_tried_leave_it_to_the_others_of_their_tier() {
        for balance in ALL {
            let mut all = members(&[(true, true), (true, true), (false, true), (false, true)]);
            all[3].priority = 1;
            let view = View::new(all, &rules(balance, 50));
            assert_eq!(picked(&view, balance, &[0]), [1].into(), "{balance:?}");
            assert_eq!(picked(&view, balance, &[0, 1]), [2].into(), "{balance:?}");
            // The next tier is not used for being full, as ever.
            assert_eq!(picked(&view, balance, &[0, 1, 2]), [].into(), "{balance:?}");
            let mut rng = SmallRng::seed_from_u64(1);
            let mut tried = Vec::new();
            let request = |tried: &[u32]| {
                let request = Request { balance, key: b"x", tried, load: &|_| 1, full: &|_| false };
                view.pick(&request, &mut Turns::default(), &mut rng)
            };
            let mut request = request;
            for _ in 0..4 {
                tried.push(request(&tried).map(|index| index as u32).unwrap_or(99));
            }
            tried[..2].sort_unstable();
            assert_eq!(tried, [0, 1, 2, 3], "{balance:?}");
            assert_eq!(request(&tried), Err(NoCandidate::NoneUsable));
        }
    }

    #[test]
    fn tiers_come_before_nearness_and_one_active_is_a_near_one() {
        let mut all = members(&[(false, true), (true, true), (true, true)]);
        all[2].priority = 1;
        let view = View::new(all.clone(), &rules(Balance::Random, 70));
        assert_eq!(picked(&view, Balance::Random, &[]), [1].into());
        all[1].usable = false;
        let view = View::new(all.clone(), &rules(Balance::Random, 70));
        assert_eq!(picked(&view, Balance::Random, &[]), [0].into(), "far, but of the better tier");
        let single = Rules { single_active: true, ..rules(Balance::Random, 70) };
        all[1].usable = true;
        assert_eq!(picked(&View::new(all, &single), Balance::Random, &[]), [1].into());
    }

    proptest! {
        /// Whoever is usable is found, near or far, whatever is preferred.
        #[test]
        fn a_preference_takes_nobody_away(
            list in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..12),
            spill_below in 0u8..=100,
        ) {
            for balance in ALL {
                let view = View::new(members(&list), &rules(balance, spill_below));
                let (mut tried, mut rng) = (Vec::new(), SmallRng::seed_from_u64(3));
                let mut turns = Turns::default();
                loop {
                    let request =
                        Request { balance, key: b"k", tried: &tried, load: &|_| 1, full: &|_| false };
                    match view.pick(&request, &mut turns, &mut rng) {
                        Ok(index) => tried.push(index as u32),
                        Err(_) => break,
                    }
                }
                tried.sort_unstable();
                let usable: Vec<u32> =
                    (0u32..).zip(&list).filter(|(_, (_, usable))| *usable).map(|(index, _)| index).collect();
                prop_assert_eq!(&tried, &usable);
            }
        }
    }
}
