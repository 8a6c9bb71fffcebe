//! What ACME has to know after a restart: accounts, orders on their way, failures, and how many orders were placed lately.

use awe4lb_model::acme::KeyType;
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::Store;

/// An account as stored: by name, directory and the id of its external key.
#[derive(Debug)]
pub struct StoredAccount {
    /// Where the authority keeps it; empty: it does not know it yet.
    pub url: String,
    /// JSON, as the authority was told.
    pub contact: String,
    /// The key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
}

/// What an account is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountKey {
    /// Of the object.
    pub name: String,
    /// The authority's.
    pub directory: String,
    /// Empty: none.
    pub external_key_id: String,
}

/// An order on its way.
#[derive(Debug, Clone)]
pub struct StoredOrder {
    /// What was ordered, JSON.
    pub wanted: String,
    /// At the authority.
    pub url: String,
    /// The key of the certificate to come, PEM.
    pub key: Zeroizing<String>,
    /// Which of the wanted kinds of challenges is tried.
    pub challenge: u32,
    /// Records in zones, JSON.
    pub presented: String,
}

/// What went wrong lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredAttempt {
    /// In a row.
    pub failures: u32,
    /// Unix seconds.
    pub failed_at: i64,
    /// Unix seconds: no order before.
    pub not_sooner: i64,
    /// JSON.
    pub last_error: String,
}

type Result<T> = anyhow::Result<T>;

fn key_type(word: &str) -> sqlx::Result<KeyType> {
    KeyType::of_word(word).ok_or_else(|| sqlx::Error::Decode(format!("unknown key type {word:?}").into()))
}

