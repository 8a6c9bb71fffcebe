//! Full-jitter back-off: a herd of nodes that lost its control plane comes back spread out.

use std::time::Duration;

use rand::Rng;

/// Waits between attempts: uniformly random between the floor and a ceiling that doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    floor: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// From `floor` (also the first ceiling) to at most `most`.
    pub fn new(floor: Duration, most: Duration) -> Self {
        Self { floor, most, ceiling: floor }
    }

    /// The one towards the control plane: 0.5 s to 30 s.
    pub fn reconnect() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.ceiling = self.floor;
    }

    /// The next wait.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        self.ceiling = (self.ceiling * 2).min(self.most);
        random.random_range(self.floor..=self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn grows_to_its_limit_and_starts_again() {
        let mut random = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::reconnect();
        let first = backoff.next(&mut random);
        assert!(first >= Duration::from_millis(500) && first <= Duration::from_secs(1));
        let late: Vec<_> = (0..200).map(|_| backoff.next(&mut random)).collect();
        assert!(
            late.iter().all(|wait| (Duration::from_millis(500)..=Duration::from_secs(30)).contains(wait))
        );
        assert!(late.iter().any(|wait| *wait > Duration::from_secs(20)), "never waits long");
        assert!(late[20..].iter().any(|wait| *wait < Duration::from_secs(10)), "jitter is not full");
        backoff.reset();
        assert!(backoff.next(&mut random) <= Duration::from_secs(1));
    }
}
