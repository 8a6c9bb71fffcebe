//! Files: read when they changed, also when a link to them changed, as Kubernetes does with its mounted folders.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use awe4lb_model::discovery::FileSource;

use crate::{Allowed, Answer, Failure, format};

/// How often it is looked whether a file changed. One `stat`: a thousand files cost a few thousandths of a core.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// What changes when a file does, however it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is none.
    pub(crate) fn of(path: &str) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Waits until the file is another than `known`, for at most `longest`.
pub(crate) async fn changed(path: &str, known: Option<Stamp>, longest: Duration) {
    let begin = Instant::now();
    loop {
        let left = longest.saturating_sub(begin.elapsed());
        tokio::time::sleep(LOOK.min(left)).await;
        if Stamp::of(path) != known || left <= LOOK {
            return;
        }
    }
}

pub(crate) async fn ask(source: &FileSource, allowed: &Allowed) -> Result<(Answer, Option<Stamp>), Failure> {
    allowed.file(&source.path)?;
    let (path, most) = (source.path.clone(), u64::from(source.max_bytes));
    let read = tokio::task::spawn_blocking(move || read(&path, most)).await;
    let (bytes, stamp) = read.map_err(|error| Failure::new(error.to_string()))??;
    Ok((format::read(&bytes, &source.format)?, Some(stamp)))
}

fn read(path: &str, most: u64) -> Result<(Vec<u8>, Stamp), Failure> {
    use std::io::Read as _;
    let cannot = |error: std::io::Error| Failure::new(format!("{path}: {error}"));
    // A pipe or a device would never end.
    if !std::fs::metadata(Path::new(path)).map_err(cannot)?.is_file() {
        return Err(Failure::new(format!("{path} is no file")));
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let stamp = Stamp::new(&file.metadata().map_err(cannot)?);
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > most {
        return Err(Failure::new(format!("{path} has more than {most} bytes (maxBytes)")));
    }
    Ok((bytes, stamp))
}
