//! The file that statistics are in.

use std::{collections::HashMap, path::Path};

use awe4lb_proto::v1;
use bytes::Bytes;
use prost::Message as _;
use sqlx::{Row as _, SqlitePool};

use super::{
    Kind,
    history::{Point, STEPS},
    ledger::{Boot, Ledger, OVER, SHARD, Touched},
};

/// Instead of a sequence: the boot is in the past of its node.
const IS_OVER: i64 = -1;

const FINE: i64 = STEPS[0].0;
const FINE_KEPT: i64 = STEPS[0].1;
/// Of the coarse points.
pub const COARSE: i64 = STEPS[1].0;

/// Its connections.
#[derive(Debug, Clone)]
pub struct File {
    reader: SqlitePool,
    writer: SqlitePool,
}

impl File {
    /// Opens or makes it.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let (reader, writer) = crate::store::open_file(path).await?;
        sqlx::migrate!("./migrations-stats").run(&writer).await?;
        Ok(Self { reader, writer })
    }

    /// All counters.
    pub async fn load(&self) -> anyhow::Result<Ledger> {
        let mut boots: HashMap<(String, Vec<u8>), Boot> = HashMap::new();
        for row in sqlx::query("SELECT node, boot, body FROM counters").fetch_all(&self.reader).await? {
            let key: (String, Vec<u8>) = (row.try_get("node")?, row.try_get("boot")?);
            let id = Bytes::copy_from_slice(&key.1);
            let boot = boots.entry(key).or_insert_with(|| Boot { id, ..Boot::default() });
            let body: Vec<u8> = row.try_get("body")?;
            for counters in v1::CounterReport::decode(&*body)?.counters {
                boot.values.insert(counters.number, (&counters).into());
            }
        }
        let mut ledger = Ledger::default();
        for row in sqlx::query("SELECT node, boot, sequence FROM boots ORDER BY begun_at")
            .fetch_all(&self.reader)
            .await?
        {
            let key: (String, Vec<u8>) = (row.try_get("node")?, row.try_get("boot")?);
            let id = Bytes::copy_from_slice(&key.1);
            let sequence: i64 = row.try_get("sequence")?;
            if sequence == IS_OVER {
                ledger.restore_over(&key.0, id);
                continue;
            }
            let mut boot = boots.remove(&key).unwrap_or_else(|| Boot { id, ..Boot::default() });
            boot.sequence = sequence.unsigned_abs();
            ledger.restore(&key.0, boot);
        }
        // What is left is the past of each node: it has no sequence.
        for ((node, _), boot) in boots {
            ledger.restore(&node, boot);
        }
        Ok(ledger)
    }

    /// Stores what was touched; durable when this returns.
    pub async fn store(&self, ledger: &Encoded) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (node, boot, shard, body) in &ledger.shards {
            sqlx::query(
                "INSERT INTO counters (node, boot, shard, body) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (node, boot, shard) DO UPDATE SET body = excluded.body",
            )
            .bind(node)
            .bind(&boot[..])
            .bind(i64::try_from(*shard).unwrap_or(i64::MAX))
            .bind(body)
            .execute(&mut *tx)
            .await?;
        }
        for (node, boot, sequence) in &ledger.boots {
            sqlx::query(
                "INSERT INTO boots (node, boot, sequence, begun_at) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (node, boot) DO UPDATE SET sequence = excluded.sequence",
            )
            .bind(node)
            .bind(&boot[..])
            .bind(i64::try_from(*sequence).unwrap_or(i64::MAX))
            .bind(jiff::Timestamp::now().as_microsecond())
            .execute(&mut *tx)
            .await?;
        }
        for (node, boot) in &ledger.over {
            sqlx::query("DELETE FROM counters WHERE node = ? AND boot = ?")
                .bind(node)
                .bind(&boot[..])
                .execute(&mut *tx)
                .await?;
            // Its id stays for a while, so that what it repeats is known as such.
            sqlx::query("UPDATE boots SET sequence = ? WHERE node = ? AND boot = ?")
                .bind(IS_OVER)
                .bind(node)
                .bind(&boot[..])
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "DELETE FROM boots WHERE node = ?1 AND sequence = ?2 AND boot NOT IN \
                 (SELECT boot FROM boots WHERE node = ?1 AND sequence = ?2 ORDER BY begun_at DESC LIMIT ?3)",
            )
            .bind(node)
            .bind(IS_OVER)
            .bind(OVER as i64)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await
    }

    /// What numbers are.
    pub async fn kinds(&self) -> anyhow::Result<HashMap<u64, Kind>> {
        let mut kinds = HashMap::new();
        for row in sqlx::query("SELECT number, kind FROM numbers").fetch_all(&self.reader).await? {
            if let Some(kind) = Kind::of(row.try_get("kind")?) {
                kinds.insert(row.try_get::<i64, _>("number")?.unsigned_abs(), kind);
            }
        }
        Ok(kinds)
    }

    /// New numbers.
    pub async fn add_kinds(&self, new: &[(u64, Kind)]) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (number, kind) in new {
            sqlx::query("INSERT INTO numbers (number, kind) VALUES (?, ?) ON CONFLICT (number) DO NOTHING")
                .bind(i64::try_from(*number).unwrap_or(i64::MAX))
                .bind(kind.word())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Points of many series at one time of the finest step, and forgets those that are too old.
    pub async fn add_points(&self, at: i64, points: &[(String, Point)]) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (series, point) in points {
            sqlx::query(
                "INSERT INTO history (step, at, series, bytes_in, bytes_out, connections, active) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(FINE)
            .bind(at)
            .bind(series)
            .bind(f64::from(point.bytes_in))
            .bind(f64::from(point.bytes_out))
            .bind(f64::from(point.connections))
            .bind(f64::from(point.active))
            .execute(&mut *tx)
            .await?;
        }
        for (step, keep) in STEPS {
            sqlx::query("DELETE FROM history WHERE step = ? AND at < ?")
                .bind(step)
                .bind(at - keep)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Makes the coarse points that are missing before `until` from the fine ones: also those of an interval in which
    /// the process was started again.
    pub async fn roll_up(&self, until: i64) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(at) FROM history WHERE step = ? AND series = 'total'")
                .bind(COARSE)
                .fetch_one(&mut *tx)
                .await?;
        let reach = until - until.rem_euclid(COARSE) - FINE_KEPT;
        let mut begin = last.map_or(reach, |last| reach.max(last + COARSE));
        while begin + COARSE <= until {
            // Every interval in which this process ran has a point of everything; what else has none was zero.
            sqlx::query(
                "INSERT INTO history (step, at, series, bytes_in, bytes_out, connections, active) \
                 SELECT ?1, ?2, h.series, sum(h.bytes_in) / n.n, sum(h.bytes_out) / n.n, \
                 sum(h.connections) / n.n, sum(h.active) / n.n FROM history h, \
                 (SELECT count(*) AS n FROM history WHERE step = ?3 AND series = 'total' AND at >= ?2 AND at < ?2 + ?1) n \
                 WHERE h.step = ?3 AND h.at >= ?2 AND h.at < ?2 + ?1 AND n.n > 0 GROUP BY h.series \
                 ON CONFLICT DO NOTHING",
            )
            .bind(COARSE)
            .bind(begin)
            .bind(FINE)
            .execute(&mut *tx)
            .await?;
            begin += COARSE;
        }
        tx.commit().await
    }

    /// The points of a series, zeros too.
    pub async fn points(&self, step: i64, series: &str, from: i64) -> sqlx::Result<Vec<(i64, Point)>> {
        let rows = sqlx::query(
            "SELECT t.at, coalesce(s.bytes_in, 0.0) AS bytes_in, coalesce(s.bytes_out, 0.0) AS bytes_out, \
             coalesce(s.connections, 0.0) AS connections, coalesce(s.active, 0.0) AS active \
             FROM history t LEFT JOIN history s ON s.step = t.step AND s.series = ?2 AND s.at = t.at \
             WHERE t.step = ?1 AND t.series = 'total' AND t.at > ?3 ORDER BY t.at",
        )
        .bind(step)
        .bind(series)
        .bind(from - step)
        .fetch_all(&self.reader)
        .await?;
        let value = |row: &sqlx::sqlite::SqliteRow, column: &str| {
            row.try_get::<f64, _>(column).map(|value| value as f32)
        };
        rows.iter()
            .map(|row| {
                let point = Point {
                    bytes_in: value(row, "bytes_in")?,
                    bytes_out: value(row, "bytes_out")?,
                    connections: value(row, "connections")?,
                    active: value(row, "active")?,
                };
                Ok((row.try_get("at")?, point))
            })
            .collect()
    }

    #[cfg(test)]
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    #[cfg(test)]
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Closes it; the write-ahead log is merged.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// What is to be stored, as it is stored: made under the lock, written without it.
#[derive(Debug, Default)]
pub struct Encoded {
    shards: Vec<(String, Bytes, u64, Vec<u8>)>,
    boots: Vec<(String, Bytes, u64)>,
    over: Vec<(String, Bytes)>,
}

impl Encoded {
    /// The shards that were touched.
    pub fn of(ledger: &Ledger, touched: &Touched) -> Self {
        let shards = touched.shards.iter().filter_map(|(node, boot, shard)| {
            let values = &ledger.boot(node, boot)?.values;
            let numbers = shard * SHARD..(shard + 1) * SHARD;
            let counters = numbers.filter_map(|number| Some(values.get(&number)?.to_wire(number))).collect();
            let body = v1::CounterReport { counters, ..v1::CounterReport::default() }.encode_to_vec();
            Some((node.clone(), boot.clone(), *shard, body))
        });
        let boots = touched
            .boots
            .iter()
            .filter_map(|(node, boot)| Some((node.clone(), boot.clone(), ledger.boot(node, boot)?.sequence)));
        Self {
            shards: shards.collect(),
            boots: boots.collect(),
            over: touched.over.iter().cloned().collect(),
        }
    }
}
