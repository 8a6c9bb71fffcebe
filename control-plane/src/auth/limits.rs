//! How often somebody may try: wrong passwords and codes are counted by user and by address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
const PER_USER: u32 = 10;
const PER_ADDRESS: u32 = 30;
/// An attacker has many addresses and invents users: what is kept of them is bounded.
const MAX_KEPT: usize = 20_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(String),
    Address(IpAddr),
}

#[derive(Debug)]
struct Count {
    since: Instant,
    failures: u32,
}

/// Failures of the last minute.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<Key, Count>>);

impl Attempts {
    /// Seconds to wait, when there were too many failures.
    pub fn wait(&self, user: &str, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys(user, address)
            .filter_map(|(key, most)| {
                let count = counts.get(&key)?;
                let left = WINDOW.checked_sub(now.saturating_duration_since(count.since))?;
                (count.failures >= most && !left.is_zero()).then(|| left.as_secs().max(1))
            })
            .max()
    }

    /// One more.
    pub fn failed(&self, user: &str, address: Option<IpAddr>, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_KEPT {
            counts.retain(|_, count| now.saturating_duration_since(count.since) < WINDOW);
        }
        for (key, _) in keys(user, address) {
            if counts.len() >= MAX_KEPT && !counts.contains_key(&key) {
                continue;
            }
            let count = counts.entry(key).or_insert(Count { since: now, failures: 0 });
            if now.saturating_duration_since(count.since) >= WINDOW {
                *count = Count { since: now, failures: 0 };
            }
            count.failures += 1;
        }
    }
}

fn keys(user: &str, address: Option<IpAddr>) -> impl Iterator<Item = (Key, u32)> {
    // Whoever has one IPv6 address has a /64 of them.
    let address = address.map(|address| match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    });
    let user = user.chars().take(64).collect();
    std::iter::once((Key::User(user), PER_USER))
        .chain(address.map(|address| (Key::Address(address), PER_ADDRESS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_waits_after_ten_failures_and_others_do_not() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..PER_USER {
            assert_eq!(attempts.wait("ann", address, start), None);
            attempts.failed("ann", address, start);
        }
        assert_eq!(attempts.wait("ann", None, start), Some(60));
        assert_eq!(attempts.wait("bob", address, start), None);
        assert_eq!(attempts.wait("ann", address, start + WINDOW), None);
    }

    #[test]
    fn an_address_waits_whatever_user_it_invents() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let address = |n: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 0, n, n, n, n]));
        for n in 0..PER_ADDRESS {
            attempts.failed(&format!("user{n}"), address(u16::try_from(n).unwrap()), start);
        }
        assert!(attempts.wait("another", address(9_999), start).is_some());
        assert!(attempts.wait("another", Some(IpAddr::from([192, 0, 2, 2])), start).is_none());
    }
}
