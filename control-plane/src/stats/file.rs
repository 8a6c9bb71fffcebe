//! The file that statistics are in.

use std::{collections::HashMap, path::Path};

use awe4lb_proto::v1;
use bytes::Bytes;
use prost::Message as _;
use sqlx::{Row as _, SqlitePool};

use super::{
    history::{Point, STEPS},
    ledger::{Boot, Ledger, SHARD, Touched},
    now,
};

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
                boot.values.insert(counters.number, counters.into());
            }
        }
        let mut ledger = Ledger::default();
        for row in sqlx::query("SELECT node, boot, sequence FROM boots ORDER BY begun_at")
            .fetch_all(&self.reader)
            .await?
        {
            let key: (String, Vec<u8>) = (row.try_get("node")?, row.try_get("boot")?);
            let id = Bytes::copy_from_slice(&key.1);
            let mut boot = boots.remove(&key).unwrap_or_else(|| Boot { id, ..Boot::default() });
            boot.sequence = row.try_get::<i64, _>("sequence")?.unsigned_abs();
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
            for sql in [
                "DELETE FROM counters WHERE node = ? AND boot = ?",
                "DELETE FROM boots WHERE node = ? AND boot = ?",
            ] {
                sqlx::query(sql).bind(node).bind(&boot[..]).execute(&mut *tx).await?;
            }
        }
        tx.commit().await
    }

    /// What numbers are.
    pub async fn kinds(&self) -> anyhow::Result<HashMap<u64, String>> {
        let rows = sqlx::query("SELECT number, kind FROM numbers").fetch_all(&self.reader).await?;
        rows.iter()
            .map(|row| Ok((row.try_get::<i64, _>("number")?.unsigned_abs(), row.try_get("kind")?)))
            .collect()
    }

    /// New numbers.
    pub async fn add_kinds(&self, new: &[(u64, &'static str)]) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (number, kind) in new {
            sqlx::query("INSERT INTO numbers (number, kind) VALUES (?, ?) ON CONFLICT (number) DO NOTHING")
                .bind(i64::try_from(*number).unwrap_or(i64::MAX))
                .bind(*kind)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// Points of many series at one time, and forgets those that are too old.
    pub async fn add_points(&self, step: i64, at: i64, points: &[(String, Point)]) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for (series, point) in points {
            sqlx::query(
                "INSERT INTO history (step, at, series, bytes_in, bytes_out, connections, active) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(step)
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
                .bind(now() - keep)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    /// The points of a series.
    pub async fn points(&self, step: i64, series: &str, from: i64) -> sqlx::Result<Vec<(i64, Point)>> {
        let rows = sqlx::query("SELECT * FROM history WHERE step = ? AND series = ? AND at >= ? ORDER BY at")
            .bind(step)
            .bind(series)
            .bind(from)
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
