//! What balancing promises.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};

use super::{rendezvous::negative_log2, *};

fn members(weights: &[u32]) -> Vec<Member> {
    weights
        .iter()
        .enumerate()
        .map(|(index, weight)| Member {
            seed: seed(&format!("b{index}")),
            weight: *weight,
            priority: 0,
            usable: true,
            near: false,
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
    let request = Request { balance, key, tried, load: &|_| 1, full: &|_| false };
    view.pick(&request, turns, rng)
}

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

/// One view for all methods: with the table of maglev, which the others do not look at.
fn tiers_of(members: Vec<Member>) -> View {
    View::new(members, &Rules::new(Balance::Maglev))
}

#[test]
fn vectors_of_hash_are_pinned() {
    let view = tiers_of(members(&[1, 1, 1, 1, 1]));
    let weighted = tiers_of(members(&[1, 2, 3, 4, 5]));
    let mut rng = SmallRng::seed_from_u64(1);
    let picks = |view: &View, rng: &mut SmallRng| -> Vec<usize> {
        (0..12u8)
            .map(|last| {
                pick(view, Balance::Hash, &[10, 0, 0, last], &[], &mut Turns::default(), rng).expect("one")
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
    let all = tiers_of(members(&[1; 10]));
    let mut fewer = members(&[1; 10]);
    fewer[3].usable = false;
    let fewer = tiers_of(fewer);
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
    let view = tiers_of(members(&[1, 2, 3, 4, 0]));
    for balance in [Balance::Random, Balance::Hash, Balance::LeastConn, Balance::Maglev, Balance::P2c] {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut counts = [0u32; 5];
        for key in 0..20_000u32 {
            let active = counts;
            let load = move |index: usize| u64::from(active[index]) + 1;
            let request =
                Request { balance, key: &key.to_le_bytes(), tried: &[], load: &load, full: &|_| false };
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
fn vectors_of_maglev_are_pinned() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut picks = |view: &View| -> Vec<usize> {
        let pick = |last: u8| {
            pick(view, Balance::Maglev, &[10, 0, 0, last], &[], &mut Turns::default(), &mut rng).expect("one")
        };
        (0..12).map(pick).collect()
    };
    assert_eq!(picks(&tiers_of(members(&[1, 1, 1, 1, 1]))), MAGLEV_EQUAL);
    assert_eq!(picks(&tiers_of(members(&[1, 2, 3, 4, 5]))), MAGLEV_WEIGHTED);
}
const MAGLEV_EQUAL: [usize; 12] = [0, 2, 2, 2, 3, 2, 0, 4, 0, 0, 2, 0];
const MAGLEV_WEIGHTED: [usize; 12] = [1, 2, 2, 2, 3, 2, 4, 4, 0, 0, 2, 0];

/// The paper's bounds: shares within a few percent, and when one of ten goes little more than its own keys move.
#[test]
fn maglev_shares_evenly_and_moves_little() {
    let all = tiers_of(members(&[1; 10]));
    let mut fewer = members(&[1; 10]);
    fewer[3].usable = false;
    let fewer = tiers_of(fewer);
    let mut rng = SmallRng::seed_from_u64(1);
    let (mut counts, mut moved) = ([0u32; 10], 0);
    for key in 0..20_000u32 {
        let key = key.to_be_bytes();
        let before = pick(&all, Balance::Maglev, &key, &[], &mut Turns::default(), &mut rng).expect("one");
        let after = pick(&fewer, Balance::Maglev, &key, &[], &mut Turns::default(), &mut rng).expect("one");
        counts[before] += 1;
        moved += u32::from(before != after && before != 3);
        assert_ne!(after, 3);
    }
    assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    assert!(moved < 20_000 / 20, "{moved} keys moved that need not");
}

#[test]
fn the_lesser_of_two_spreads_like_the_least_of_all() {
    let view = tiers_of(members(&[1; 20]));
    let mut rng = SmallRng::seed_from_u64(3);
    let mut active = [0u64; 20];
    for _ in 0..20_000 {
        let now = active;
        let load = move |index: usize| now[index] + 1;
        let request = Request { balance: Balance::P2c, key: b"", tried: &[], load: &load, full: &|_| false };
        active[view.pick(&request, &mut Turns::default(), &mut rng).expect("one")] += 1;
    }
    let spread = active.iter().max().zip(active.iter().min()).map(|(most, least)| most - least);
    assert!(spread.is_some_and(|spread| spread <= 8), "{active:?}");
}

#[test]
fn a_tier_with_too_few_members_is_left_and_one_in_use_may_be_held() {
    let mut list = members(&[1, 1, 1, 1]);
    (list[2].priority, list[3].priority) = (1, 1);
    let of = |list: &[Member], rules: Rules| View::new(list.to_vec(), &rules).leading_priority();
    let rules = Rules { min_usable: 2, ..Rules::new(Balance::Random) };
    assert_eq!(of(&list, rules), Some(0));
    list[0].usable = false;
    assert_eq!(of(&list, rules), Some(1));
    list[2].usable = false;
    assert_eq!(of(&list, rules), Some(0), "none has enough: the first that has any");
    (list[0].usable, list[2].usable) = (true, true);
    assert_eq!(of(&list, Rules { held: Some(1), ..rules }), Some(1));
    list[3].usable = false;
    assert_eq!(of(&list, Rules { held: Some(1), ..rules }), Some(0), "it has too few");
    let single = View::new(list, &Rules { single_active: true, ..Rules::new(Balance::Random) });
    assert_eq!(single.usable(), 2, "one of each tier");
}

#[test]
fn a_full_tier_spills_where_it_may() {
    let mut list = members(&[1, 1]);
    list[1].priority = 1;
    let view = View::new(list, &Rules { spill_when_full: true, ..Rules::new(Balance::Random) });
    let mut rng = SmallRng::seed_from_u64(1);
    let full = |full: &'static dyn Fn(usize) -> bool, rng: &mut SmallRng| {
        let request = Request { balance: Balance::Random, key: b"", tried: &[], load: &|_| 1, full };
        view.pick(&request, &mut Turns::default(), rng)
    };
    assert_eq!(full(&|index| index == 0, &mut rng), Ok(1));
    assert_eq!(full(&|_| true, &mut rng), Err(NoCandidate::AllFull));
}

#[test]
fn tiers_lead_by_priority_and_full_only_waits() {
    let mut list = members(&[1, 1, 1]);
    list[1].priority = 1;
    list[2].priority = 1;
    let view = tiers_of(list.clone());
    let mut rng = SmallRng::seed_from_u64(1);
    for balance in ALL {
        let mut turns = Turns::default();
        assert_eq!(pick(&view, balance, b"k", &[], &mut turns, &mut rng), Ok(0));
        assert!(pick(&view, balance, b"k", &[0], &mut turns, &mut rng).is_ok_and(|index| index > 0));
        let request = Request { balance, key: b"k", tried: &[], load: &|_| 1, full: &|index| index == 0 };
        assert_eq!(view.pick(&request, &mut turns, &mut rng), Err(NoCandidate::AllFull));
    }
    list.iter_mut().for_each(|member| member.usable = false);
    assert_eq!(tiers_of(list.clone()).usable(), 0);
    assert_eq!(View::new(list, &Rules { any_when_all_down: true, ..Rules::new(Balance::Hash) }).usable(), 3);
}

proptest! {
    #[test]
    fn turns_are_exact_over_the_sum_of_weights(weights in prop::collection::vec(0u32..9, 1..8)) {
        let view = tiers_of(members(&weights));
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
        let view = tiers_of(list.clone());
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
