//! Flags, environment and configuration file of the node. Parsing only: nothing here opens anything.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use awe4lb_flags::Parsed;
use clap::{Args, Parser, Subcommand};

/// Where a node keeps its state when nobody says otherwise and a control plane is given.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/awe4lb-data-plane";

/// A node of awe4lb: forwards TCP, TLS and UDP as its control plane (or a file) says.
#[derive(Debug, Parser)]
#[command(name = "awe4lb-data-plane", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one the node runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node (the default).
    Run(Box<RunArgs>),
    /// Exit 0 when the node's admin address answers `/healthz` with 200.
    Healthcheck {
        /// The admin address of the running node.
        #[arg(long, env = "AWE4LB_ADMIN", default_value = "127.0.0.1:7072")]
        admin: SocketAddr,
        /// Ask `/readyz` instead.
        #[arg(long)]
        ready: bool,
    },
    /// Print what the running node says of itself.
    Status(LocalArgs),
    /// Tell the running node to drain: readiness goes off, connections stay.
    Drain(LocalArgs),
    /// Take back `drain`.
    Undrain(LocalArgs),
    /// Say what this machine lacks for `preserveClientAddress`; exit 0 when it is nothing.
    Transparency,
    /// List the connections that are open now, or the last ones that ended, and why.
    Connections {
        #[command(flatten)]
        local: LocalArgs,
        #[command(flatten)]
        filter: ConnectionArgs,
        /// Those that ended, instead of those that are open.
        #[arg(long)]
        ended: bool,
        /// Only those that ended for this reason.
        #[arg(long, requires = "ended")]
        reason: Option<String>,
        /// Close those that are listed.
        #[arg(long, conflicts_with = "ended")]
        close: bool,
    },
}

/// How to find the local socket of a running node.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// The state directory of the running node.
    #[arg(long, env = "AWE4LB_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

/// Which connections.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// Through this listener.
    #[arg(long)]
    pub listener: Option<String>,
    /// To this pool.
    #[arg(long)]
    pub pool: Option<String>,
    /// To this backend of `--pool`.
    #[arg(long, requires = "pool")]
    pub backend: Option<String>,
    /// From this address or prefix.
    #[arg(long)]
    pub client: Option<String>,
    /// That asked for this server name.
    #[arg(long)]
    pub sni: Option<String>,
    /// This one.
    #[arg(long)]
    pub id: Option<u64>,
    /// At most so many, newest first.
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Address of a control plane, https://host:7071. Repeatable: tried in turn.
    #[arg(long, env = "AWE4LB_CONTROL_PLANE", value_delimiter = ',', value_name = "URL")]
    pub control_plane: Vec<String>,
    /// File with the join token; needed once, until the node has an identity.
    #[arg(long, env = "AWE4LB_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// The name to ask for when joining. Without one the control plane makes one.
    #[arg(long, env = "AWE4LB_NAME")]
    pub name: Option<String>,
    /// Worker threads. Default: one a core.
    #[arg(long, env = "AWE4LB_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Replaces the wildcard in binds, so that several nodes run on one host.
    #[arg(long, env = "AWE4LB_BIND_ADDRESS", value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// Identity and last good snapshot (made with mode 0700, locked).
    #[arg(long, env = "AWE4LB_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Address of /metrics, /healthz and /readyz. Port 0: a free one.
    #[arg(long, env = "AWE4LB_ADMIN", default_value = "127.0.0.1:7072", value_name = "ADDRESS")]
    pub admin: SocketAddr,
    /// Allow an admin address off loopback; it has no authentication.
    #[arg(long, env = "AWE4LB_ADMIN_PUBLIC")]
    pub admin_public: bool,
    /// Where the access log goes: a file, reopened on SIGHUP, or `-` for standard output. Listeners say what is in it.
    #[arg(long, env = "AWE4LB_ACCESS_LOG", default_value = "-", value_name = "FILE")]
    pub access_log: PathBuf,
    /// A program that health checks of type `exec` may run, by its whole path. Repeatable; without one none is run.
    #[arg(long, env = "AWE4LB_ALLOW_EXEC", value_delimiter = ',', value_name = "PROGRAM")]
    pub allow_exec: Vec<String>,
    /// Run this document (YAML, JSON or TOML) without a control plane; reloaded on change and on SIGHUP.
    #[arg(long, env = "AWE4LB_SNAPSHOT_FILE", conflicts_with = "control_plane", value_name = "FILE")]
    pub snapshot_file: Option<PathBuf>,
    /// Where this node is, for pools that prefer their own zone. With --snapshot-file alone; in a fleet it is the label
    /// `zone` of the node's join token.
    #[arg(long, env = "AWE4LB_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// Check flags (and the document of --snapshot-file) and exit.
    #[arg(long)]
    pub check: bool,
    /// After SIGTERM: how long to keep accepting with readiness off, for whatever announces this node.
    #[arg(long, env = "AWE4LB_PRE_STOP", default_value = "0s", value_parser = duration)]
    pub pre_stop: Duration,
    /// After SIGTERM: how long open connections may last.
    #[arg(long, env = "AWE4LB_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// What to log: `info`, `debug`, or a filter as `awe4lb_data_plane=debug,info`.
    #[arg(long, env = "AWE4LB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// TOML with these same flags as keys (`state-dir = "…"`). Flags and environment win over it.
    #[arg(long, env = "AWE4LB_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Print each value and where it comes from, and exit.
    #[arg(long)]
    pub print_config: bool,
}

