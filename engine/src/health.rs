//! Who is alive: active checks by rise and fall, passive ones by failed dials.

use std::time::Duration;

use awe4lb_model::{HealthCheck, InitialHealth, Outlier};

/// What checks say of a backend. Without a check it stays unknown, which is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// The last checks succeeded.
    Up,
    /// The last checks failed.
    Down,
}

/// Rise and fall over consecutive results. The very first result decides at once, so that a start does not wait.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    health: Health,
    streak: u32,
}

impl Checked {
    /// Before the first result.
    pub fn new(initial: InitialHealth) -> Self {
        let health = match initial {
            InitialHealth::Check => Health::Unknown,
            InitialHealth::Up => Health::Up,
            InitialHealth::Down => Health::Down,
        };
        Self { health, streak: 0 }
    }

    /// Whether the last results speak against what is known, and were not enough yet.
    pub fn is_unsure(&self) -> bool {
        self.streak > 0
    }

    /// What is known now.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes a result; the new health when it changed.
    pub fn result(&mut self, success: bool, check: &HealthCheck) -> Option<Health> {
        let (agrees, needed, next) = match (self.health, success) {
            (Health::Unknown, true) => (false, 1, Health::Up),
            (Health::Unknown, false) => (false, 1, Health::Down),
            (Health::Up, false) => (false, check.fall, Health::Down),
            (Health::Down, true) => (false, check.rise, Health::Up),
            (Health::Up, true) | (Health::Down, false) => (true, 0, self.health),
        };
        if agrees {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        self.streak = 0;
        self.health = next;
        Some(next)
    }
}

/// When the next check starts: the interval, ten percent more or less, so that checks do not march in step.
pub fn next_check(interval: Duration, random: u64) -> Duration {
    let permille = 900 + (random % 201) as u32;
    interval * permille / 1000
}

/// The first check of several starts at once, the others spread over a tenth of the interval (a second at most).
pub fn first_check(interval: Duration, random: u64) -> Duration {
    let spread = (interval / 10).min(Duration::from_secs(1));
    spread * (random % 1000) as u32 / 1000
}

/// Failed dials in a row, and when one that was set aside may be tried again. Times are milliseconds of any one clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passive {
    failures: u32,
    ejected_until: Option<u64>,
}

impl Passive {
    /// A dial succeeded.
    pub fn success(&mut self) {
        *self = Self::default();
    }

    /// A dial failed. True when this sets the backend aside; `may_eject` is whether the pool can spare it.
    pub fn failure(&mut self, now: u64, outlier: &Outlier, may_eject: bool) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < outlier.consecutive_failures || self.is_ejected(now) || !may_eject {
            return false;
        }
        self.failures = 0;
        self.ejected_until =
            Some(now.saturating_add(u64::try_from(outlier.ejection.as_millis()).unwrap_or(u64::MAX)));
        true
    }

    /// Whether it is set aside now.
    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// When it comes back.
    pub fn ejected_until(&self) -> Option<u64> {
        self.ejected_until
    }
}

/// Whether one more of `members` may be set aside when `ejected` are.
pub fn may_eject(members: usize, ejected: usize, outlier: &Outlier) -> bool {
    (ejected + 1) * 100 <= members * usize::from(outlier.max_ejected_percent)
}

#[cfg(test)]
mod tests {
    use awe4lb_model::CheckKind;

    use super::*;

    const CHECK: HealthCheck = HealthCheck {
        kind: CheckKind::Tcp,
        fast_interval: None,
        initial: InitialHealth::Check,
        address: None,
        proxy_protocol: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        port: None,
    };

    #[test]
    fn rise_and_fall_count_consecutive_results() {
        let mut checked = Checked::default();
        assert_eq!(checked.result(true, &CHECK), Some(Health::Up));
        for (success, change) in [
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(Health::Down)),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(Health::Up)),
        ] {
            assert_eq!(checked.result(success, &CHECK), change);
        }
    }

    #[test]
    fn the_first_failure_of_an_unknown_backend_is_down() {
        assert_eq!(Checked::default().result(false, &CHECK), Some(Health::Down));
    }

    #[test]
    fn what_counts_before_the_first_result_takes_as_many_results_to_change_as_later() {
        let mut up = Checked::new(InitialHealth::Up);
        assert!(!up.is_unsure());
        assert_eq!(up.result(false, &CHECK), None);
        assert!(up.is_unsure());
        assert_eq!((up.result(false, &CHECK), up.result(false, &CHECK)), (None, Some(Health::Down)));
        let mut down = Checked::new(InitialHealth::Down);
        assert_eq!((down.result(true, &CHECK), down.result(true, &CHECK)), (None, Some(Health::Up)));
        assert!(!down.is_unsure());
    }

    #[test]
    fn failed_dials_set_aside_for_a_while_and_never_too_many() {
        let outlier =
            Outlier { consecutive_failures: 2, ejection: Duration::from_secs(1), max_ejected_percent: 50 };
        let mut passive = Passive::default();
        assert!(!passive.failure(0, &outlier, true));
        passive.success();
        assert!(!passive.failure(0, &outlier, true));
        assert!(passive.failure(0, &outlier, true));
        assert!(passive.is_ejected(999) && !passive.is_ejected(1000));
        assert!(may_eject(2, 0, &outlier) && !may_eject(2, 1, &outlier) && !may_eject(1, 0, &outlier));
    }

    #[test]
    fn checks_do_not_march_in_step() {
        let times: std::collections::BTreeSet<_> =
            (0..1000).map(|random| next_check(CHECK.interval, random * 7919)).collect();
        assert!(times.len() > 50);
        assert!(times.iter().all(|time| (4500..=5500).contains(&time.as_millis())));
    }
}
