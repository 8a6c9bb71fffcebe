//! The binary: flags, logs, signals.

use std::{io::IsTerminal as _, net::SocketAddr, process::ExitCode};

use anyhow::Context as _;
use awe4lb_control_plane::{
    options::{self, Cli, Command, Options},
    rest, run,
};
use awe4lb_flags::Parsed;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let done = match options::parse(std::env::args_os().collect()) {
        Ok(parsed) => dispatch(parsed).await,
        Err(error) => Err(error),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    match error.downcast::<clap::Error>() {
        Ok(usage) => {
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
        }
        Err(error) => {
            eprintln!("awe4lb-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(parsed: Parsed<Cli>) -> anyhow::Result<()> {
    let text = parsed.print();
    let options = match parsed.cli.command {
        Some(Command::Healthcheck { http, ready }) => return healthcheck(http, ready).await,
        Some(Command::Run(options)) => *options,
        None => parsed.cli.run,
    };
    if options.print_config {
        print!("{text}");
        return Ok(());
    }
    serve(options).await
}

async fn serve(options: Options) -> anyhow::Result<()> {
    log(&options.log)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let scheme = if options.http_speaks_tls() { "https" } else { "http" };
    let running = run::start(options).await?;
    let bootstrap = running.app.store.data_dir().join("bootstrap-code");
    let ready = serde_json::json!({
        "event": "ready",
        "http": format!("{scheme}://{}", running.http),
        "grpc": running.grpc.to_string(),
        "pid": std::process::id(),
        "bootstrapFile": bootstrap.exists().then_some(bootstrap),
    });
    println!("{ready}");
    tracing::info!(http = %running.http, grpc = %running.grpc, revision = running.app.catalog.head().revision, "ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    Ok(())
}

async fn healthcheck(http: SocketAddr, ready: bool) -> anyhow::Result<()> {
    let mut address = http;
    let speaks_tls = !http.ip().is_loopback();
    if http.ip().is_unspecified() {
        address.set_ip(if http.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let path = if ready { "/readyz" } else { "/healthz" };
    let status = match rest::server::probe(address, path, speaks_tls).await {
        Ok(status) => status,
        // With --http-tls-cert loopback speaks TLS too.
        Err(_) => rest::server::probe(address, path, !speaks_tls)
            .await
            .with_context(|| format!("no answer from {address}"))?,
    };
    anyhow::ensure!(status.is_success(), "{path} answers {status}");
    Ok(())
}

fn log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?}"))?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        base.with_target(false).init();
    } else {
        base.json().flatten_event(true).with_ansi(false).init();
    }
    Ok(())
}
