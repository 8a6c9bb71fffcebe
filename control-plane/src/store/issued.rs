//! Chains that were issued, and secrets that came with objects.

use awe4lb_model::acme::{KeyType, Secret};
use sqlx::{Row as _, Sqlite, Transaction};

use super::Store;

/// A chain of a certificate that is issued, as stored.
#[derive(Debug, Clone)]
pub struct StoredChain {
    /// Of its leaf.
    pub key_type: KeyType,
    /// `acme`, `uploaded` or `placeholder`.
    pub origin: String,
    /// Of those by ACME: directory, profile and names.
    pub source: String,
    /// PEM.
    pub chain: String,
    /// RFC 3339.
    pub issued_at: String,
}

impl Store {
    /// The chains of a certificate, also of one that was deleted.
    pub async fn issued_chains(&self, certificate: &str) -> sqlx::Result<Vec<StoredChain>> {
        let rows = sqlx::query("SELECT * FROM issued_chains WHERE certificate = ? ORDER BY key_type")
            .bind(certificate)
            .fetch_all(self.writer())
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let word: &str = row.try_get("key_type")?;
            let unknown = || sqlx::Error::Decode(format!("unknown key type {word:?}").into());
            Ok(StoredChain {
                key_type: KeyType::of_word(word).ok_or_else(unknown)?,
                origin: row.try_get("origin")?,
                source: row.try_get("source")?,
                chain: row.try_get("chain")?,
                issued_at: row.try_get("issued_at")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The secret of an object, by what it belongs to.
    pub async fn secret(&self, kind: &str, name: &str, belongs_to: &str) -> anyhow::Result<Option<Secret>> {
        let row = sqlx::query("SELECT sealed FROM secrets WHERE kind = ? AND name = ? AND belongs_to = ?")
            .bind(kind)
            .bind(name)
            .bind(belongs_to)
            .fetch_optional(self.writer())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let plain = self.unseal(row.try_get("sealed")?)?;
        Ok(Some(Secret(std::str::from_utf8(&plain)?.to_owned())))
    }
}

/// Stores a chain in place of the one of the same key type.
pub async fn write_issued_chain(
    tx: &mut Transaction<'_, Sqlite>,
    certificate: &str,
    chain: &StoredChain,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO issued_chains (certificate, key_type, origin, source, chain, issued_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (certificate, key_type) \
         DO UPDATE SET origin = ?3, source = ?4, chain = ?5, issued_at = ?6",
    )
    .bind(certificate)
    .bind(chain.key_type.word())
    .bind(&chain.origin)
    .bind(&chain.source)
    .bind(&chain.chain)
    .bind(&chain.issued_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stores a sealed secret in place of the one before.
pub async fn write_secret(
    tx: &mut Transaction<'_, Sqlite>,
    (kind, name, belongs_to): (&str, &str, &str),
    sealed: &[u8],
    created_at: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO secrets (kind, name, belongs_to, sealed, created_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (kind, name, belongs_to) DO UPDATE SET sealed = ?4, created_at = ?5",
    )
    .bind(kind)
    .bind(name)
    .bind(belongs_to)
    .bind(sealed)
    .bind(created_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Forgets the key of a chain that another has taken the place of.
pub async fn forget_private_key(
    tx: &mut Transaction<'_, Sqlite>,
    certificate: &str,
    public_key_hash: &[u8],
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM private_keys WHERE certificate = ? AND public_key_hash = ?")
        .bind(certificate)
        .bind(public_key_hash)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
