//! Programs: only allowed ones, without a shell, with an empty environment, in a process group that is killed as a whole.

use std::process::Stdio;

use awe4lb_model::discovery::ExecSource;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::{Allowed, Answer, Failure, format};

/// The longest complaint of a program that is told.
const MAX_COMPLAINT: usize = 300;

/// Kills everything that the program started, also when it is given up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody left in it is what is hoped for.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

pub(crate) async fn ask(source: &ExecSource, allowed: &Allowed) -> Result<Answer, Failure> {
    format::read(&run(&source.argv, source.max_bytes, allowed).await?, &source.format)
}

/// Runs an allowed program to its end: what it wrote, at most so many bytes. When this is given up, it is killed with all that
/// it started.
pub async fn run(argv: &[Box<str>], max_bytes: u32, allowed: &Allowed) -> Result<Vec<u8>, Failure> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::new("no program"));
    };
    allowed.program(program)?;
    let spawned = Command::new(&**program)
        .args(arguments.iter().map(|argument| &**argument))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| Failure::new(format!("{program}: {error}")))?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let _group = Group(leader);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::new("no pipes"));
    };
    let most = u64::from(max_bytes);
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let mut stdout = stdout.take(most + 1);
    let mut complaints = stderr.take(64 * 1024);
    // A program that is stuck in writing complaints must not be stuck for ever: both are read.
    let (read, _) = tokio::join!(stdout.read_to_end(&mut output), complaints.read_to_end(&mut complaint));
    read.map_err(|error| Failure::new(format!("{program}: {error}")))?;
    if output.len() as u64 > most {
        return Err(Failure::new(format!("{program} wrote more than {most} bytes (maxBytes)")));
    }
    let status = child.wait().await.map_err(|error| Failure::new(format!("{program}: {error}")))?;
    if !status.success() {
        let complaint: String =
            String::from_utf8_lossy(&complaint).trim().chars().take(MAX_COMPLAINT).collect();
        return Err(Failure::new(
            format!("{program}: {status}: {complaint}").trim_end_matches(": ").to_owned(),
        ));
    }
    Ok(output)
}
