//! Sealing: secrets are stored encrypted (XChaCha20-Poly1305) with a key that lies outside the database.

use std::{io::Read as _, path::Path};

use anyhow::{Context as _, bail};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::Aead as _};
use zeroize::Zeroizing;

const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
/// First byte of everything sealed, so that another way can come later.
const VERSION: u8 = 1;

/// Seals and opens.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    /// Reads the key file; makes one when there is none, unless `sealed_before`: then a new key would lose every secret.
    pub fn open(path: &Path, sealed_before: bool) -> anyhow::Result<Self> {
        let key = match read(path)? {
            Some(key) => key,
            None if sealed_before => bail!(
                "the sealing key {} is gone, but the database was sealed with it: put it back from a backup",
                path.display()
            ),
            None => make(path)?,
        };
        let cipher =
            XChaCha20Poly1305::new_from_slice(&key[..]).ok().context("a sealing key has 32 bytes")?;
        Ok(Self { cipher })
    }

    pub(super) fn seal(&self, plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).ok().context("no randomness")?;
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), plain).ok().context("sealing failed")?;
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    pub(super) fn unseal(&self, sealed: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let Some((&VERSION, rest)) = sealed.split_first() else { bail!("sealed in a way that is not known") };
        let Some((nonce, body)) = rest.split_first_chunk::<NONCE_LENGTH>() else { bail!("cut short") };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), body).ok();
        plain.map(Zeroizing::new).context("sealed with another key, or damaged")
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<[u8; KEY_LENGTH]>>> {
    let what = || format!("sealing key {}", path.display());
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(what),
    };
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    file.read_exact(&mut key[..]).with_context(what)?;
    if file.read(&mut [0])? != 0 {
        bail!("{} has more than {KEY_LENGTH} bytes", what());
    }
    Ok(Some(key))
}

fn make(path: &Path) -> anyhow::Result<Zeroizing<[u8; KEY_LENGTH]>> {
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    getrandom::fill(&mut key[..]).ok().context("no randomness")?;
    super::data_dir::write_private(path, &key[..])
        .with_context(|| format!("sealing key {}", path.display()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(&dir.path().join("a"), false).unwrap();
        let sealed = sealer.seal(b"secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let again = Sealer::open(&dir.path().join("a"), true).unwrap();
        assert_eq!(*again.unseal(&sealed).unwrap(), b"secret");
        let other = Sealer::open(&dir.path().join("b"), false).unwrap();
        assert!(other.unseal(&sealed).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(again.unseal(&damaged).is_err(), "byte {at}");
            assert!(again.unseal(&sealed[..at]).is_err());
        }
    }

    #[test]
    fn a_lost_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Sealer::open(&dir.path().join("a"), true).is_err());
        assert!(!dir.path().join("a").exists());
    }
}
