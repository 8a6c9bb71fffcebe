//! The command line of awe4lb: everything it does at a control plane goes through the REST API (docs/rest-api.md).
//!
//! Data goes to stdout, talk to stderr. Exit codes are those of [`failure::Failure`].

pub mod args;
mod client;
mod commands;
mod context;
pub mod failure;
mod output;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

use args::Cli;

/// All of the program.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(cli).await {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "awe4lb: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// To whoever typed the command, beside the data.
fn talk(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Data. Whoever closed the pipe has seen enough.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') && !text.is_empty() {
        let _ = out.write_all(b"\n");
    }
}
