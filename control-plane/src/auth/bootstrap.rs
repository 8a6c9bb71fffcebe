//! The first admin: whoever can read the data directory may make it, by a code that lies there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use subtle::ConstantTimeEq as _;

use crate::store::data_dir::write_private;

const LIFETIME: Duration = Duration::from_secs(3_600);
const TRIES: u32 = 5;
/// Without letters that look like others.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";

/// The code, as long as there is no admin.
pub struct Bootstrap {
    path: PathBuf,
    code: Mutex<Option<Code>>,
}

struct Code {
    /// Without dashes.
    text: String,
    made: Instant,
    tries: u32,
}

/// What became of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Right,
    /// It is not.
    Wrong,
    /// Too old, or tried too often: a new one lies there now.
    Replaced,
    /// There is an admin.
    NotNeeded,
}

impl Bootstrap {
    /// Writes a new code, or removes an old one.
    pub fn open(data_dir: &Path, is_needed: bool) -> anyhow::Result<Self> {
        let this = Self { path: data_dir.join("bootstrap-code"), code: Mutex::new(None) };
        if is_needed {
            *this.lock() = Some(this.write()?);
        } else {
            this.remove()?;
        }
        Ok(this)
    }

    /// Whether there is no admin yet.
    pub fn is_needed(&self) -> bool {
        self.lock().is_some()
    }

    /// Where the code is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tries a code.
    pub fn check(&self, text: &str) -> anyhow::Result<Verdict> {
        let mut guard = self.lock();
        let Some(code) = guard.as_mut() else { return Ok(Verdict::NotNeeded) };
        if code.made.elapsed() >= LIFETIME || code.tries >= TRIES {
            *guard = Some(self.write()?);
            return Ok(Verdict::Replaced);
        }
        let text: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        if bool::from(text.as_bytes().ct_eq(code.text.as_bytes())) {
            return Ok(Verdict::Right);
        }
        code.tries += 1;
        Ok(Verdict::Wrong)
    }

    /// There is an admin now.
    pub fn done(&self) -> anyhow::Result<()> {
        *self.lock() = None;
        self.remove()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Code>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> anyhow::Result<Code> {
        let text: String = super::secret()?
            .iter()
            .take(20)
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        let shown: Vec<&str> = [&text[..5], &text[5..10], &text[10..15], &text[15..]].into();
        write_private(&self.path, format!("{}\n", shown.join("-")).as_bytes())
            .with_context(|| format!("write {}", self.path.display()))?;
        Ok(Code { text, made: Instant::now(), tries: 0 })
    }

    fn remove(&self) -> anyhow::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn five_tries_and_then_another_code() {
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = Bootstrap::open(dir.path(), true).unwrap();
        let first = fs::read_to_string(bootstrap.path()).unwrap();
        assert_eq!(fs::metadata(bootstrap.path()).unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..TRIES {
            assert_eq!(bootstrap.check("wrong").unwrap(), Verdict::Wrong);
        }
        assert_eq!(bootstrap.check(&first).unwrap(), Verdict::Replaced);
        let second = fs::read_to_string(bootstrap.path()).unwrap();
        assert_ne!(first, second);
        assert_eq!(bootstrap.check(&first).unwrap(), Verdict::Wrong);
        assert_eq!(bootstrap.check(&second.to_lowercase()).unwrap(), Verdict::Right);
        bootstrap.done().unwrap();
        assert!(!bootstrap.path().exists());
        assert_eq!(bootstrap.check(&second).unwrap(), Verdict::NotNeeded);
    }

    #[test]
    fn an_old_code_goes_when_there_is_an_admin() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bootstrap-code"), "x").unwrap();
        assert!(!Bootstrap::open(dir.path(), false).unwrap().is_needed());
        assert!(!dir.path().join("bootstrap-code").exists());
    }
}
