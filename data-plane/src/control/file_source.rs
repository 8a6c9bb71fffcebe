//! `--snapshot-file`: one node from a document, without a control plane.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_model::{
    document::{self, Format, Violation},
    placed::{NodeConfig, Number, number_locally},
};
use tokio::sync::Notify;

use super::{
    hot::{Mode, Problem},
    live::Live,
};

/// Why a document is not run.
#[derive(Debug)]
pub enum Refused {
    /// It cannot be read.
    Unreadable(std::io::Error),
    /// It is wrong; all of it.
    Invalid(Vec<Violation>),
    /// It is right, but cannot be run here.
    Unrunnable(Vec<Problem>),
}

impl Refused {
    /// One line for each thing that is wrong.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreadable(error) => vec![format!("cannot be read: {error}")],
            Self::Invalid(violations) => violations.iter().map(ToString::to_string).collect(),
            Self::Unrunnable(problems) => problems.iter().map(describe).collect(),
        }
    }
}

/// A problem in one line.
pub fn describe(problem: &Problem) -> String {
    let kind = format!("{:?}", problem.resource.kind).to_lowercase();
    format!("{kind} {:?}: {} ({})", problem.resource.name.as_str(), problem.message, problem.code)
}

/// The document of a node and the numbers that were given to its objects: they stay over reloads.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    numbers: Numbers,
    seen: Option<Vec<Stamp>>,
    /// The document and the files it names.
    files: Vec<PathBuf>,
}

type Stamp = Option<(SystemTime, u64)>;

impl FileSource {
    /// Reads nothing yet.
    pub fn new(path: PathBuf) -> Self {
        Self { files: vec![path.clone()], path, numbers: Numbers::default(), seen: None }
    }

    /// Whether a file changed since it was last read.
    fn is_changed(&self) -> bool {
        self.seen.as_ref() != Some(&self.stamps())
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        self.files.iter().map(stamp).collect()
    }

    /// Reads, checks and numbers the document.
    pub fn read(&mut self) -> Result<NodeConfig, Refused> {
        let stamp_before = self.stamps();
        let result = read_document(&self.path);
        match &result {
            Ok((_, files)) => {
                self.files = files.clone();
                // Taken before the read, so that a write in between is seen at the next look.
                let mut stamps = self.stamps();
                if let (Some(first), Some(before)) = (stamps.first_mut(), stamp_before.first()) {
                    *first = *before;
                }
                self.seen = Some(stamps);
            }
            Err(_) => self.seen = Some(stamp_before),
        }
        result.map(|(config, _)| self.numbers.renumber(config))
    }

    /// Reads and runs the document. At the start a listener that cannot be bound is an error as any other.
    pub async fn load(&mut self, live: &Live) -> Result<(), Refused> {
        let config = Arc::new(self.read()?);
        let turn = live.turn().await;
        let ready = turn.prepare(config, Mode::Strict).await.map_err(Refused::Unrunnable)?;
        turn.commit(ready, None, bytes::Bytes::new());
        Ok(())
    }

    /// Reloads on change (looked for each second) and on `again` (SIGHUP). What is wrong is logged, all of it; what runs
    /// keeps running.
    pub async fn follow(mut self, live: Arc<Live>, again: Arc<Notify>) {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = look.tick() => false,
                () = again.notified() => true,
            };
            if !asked && !self.is_changed() {
                continue;
            }
            match self.load(&live).await {
                Ok(()) => tracing::info!(file = %self.path.display(), "configuration reloaded"),
                Err(refused) => {
                    let violations = refused.lines();
                    tracing::error!(
                        file = %self.path.display(),
                        count = violations.len(),
                        "configuration refused, the one before keeps running:\n  {}",
                        violations.join("\n  ")
                    );
                }
            }
        }
    }
}

/// Checks a document; the errors are all violations.
pub fn check(path: &Path) -> Result<(), Refused> {
    read_document(path).map(|_| ())
}

