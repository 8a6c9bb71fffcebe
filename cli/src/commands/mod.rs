//! One function a command.

mod apply;
mod certificate;
mod describe;
mod discover;
mod document;
mod fleet;
mod get;
mod login;
mod show;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Command, TokenAction},
    client::Client,
    failure::Failure,
    print,
};

/// Does what was typed.
pub async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let form = cli.global.output;
    let client = || Client::new(&cli.global);
    match cli.command {
        Command::Login(args) => login::login(&client()?, &args).await?,
        Command::Validate(files) => document::validate(&files.files, form)?,
        Command::Fmt(args) => return document::format(&args),
        Command::Convert(args) => document::convert(&args)?,
        Command::Schema { defaults } => document::schema(defaults)?,
        Command::Apply(args) => apply::apply(&client()?, &args, form).await?,
        Command::Diff(args) => return apply::diff(&client()?, &args).await,
        Command::Get { kind, name } => get::get(&client()?, kind, name.as_deref(), form).await?,
        Command::Describe { kind, name } => describe::describe(&client()?, kind, &name, form).await?,
        Command::Export { revision, format } => show::export(&client()?, revision, format).await?,
        Command::Certificate { action } => certificate::run(&client()?, action, form).await?,
        Command::Nodes { action } => fleet::nodes(&client()?, action, form).await?,
        Command::Token { action: TokenAction::Join { uses, expires_in, labels } } => {
            fleet::join_token(&client()?, uses, &expires_in, &labels, form).await?;
        }
        Command::Token { action } => fleet::tokens(&client()?, action, form).await?,
        Command::Drain(args) => fleet::admin(&client()?, "drain", &args, form).await?,
        Command::Maintain(args) => fleet::admin(&client()?, "maintain", &args, form).await?,
        Command::Ready(args) => fleet::admin(&client()?, "ready", &args, form).await?,
        Command::Explain(asked) => show::explain(&client()?, &asked, form).await?,
        Command::Discover { file: None, pool } => {
            discover::sources(&client()?, pool.as_deref(), form).await?
        }
        Command::Discover { file: Some(file), .. } => {
            return discover::preview(&client()?, &file, form).await;
        }
        Command::Stats { node } => show::stats(&client()?, node.as_deref(), form).await?,
        Command::History { revision: None, limit } => show::history(&client()?, limit, form).await?,
        Command::History { revision: Some(revision), .. } => {
            show::revision(&client()?, revision, form).await?
        }
        Command::Restore { revision, write } => apply::restore(&client()?, revision, &write, form).await?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "awe4lb", &mut script);
            print(&String::from_utf8_lossy(&script));
        }
        Command::Version => show::version(&client()?).await?,
    }
    Ok(ExitCode::SUCCESS)
}
