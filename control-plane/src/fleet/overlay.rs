//! Admin states: what an operator says about a backend at run time. Not part of the document, kept over restarts, ended
//! by a deadline, sent to nodes by pool with a version that only goes up.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use awe4lb_discovery::is_discovered;
use awe4lb_model::placed::{NodeConfig, Number};
use awe4lb_proto::v1;
use sqlx::Row;
use tokio::sync::watch;

use super::{FleetError, now_ms};
use crate::store::Store;

/// Whether a backend takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// Yes.
    Ready,
    /// No new ones; those that are there stay.
    Drain,
    /// None at all.
    Maintenance,
}

impl Admin {
    /// The word in the API and the store.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }

    fn of_word(word: &str) -> Self {
        match word {
            "drain" => Self::Drain,
            "maintenance" => Self::Maintenance,
            _ => Self::Ready,
        }
    }
}

/// An admin state that was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminState {
    /// Of which pool the backend is.
    pub pool: String,
    /// What was set.
    pub admin: Admin,
    /// Unix milliseconds; 0: no deadline.
    pub until_ms: i64,
    /// Why.
    pub reason: String,
}

/// All admin states.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Those that are not ready, by backend number.
    pub states: BTreeMap<u64, AdminState>,
    /// What sources said, by pool. Stored elsewhere.
    answers: BTreeMap<String, Vec<v1::SourceAnswer>>,
    versions: BTreeMap<String, u64>,
}

impl State {
    /// The message for a pool, with its version.
    pub fn message(&self, pool: &str) -> v1::Overlay {
        let of_pool = self.states.iter().filter(|(_, state)| state.pool == pool);
        v1::Overlay {
            pool: pool.to_owned(),
            version: self.version(pool),
            admin_states: of_pool
                .map(|(number, state)| v1::AdminState {
                    backend_number: *number,
                    state: match state.admin {
                        Admin::Ready => v1::Admin::Ready,
                        Admin::Drain => v1::Admin::Drain,
                        Admin::Maintenance => v1::Admin::Maintenance,
                    }
                    .into(),
                    until_unix_ms: state.until_ms,
                    reason: state.reason.clone(),
                })
                .collect(),
            answers: self.answers.get(pool).cloned().unwrap_or_default(),
        }
    }

    /// 0: nothing was ever said about this pool.
    pub fn version(&self, pool: &str) -> u64 {
        self.versions.get(pool).copied().unwrap_or(0)
    }

    /// The pools that something was said about.
    pub fn pools(&self) -> impl Iterator<Item = (&str, u64)> {
        self.versions.iter().map(|(pool, version)| (pool.as_str(), *version))
    }
}

/// The one writer of admin states.
pub struct Overlays {
    current: watch::Sender<State>,
    writing: tokio::sync::Mutex<()>,
    watched: Mutex<Vec<(String, u64)>>,
}

impl Overlays {
    /// Loads them.
    pub async fn open(store: &Store) -> Result<Self, FleetError> {
        let mut state = State::default();
        for row in sqlx::query("SELECT * FROM admin_states").fetch_all(store.reader()).await? {
            let number = row.try_get::<i64, _>("backend")?.unsigned_abs();
            let admin = AdminState {
                pool: row.try_get("pool")?,
                admin: Admin::of_word(row.try_get("state")?),
                until_ms: row.try_get("until_ms")?,
                reason: row.try_get("reason")?,
            };
            state.states.insert(number, admin);
        }
        for row in sqlx::query("SELECT * FROM overlay_versions").fetch_all(store.reader()).await? {
            state.versions.insert(row.try_get("pool")?, row.try_get::<i64, _>("version")?.unsigned_abs());
        }
        Ok(Self {
            current: watch::Sender::new(state),
            writing: tokio::sync::Mutex::new(()),
            watched: Mutex::default(),
        })
    }

