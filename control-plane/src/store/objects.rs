//! Objects by revision: what is there now, what was there then, and the one statement that adds a revision.

use std::collections::BTreeMap;

use awe4lb_model::document::{Change, Operation};
use serde_json::Value;
use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::Store;
use crate::catalog::Kind;

/// One version of an object.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// What it is.
    pub kind: Kind,
    /// Unique in its kind.
    pub name: String,
    /// Never reused.
    pub number: u64,
    /// The revision that made this version.
    pub revision: u64,
    /// When that was, RFC 3339.
    pub updated_at: String,
    /// The user's intent.
    pub body: Value,
    /// Numbers of rules or backends.
    pub parts: BTreeMap<String, u64>,
}

/// One entry of the history.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// From 1.
    pub number: u64,
    /// RFC 3339.
    pub created_at: String,
    /// Who.
    pub author: String,
    /// Why, in the author's words.
    pub message: String,
    /// `api`, `console` or `cli`.
    pub source: String,
    /// How much.
    pub summary: Summary,
}

/// How many objects changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// New ones.
    pub create: usize,
    /// Changed ones.
    pub update: usize,
    /// Gone ones.
    pub delete: usize,
}

impl Summary {
    /// Counts changes.
    pub fn of(changes: &[Change]) -> Self {
        let count = |op| changes.iter().filter(|change| change.op == op).count();
        Self {
            create: count(Operation::Create),
            update: count(Operation::Update),
            delete: count(Operation::Delete),
        }
    }
}

/// SQLite integers are signed; ours never come near the end.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
}

fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> sqlx::Result<T> {
    serde_json::from_str(row.try_get(column)?)
        .map_err(|error| sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() })
}

fn kind(row: &SqliteRow) -> sqlx::Result<Kind> {
    let word: &str = row.try_get("kind")?;
    Kind::of_word(word).ok_or_else(|| sqlx::Error::Decode(format!("unknown kind {word:?}").into()))
}

fn object(row: &SqliteRow) -> sqlx::Result<StoredObject> {
    Ok(StoredObject {
        kind: kind(row)?,
        name: row.try_get("name")?,
        number: number(row, "number")?,
        revision: number(row, "valid_from")?,
        updated_at: row.try_get("created_at")?,
        body: json(row, "body")?,
        parts: json(row, "parts")?,
    })
}

fn revision(row: &SqliteRow) -> sqlx::Result<Revision> {
    Ok(Revision {
        number: number(row, "number")?,
        created_at: row.try_get("created_at")?,
        author: row.try_get("author")?,
        message: row.try_get("message")?,
        source: row.try_get("source")?,
        summary: json(row, "summary")?,
    })
}

impl Store {
    /// The identity of this database, made when it is new. A restored backup keeps it.
    pub async fn lineage(&self) -> sqlx::Result<String> {
        let mut made = [0; 16];
        getrandom::fill(&mut made).map_err(|error| sqlx::Error::Encode(error.to_string().into()))?;
        sqlx::query("INSERT INTO meta (key, value) VALUES ('lineage', ?) ON CONFLICT DO NOTHING")
            .bind(hex::encode(made))
            .execute(self.writer())
            .await?;
        let row =
            sqlx::query("SELECT value FROM meta WHERE key = 'lineage'").fetch_one(self.writer()).await?;
        row.try_get("value")
    }

