//! Checks that are programs: only allowed ones, without a shell, with an environment of their own, in a process group
//! that is killed as a whole.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use awe4lb_engine::checks::Verdict;
use awe4lb_model::ExecCheck;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt as _,
    process::{ChildStdout, Command},
};

use super::{Allowed, ask::Asked};

/// The longest reason that a program can give.
const MAX_REASON: usize = 80;

/// One run of a program for one backend.
pub(super) struct Program<'a> {
    pub(super) check: &'a ExecCheck,
    pub(super) pool: &'a str,
    pub(super) backend: &'a str,
    pub(super) address: SocketAddr,
}

/// Kills everything that a program started, also when the check is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody left in it is what is hoped for.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Program<'_> {
    /// Exit code 0 is healthy; otherwise the reason is the code, and the first line of what the program said.
    pub(super) async fn run(&self, allowed: &Allowed, timeout: Duration) -> Asked {
        let Some((program, arguments)) = self.check.argv.split_first() else {
            return Asked::unhealthy("no program");
        };
        if !allowed.programs.iter().any(|known| **known == **program) {
            return Asked::unhealthy("this node does not allow the program (--allow-exec)");
        }
        let spawned = Command::new(&**program)
            .args(arguments.iter().map(|argument| &**argument))
            .env_clear()
            .env("AWE4LB_POOL", self.pool)
            .env("AWE4LB_BACKEND", self.backend)
            .env("AWE4LB_ADDRESS", self.address.ip().to_string())
            .env("AWE4LB_PORT", self.address.port().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => return error.into(),
        };
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Group(leader);
        let output = child.stdout.take();
        let most = self.check.max_output_bytes as u64;
        let running = async {
            let ending = async {
                let status = child.wait().await;
                // Whatever the program left behind goes with it, and lets go of the pipe.
                drop(group);
                status
            };
            let (status, said) = tokio::join!(ending, read(output, most));
            status.map(|status| (status, said))
        };
        match tokio::time::timeout(timeout, running).await {
            Err(_) => Asked::unhealthy("timeout"),
            Ok(Err(error)) => error.into(),
            Ok(Ok((status, said))) => Asked::Answered(Verdict {
                is_healthy: status.success(),
                reason: reason(status.code(), &said),
                advice: None,
            }),
        }
    }
}

/// What is more than `most` is read and forgotten, so that the program is not stopped by a full pipe.
async fn read(output: Option<ChildStdout>, most: u64) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(output) = output {
        let mut output = output.take(most);
        let _ = output.read_to_end(&mut said).await;
        let _ = tokio::io::copy(&mut output.into_inner(), &mut tokio::io::sink()).await;
    }
    said
}

fn reason(code: Option<i32>, said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect();
    let code = code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"));
    if line.is_empty() { code } else { format!("{code}: {line}") }
}
