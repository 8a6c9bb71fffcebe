//! Programs that run beside a test and end with it, also when it is killed.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::{PATIENCE, eventually};

/// A running program. Dropped, it is killed with all that it has started.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    out: PathBuf,
}

impl Program {
    /// Starts one. What it says goes to files in `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(
        name: &str,
        folder: &Path,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        use std::os::unix::process::CommandExt as _;
        let (log, out) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.out")));
        let file =
            |path: &Path| File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let append = File::options().append(true).create(true).open(&log);
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(file(&out))
            .stderr(append.unwrap_or_else(|error| panic!("{}: {error}", log.display())))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log, out }
    }

    /// Its ready line: the first line of its output, JSON.
    ///
    /// # Panics
    /// When it ends or stays silent instead.
    pub fn ready(&mut self) -> Value {
        let started = Instant::now();
        loop {
            if let Some(line) = self.first_line() {
                return serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended before it was ready ({status}):\n{}", self.name, self.log());
            }
            assert!(started.elapsed() < PATIENCE, "{} is not ready:\n{}", self.name, self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn first_line(&self) -> Option<String> {
        let mut line = String::new();
        BufReader::new(File::open(&self.out).ok()?).read_line(&mut line).ok()?;
        line.ends_with('\n').then_some(line)
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of its log, for whoever looks at a failure.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- {}\n{}\n", self.name, lines[lines.len().saturating_sub(15)..].join("\n"))
    }

    /// Its standard input; taken once.
    pub fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP, SIGCONT.
    pub fn pause(&self, paused: bool) {
        self.signal(if paused { Signal::STOP } else { Signal::CONT });
    }

    /// Whether it runs no more.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended by itself; whether well.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&mut self) -> bool {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.child.try_wait().ok().flatten()).success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprint!("{}", self.last_words());
        }
    }
}

/// Runs a command to its end: whether it went well, what it printed, and what it said.
///
/// # Panics
/// When it cannot be run.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> (bool, String, String) {
    let name = program.as_ref().to_owned();
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}
