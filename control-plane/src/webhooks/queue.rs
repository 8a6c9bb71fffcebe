//! What waits to be delivered to one address: in order, not too much, not for too long. Times are unix seconds.

use std::{collections::VecDeque, sync::Arc};

/// More do not wait: the oldest go.
pub(super) const MOST: usize = 1_024;
/// Longer than so many seconds nothing waits.
pub(super) const LONGEST: i64 = 3_600;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Of the event.
    pub(super) id: u64,
    /// When it happened.
    pub(super) at: i64,
    /// JSON.
    pub(super) body: Arc<str>,
}

#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Delivery>);

impl Queue {
    /// Whether there was place for it without another one going.
    pub(super) fn push(&mut self, delivery: Delivery) -> bool {
        let has_place = self.0.len() < MOST;
        if !has_place {
            self.0.pop_front();
        }
        self.0.push_back(delivery);
        has_place
    }

    /// The oldest.
    pub(super) fn first(&self) -> Option<Delivery> {
        self.0.front().cloned()
    }

    /// It was delivered. It may have gone meanwhile.
    pub(super) fn done(&mut self, id: u64) {
        self.0.retain(|delivery| delivery.id != id);
    }

    /// Gives up what waits for too long; how many those were.
    pub(super) fn expire(&mut self, now: i64) -> usize {
        let before = self.0.len();
        self.0.retain(|delivery| now.saturating_sub(delivery.at) < LONGEST);
        before - self.0.len()
    }
}

/// The wait after so many failures in a row, in seconds; `jitter` is between 0 and 1.
pub(super) fn wait(failures: u32, jitter: f64) -> f64 {
    f64::from(1_u32 << failures.saturating_sub(1).min(6)).min(60.0) * (0.5 + 0.5 * jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(id: u64) -> Delivery {
        Delivery { id, at: i64::try_from(id).unwrap(), body: "".into() }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut queue = Queue::default();
        for id in 0..MOST as u64 {
            assert!(queue.push(delivery(id)));
        }
        assert!(!queue.push(delivery(5_000)));
        assert_eq!(queue.first(), Some(delivery(1)));
        // What was on its way when it had to go.
        queue.done(0);
        assert_eq!(queue.first(), Some(delivery(1)));
        queue.done(1);
        assert_eq!(queue.first(), Some(delivery(2)));
    }

    #[test]
    fn nothing_waits_longer_than_an_hour() {
        let mut queue = Queue::default();
        for id in [10, 20, 30] {
            queue.push(delivery(id));
        }
        assert_eq!(queue.expire(3_609), 0);
        assert_eq!(queue.expire(3_620), 2);
        assert_eq!(queue.first(), Some(delivery(30)));
    }

    #[test]
    fn waits_longer_and_longer_up_to_a_minute() {
        let waits: Vec<f64> = (1..9).map(|failures| wait(failures, 1.0)).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert!(wait(u32::MAX, 0.0) >= 30.0);
    }
}
