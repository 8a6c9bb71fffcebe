//! Child processes that cannot outlive the run.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::sys;

/// A child that is asked to stop, then killed, when dropped; and that dies with us in any case.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stop_signal: i32,
}

impl Process {
    /// Starts a command; its standard error goes to a file, so that a failure can be told.
    pub fn start(name: &str, mut command: Command, log: &Path, stop_signal: i32) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stderr(log);
        // A process that has children of its own must get the chance to end them.
        sys::die_with_parent(&mut command, stop_signal);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        Ok(Self { child, name: name.to_owned(), stop_signal })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line that the process prints (standard output must be piped). The rest is read and dropped, so that
    /// the process never blocks on a full pipe.
    pub fn first_line(&mut self, patience: Duration) -> anyhow::Result<String> {
        let output = self.child.stdout.take().context("the output is not piped")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        match receiver.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("{} printed nothing in {patience:?}", self.name),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{} ended at its start", self.name),
        }
    }

    /// An error when the process has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        sys::signal(self.pid(), self.stop_signal);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