impl RunArgs {
    /// The state directory, if this node has one: always with a control plane, on request with a file.
    pub fn state_dir(&self) -> Option<PathBuf> {
        match (&self.state_dir, &self.snapshot_file) {
            (Some(dir), _) => Some(dir.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_STATE_DIR.into()),
        }
    }

    /// The join token, from its file or the environment; surrounding white space does not count.
    pub fn join_token(&self) -> anyhow::Result<Option<String>> {
        let text = match &self.join_token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("join token file {}", path.display()))?,
            ),
            None => std::env::var("AWE4LB_JOIN_TOKEN").ok(),
        };
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// What must hold between flags.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.admin.ip().is_loopback() && !self.admin_public {
            bail!(
                "--admin {} is not on loopback and has no authentication: add --admin-public to allow it",
                self.admin
            );
        }
        for url in &self.control_plane {
            super::connect::endpoint_authority(url)?;
        }
        if let Some(program) = self.allow_exec.iter().find(|program| !program.starts_with('/')) {
            bail!("--allow-exec {program:?}: write the whole path of the program");
        }
        if self.zone.is_some() && self.snapshot_file.is_none() {
            bail!(
                "--zone is for --snapshot-file: in a fleet a node has the label \"zone\" of its join token"
            );
        }
        if let Some(name) = &self.name {
            name.parse::<awe4lb_model::Name>().with_context(|| format!("--name {name:?}"))?;
        }
        Ok(())
    }
}

/// Parses `argv`: flags over environment over configuration file over defaults.
pub fn parse(argv: Vec<OsString>) -> anyhow::Result<Parsed<Cli>> {
    awe4lb_flags::parse(argv, |cli: &Cli| match &cli.command {
        None => cli.run.config_file.clone(),
        Some(Command::Run(run)) => run.config_file.clone(),
        Some(_) => None,
    })
}

/// `500ms`, `5s`, `10m`, `1h`, `0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or("a duration has a unit: 500ms, 5s, 10m, 1h")?;
    let (digits, unit) = text.split_at(at);
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a duration"))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("{unit:?} is not a unit of time: ms, s, m, h")),
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<OsString> {
        std::iter::once("awe4lb-data-plane").chain(list.iter().copied()).map(OsString::from).collect()
    }

    #[test]
    fn run_is_the_default_command() {
        let parsed = parse(args(&["--snapshot-file", "a.yaml", "--drain-timeout", "2s"])).unwrap();
        assert!(parsed.cli.command.is_none());
        assert_eq!(parsed.cli.run.drain_timeout, Duration::from_secs(2));
        assert_eq!(parsed.cli.run.state_dir(), None);
        let parsed =
            parse(args(&["run", "--control-plane", "https://a:1", "--control-plane", "https://b:2"]))
                .unwrap();
        let Some(Command::Run(run)) = parsed.cli.command else { panic!("not run") };
        assert_eq!(run.control_plane.len(), 2);
    }

    #[test]
    fn an_admin_address_off_loopback_needs_a_word() {
        let parsed = parse(args(&["--admin", "0.0.0.0:1"])).unwrap();
        assert!(parsed.cli.run.check().unwrap_err().to_string().contains("--admin-public"));
        let parsed = parse(args(&["--admin", "0.0.0.0:1", "--admin-public"])).unwrap();
        parsed.cli.run.check().unwrap();
    }

    #[test]
    fn a_file_may_hold_the_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        std::fs::write(&path, "threads = 3\ncontrol-plane = [\"https://a:1\"]\n").unwrap();
        let parsed = parse(args(&["--config-file", path.to_str().unwrap()])).unwrap();
        assert_eq!(parsed.cli.run.threads, Some(3));
        assert!(parsed.print().contains("pre-stop = 0s  # default"));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "5 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
