//! When a certificate is ordered, renewed or tried again. Times are seconds since 1970; nothing here reads a clock.
//!
//! A certificate is renewed when its authority says so (RFC 9773), else when a third of its life is left, and a little
//! sooner by chance, so that a thousand certificates of one day are not a thousand orders of one hour. Failures
//! wait longer and longer; an authority that asks for patience gets it.

/// Of a try after the first failure.
const FIRST_WAIT: i64 = 60;
/// Each further failure waits so many times longer.
const FACTOR: i64 = 3;
/// Nothing is issued yet, or the end is near: authorities allow five failed validations of a name an hour.
const LONGEST_WAIT_URGENT: i64 = 3_600;
/// Else.
const LONGEST_WAIT: i64 = 6 * 3_600;
/// While so much of the time that is left goes by with waiting, there are tries enough.
const TRIES_LEFT: i64 = 8;

/// From when to when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The first second.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

impl Life {
    /// In seconds.
    pub fn length(self) -> i64 {
        (self.not_after - self.not_before).max(1)
    }
}

/// When an authority wants a certificate to be renewed (RFC 9773 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub start: i64,
    /// Not after.
    pub end: i64,
}

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Of the issued certificate that serves; `None`: there is none as it is wanted.
    pub life: Option<Life>,
    /// What the authority says of it.
    pub window: Option<Window>,
    /// How long before its end the user wants it renewed, in seconds.
    pub renew_before: Option<i64>,
    /// Failures in a row.
    pub failures: u32,
    /// When the last one was.
    pub last_failure: i64,
    /// What the authority asked for: no order before.
    pub not_sooner: i64,
    /// The same for as long as the certificate stays: spreads what would come together.
    pub luck: u64,
}

/// Why something is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is none yet.
    Missing,
    /// The authority suggests it.
    Suggested,
    /// A third of its life is left.
    Third,
    /// As the user said.
    RenewBefore,
    /// It failed before.
    Retry,
    /// The authority asked to wait.
    Patience,
}

/// The next order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// When; in the past: now.
    pub at: i64,
    /// Why then.
    pub why: Why,
}

/// When the next order of a certificate is due.
pub fn next(known: &Known) -> Next {
    let due = due(known);
    let mut next = due;
    if known.failures > 0 {
        let again = known.last_failure + wait(known);
        if again > next.at {
            next = Next { at: again, why: Why::Retry };
        }
    }
    if known.not_sooner > next.at {
        next = Next { at: known.not_sooner, why: Why::Patience };
    }
    next
}

fn due(known: &Known) -> Next {
    let Some(life) = known.life else { return Next { at: 0, why: Why::Missing } };
    // Whoever says what: a tenth of the life is left for it.
    let latest = life.not_after - life.length() / 10;
    if let Some(window) = known.window {
        let at = window.start + part(known.luck, window.end - window.start);
        return Next { at: at.min(latest), why: Why::Suggested };
    }
    if let Some(before) = known.renew_before {
        let at = life.not_after - before - part(known.luck, before / 10);
        // Not over and over, should it be longer than the life.
        let soonest = life.not_before + life.length() / 10;
        return Next { at: at.clamp(soonest, latest), why: Why::RenewBefore };
    }
    let third = life.length() / 3;
    Next { at: life.not_after - third - part(known.luck, third / 4), why: Why::Third }
}

/// How long after the last failure.
fn wait(known: &Known) -> i64 {
    let (first, longest) = match known.life {
        None => (FIRST_WAIT, LONGEST_WAIT_URGENT),
        Some(life) => {
            let left = life.not_after - known.last_failure;
            let first = FIRST_WAIT.min(life.length() / 60).max(1);
            let longest = if left > 0 {
                (left / TRIES_LEFT).min(LONGEST_WAIT)
            } else {
                // It is over: as often as is allowed; whoever gives certificates of minutes allows more.
                LONGEST_WAIT_URGENT.min(life.length() / TRIES_LEFT)
            };
            // Urgent or not, the authority is not asked more often than it allows.
            (first, longest.max(LONGEST_WAIT_URGENT.min(life.length() / 60)).max(first))
        }
    };
    let mut wait = first;
    for _ in 1..known.failures.min(16) {
        wait = (wait * FACTOR).min(longest);
    }
    wait + part(known.luck.rotate_left(known.failures), wait / 5)
}

