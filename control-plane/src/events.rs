//! What happens, for whoever listens: kept for a while, so that a listener that was away for a moment misses nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::broadcast;

/// How many events a listener may be behind.
const KEPT: usize = 1_024;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Larger than that of every event before, also of those before a restart.
    pub sequence: u64,
    /// `revision`, `node`, `backend`, `source`, `certificate`, `order`, `stats`.
    pub kind: &'static str,
    /// JSON.
    pub data: Arc<str>,
}

/// Where events are published and listened to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Event>,
    /// All but statistics.
    rare: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    /// The sequence of the first event that is not known any more: who saw it has missed nothing.
    forgotten: u64,
    events: VecDeque<Event>,
}

/// What a listener gets first.
#[derive(Debug)]
pub enum Resume {
    /// Everything after what it saw.
    Events(Vec<Event>),
    /// It was away for too long: load everything anew. With the sequence to go on from.
    Reset(u64),
}

impl Events {
    /// None yet. Sequences begin with the time, so that those of an earlier process are smaller.
    #[must_use]
    pub fn new() -> Self {
        let first = jiff::Timestamp::now().as_microsecond().unsigned_abs();
        let kept = Kept { next: first, forgotten: first - 1, events: VecDeque::with_capacity(KEPT) };
        Self(Arc::new(Inner {
            kept: Mutex::new(kept),
            live: broadcast::channel(KEPT).0,
            rare: broadcast::channel(KEPT).0,
        }))
    }

    /// Tells everyone who listens; never waits.
    pub fn publish(&self, kind: &'static str, data: &impl Serialize) {
        let data: Arc<str> = match serde_json::to_string(data) {
            Ok(text) => text.into(),
            Err(error) => return tracing::error!(kind, "an event cannot be written: {error}"),
        };
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event { sequence: kept.next, kind, data };
        kept.next += 1;
        // The next second brings new statistics: nobody asks for old ones.
        if kind != "stats" {
            if kept.events.len() == KEPT
                && let Some(oldest) = kept.events.pop_front()
            {
                kept.forgotten = oldest.sequence;
            }
            kept.events.push_back(event.clone());
            let _ = self.0.rare.send(event.clone());
        }
        // Under the lock: listeners see the order of the sequences.
        let _ = self.0.live.send(event);
    }

    /// Whether anyone does.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.wants_statistics() || self.0.rare.receiver_count() > 0
    }

    /// Whether anyone listens who gets statistics, too.
    #[must_use]
    pub fn wants_statistics(&self) -> bool {
        self.0.live.receiver_count() > 0
    }

    /// From now on, everything but statistics.
    #[must_use]
    pub fn listen_without_statistics(&self) -> broadcast::Receiver<Event> {
        self.0.rare.subscribe()
    }

    /// From after `last_seen`, or from now on.
    #[must_use]
    pub fn listen(&self, last_seen: Option<u64>) -> (Resume, broadcast::Receiver<Event>) {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.0.live.subscribe();
        let resume = match last_seen {
            None => Resume::Events(Vec::new()),
            Some(seen) if seen < kept.forgotten || seen >= kept.next => Resume::Reset(kept.next - 1),
            Some(seen) => {
                Resume::Events(kept.events.iter().filter(|event| event.sequence > seen).cloned().collect())
            }
        };
        (resume, live)
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(resume: Resume) -> Vec<u64> {
        match resume {
            Resume::Events(events) => events.iter().map(|event| event.sequence).collect(),
            Resume::Reset(_) => panic!("reset"),
        }
    }

    #[test]
    fn resumes_where_it_was() {
        let events = Events::new();
        let (_, mut live) = events.listen(None);
        for n in 0..3 {
            events.publish("node", &n);
        }
        let first = live.try_recv().unwrap();
        assert_eq!(&*first.data, "0");
        assert_eq!(
            sequences(events.listen(Some(first.sequence)).0),
            [first.sequence + 1, first.sequence + 2]
        );
        assert!(sequences(events.listen(None).0).is_empty());
    }

    #[test]
    fn says_when_it_was_away_too_long_or_saw_another_process() {
        let events = Events::new();
        let (_, mut live) = events.listen(None);
        events.publish("node", &0);
        let first = live.try_recv().unwrap().sequence;
        for n in 0..KEPT {
            events.publish("node", &n);
        }
        assert_eq!(sequences(events.listen(Some(first)).0).len(), KEPT);
        events.publish("node", &0);
        assert!(matches!(events.listen(Some(first)).0, Resume::Reset(_)));
        assert!(matches!(events.listen(Some(7)).0, Resume::Reset(_)));
        assert!(matches!(events.listen(Some(u64::MAX)).0, Resume::Reset(_)));
    }

    #[test]
    fn statistics_are_for_now_only() {
        let events = Events::new();
        let (_, mut live) = events.listen(None);
        events.publish("node", &0);
        events.publish("stats", &0);
        events.publish("node", &1);
        let first = live.try_recv().unwrap().sequence;
        assert_eq!(sequences(events.listen(Some(first)).0), [first + 2]);
        assert_eq!(live.try_recv().unwrap().kind, "stats");
    }

    #[test]
    fn who_wants_no_statistics_does_not_make_them_be_made() {
        let events = Events::new();
        let mut rare = events.listen_without_statistics();
        assert!(events.has_listeners() && !events.wants_statistics());
        events.publish("stats", &0);
        events.publish("node", &1);
        assert_eq!(rare.try_recv().unwrap().kind, "node");
    }
}
