//! The login: which control plane, and the token for it. A private file (0600).

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What a login leaves behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Context {
    /// Address of the control plane.
    pub server: String,
    /// Who signed in.
    pub user: String,
    /// An API token.
    pub token: String,
    /// PEM of the certificate to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<String>,
}

impl Context {
    /// `$XDG_CONFIG_HOME/awe4lb/context.json`, or below `~/.config`.
    pub fn path() -> anyhow::Result<PathBuf> {
        let base = match std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("neither HOME nor XDG_CONFIG_HOME is set")?)
                    .join(".config")
            }
        };
        Ok(base.join("awe4lb").join("context.json"))
    }

    /// The login, if there is one.
    pub fn load() -> anyhow::Result<Option<Self>> {
        let Ok(path) = Self::path() else { return Ok(None) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let context =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        Ok(Some(context))
    }

    /// Keeps it, whole or not at all.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path = Self::path()?;
        let what = || format!("write {}", path.display());
        let folder = path.parent().context("a file has a folder")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
        let new = folder.join(".context.json.new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .with_context(what)?;
        file.write_all(serde_json::to_string(self)?.as_bytes()).with_context(what)?;
        file.sync_all().with_context(what)?;
        fs::rename(&new, &path).with_context(what)?;
        Ok(path)
    }
}
