//! Overlays: admin states of backends, which change without a revision. Latest wins; kept in the cache; a state with a
//! deadline ends by itself on the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use awe4lb_proto::v1;

use super::{cache::Cache, hot::AdminState, live::Live, node::unix_millis};

/// What was said of each pool last.
#[derive(Debug, Default)]
pub struct Overlays {
    by_pool: BTreeMap<String, v1::Overlay>,
    /// Pools that this connection spoke of: within one, versions only go up.
    heard: BTreeSet<String>,
}

impl Overlays {
    /// From the cache.
    pub fn load(cache: &Cache) -> Self {
        let by_pool = cache.overlays().into_iter().map(|overlay| (overlay.pool.clone(), overlay)).collect();
        Self { by_pool, heard: BTreeSet::new() }
    }

    /// Another connection, maybe to another control plane: its first word on a pool counts whatever its version.
    pub fn reconnected(&mut self) {
        self.heard.clear();
    }

    /// Takes an overlay. False: it is older than what is known.
    pub fn accept(&mut self, mut overlay: v1::Overlay) -> bool {
        let is_first = self.heard.insert(overlay.pool.clone());
        let known = self.by_pool.get(&overlay.pool);
        if !is_first && known.is_some_and(|known| known.version > overlay.version) {
            return false;
        }
        // Discovered backends are another's to keep.
        overlay.answers.clear();
        self.by_pool.insert(overlay.pool.clone(), overlay);
        true
    }

    /// Whether backends of a pool have admin states.
    pub fn has_states(&self, pool: &str) -> bool {
        self.by_pool.get(pool).is_some_and(|overlay| !overlay.admin_states.is_empty())
    }

    /// For the cache.
    pub fn all(&self) -> Vec<v1::Overlay> {
        self.by_pool.values().filter(|overlay| !overlay.admin_states.is_empty()).cloned().collect()
    }

    /// Sets the admin states of what runs; of all pools, or of one.
    pub fn apply(&self, live: &Live, only: Option<&str>, now: SystemTime) {
        let now = unix_millis(now);
        for pool in live.handles(only) {
            let placed = pool.placed();
            let overlay = self.by_pool.get(placed.pool.name.as_str());
            for member in pool.members() {
                let state = overlay
                    .and_then(|overlay| {
                        overlay.admin_states.iter().find(|state| state.backend_number == member.number.0)
                    })
                    .filter(|state| state.until_unix_ms == 0 || state.until_unix_ms > now);
                let wanted = match state.map(v1::AdminState::state) {
                    Some(v1::Admin::Drain) => AdminState::Drain,
                    Some(v1::Admin::Maintenance) => AdminState::Maintenance,
                    Some(v1::Admin::Ready | v1::Admin::Unspecified) | None => AdminState::Ready,
                };
                if member.admin != wanted {
                    pool.set_admin(member.number, wanted);
                }
            }
        }
    }

    /// Sets again the admin states of pools that have any: their backends may be others by now.
    pub fn remind(&self, live: &Live, now: SystemTime) {
        let with_states = self.by_pool.iter().filter(|(_, overlay)| !overlay.admin_states.is_empty());
        for (pool, _) in with_states {
            self.apply(live, Some(pool), now);
        }
    }

    /// How long until a deadline passes.
    pub fn next_deadline(&self, now: SystemTime) -> Option<Duration> {
        let now = unix_millis(now);
        self.by_pool
            .values()
            .flat_map(|overlay| &overlay.admin_states)
            .map(|state| state.until_unix_ms)
            .filter(|until| *until > now)
            .min()
            .map(|until| Duration::from_millis(until.abs_diff(now) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(pool: &str, version: u64, until_unix_ms: i64) -> v1::Overlay {
        let state = v1::AdminState { backend_number: 1, state: 2, until_unix_ms, reason: String::new() };
        v1::Overlay { pool: pool.into(), version, admin_states: vec![state], answers: vec![] }
    }

    #[test]
    fn latest_wins_within_a_connection_and_the_first_word_of_a_new_one_counts() {
        let mut overlays = Overlays::default();
        assert!(overlays.accept(overlay("a", 5, 0)));
        assert!(!overlays.accept(overlay("a", 4, 0)));
        assert!(overlays.accept(overlay("a", 6, 0)));
        overlays.reconnected();
        assert!(overlays.accept(overlay("a", 1, 0)));
        assert_eq!(overlays.all()[0].version, 1);
    }

    #[test]
    fn the_nearest_deadline() {
        let now = SystemTime::now();
        let mut overlays = Overlays::default();
        assert_eq!(overlays.next_deadline(now), None);
        overlays.accept(overlay("a", 1, unix_millis(now) + 5000));
        overlays.accept(overlay("b", 1, unix_millis(now) + 1000));
        overlays.accept(overlay("c", 1, unix_millis(now) - 1000));
        assert_eq!(overlays.next_deadline(now), Some(Duration::from_millis(1001)));
    }
}
