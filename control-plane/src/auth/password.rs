//! Passwords: argon2id, a few at a time, and as slow for users that do not exist.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// One hash takes 19 MiB and tens of milliseconds: a flood of sign-ins must not take the machine.
const AT_ONCE: usize = 2;
/// Characters.
pub const MIN_LENGTH: usize = 10;
/// Bytes.
const MAX_LENGTH: usize = 1_024;

/// Makes and checks hashes.
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// For users that do not exist.
    nobody: Arc<str>,
}

impl Passwords {
    /// Takes one hash's time.
    pub fn new() -> anyhow::Result<Self> {
        let nobody = make(&hex::encode(super::secret()?))?.into();
        Ok(Self { turns: Arc::new(Semaphore::new(AT_ONCE)), nobody })
    }

    /// A PHC string.
    pub async fn hash(&self, password: &str) -> anyhow::Result<String> {
        let password = Zeroizing::new(password.to_owned());
        let _turn = self.turns.acquire().await?;
        tokio::task::spawn_blocking(move || make(&password)).await?
    }

    /// Whether it is the one; takes as long without a user.
    pub async fn is_right(&self, password: &str, stored: Option<&str>) -> anyhow::Result<bool> {
        if password.len() > MAX_LENGTH {
            return Ok(false);
        }
        let password = Zeroizing::new(password.to_owned());
        let is_user = stored.is_some();
        let stored: Arc<str> = stored.map_or_else(|| self.nobody.clone(), Into::into);
        let _turn = self.turns.acquire().await?;
        let is_right = tokio::task::spawn_blocking(move || check(&password, &stored)).await??;
        Ok(is_user && is_right)
    }
}

/// What is wrong with a new password, if anything.
pub fn why_weak(password: &str) -> Option<String> {
    if password.chars().count() < MIN_LENGTH {
        return Some(format!("a password has at least {MIN_LENGTH} characters"));
    }
    (password.len() > MAX_LENGTH).then(|| format!("a password has at most {MAX_LENGTH} bytes"))
}

fn make(password: &str) -> anyhow::Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("hash a password: {error}"))?.to_string())
}

fn check(password: &str, stored: &str) -> anyhow::Result<bool> {
    let stored = PasswordHash::new(stored).map_err(|error| anyhow::anyhow!("a stored password: {error}"))?;
    Ok(Argon2::default().verify_password(password.as_bytes(), &stored).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_one_only() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(passwords.is_right("correct horse", Some(&stored)).await.unwrap());
        assert!(!passwords.is_right("correct horsE", Some(&stored)).await.unwrap());
        assert!(!passwords.is_right("", Some(&stored)).await.unwrap());
        assert!(!passwords.is_right("correct horse", None).await.unwrap());
    }

    #[test]
    fn short_ones_are_refused() {
        assert!(why_weak("123456789").is_some());
        assert!(why_weak("1234567890").is_none());
        assert!(why_weak(&"x".repeat(2_000)).is_some());
    }
}
