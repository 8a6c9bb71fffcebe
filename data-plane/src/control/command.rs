//! The command line: which command, and how its outcome becomes an exit code.

use std::process::ExitCode;

use awe4lb_flags::Parsed;

use super::{
    admin::client,
    file_source, logging,
    options::{self, Cli, Command, RunArgs},
    run,
};

/// All of the program.
pub fn main() -> ExitCode {
    let parsed = match options::parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(error) => {
            return match error.downcast::<clap::Error>() {
                Ok(usage) => {
                    let _ = usage.print();
                    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
                }
                Err(error) => failed(&error),
            };
        }
    };
    match dispatch(&parsed) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

#[expect(clippy::print_stderr, reason = "this is for whoever typed the command")]
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("awe4lb-data-plane: {error:#}");
    ExitCode::FAILURE
}

fn dispatch(parsed: &Parsed<Cli>) -> anyhow::Result<ExitCode> {
    match &parsed.cli.command {
        None => start(parsed, &parsed.cli.run),
        Some(Command::Run(args)) => start(parsed, args),
        Some(Command::Healthcheck { admin, ready }) => {
            let path = if *ready { "/readyz" } else { "/healthz" };
            let (status, body) = client::ask(*admin, path)?;
            answer(status, &body)
        }
        Some(Command::Status(args)) => ask_local(args, "GET", "/status"),
        Some(Command::Drain(args)) => ask_local(args, "POST", "/drain"),
        Some(Command::Undrain(args)) => ask_local(args, "POST", "/undrain"),
        Some(Command::Transparency) => Ok(transparency()),
        Some(Command::Connections { local, filter, ended, reason, close }) => {
            let mut query = connections_query(filter);
            query.extend(ended.then(|| ("ended", "true".to_owned())));
            query.extend(reason.clone().map(|reason| ("reason", reason)));
            let query = serde_urlencoded::to_string(query)?;
            let (method, path) =
                if *close { ("POST", "/connections/close") } else { ("GET", "/connections") };
            ask_local(local, method, &format!("{path}?{query}"))
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is for whoever typed the command")]
fn transparency() -> ExitCode {
    let missing = crate::traffic::transparency::missing();
    for why in &missing {
        println!("{why}");
    }
    if !missing.is_empty() {
        return ExitCode::FAILURE;
    }
    println!(
        "this machine may send as its clients, and answers that reach it are its own. \
         Not seen from here: the rule of the firewall, and the backends' routes"
    );
    ExitCode::SUCCESS
}

fn connections_query(filter: &options::ConnectionArgs) -> Vec<(&'static str, String)> {
    let given = [
        ("listener", filter.listener.clone()),
        ("pool", filter.pool.clone()),
        ("backend", filter.backend.clone()),
        ("client", filter.client.clone()),
        ("sni", filter.sni.clone()),
        ("id", filter.id.map(|id| id.to_string())),
        ("limit", Some(filter.limit.to_string())),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn ask_local(args: &options::LocalArgs, method: &str, path: &str) -> anyhow::Result<ExitCode> {
    let (status, body) = client::ask_local(&args.state_dir, method, path)?;
    let pretty = serde_json::from_str::<serde_json::Value>(&body)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or(body);
    answer(status, &pretty)
}

fn answer(status: u16, body: &str) -> anyhow::Result<ExitCode> {
    say(body.trim_end());
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(text: &str) {
    use std::io::Write as _;
    // Whoever closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn start(parsed: &Parsed<Cli>, args: &RunArgs) -> anyhow::Result<ExitCode> {
    if args.print_config {
        say(parsed.print().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    logging::install(&args.log)?;
    if args.check {
        args.check()?;
        if let Some(path) = &args.snapshot_file {
            file_source::check(path).map_err(|refused| run::not_run(path, &refused))?;
        }
        say("ok");
        return Ok(ExitCode::SUCCESS);
    }
    logging::panics_are_logged();
    // One thread for all of the control half; what takes long goes to blocking threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(run::run(args.clone()));
    // A name that is being looked up must not hold the process.
    runtime.shutdown_background();
    ran.map(|()| ExitCode::SUCCESS)
}