fn read_document(path: &Path) -> Result<(NodeConfig, Vec<PathBuf>), Refused> {
    let text = std::fs::read_to_string(path).map_err(Refused::Unreadable)?;
    let format = Format::of_file_name(&path.to_string_lossy());
    let mut tree = document::parse(&text, format).map_err(Refused::Invalid)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let files = std::cell::RefCell::new(vec![path.to_owned()]);
    document::inline_files(&mut tree, |file| {
        let file = folder.join(file);
        let text = std::fs::read_to_string(&file);
        files.borrow_mut().push(file);
        text
    })
    .map_err(Refused::Invalid)?;
    let compiled = document::compile(tree).map_err(Refused::Invalid)?;
    for warning in &compiled.warnings {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    if let Some(certificate) = compiled.config.acme_certificates.first() {
        let pointer = format!("/certificates/{}/acme", certificate.name);
        let detail =
            "certificates are issued by the control plane; a node alone takes a chain and a key".to_owned();
        return Err(Refused::Invalid(vec![Violation::new(pointer, None, "not-supported-yet", detail)]));
    }
    if let Some(certificate) = compiled.config.folder_certificates.first() {
        let pointer = format!("/certificates/{}/directory", certificate.name);
        let detail = "folders are read by the control plane; a node alone takes chainFile and keyFile, and watches them";
        return Err(Refused::Invalid(vec![Violation::new(pointer, None, "not-supported-yet", detail)]));
    }
    Ok((number_locally(compiled.config, &compiled.keys), files.into_inner()))
}

/// Numbers by name, never reused: counters and pool states outlive a reload.
#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    known: HashMap<(char, String, String), Number>,
}

impl Numbers {
    fn of(&mut self, kind: char, parent: &str, name: &str) -> Number {
        *self.known.entry((kind, parent.to_owned(), name.to_owned())).or_insert_with(|| {
            self.last += 1;
            Number(self.last)
        })
    }

    fn renumber(&mut self, mut config: NodeConfig) -> NodeConfig {
        for placed in &mut config.listeners {
            let listener = placed.listener.name.as_str();
            placed.number = self.of('l', "", listener);
            placed.rule_numbers =
                placed.listener.rules.iter().map(|rule| self.of('r', listener, rule.name.as_str())).collect();
        }
        for placed in &mut config.pools {
            let pool = placed.pool.name.as_str();
            placed.number = self.of('p', "", pool);
            placed.backend_numbers = placed
                .pool
                .backends
                .iter()
                .map(|backend| self.of('b', pool, backend.name.as_str()))
                .collect();
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "listeners: [{name: web, bind: ['127.0.0.1:8080'], rules: [{name: all, pool: app}]}]\n\
                       pools: [{name: app, backends: [{name: a, address: '127.0.0.1:1'}]}]\n";

    #[test]
    fn numbers_stay_over_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, ONE).unwrap();
        let mut source = FileSource::new(path.clone());
        let before = source.read().unwrap();
        assert!(!source.is_changed());
        let more = ONE.replace(
            "listeners: [",
            "listeners: [{name: aaa, bind: ['127.0.0.1:1'], rules: [{pool: app}]}, ",
        );
        std::fs::write(&path, more).unwrap();
        assert!(source.is_changed());
        let after = source.read().unwrap();
        assert_eq!(after.listeners.len(), 2);
        assert_eq!(after.listeners[1], before.listeners[0]);
        assert_eq!(after.pools, before.pools);
        assert_ne!(after.listeners[0].number, before.listeners[0].number);
    }

    #[test]
    fn every_violation_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "listeners: [{name: web, bnid: [1], rules: [{pool: gone}]}]\npols: []\n")
            .unwrap();
        let lines = check(&path).unwrap_err().lines();
        assert!(lines.len() >= 3, "{lines:?}");
        assert!(check(&dir.path().join("none")).is_err());
    }
}