    /// The number after the greatest that was ever given to an object, rule or backend.
    pub async fn next_number(&self) -> sqlx::Result<u64> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = 'next-number'")
            .fetch_optional(self.writer())
            .await?;
        let Some(row) = row else { return Ok(1) };
        let text: &str = row.try_get("value")?;
        text.parse().map_err(|_| sqlx::Error::Decode("next-number is no number".into()))
    }

    /// The newest revision; 0: none yet.
    pub async fn head(&self) -> sqlx::Result<u64> {
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) AS number FROM revisions")
            .fetch_one(self.writer())
            .await?;
        number(&row, "number")
    }

    /// Everything that was there as of a revision.
    pub async fn objects_as_of(&self, revision: u64) -> sqlx::Result<Vec<StoredObject>> {
        let rows = sqlx::query(
            "SELECT objects.*, revisions.created_at FROM objects \
             JOIN revisions ON revisions.number = objects.valid_from \
             WHERE valid_from <= ?1 AND (valid_to IS NULL OR valid_to > ?1)",
        )
        .bind(to_sql(revision))
        .fetch_all(self.reader())
        .await?;
        rows.iter().map(object).collect()
    }

    /// The history, newest first, from before `before`.
    pub async fn revisions(&self, before: Option<u64>, limit: u32) -> sqlx::Result<Vec<Revision>> {
        let rows = sqlx::query("SELECT * FROM revisions WHERE number < ? ORDER BY number DESC LIMIT ?")
            .bind(before.map_or(i64::MAX, to_sql))
            .bind(limit)
            .fetch_all(self.reader())
            .await?;
        rows.iter().map(revision).collect()
    }

    /// One entry of the history.
    pub async fn revision(&self, number: u64) -> sqlx::Result<Option<Revision>> {
        let row = sqlx::query("SELECT * FROM revisions WHERE number = ?")
            .bind(to_sql(number))
            .fetch_optional(self.reader())
            .await?;
        row.as_ref().map(revision).transpose()
    }

    /// What a revision changed: versions that ended with it, and versions that began.
    pub async fn touched_by(&self, number: u64) -> sqlx::Result<Vec<(Kind, String, bool, Value)>> {
        let rows = sqlx::query(
            "SELECT kind, name, body, valid_from FROM objects WHERE valid_from = ?1 OR valid_to = ?1",
        )
        .bind(to_sql(number))
        .fetch_all(self.reader())
        .await?;
        rows.iter()
            .map(|row| {
                let is_new = row.try_get::<i64, _>("valid_from")? == to_sql(number);
                Ok((kind(row)?, row.try_get("name")?, is_new, json(row, "body")?))
            })
            .collect()
    }

    /// The sealed key of a certificate, by its public key.
    pub async fn private_key(
        &self,
        certificate: &str,
        public_key_hash: &[u8],
    ) -> sqlx::Result<Option<Vec<u8>>> {
        let row =
            sqlx::query("SELECT sealed FROM private_keys WHERE certificate = ? AND public_key_hash = ?")
                .bind(certificate)
                .bind(public_key_hash)
                .fetch_optional(self.writer())
                .await?;
        row.map(|row| row.try_get("sealed")).transpose()
    }
}

/// One object that a revision leaves behind; `None`: it is deleted.
#[derive(Debug)]
pub struct Written<'a> {
    /// What it is.
    pub kind: Kind,
    /// Which.
    pub name: &'a str,
    /// Its new version: number, intent, numbers of its parts.
    pub new: Option<(u64, &'a Value, &'a BTreeMap<String, u64>)>,
}

/// Adds a revision. Fails when `revision.number` is there already: somebody else wrote.
pub async fn write_revision(
    tx: &mut Transaction<'_, Sqlite>,
    revision: &Revision,
    written: &[Written<'_>],
    next_number: u64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO revisions (number, created_at, author, source, message, summary) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(to_sql(revision.number))
    .bind(&revision.created_at)
    .bind(&revision.author)
    .bind(&revision.source)
    .bind(&revision.message)
    .bind(text(&revision.summary)?)
    .execute(&mut **tx)
    .await?;
    for object in written {
        sqlx::query("UPDATE objects SET valid_to = ? WHERE kind = ? AND name = ? AND valid_to IS NULL")
            .bind(to_sql(revision.number))
            .bind(object.kind.word())
            .bind(object.name)
            .execute(&mut **tx)
            .await?;
        let Some((number, body, parts)) = object.new else { continue };
        sqlx::query(
            "INSERT INTO objects (kind, name, number, valid_from, body, parts) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(object.kind.word())
        .bind(object.name)
        .bind(to_sql(number))
        .bind(to_sql(revision.number))
        .bind(text(body)?)
        .bind(text(parts)?)
        .execute(&mut **tx)
        .await?;
    }
    sqlx::query(
        "INSERT INTO meta (key, value) VALUES ('next-number', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(next_number.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stores a sealed key; the same key again is fine.
pub async fn write_private_key(
    tx: &mut Transaction<'_, Sqlite>,
    certificate: &str,
    public_key_hash: &[u8],
    sealed: &[u8],
    created_at: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO private_keys (certificate, public_key_hash, sealed, created_at) VALUES (?, ?, ?, ?) \
         ON CONFLICT (certificate, public_key_hash) DO UPDATE SET sealed = excluded.sealed",
    )
    .bind(certificate)
    .bind(public_key_hash)
    .bind(sealed)
    .bind(created_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn text<T: serde::Serialize + ?Sized>(value: &T) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
