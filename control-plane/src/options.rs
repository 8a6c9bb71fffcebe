//! Flags and environment of the control plane. Parsing only: nothing here opens anything.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use anyhow::bail;
use awe4lb_discovery::Allowed;
use awe4lb_flags::Parsed;
use clap::{Args, Parser, Subcommand};

use crate::webhooks;

/// Where the data is when nobody says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/awe4lb-control-plane";

/// The control plane of awe4lb: configuration, REST, console, and the stream to the nodes.
#[derive(Debug, Parser)]
#[command(name = "awe4lb-control-plane", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one the control plane runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: Options,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane (the default).
    Run(Box<Options>),
    /// Exit 0 when the running control plane answers `/healthz` with 200.
    Healthcheck {
        /// Its HTTP address.
        #[arg(long, env = "AWE4LB_HTTP", default_value = "127.0.0.1:7070")]
        http: SocketAddr,
        /// Ask `/readyz` instead.
        #[arg(long)]
        ready: bool,
    },
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Address of REST, console and /metrics. Port 0: a free one. Off loopback it speaks TLS.
    #[arg(long, env = "AWE4LB_HTTP", default_value = "127.0.0.1:7070", value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// Address that nodes connect to. Port 0: a free one.
    #[arg(long, env = "AWE4LB_GRPC", default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    pub grpc: SocketAddr,
    /// Address by which nodes reach --grpc, shown with join tokens: https://host:7071.
    #[arg(long, env = "AWE4LB_GRPC_ADVERTISE", value_name = "URL")]
    pub grpc_advertise: Option<String>,
    /// Database and keys (made with mode 0700, locked).
    #[arg(long, env = "AWE4LB_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The key that secrets are sealed with, 32 bytes. Default: made in the data directory.
    #[arg(long, env = "AWE4LB_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Certificate chain (PEM) of the HTTP address.
    #[arg(long, env = "AWE4LB_HTTP_TLS_CERT", value_name = "FILE", requires = "http_tls_key")]
    pub http_tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, env = "AWE4LB_HTTP_TLS_KEY", value_name = "FILE", requires = "http_tls_cert")]
    pub http_tls_key: Option<PathBuf>,
    /// More names for the self-made certificate of the HTTP address.
    #[arg(long, env = "AWE4LB_HTTP_TLS_NAME", value_delimiter = ',', value_name = "NAME")]
    pub http_tls_name: Vec<String>,
    /// A program that sources of type `exec` may run, by its whole path. Repeatable; without one none is run.
    #[arg(long, env = "AWE4LB_ALLOW_EXEC", value_delimiter = ',', value_name = "PROGRAM")]
    pub allow_exec: Vec<String>,
    /// A folder whose files sources may read. Repeatable; without one none is read.
    #[arg(long, env = "AWE4LB_ALLOW_FILES", value_delimiter = ',', value_name = "DIR")]
    pub allow_files: Vec<PathBuf>,
    /// A network that may be asked although it is link-local, where clouds keep secrets: by sources, webhooks, for OCSP. Repeatable.
    #[arg(long, env = "AWE4LB_ALLOW_NETWORK", value_delimiter = ',', value_name = "NETWORK")]
    pub allow_network: Vec<String>,
    /// An address that events are posted to: https://host/path. Repeatable.
    #[arg(long, env = "AWE4LB_WEBHOOK", value_delimiter = ',', value_name = "URL")]
    pub webhook: Vec<String>,
    /// Which events are posted: certificate, node, revision, source, backend.
    #[arg(
        long,
        env = "AWE4LB_WEBHOOK_EVENTS",
        value_delimiter = ',',
        default_value = "certificate",
        value_name = "KINDS"
    )]
    pub webhook_events: Vec<String>,
    /// A secret of at least 16 bytes, by which receivers know that a request comes from here.
    #[arg(long, env = "AWE4LB_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    /// What to log: `info`, `debug`, or a filter as `awe4lb_control_plane=debug,info`.
    #[arg(long, env = "AWE4LB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// TOML with these same flags as keys (`data-dir = "…"`). Flags and environment win over it.
    #[arg(long, env = "AWE4LB_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Print each value and where it comes from, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// Parses `argv`: flags over environment over configuration file over defaults.
pub fn parse(argv: Vec<OsString>) -> anyhow::Result<Parsed<Cli>> {
    awe4lb_flags::parse(argv, |cli: &Cli| match &cli.command {
        None => cli.run.config_file.clone(),
        Some(Command::Run(run)) => run.config_file.clone(),
        Some(Command::Healthcheck { .. }) => None,
    })
}

impl Options {
    /// Whether the HTTP address speaks TLS: always off loopback.
    pub fn http_speaks_tls(&self) -> bool {
        self.http_tls_cert.is_some() || !self.http.ip().is_loopback()
    }

    /// What sources of backends may use of this machine.
    pub fn allowed(&self) -> Allowed {
        let network = |text: &String| awe4lb_model::document::prefix(text).ok();
        Allowed {
            programs: self.allow_exec.iter().map(|program| program.as_str().into()).collect(),
            folders: self.allow_files.iter().map(|folder| folder.as_path().into()).collect(),
            networks: self.allow_network.iter().filter_map(network).collect(),
        }
    }

    /// What must hold between flags.
    pub fn check(&self) -> anyhow::Result<()> {
        for network in &self.allow_network {
            if let Err(why) = awe4lb_model::document::prefix(network) {
                bail!("--allow-network: {why}");
            }
        }
        if let Some(program) = self.allow_exec.iter().find(|program| !program.starts_with('/')) {
            bail!("--allow-exec {program:?}: write the whole path of the program");
        }
        if let Some(folder) = self.allow_files.iter().find(|folder| !folder.is_absolute()) {
            bail!("--allow-files {}: write the whole path of the folder", folder.display());
        }
        for url in &self.webhook {
            if let Err(why) = webhooks::check(url) {
                bail!("--webhook {url:?}: {why}");
            }
        }
        let known = webhooks::KINDS;
        if let Some(kind) = self.webhook_events.iter().find(|kind| !known.contains(&kind.as_str())) {
            bail!("--webhook-events {kind:?}: known are {}", known.join(", "));
        }
        if let Some(url) = &self.grpc_advertise
            && !url.starts_with("https://")
        {
            bail!("--grpc-advertise {url:?}: nodes connect by TLS, the address begins with https://");
        }
        Ok(())
    }
}
