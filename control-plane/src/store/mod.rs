//! The database: one SQLite file, one writer, many readers, and the key that secrets in it are sealed with.
//!
//! What is acknowledged is durable: WAL with `synchronous=FULL`.

pub mod acme;
pub mod data_dir;
pub mod issued;
pub mod lists;
pub mod objects;
pub mod ocsp;
pub mod seal;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use sqlx::{
    Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use data_dir::DataDir;
use seal::Sealer;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    reader: SqlitePool,
    writer: SqlitePool,
    sealer: Arc<Sealer>,
    data_dir: Arc<DataDir>,
}

impl Store {
    /// Opens (or makes) the database in a data directory and brings its tables up to date.
    pub async fn open(data_dir: DataDir, key_file: Option<&Path>) -> anyhow::Result<Self> {
        let path = data_dir.file("awe4lb.db");
        let key_path = key_file.map_or_else(|| data_dir.file("sealing-key"), Path::to_owned);
        let sealer = Sealer::open(&key_path, path.exists())?;
        let (reader, writer) = open_file(&path).await?;
        sqlx::migrate!("./migrations")
            .run(&writer)
            .await
            .with_context(|| format!("bring the tables of {} up to date", path.display()))?;
        Ok(Self { reader, writer, sealer: Arc::new(sealer), data_dir: Arc::new(data_dir) })
    }

    /// For reading; sees what is committed.
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// The one connection that writes. A transaction begins with `begin_with("BEGIN IMMEDIATE")`.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Seals a secret for storage.
    pub fn seal(&self, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.sealer.seal(plain)
    }

    /// Opens what [`Self::seal`] made.
    pub fn unseal(&self, sealed: &[u8]) -> anyhow::Result<zeroize::Zeroizing<Vec<u8>>> {
        self.sealer.unseal(sealed)
    }

    /// Where everything is.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The database file.
    pub fn path(&self) -> PathBuf {
        self.data_dir.file("awe4lb.db")
    }

    /// Closes all connections; the write-ahead log is merged.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Opens one SQLite file as a pool of readers and a pool with the one writer.
pub async fn open_file(path: &Path) -> anyhow::Result<(SqlitePool, SqlitePool)> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    let what = || format!("open the database {}", path.display());
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        // A commit that fails (a full disk) ends the transaction within SQLite, so that the rollback queued behind it
        // fails, too, and sqlx counts this connection as within a transaction ever after: nothing could be written again.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options.clone())
        .await
        .with_context(what)?;
    data_dir::make_private(path)?;
    let reader = SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options.pragma("query_only", "1"))
        .await
        .with_context(what)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn insert(writer: &SqlitePool, bytes: i64) -> sqlx::Result<()> {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO filler VALUES (zeroblob(?))").bind(bytes).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    #[tokio::test]
    async fn a_full_disk_does_not_end_all_writing() {
        let dir = tempfile::tempdir().unwrap();
        let (_, writer) = open_file(&dir.path().join("test.db")).await.unwrap();
        sqlx::query("CREATE TABLE filler (bytes BLOB)").execute(&writer).await.unwrap();
        // Where SQLite meets a limit of its own, it does what it does on a full disk.
        sqlx::query("PRAGMA max_page_count = 20").execute(&writer).await.unwrap();
        let full = insert(&writer, 1 << 20).await.unwrap_err();
        assert!(full.to_string().contains("full"), "{full}");
        sqlx::query("PRAGMA max_page_count = 100000").execute(&writer).await.unwrap();
        insert(&writer, 1 << 20).await.unwrap();
    }
}
