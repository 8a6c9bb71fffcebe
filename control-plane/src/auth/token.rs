//! API tokens: for programs, with a role, shown once.

use awe4lb_model::Name;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
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
    /// Of a pusher: the source that it may tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push: Option<PushTarget>,
    /// By whom it was made.
    pub created_by: String,
    /// When.
    pub created_at: jiff::Timestamp,
    /// Until when it is good; `None`: until it is deleted.
    pub expires_at: Option<jiff::Timestamp>,
}

/// A source that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushTarget {
    /// The pool. It need not be there yet.
    pub pool: Name,
    /// The source's id.
    pub source: Name,
}

impl PushTarget {
    /// Whether a path of the API is that of this source and nothing else.
    pub fn is_path(&self, path: &str) -> bool {
        path == format!("/api/v1/pools/{}/sources/{}", self.pool, self.source)
    }

    fn parse(text: &str) -> Option<Self> {
        let (pool, source) = text.split_once('/')?;
        Some(Self { pool: pool.parse().ok()?, source: source.parse().ok()? })
    }
}

impl std::fmt::Display for PushTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.source)
    }
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
        self.store_token(name, role, None, lifetime, by).await
    }

    /// A new one that may tell one source of backends what it has, and its secret.
    pub async fn make_push_token(
        &self,
        name: &str,
        target: &PushTarget,
        lifetime: Option<i64>,
        by: &str,
    ) -> Result<(ApiToken, String), TokenError> {
        self.store_token(name, Role::Pusher, Some(target), lifetime, by).await
    }

    async fn store_token(
        &self,
        name: &str,
        role: Role,
        pushes_to: Option<&PushTarget>,
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
            "INSERT INTO api_tokens (id, name, role, pushes_to, secret_hash, created_by, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING *",
        )
        .bind(&id)
        .bind(name)
        .bind(role.word())
        .bind(pushes_to.map(ToString::to_string))
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
            "SELECT name, role, pushes_to FROM api_tokens WHERE secret_hash = ? AND (expires_at IS NULL OR expires_at > ?)",
        )
        .bind(hash(secret))
        .bind(now())
        .fetch_optional(self.0.store.reader())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let role = row.try_get::<String, _>("role")?.parse().map_err(Problem::internal)?;
        let pushes_to = pushes_to(&row)?;
        Ok(Some(Principal { user: row.try_get("name")?, role, via: Via::Token, pushes_to }))
    }
}

fn pushes_to(row: &SqliteRow) -> sqlx::Result<Option<PushTarget>> {
    let text: Option<String> = row.try_get("pushes_to")?;
    Ok(text.as_deref().and_then(PushTarget::parse))
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
        push: pushes_to(row)?,
        created_by: row.try_get("created_by")?,
        created_at: time(row.try_get("created_at")?)?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(time).transpose()?,
    })
}