    /// Starts with a value.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.current.subscribe()
    }

    /// As it is now.
    pub fn of(&self, number: u64) -> Option<AdminState> {
        self.current.borrow().states.get(&number).cloned()
    }

    /// Sets the state of backends of one pool: stored, then sent.
    pub async fn set(
        &self,
        store: &Store,
        pool: &str,
        backends: &[u64],
        admin: Admin,
        until_ms: i64,
        reason: &str,
    ) -> Result<(), FleetError> {
        let _writing = self.writing.lock().await;
        let version = self.current.borrow().version(pool) + 1;
        let mut tx = store.writer().begin_with("BEGIN IMMEDIATE").await?;
        for number in backends {
            let number = i64::try_from(*number).unwrap_or(i64::MAX);
            sqlx::query("DELETE FROM admin_states WHERE backend = ?").bind(number).execute(&mut *tx).await?;
            if admin != Admin::Ready {
                sqlx::query(
                    "INSERT INTO admin_states (backend, pool, state, until_ms, reason) VALUES (?, ?, ?, ?, ?)",
                )
                .bind(number)
                .bind(pool)
                .bind(admin.word())
                .bind(until_ms)
                .bind(reason)
                .execute(&mut *tx)
                .await?;
            }
        }
        sqlx::query(
            "INSERT INTO overlay_versions (pool, version) VALUES (?, ?) \
             ON CONFLICT (pool) DO UPDATE SET version = excluded.version",
        )
        .bind(pool)
        .bind(i64::try_from(version).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.current.send_modify(|state| {
            for number in backends {
                if admin == Admin::Ready {
                    state.states.remove(number);
                } else {
                    let reason = reason.to_owned();
                    let new = AdminState { pool: pool.to_owned(), admin, until_ms, reason };
                    state.states.insert(*number, new);
                }
            }
            // What sources say meanwhile goes up as well.
            let next = state.version(pool) + 1;
            state.versions.insert(pool.to_owned(), version.max(next));
        });
        Ok(())
    }

    /// What the sources of pools say now. Versions of these are not stored: to a node that connects again the first word
    /// counts, whatever its version.
    pub fn set_answers(&self, answers: Vec<(String, Vec<v1::SourceAnswer>)>) {
        self.current.send_modify(|state| {
            for (pool, answers) in answers {
                let next = state.version(&pool) + 1;
                state.versions.insert(pool.clone(), next);
                if answers.is_empty() {
                    state.answers.remove(&pool);
                } else {
                    state.answers.insert(pool, answers);
                }
            }
        });
    }

    /// Sets what has reached its deadline back to ready. Gives the backends that changed, as (pool, number).
    pub async fn expire(&self, store: &Store) -> Result<Vec<(String, u64)>, FleetError> {
        let now = now_ms();
        let over: Vec<(String, u64)> = {
            let current = self.current.borrow();
            let expired =
                current.states.iter().filter(|(_, state)| state.until_ms != 0 && state.until_ms <= now);
            expired.map(|(number, state)| (state.pool.clone(), *number)).collect()
        };
        for (pool, number) in &over {
            self.set(store, pool, &[*number], Admin::Ready, 0, "").await?;
        }
        Ok(over)
    }

    /// How long until the next deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        let current = self.current.borrow();
        let next = current.states.values().map(|state| state.until_ms).filter(|until| *until != 0).min()?;
        Some(Duration::from_millis(u64::try_from(next - now_ms()).unwrap_or(0)))
    }

    /// Forgets the states of backends that a new configuration does not have: a number never comes back.
    pub async fn prune(&self, store: &Store, config: &NodeConfig) -> Result<(), FleetError> {
        let gone: Vec<(String, u64)> = {
            let current = self.current.borrow();
            if current.states.is_empty() {
                return Ok(());
            }
            let numbers: std::collections::HashSet<u64> = config
                .pools
                .iter()
                .flat_map(|pool| pool.backend_numbers.iter().map(|number| number.0))
                .collect();
            // Discovered ones come and go as they like, as long as their pool is there.
            let pools: std::collections::HashSet<&str> =
                config.pools.iter().map(|placed| placed.pool.name.as_str()).collect();
            let is_there = |number: u64, pool: &str| {
                numbers.contains(&number) || (is_discovered(Number(number)) && pools.contains(pool))
            };
            let gone = current.states.iter().filter(|(number, state)| !is_there(**number, &state.pool));
            gone.map(|(number, state)| (state.pool.clone(), *number)).collect()
        };
        // Only what was missing twice in a row goes: a backend that is deleted and restored within seconds keeps it.
        let settled: Vec<(String, u64)> = {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let settled = gone.iter().filter(|entry| watched.contains(entry)).cloned().collect();
            *watched = gone;
            settled
        };
        for (pool, number) in settled {
            self.set(store, &pool, &[number], Admin::Ready, 0, "").await?;
        }
        Ok(())
    }
}