impl Store {
    /// An account, where one was made.
    pub async fn acme_account(&self, of: &AccountKey) -> Result<Option<StoredAccount>> {
        let row = sqlx::query(
            "SELECT url, contact, sealed FROM acme_accounts \
             WHERE name = ? AND directory = ? AND external_key_id = ?",
        )
        .bind(&of.name)
        .bind(&of.directory)
        .bind(&of.external_key_id)
        .fetch_optional(self.writer())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(StoredAccount {
            url: row.try_get("url")?,
            contact: row.try_get("contact")?,
            key: self.unseal(row.try_get("sealed")?)?,
        }))
    }

    /// Stores an account in place of the one before.
    pub async fn put_acme_account(&self, of: &AccountKey, account: &StoredAccount) -> Result<()> {
        sqlx::query(
            "INSERT INTO acme_accounts (name, directory, external_key_id, url, contact, sealed, created_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name, directory, external_key_id) \
             DO UPDATE SET url = ?4, contact = ?5, sealed = ?6",
        )
        .bind(&of.name)
        .bind(&of.directory)
        .bind(&of.external_key_id)
        .bind(&account.url)
        .bind(&account.contact)
        .bind(self.seal(&account.key)?)
        .bind(jiff::Timestamp::now().to_string())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// The order of a certificate that is on its way.
    pub async fn acme_order(&self, certificate: &str, key_type: KeyType) -> Result<Option<StoredOrder>> {
        let row = sqlx::query("SELECT * FROM acme_orders WHERE certificate = ? AND key_type = ?")
            .bind(certificate)
            .bind(key_type.word())
            .fetch_optional(self.writer())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let key = self.unseal(row.try_get("sealed_key")?)?;
        Ok(Some(StoredOrder {
            wanted: row.try_get("wanted")?,
            url: row.try_get("url")?,
            key: Zeroizing::new(std::str::from_utf8(&key)?.to_owned()),
            challenge: row.try_get("challenge")?,
            presented: row.try_get("presented")?,
        }))
    }

    /// Which certificates have orders on their way.
    pub async fn acme_orders(&self) -> Result<Vec<(String, KeyType)>> {
        let rows =
            sqlx::query("SELECT certificate, key_type FROM acme_orders").fetch_all(self.writer()).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok((row.try_get("certificate")?, key_type(row.try_get("key_type")?)?))
        };
        rows.iter().map(read).collect()
    }

    /// Stores an order in place of the one before.
    pub async fn put_acme_order(
        &self,
        certificate: &str,
        key_type: KeyType,
        order: &StoredOrder,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO acme_orders (certificate, key_type, wanted, url, sealed_key, challenge, presented, placed_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (certificate, key_type) \
             DO UPDATE SET wanted = ?3, url = ?4, sealed_key = ?5, challenge = ?6, presented = ?7",
        )
        .bind(certificate)
        .bind(key_type.word())
        .bind(&order.wanted)
        .bind(&order.url)
        .bind(self.seal(order.key.as_bytes())?)
        .bind(order.challenge)
        .bind(&order.presented)
        .bind(jiff::Timestamp::now().to_string())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// An order is over.
    pub async fn forget_acme_order(&self, certificate: &str, key_type: KeyType) -> Result<()> {
        sqlx::query("DELETE FROM acme_orders WHERE certificate = ? AND key_type = ?")
            .bind(certificate)
            .bind(key_type.word())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// What went wrong, of all certificates.
    pub async fn acme_attempts(&self) -> Result<Vec<((String, KeyType), StoredAttempt)>> {
        let rows = sqlx::query("SELECT * FROM acme_attempts").fetch_all(self.writer()).await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let of = (row.try_get("certificate")?, key_type(row.try_get("key_type")?)?);
            let attempt = StoredAttempt {
                failures: row.try_get("failures")?,
                failed_at: row.try_get("failed_at")?,
                not_sooner: row.try_get("not_sooner")?,
                last_error: row.try_get("last_error")?,
            };
            Ok((of, attempt))
        };
        rows.iter().map(read).collect()
    }

    /// Stores what went wrong.
    pub async fn put_acme_attempt(
        &self,
        certificate: &str,
        key_type: KeyType,
        attempt: &StoredAttempt,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO acme_attempts (certificate, key_type, failures, failed_at, not_sooner, last_error) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (certificate, key_type) \
             DO UPDATE SET failures = ?3, failed_at = ?4, not_sooner = ?5, last_error = ?6",
        )
        .bind(certificate)
        .bind(key_type.word())
        .bind(attempt.failures)
        .bind(attempt.failed_at)
        .bind(attempt.not_sooner)
        .bind(&attempt.last_error)
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// It went well.
    pub async fn forget_acme_attempt(&self, certificate: &str, key_type: KeyType) -> Result<()> {
        sqlx::query("DELETE FROM acme_attempts WHERE certificate = ? AND key_type = ?")
            .bind(certificate)
            .bind(key_type.word())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Notes that an order is about to be placed, if `may` says so of when earlier ones were (in order, since `since`); older
    /// ones are forgotten. What `may` says.
    pub async fn note_acme_placed(
        &self,
        of: &AccountKey,
        certificate: &str,
        (since, now): (i64, i64),
        may: impl FnOnce(&[i64]) -> bool + Send,
    ) -> Result<bool> {
        // All in one, as several are placed at a time.
        let mut tx = self.writer().begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM acme_placed WHERE placed_at < ?").bind(since).execute(&mut *tx).await?;
        let rows = sqlx::query(
            "SELECT placed_at FROM acme_placed WHERE directory = ? AND account = ? ORDER BY placed_at",
        )
        .bind(&of.directory)
        .bind(&of.name)
        .fetch_all(&mut *tx)
        .await?;
        let placed: Vec<i64> =
            rows.iter().map(|row| row.try_get("placed_at")).collect::<sqlx::Result<_>>()?;
        let is_noted = may(&placed);
        if is_noted {
            sqlx::query(
                "INSERT INTO acme_placed (directory, account, certificate, placed_at) VALUES (?, ?, ?, ?)",
            )
            .bind(&of.directory)
            .bind(&of.name)
            .bind(certificate)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(is_noted)
    }
}
