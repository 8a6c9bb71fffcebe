//! Signing in with a password, and the sessions of the console that come of it.

use std::{net::IpAddr, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode, header};
use sqlx::Row as _;

use super::{Auth, Principal, Role, Via, bootstrap::Verdict, hash, now, password, secret};
use crate::{rest::Problem, store::Store};

/// Sessions slide: this long after their last use they end.
const LIFETIME: i64 = 12 * 3_600;
/// How often a session's end is moved.
const MOVED_EVERY: i64 = 600;

/// `__Host-` binds a cookie to this host and to TLS; without TLS there is none of that name.
pub fn cookie_name(is_tls: bool) -> &'static str {
    if is_tls { "__Host-awe4lb" } else { "awe4lb" }
}

/// Somebody signed in.
#[derive(Debug)]
pub struct SignIn {
    /// Who.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// For the cookie.
    secret: String,
}

impl SignIn {
    /// `Set-Cookie`.
    pub fn cookie(&self, is_tls: bool) -> String {
        let secure = if is_tls { "; Secure" } else { "" };
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict{secure}", cookie_name(is_tls), self.secret)
    }
}

/// The secret in the cookie, of either name.
pub fn secret_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie_name(true) || *name == cookie_name(false)).map(|(_, value)| value)
}

impl Auth {
    /// Whether the first admin is still to be made.
    pub fn bootstrap_needed(&self) -> bool {
        self.0.bootstrap.is_needed()
    }

    /// Makes the first admin with the code of the data directory, and signs in.
    pub async fn bootstrap(
        &self,
        code: &str,
        user: &str,
        password: &str,
        peer: Option<IpAddr>,
    ) -> Result<SignIn, Problem> {
        let inner = &self.0;
        self.check_attempts("", peer)?;
        if !inner.bootstrap.is_needed() {
            return Err(Problem::conflict("there is an admin already: sign in"));
        }
        if user.parse::<awe4lb_model::Name>().is_err() {
            return Err(unusable("a user's name has lower-case letters, digits and dashes"));
        }
        if let Some(why) = password::why_weak(password) {
            return Err(unusable(&why));
        }
        let path = inner.bootstrap.path().display();
        match inner.bootstrap.check(code).map_err(Problem::internal)? {
            Verdict::Right => {}
            Verdict::NotNeeded => return Err(Problem::conflict("there is an admin already: sign in")),
            Verdict::Wrong => {
                inner.attempts.failed("", peer, Instant::now());
                return Err(Problem::unauthorized(format!("wrong code: the right one is in {path}")));
            }
            Verdict::Replaced => {
                let detail = format!("that code is too old or was tried too often: a new one is in {path}");
                return Err(Problem::unauthorized(detail));
            }
        }
        let hashed = inner.passwords.hash(password).await.map_err(Problem::internal)?;
        sqlx::query("INSERT INTO users (name, role, password, created_at) VALUES (?, 'admin', ?, ?)")
            .bind(user)
            .bind(hashed)
            .bind(now())
            .execute(inner.store.writer())
            .await?;
        inner.bootstrap.done().map_err(Problem::internal)?;
        tracing::info!(user, "the first admin was made");
        self.begin(user.to_owned(), Role::Admin).await
    }

    /// Signs in.
    pub async fn sign_in(&self, user: &str, password: &str, peer: Option<IpAddr>) -> Result<SignIn, Problem> {
        let inner = &self.0;
        self.check_attempts(user, peer)?;
        let row = sqlx::query("SELECT role, password FROM users WHERE name = ?")
            .bind(user)
            .fetch_optional(inner.store.reader())
            .await?;
        let stored = row.as_ref().map(|row| row.try_get::<String, _>("password")).transpose()?;
        let is_right =
            inner.passwords.is_right(password, stored.as_deref()).await.map_err(Problem::internal)?;
        let Some(row) = row.filter(|_| is_right) else {
            inner.attempts.failed(user, peer, Instant::now());
            tracing::warn!(user, peer = peer.map(tracing::field::display), "a wrong user or password");
            return Err(Problem::unauthorized("wrong user or password"));
        };
        let role = row.try_get::<String, _>("role")?.parse().map_err(Problem::internal)?;
        self.begin(user.to_owned(), role).await
    }

    fn check_attempts(&self, user: &str, peer: Option<IpAddr>) -> Result<(), Problem> {
        match self.0.attempts.wait(user, peer, Instant::now()) {
            Some(seconds) => Err(Problem::too_many(seconds, "too many wrong tries: wait a little")),
            None => Ok(()),
        }
    }

    async fn begin(&self, user: String, role: Role) -> Result<SignIn, Problem> {
        let secret = URL_SAFE_NO_PAD.encode(secret().map_err(Problem::internal)?);
        let now = now();
        sqlx::query("INSERT INTO sessions (secret_hash, user, created_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(hash(&secret))
            .bind(&user)
            .bind(now)
            .bind(now + LIFETIME)
            .execute(self.0.store.writer())
            .await?;
        Ok(SignIn { user, role, secret })
    }

    pub(super) async fn by_session(&self, secret: &str) -> Result<Option<Principal>, Problem> {
        let hashed = hash(secret);
        let now = now();
        let row = sqlx::query(
            "SELECT user, role, expires_at FROM sessions JOIN users ON users.name = sessions.user \
             WHERE secret_hash = ? AND expires_at > ?",
        )
        .bind(&hashed)
        .bind(now)
        .fetch_optional(self.0.store.reader())
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<i64, _>("expires_at")? < now + LIFETIME - MOVED_EVERY {
            slide(&self.0.store, &hashed, now + LIFETIME).await;
        }
        let role = row.try_get::<String, _>("role")?.parse().map_err(Problem::internal)?;
        Ok(Some(Principal { user: row.try_get("user")?, role, via: Via::Cookie, pushes_to: None }))
    }

    /// Ends the session of these headers.
    pub async fn sign_out(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if let Some(secret) = secret_of(headers) {
            sqlx::query("DELETE FROM sessions WHERE secret_hash = ?")
                .bind(hash(secret))
                .execute(self.0.store.writer())
                .await?;
        }
        Ok(())
    }
}

/// Reading must work also while nothing can be written.
async fn slide(store: &Store, hashed: &[u8], expires_at: i64) {
    let moved = sqlx::query("UPDATE sessions SET expires_at = ? WHERE secret_hash = ?")
        .bind(expires_at)
        .bind(hashed)
        .execute(store.writer())
        .await;
    if let Err(error) = moved {
        tracing::warn!("a session was not prolonged: {error}");
    }
}

fn unusable(detail: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
}
