//! Join tokens: `awj_<cluster>_<SHA-256 of the CA, hex>_<secret>`. Only the hash of the secret is stored; uses and life
//! are limited, and the labels of the node are bound to the token.

use std::{collections::BTreeMap, time::Duration};

use awe4lb_model::Name;
use awe4lb_proto::Hash;
use bytes::Bytes;
use sqlx::{Row, sqlite::SqliteRow};

use super::{
    FleetError,
    authority::{Authority, Csr, Issued},
    now,
};
use crate::store::Store;

const MAX_USES: u32 = 10_000;
const MAX_LIFE: Duration = Duration::from_secs(90 * 86_400);
const MAX_LABELS: usize = 64;

/// What a token is to allow.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// How many nodes may join with it. Default 1.
    pub uses: u32,
    /// For how long. Default ten minutes.
    pub life: Duration,
    /// What the nodes get.
    pub labels: BTreeMap<String, String>,
}

impl Default for NewToken {
    fn default() -> Self {
        Self { uses: 1, life: Duration::from_secs(600), labels: BTreeMap::new() }
    }
}

/// A token as it is listed: without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// To delete it by.
    pub id: String,
    /// How many nodes may join with it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds.
    pub created_at: i64,
    /// What the nodes get.
    pub labels: BTreeMap<String, String>,
}

/// Makes a token; the text is shown once and not stored.
pub async fn create(
    store: &Store,
    authority: &Authority,
    new: NewToken,
) -> Result<(JoinToken, String), FleetError> {
    if new.uses == 0 || new.uses > MAX_USES {
        return Err(FleetError::Invalid(format!("uses must be between 1 and {MAX_USES}")));
    }
    if new.life.is_zero() || new.life > MAX_LIFE {
        return Err(FleetError::Invalid("a token lives for at most 90d".to_owned()));
    }
    let long = |text: &String| text.len() > 256;
    if new.labels.len() > MAX_LABELS || new.labels.iter().any(|(key, value)| long(key) || long(value)) {
        return Err(FleetError::Invalid("at most 64 labels of at most 256 bytes".to_owned()));
    }
    let secret = hex::encode(super::random::<32>()?);
    let created_at = now();
    let token = JoinToken {
        id: hex::encode(super::random::<6>()?),
        uses: new.uses,
        used: 0,
        expires_at: created_at + new.life.as_secs().max(1) as i64,
        created_at,
        labels: new.labels,
    };
    sqlx::query(
        "INSERT INTO join_tokens (id, secret_hash, uses, labels, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&token.id)
    .bind(&Hash::of(secret.as_bytes()).0[..])
    .bind(token.uses)
    .bind(labels_text(&token.labels))
    .bind(token.created_at)
    .bind(token.expires_at)
    .execute(store.writer())
    .await?;
    let text = format!("awj_{}_{}_{secret}", authority.cluster(), authority.pin());
    Ok((token, text))
}

/// Those that still live, newest first. What expired an hour ago or longer is swept away.
pub async fn list(store: &Store) -> Result<Vec<JoinToken>, FleetError> {
    sqlx::query("DELETE FROM join_tokens WHERE expires_at < ?")
        .bind(now() - 3600)
        .execute(store.writer())
        .await?;
    let rows = sqlx::query(
        "SELECT id, uses, used, labels, created_at, expires_at FROM join_tokens ORDER BY created_at DESC, id",
    )
    .fetch_all(store.reader())
    .await?;
    rows.iter().map(|row| token_of(row).map_err(FleetError::from)).collect()
}

/// Takes one back. Nodes that joined with it stay.
pub async fn delete(store: &Store, id: &str) -> Result<(), FleetError> {
    let done = sqlx::query("DELETE FROM join_tokens WHERE id = ?").bind(id).execute(store.writer()).await?;
    if done.rows_affected() == 0 {
        return Err(FleetError::NotFound(format!("join token {id:?}")));
    }
    Ok(())
}

/// A node that joined.
#[derive(Debug)]
pub struct Joined {
    /// How it is called.
    pub name: Name,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its certificate.
    pub issued: Issued,
    /// False: the same key came again, and gets the same answer.
    pub is_new: bool,
}

/// Uses up one use, makes the node's record and its certificate; all or nothing.
pub async fn join(
    store: &Store,
    authority: &Authority,
    text: &str,
    wish: &str,
    csr: &Csr,
) -> Result<Joined, FleetError> {
    let secret = secret_of(authority, text)?;
    let key_hash = csr.key_hash();
    // Writers wait at the start, so that two nodes never share the last use.
    let mut tx = store.writer().begin_with("BEGIN IMMEDIATE").await?;
    let row = sqlx::query(
        "SELECT id, uses, used, labels, created_at, expires_at FROM join_tokens WHERE secret_hash = ?",
    )
    .bind(&Hash::of(secret.as_bytes()).0[..])
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        return Err(FleetError::Refused("this join token is not known here".to_owned()));
    };
    let token = token_of(&row)?;
    if token.expires_at <= now() {
        return Err(FleetError::Refused("this join token has expired".to_owned()));
    }
    let before = sqlx::query(
        "SELECT u.node, u.certificate_der, u.not_after, n.labels FROM join_token_uses u \
         JOIN nodes n ON n.name = u.node WHERE u.token = ? AND u.key_hash = ? AND n.banned = 0",
    )
    .bind(&token.id)
    .bind(&key_hash.0[..])
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(row) = before {
        let name: String = row.try_get("node")?;
        let certificate: Vec<u8> = row.try_get("certificate_der")?;
        return Ok(Joined {
            name: stored_name(&name)?,
            labels: labels_of(row.try_get("labels")?),
            issued: Issued {
                certificate_der: Bytes::from(certificate),
                not_after: row.try_get("not_after")?,
                key_hash,
            },
            is_new: false,
        });
    }
    if token.used >= token.uses {
        return Err(FleetError::Refused("this join token has been used up".to_owned()));
    }
    let name = choose_name(&mut tx, wish, &key_hash).await?;
    let issued = authority.issue_node(name.as_str(), csr)?;
    sqlx::query(
        "INSERT INTO nodes (name, labels, key_hash, not_after, created_at) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET labels = excluded.labels, not_after = excluded.not_after",
    )
    .bind(name.as_str())
    .bind(labels_text(&token.labels))
    .bind(&key_hash.0[..])
    .bind(issued.not_after)
    .bind(now())
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE join_tokens SET used = used + 1 WHERE id = ?")
        .bind(&token.id)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO join_token_uses (token, key_hash, node, certificate_der, not_after) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (token, key_hash) DO UPDATE SET node = excluded.node, \
         certificate_der = excluded.certificate_der, not_after = excluded.not_after",
    )
    .bind(&token.id)
    .bind(&key_hash.0[..])
    .bind(name.as_str())
    .bind(&issued.certificate_der[..])
    .bind(issued.not_after)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Joined { name, labels: token.labels, issued, is_new: true })
}

