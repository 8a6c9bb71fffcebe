//! The last good answers, in the database.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use awe4lb_discovery::discovered_number;
use awe4lb_model::{Backend, placed::Number};
use awe4lb_proto::{backend_from_wire, backend_to_wire, v1};
use prost::Message as _;
use sqlx::Row as _;

use super::Key;
use crate::store::Store;

/// A good answer, and when it came.
pub(super) type Answered = (Key, Arc<[Backend]>, Option<SystemTime>);

/// What was known before.
pub(super) struct Remembered {
    pub(super) backends: Arc<[Backend]>,
    pub(super) at: Option<SystemTime>,
}

pub(super) async fn load(store: &Store) -> sqlx::Result<HashMap<Key, Remembered>> {
    let mut all = HashMap::new();
    let rows = sqlx::query("SELECT pool, source, answered_at, answer FROM discovered");
    for row in rows.fetch_all(store.reader()).await? {
        let key = (row.try_get::<i64, _>("pool")?.unsigned_abs(), row.try_get::<String, _>("source")?);
        let bytes: &[u8] = row.try_get("answer")?;
        // What another version wrote is asked again anyway.
        let Ok(answer) = v1::SourceAnswer::decode(bytes) else { continue };
        let read = |backend| backend_from_wire(backend).ok().map(|(_, backend)| backend);
        let backends = answer.backends.into_iter().filter_map(read).collect();
        let at: Option<jiff::Timestamp> = row.try_get::<String, _>("answered_at")?.parse().ok();
        all.insert(key, Remembered { backends, at: at.and_then(system_time) });
    }
    Ok(all)
}

fn system_time(at: jiff::Timestamp) -> Option<SystemTime> {
    let since = std::time::Duration::from_millis(u64::try_from(at.as_millisecond()).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

pub(super) async fn save(store: &Store, answers: &[Answered]) -> sqlx::Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut tx = store.writer().begin_with("BEGIN IMMEDIATE").await?;
    for ((pool, source), backends, at) in answers {
        let wire =
            |backend: &Backend| backend_to_wire(backend, discovered_number(Number(*pool), &backend.address));
        let answer =
            v1::SourceAnswer { source: source.clone(), backends: backends.iter().map(wire).collect() };
        let at = at.and_then(|at| jiff::Timestamp::try_from(at).ok()).unwrap_or_else(jiff::Timestamp::now);
        sqlx::query(
            "INSERT INTO discovered (pool, source, answered_at, answer) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (pool, source) DO UPDATE SET answered_at = ?3, answer = ?4",
        )
        .bind(i64::try_from(*pool).unwrap_or(i64::MAX))
        .bind(source)
        .bind(at.to_string())
        .bind(answer.encode_to_vec())
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await
}
