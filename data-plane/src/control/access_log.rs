//! The access log: a line of JSON for each connection that ended, as its listener asks for it.
//!
//! Workers never wait for it: they hand records to a queue, and what finds it full is counted as lost. One thread turns
//! numbers into names and writes.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use anyhow::Context as _;
use awe4lb_model::Side;
use serde_json::{Value, json};

use super::{
    hot::ConnectionRecord,
    live::{Named, names},
    node::{Node, unix_millis},
};
use crate::traffic::AccessLogSink;

/// Records that wait to be written.
const QUEUE: usize = 16_384;
/// What was written is seen so soon.
const FLUSH: Duration = Duration::from_millis(200);

/// The writing end, not started yet.
pub struct Writer {
    path: PathBuf,
    records: Receiver<ConnectionRecord>,
    lost: Arc<AtomicU64>,
    output: Output,
}

/// Says that the file was moved away.
#[derive(Debug, Clone, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// The next line goes to a file opened anew.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }
}

enum Output {
    Stdout(io::Stdout),
    File(BufWriter<File>),
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout(io::stdout()));
        }
        OpenOptions::new().create(true).append(true).open(path).map(|file| Self::File(BufWriter::new(file)))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(out) => out,
            Self::File(file) => file,
        }
    }
}

/// A queue for workers, and who empties it. `-` is standard output; a file must be writable from the start.
pub fn channel(path: PathBuf) -> anyhow::Result<(AccessLogSink, Writer)> {
    let output = Output::open(&path).with_context(|| format!("open the access log {}", path.display()))?;
    let (send, records) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    Ok((AccessLogSink { records: send, lost: lost.clone() }, Writer { path, records, lost, output }))
}

impl Writer {
    /// Writes until the workers are gone.
    pub fn start(mut self, node: &Arc<Node>) -> io::Result<Reopen> {
        let (reopen, node) = (Reopen::default(), Arc::downgrade(node));
        let asked = reopen.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            let (mut names, mut of, mut said_lost) = (Names::default(), 0, 0);
            loop {
                let record = match self.records.recv_timeout(FLUSH) {
                    Ok(record) => Some(record),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if asked.0.swap(false, Relaxed) {
                    self.reopen();
                }
                let lost = self.lost.load(Relaxed);
                if lost > said_lost {
                    tracing::warn!(lost = lost - said_lost, "the access log is slower than connections end");
                    said_lost = lost;
                }
                let Some(record) = record else {
                    let _ = self.output.writer().flush();
                    continue;
                };
                let Some(node) = node.upgrade() else { break };
                let running = node.live.running();
                if running.commits != of {
                    names.add(&node);
                    of = running.commits;
                }
                let line = names.describe(&record, unix_millis(node.started));
                let written = writeln!(self.output.writer(), "{line}");
                if let Err(error) = written {
                    tracing::warn!(%error, "the access log cannot be written");
                }
            }
            let _ = self.output.writer().flush();
        })?;
        Ok(reopen)
    }

    fn reopen(&mut self) {
        let _ = self.output.writer().flush();
        match Output::open(&self.path) {
            Ok(output) => self.output = output,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the access log stays in the old file");
            }
        }
    }
}

/// What numbers are called. Names of what was removed are kept: connections end later than their listeners.
#[derive(Debug, Default)]
pub struct Names(HashMap<u64, Named>);

impl Names {
    /// Of what runs.
    pub fn of(node: &Node) -> Self {
        Self(names(&node.live))
    }

    fn add(&mut self, node: &Node) {
        // A node that was changed a million times does not remember all of it.
        if self.0.len() > 100_000 {
            self.0.clear();
        }
        self.0.extend(names(&node.live));
    }

    /// One connection, as it is shown and logged.
    pub fn describe(&self, record: &ConnectionRecord, node_started_unix_millis: i64) -> Value {
        let name = |number: u64| match self.0.get(&number) {
            _ if number == 0 => Value::Null,
            Some(Named::Listener(name) | Named::Pool(name)) => name.as_str().into(),
            Some(Named::Rule(_, name) | Named::Backend(_, name)) => name.as_str().into(),
            None => format!("#{number}").into(),
        };
        let accepted = node_started_unix_millis + i64::try_from(record.accepted_millis).unwrap_or(i64::MAX);
        let side = record.end.map(|reason| match reason.side() {
            Side::Client => "client",
            Side::Backend => "backend",
            Side::Us => "awe4lb",
        });
        json!({
            "id": record.id,
            "at": timestamp(accepted),
            "durationMs": record.duration_millis,
            "client": record.client.to_string(),
            "peer": record.peer.to_string(),
            "listener": name(record.listener),
            "rule": name(record.rule),
            "pool": name(record.pool),
            "backend": name(record.backend),
            "sni": record.server_name,
            "bytesIn": record.bytes_in,
            "bytesOut": record.bytes_out,
            "handshakeMicros": (record.handshake_micros > 0).then_some(record.handshake_micros),
            "dialMicros": (record.dial_micros > 0).then_some(record.dial_micros),
            "state": record.state.word(),
            "end": record.end.map(awe4lb_model::EndReason::label),
            "side": side,
        })
    }
}

/// RFC 3339, in UTC.
fn timestamp(unix_millis: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_millis).map(|at| at.to_string()).unwrap_or_default()
}
