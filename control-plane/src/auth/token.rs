//! API tokens: for programs, with a role, shown once.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Auth, Principal, Role, Via, hash, now, secret};
use crate::rest::Problem;

const PREFIX: &str = "awl_";
const MAX_TOKENS: i64 = 10_000;

/// A token without its secret.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiToken {
    /// For its deletion.
    pub id: String,
    /// What it is for; the author of what it changes.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// By whom it was made.
    pub created_by: String,
    /// When.
    pub created_at: jiff::Timestamp,
    /// Until when it is good; `None`: until it is deleted.
    pub expires_at: Option<jiff::Timestamp>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name is taken.
    #[error("there is a token {0:?} already")]
    Taken(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens: delete some")]
    TooMany,
    /// Not stored.
    #[error(transparent)]
    Storage(#[from] sqlx::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] anyhow::Error),
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Storage(error) => error.into(),
            TokenError::Random(error) => Self::internal(error),
            error => Self::conflict(error.to_string()),
        }
    }
}

impl Auth {
    /// A new one, and its secret.
    pub async fn make_token(
        &self,
        name: &str,
        role: Role,
        lifetime: Option<i64>,
        by: &str,
    ) -> Result<(ApiToken, String), TokenError> {
        let writer = self.0.store.writer();
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret()?));
        let id = hex::encode(&hash(&secret)[..6]);
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM api_tokens").fetch_one(&mut *tx).await?;
        if count >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        sqlx::query("DELETE FROM api_tokens WHERE name = ? AND expires_at <= ?")
            .bind(name)
            .bind(now())
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query(
            "INSERT INTO api_tokens (id, name, role, secret_hash, created_by, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING *",
        )
        .bind(&id)
        .bind(name)
        .bind(role.word())
        .bind(hash(&secret))
        .bind(by)
        .bind(now())
        .bind(lifetime.map(|seconds| now() + seconds))
        .fetch_optional(&mut *tx)
        .await?;
        let token = read(&row.ok_or_else(|| TokenError::Taken(name.to_owned()))?)?;
        tx.commit().await?;
        Ok((token, secret))
    }

    /// All of them, by name.
    pub async fn tokens(&self) -> sqlx::Result<Vec<ApiToken>> {
        let rows =
            sqlx::query("SELECT * FROM api_tokens ORDER BY name").fetch_all(self.0.store.reader()).await?;
        rows.iter().map(read).collect()
    }

    /// Whether there was one.
    pub async fn delete_token(&self, id: &str) -> sqlx::Result<bool> {
        let done = sqlx::query("DELETE FROM api_tokens WHERE id = ?").bind(id).execute(self.0.store.writer());
        Ok(done.await?.rows_affected() > 0)
    }

    pub(super) async fn by_token(&self, secret: &str) -> Result<Option<Principal>, Problem> {
        if !secret.starts_with(PREFIX) {
            return Ok(None);
        }
        // Found by the hash of 256 random bits: how long the search takes says nothing about any of them.
        let row = sqlx::query(
            "SELECT name, role FROM api_tokens WHERE secret_hash = ? AND (expires_at IS NULL OR expires_at > ?)",
        )
        .bind(hash(secret))
        .bind(now())
        .fetch_optional(self.0.store.reader())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let role = row.try_get::<String, _>("role")?.parse().map_err(Problem::internal)?;
        Ok(Some(Principal { user: row.try_get("name")?, role, via: Via::Token }))
    }
}

fn read(row: &SqliteRow) -> sqlx::Result<ApiToken> {
    let time = |seconds: i64| {
        jiff::Timestamp::from_second(seconds).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    Ok(ApiToken {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: row
            .try_get::<String, _>("role")?
            .parse()
            .map_err(|error: anyhow::Error| sqlx::Error::Decode(error.into()))?,
        created_by: row.try_get("created_by")?,
        created_at: time(row.try_get("created_at")?)?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(time).transpose()?,
    })
}
