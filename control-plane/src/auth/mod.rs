//! Who is there, and what they may do: users, sessions, tokens, and the one gate in front of every route.

mod bootstrap;
mod limits;
mod password;
mod role;
mod session;
mod token;

use std::{net::IpAddr, sync::Arc};

use axum::extract::ConnectInfo;
use http::{HeaderMap, Uri, header, request::Parts};
use sha2::{Digest as _, Sha256};

pub use bootstrap::Bootstrap;
pub use limits::Attempts;
pub use role::Role;
pub use session::{SignIn, cookie_name};
pub use token::{ApiToken, PushTarget, TokenError};

use crate::{
    app::App,
    rest::{Access, Problem},
    store::Store,
};

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub struct Principal {
    /// A user, or the name of a token.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// How they showed who they are.
    pub via: Via,
    /// Of a pusher: the source that it may tell.
    pub pushes_to: Option<PushTarget>,
}

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The console's session.
    Cookie,
    /// An API token.
    Token,
}

impl Principal {
    /// Whether a browser sent the request on its own account: it must say from where.
    pub fn is_by_cookie(&self) -> bool {
        self.via == Via::Cookie
    }
}

/// Users, sessions and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Store,
    passwords: password::Passwords,
    attempts: Attempts,
    bootstrap: Bootstrap,
}

impl Auth {
    /// With a bootstrap code in the data directory when there is no admin yet.
    pub async fn open(store: Store) -> anyhow::Result<Self> {
        let has_admin = has_admin(&store).await?;
        let bootstrap = Bootstrap::open(store.data_dir(), !has_admin)?;
        let now = now();
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?").bind(now).execute(store.writer()).await?;
        sqlx::query("DELETE FROM api_tokens WHERE expires_at <= ?").bind(now).execute(store.writer()).await?;
        let passwords = password::Passwords::new()?;
        Ok(Self(Arc::new(Inner { store, passwords, attempts: Attempts::default(), bootstrap })))
    }

    /// Who sent these headers, if they say.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Option<Principal>, Problem> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let Some(secret) = value.to_str().ok().and_then(bearer) else { return Ok(None) };
            return self.by_token(secret).await;
        }
        match session::secret_of(headers) {
            Some(secret) => Ok(self.by_session(secret).await?),
            None => Ok(None),
        }
    }
}

/// The gate: who sends a request, if the route is for them.
pub async fn require(app: &App, access: Access, parts: &Parts) -> Result<Option<Principal>, Problem> {
    let principal = app.auth.identify(&parts.headers).await?;
    let by_token = principal.as_ref().is_some_and(|principal| !principal.is_by_cookie());
    if !parts.method.is_safe() && !by_token {
        check_origin(&parts.headers, &parts.uri, principal.is_some())?;
    }
    let (needed, is_push) = match access {
        Access::Public => return Ok(principal),
        Access::Role(needed) => (needed, false),
        Access::Push => (Role::Operator, true),
    };
    let may_push = |principal: &Principal| {
        let target = principal.pushes_to.as_ref();
        is_push && target.is_some_and(|target| target.is_path(parts.uri.path()))
    };
    match principal {
        Some(principal) if may_push(&principal) => Ok(Some(principal)),
        Some(principal) if principal.role >= needed => Ok(Some(principal)),
        Some(_) => Err(Problem::forbidden(needed)),
        None if parts.headers.contains_key(header::AUTHORIZATION) => {
            Err(Problem::unauthorized("this token is not known or has expired"))
        }
        None => Err(Problem::unauthorized("sign in, or send a token: Authorization: Bearer awl_…")),
    }
}

/// A browser sends cookies along with requests that pages of others make: what changes something must come from a page
/// of ours. Browsers say from where; no page can change that.
fn check_origin(headers: &HeaderMap, uri: &Uri, is_by_cookie: bool) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        let detail = "a write with the console's cookie needs an Origin header";
        return if is_by_cookie { Err(Problem::refused(detail)) } else { Ok(()) };
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let is_same = match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    };
    if is_same { Ok(()) } else { Err(Problem::refused("this request comes from a page of another origin")) }
}

/// `awl_…` of `Bearer awl_…`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// From where a request came.
pub fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|info| info.0.ip().to_canonical())
}

async fn has_admin(store: &Store) -> sqlx::Result<bool> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE role = 'admin'")
        .fetch_one(store.reader())
        .await?;
    Ok(count > 0)
}

/// 256 random bits.
fn secret() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// What is stored of a secret. It has 256 random bits: nothing slower is needed.
fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// Unix seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: Option<&str>, host: &str, is_by_cookie: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check_origin(&headers, &Uri::from_static("/api/v1/session"), is_by_cookie).is_ok()
    }

    #[test]
    fn pages_of_others_change_nothing() {
        assert!(check(Some("https://lb.example:7070"), "lb.example:7070", true));
        assert!(check(Some("http://127.0.0.1:7070"), "127.0.0.1:7070", true));
        assert!(!check(Some("http://127.0.0.1:7071"), "127.0.0.1:7070", true));
        assert!(!check(Some("https://evil.example"), "lb.example:7070", true));
        assert!(!check(Some("null"), "lb.example:7070", true));
        assert!(!check(None, "lb.example:7070", true));
        // A program that signs in sends no Origin; a page of another origin that signs somebody in does.
        assert!(check(None, "lb.example:7070", false));
        assert!(!check(Some("https://evil.example"), "lb.example:7070", false));
    }
}