/// The wish if it is free (or was this key's before), else a made one.
async fn choose_name(
    tx: &mut sqlx::SqliteConnection,
    wish: &str,
    key_hash: &Hash,
) -> Result<Name, FleetError> {
    if wish.is_empty() {
        let known =
            sqlx::query_scalar::<_, String>("SELECT name FROM nodes WHERE key_hash = ? AND banned = 0")
                .bind(&key_hash.0[..])
                .fetch_optional(tx)
                .await?;
        return known.map_or_else(made_name, |name| stored_name(&name));
    }
    let name: Name =
        wish.parse().map_err(|error| FleetError::Invalid(format!("the node's name {wish:?}: {error}")))?;
    let row = sqlx::query("SELECT key_hash, banned FROM nodes WHERE name = ?")
        .bind(wish)
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else { return Ok(name) };
    if row.try_get::<bool, _>("banned")? {
        return Err(FleetError::Refused(format!("the node {name} is banned")));
    }
    // Somebody with a token must not take over the identity of another node.
    if row.try_get::<Vec<u8>, _>("key_hash")? != key_hash.0 {
        return Err(FleetError::Conflict(format!(
            "there is a node {name} with another key; forget it first, or join with another name"
        )));
    }
    Ok(name)
}

fn made_name() -> Result<Name, FleetError> {
    stored_name(&format!("node-{}", hex::encode(super::random::<4>()?)))
}

fn stored_name(text: &str) -> Result<Name, FleetError> {
    text.parse().map_err(|error| FleetError::Invalid(format!("the node's name {text:?}: {error}")))
}

/// The secret of a token that is for this cluster.
fn secret_of<'a>(authority: &Authority, text: &'a str) -> Result<&'a str, FleetError> {
    let invalid = || FleetError::Invalid("this is no join token (awj_CLUSTER_HASH_SECRET)".to_owned());
    let mut parts = text.strip_prefix("awj_").ok_or_else(invalid)?.splitn(3, '_');
    let (Some(cluster), Some(pin), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(invalid());
    };
    if cluster != authority.cluster() || pin != authority.pin().to_string() {
        return Err(FleetError::Refused("this join token is for another cluster".to_owned()));
    }
    Ok(secret)
}

fn token_of(row: &SqliteRow) -> Result<JoinToken, sqlx::Error> {
    Ok(JoinToken {
        id: row.try_get("id")?,
        uses: row.try_get("uses")?,
        used: row.try_get("used")?,
        expires_at: row.try_get("expires_at")?,
        created_at: row.try_get("created_at")?,
        labels: labels_of(row.try_get("labels")?),
    })
}

fn labels_text(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) fn labels_of(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}