/// A part of `most`, by luck: 0 to `most`.
fn part(luck: u64, most: i64) -> i64 {
    if most <= 0 {
        return 0;
    }
    // The upper half of a product is even over the range.
    let spread = (u128::from(luck) * (u128::from(most.unsigned_abs()) + 1)) >> 64;
    i64::try_from(spread).unwrap_or(0)
}

/// When one more order may be placed, where an authority takes `most` in `span` seconds; `placed`: when earlier ones
/// were, in order.
pub fn budget(placed: &[i64], most: usize, span: i64, now: i64) -> i64 {
    let most = most.max(1);
    let recent = placed.iter().rev().take_while(|at| **at > now - span).count();
    if recent < most {
        return now;
    }
    placed[placed.len() - most] + span
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    fn ninety(luck: u64) -> Known {
        Known { life: Some(Life { not_before: 0, not_after: 90 * DAY }), luck, ..Known::default() }
    }

    #[test]
    fn renewed_at_a_third_and_a_little_sooner_by_luck() {
        assert_eq!(next(&ninety(0)), Next { at: 60 * DAY, why: Why::Third });
        let lucky = next(&ninety(u64::MAX)).at;
        assert_eq!(lucky, 60 * DAY - 30 * DAY / 4);
    }

    #[test]
    fn the_authority_decides_where_it_says_something() {
        let window = Some(Window { start: 10 * DAY, end: 12 * DAY });
        assert_eq!(next(&Known { window, ..ninety(0) }), Next { at: 10 * DAY, why: Why::Suggested });
        assert_eq!(next(&Known { window, ..ninety(u64::MAX) }).at, 12 * DAY);
        // Windows that are too late, or end before they begin.
        let late = Some(Window { start: 100 * DAY, end: 120 * DAY });
        assert_eq!(next(&Known { window: late, ..ninety(9) }).at, 81 * DAY);
        let odd = Some(Window { start: 10 * DAY, end: 9 * DAY });
        assert_eq!(next(&Known { window: odd, ..ninety(9) }).at, 10 * DAY);
    }

    #[test]
    fn the_users_wish_is_no_loop() {
        let known = Known { renew_before: Some(200 * DAY), ..ninety(5) };
        assert_eq!(next(&known), Next { at: 9 * DAY, why: Why::RenewBefore });
    }

    #[test]
    fn five_tries_in_the_first_hour_at_most() {
        let mut known = Known::default();
        let (mut now, mut tries) = (0, 0);
        while now < 3_600 {
            tries += 1;
            known.failures += 1;
            known.last_failure = now;
            now = next(&known).at;
        }
        assert_eq!(tries, 5);
    }

    #[test]
    fn what_is_over_is_tried_each_hour_and_what_lives_for_seconds_sooner() {
        let over = |length: i64| {
            let life = Some(Life { not_before: 0, not_after: length });
            let known = Known { life, failures: 20, last_failure: length + 10, ..Known::default() };
            next(&known).at - known.last_failure
        };
        assert_eq!(over(90 * DAY), 3_600);
        assert_eq!(over(24), 3);
    }

    #[test]
    fn patience_is_given() {
        let known = Known { failures: 1, last_failure: 100, not_sooner: 9_999, ..Known::default() };
        assert_eq!(next(&known), Next { at: 9_999, why: Why::Patience });
    }

    #[test]
    fn the_budget_is_a_sliding_window() {
        assert_eq!(budget(&[], 2, 100, 50), 50);
        assert_eq!(budget(&[10], 2, 100, 50), 50);
        assert_eq!(budget(&[10, 20], 2, 100, 50), 110);
        assert_eq!(budget(&[10, 20, 30], 2, 100, 50), 120);
        assert_eq!(budget(&[10, 20], 2, 100, 110), 110);
    }

    /// A generator that is good enough for chance in a simulation.
    fn lucks(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29) ^ (state << 31)
        }
    }

    /// A fleet of certificates and one authority.
    struct World {
        certificates: Vec<Known>,
        placed: Vec<i64>,
        now: i64,
        gaps: usize,
        failed: usize,
    }

    impl World {
        fn new(count: usize, seed: u64) -> Self {
            let mut luck = lucks(seed);
            let certificates = (0..count).map(|_| Known { luck: luck(), ..Known::default() }).collect();
            Self { certificates, placed: Vec::new(), now: 1, gaps: 0, failed: 0 }
        }

        /// Until a time; the authority is there when `is_up` says so, takes 300 orders in three hours, and gives `life`.
        fn run(&mut self, until: i64, life: i64, seed: u64, is_up: impl Fn(i64) -> bool) {
            let mut luck = lucks(seed);
            loop {
                let due = self.certificates.iter().map(|known| next(known).at).min().unwrap_or(until);
                let open = budget(&self.placed, 300, 3 * 3_600, self.now.max(due));
                let at = self.now.max(due).max(open);
                if at >= until {
                    break;
                }
                self.now = at;
                // Who ends first comes first.
                let order = self
                    .certificates
                    .iter_mut()
                    .filter(|known| next(known).at <= at)
                    .min_by_key(|known| known.life.map_or(0, |life| life.not_after));
                let Some(known) = order else { continue };
                if known.life.is_some_and(|life| life.not_after < at) {
                    self.gaps += 1;
                }
                if is_up(at) {
                    self.placed.push(at);
                    let life = Some(Life { not_before: at, not_after: at + life });
                    *known = Known { life, luck: luck(), ..Known::default() };
                } else {
                    self.failed += 1;
                    known.failures += 1;
                    known.last_failure = at;
                }
            }
            self.now = until;
        }

        /// The most orders in any span of so many seconds.
        fn most_in(&self, span: i64) -> usize {
            let counts = self.placed.iter().enumerate().map(|(index, at)| {
                self.placed[index..].iter().take_while(|other| **other < at + span).count()
            });
            counts.max().unwrap_or(0)
        }
    }

    #[test]
    fn a_thousand_certificates_of_one_day_stay_within_the_limits_for_a_year() {
        let mut world = World::new(1_000, 1);
        world.run(365 * DAY, 90 * DAY, 2, |_| true);
        assert_eq!(world.gaps, 0);
        assert!(world.most_in(3 * 3_600) <= 300);
        // The first day takes what is allowed; later days are spread over a week and more.
        let later: Vec<i64> = world.placed.iter().copied().filter(|at| *at > 10 * DAY).collect();
        let busiest =
            later.iter().map(|at| later.iter().filter(|other| (*at..*at + DAY).contains(other)).count());
        let busiest = busiest.max().unwrap_or(0);
        assert!(busiest < 200, "{busiest} renewals in one day");
        assert!((5_000..7_500).contains(&world.placed.len()), "{} orders", world.placed.len());
    }

    #[test]
    fn an_authority_that_is_away_for_a_week_costs_no_gap_and_no_storm() {
        let mut world = World::new(1_000, 3);
        world.run(60 * DAY, 90 * DAY, 4, |_| true);
        let (before, week) = (world.placed.len(), 60 * DAY..67 * DAY);
        world.run(120 * DAY, 90 * DAY, 5, |at| !week.contains(&at));
        assert_eq!(world.gaps, 0);
        assert!(world.most_in(3 * 3_600) <= 300);
        assert!(world.placed.len() - before <= 1_100, "{} orders", world.placed.len() - before);
        // Each certificate that was due asks every few hours, not every minute.
        assert!(world.failed < 1_000 * 35, "{} tries", world.failed);
    }

    #[test]
    fn two_hundred_renewals_of_certificates_that_live_three_minutes() {
        let mut world = World::new(1, 7);
        world.run(200 * 130, 180, 8, |_| true);
        assert_eq!(world.gaps, 0);
        assert!(world.placed.len() >= 200, "{}", world.placed.len());
    }

    proptest! {
        #[test]
        fn there_is_always_time_left(
            length in 60i64..=400 * DAY,
            before in proptest::option::of(0i64..500 * DAY),
            window in proptest::option::of((-1_000i64..500 * DAY, -1_000i64..500 * DAY)),
            luck: u64,
        ) {
            let life = Life { not_before: 1_000, not_after: 1_000 + length };
            let window = window.map(|(start, end)| Window { start, end });
            let known = Known { life: Some(life), renew_before: before, window, luck, ..Known::default() };
            prop_assert!(next(&known).at <= life.not_after - length / 10);
        }

        #[test]
        fn waits_grow_and_end(failures in 1u32..100, luck: u64, length in 60i64..=400 * DAY, at in 0i64..400 * DAY) {
            let life = Some(Life { not_before: 0, not_after: length });
            for life in [None, life] {
                let known = Known { life, failures, last_failure: at, luck, ..Known::default() };
                let wait = wait(&known);
                prop_assert!((1..=LONGEST_WAIT * 6 / 5).contains(&wait), "{wait}");
            }
        }
    }
}
