//! `run`: all contenders, all scenarios, round by round, and the table.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rustls_pki_types::ServerName;
use serde::Serialize;

use crate::{
    backend, certificate,
    contender::{Contender, OursOptions, Running, Terminating, start_backends, told},
    machine::Machine,
    report::{self, Sample},
    sys,
    transport::Tls,
    work::{
        Plan, Work, bulk::Bulk, datagrams::Datagrams, echo::Echoes, idle, measure, newcomers::Newcomers,
        short, short::ShortConnections,
    },
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Short connections: 64 bytes there and back.
    Conn,
    /// One bulk stream.
    Bulk1,
    /// Eight bulk streams.
    Bulk8,
    /// Small echoes on kept connections.
    Echo,
    /// Datagrams, 64 flows with 4 in flight each.
    Udp,
    /// Datagrams, 4 flows with 64 in flight each, 1,200 bytes.
    UdpBurst,
    /// Datagrams, 1,000 flows with one in flight each.
    UdpSingle,
    /// The time a datagram takes when all there is of the machine is in use.
    UdpRate,
    /// Datagrams of which each comes from a new client.
    UdpNew,
    /// Short connections with a full TLS 1.3 handshake, ECDSA P-256.
    Tls,
    /// The same with RSA-2048.
    TlsRsa,
    /// Short connections that resume a session of TLS 1.3.
    TlsResumed,
    /// Small echoes on kept TLS connections.
    TlsEcho,
    /// One bulk stream through TLS termination.
    TlsBulk,
    /// Idle connections.
    Idle,
    /// Idle TLS connections.
    IdleTls,
    /// Idle flows of datagrams.
    IdleUdp,
}

impl Scenario {
    /// All, in the order of the table.
    pub const ALL: [Self; 17] = [
        Self::Conn,
        Self::Bulk1,
        Self::Bulk8,
        Self::Echo,
        Self::Udp,
        Self::UdpBurst,
        Self::UdpSingle,
        Self::UdpRate,
        Self::UdpNew,
        Self::Tls,
        Self::TlsRsa,
        Self::TlsResumed,
        Self::TlsEcho,
        Self::TlsBulk,
        Self::Idle,
        Self::IdleTls,
        Self::IdleUdp,
    ];

    /// As the flags name it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether connections are weighed that do nothing.
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Idle | Self::IdleTls | Self::IdleUdp)
    }

    /// Whether a unit is a datagram.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::UdpBurst | Self::UdpSingle | Self::UdpRate | Self::UdpNew)
    }

    /// Whether what counts is how much gets through rather than what that costs.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::UdpRate | Self::UdpNew)
    }

    /// Whether a unit is a byte.
    pub fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk1 | Self::Bulk8 | Self::TlsBulk)
    }
}

/// As many as nginx has ports for, with some to spare.
const IDLE_FLOWS: usize = 10_000;

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Three short rounds: a look, not a judgement.
    #[arg(long)]
    pub quick: bool,
    /// Scenarios, by name; all without. `bulk` means both of bulk.
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Contenders; all without.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub contender: Vec<Contender>,
    /// Rounds; each has every contender once.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Seconds of each window.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Where to write every single value.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The data plane's binary.
    #[arg(long, default_value = "target/release/awe4lb-data-plane")]
    pub bin: PathBuf,
    /// Workers of ours.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Short connections a second.
    #[arg(long, default_value_t = 4000.0)]
    pub conn_rate: f64,
    /// Echoes a second.
    #[arg(long, default_value_t = 20000.0)]
    pub echo_rate: f64,
    /// TLS connections a second.
    #[arg(long, default_value_t = 800.0)]
    pub tls_rate: f64,
    /// Echoes a second over TLS.
    #[arg(long, default_value_t = 15000.0)]
    pub tls_echo_rate: f64,
    /// Idle connections.
    #[arg(long, default_value_t = 4000)]
    pub idle_connections: usize,
    /// Keep the folder with configurations and logs, and say where it is.
    #[arg(long)]
    pub keep: bool,
}

/// The bench: backends, and the contenders that serve.
pub struct Bench {
    /// Flags.
    pub arguments: RunArgs,
    folder: tempfile::TempDir,
    backend: backend::Ready,
    running: Vec<Running>,
    tls: Tls,
    // Last, so that the proxies end before their backends.
    _backends: crate::process::Process,
}

/// Runs all and prints the table.
pub fn run(arguments: &RunArgs) -> anyhow::Result<()> {
    let scenarios = scenarios(&arguments.scenario)?;
    let machine = Machine::here();
    let mut bench = Bench::start(arguments)?;
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 7 }).max(1);
    let contenders: Vec<Contender> = bench.running.iter().map(|running| running.contender).collect();
    let mut samples = Vec::new();
    let begin = Instant::now();
    for scenario in &scenarios {
        for round in 0..rounds {
            for contender in order(&contenders, round) {
                if let Some(sample) = bench.sample(*scenario, contender, round)? {
                    eprintln!("{:>6.0} s  {}", begin.elapsed().as_secs_f64(), sample.line());
                    samples.push(sample);
                }
            }
        }
    }
    let report = report::Report::new(machine, samples);
    println!("{}", report.markdown());
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if arguments.keep {
        eprintln!("kept: {}", bench.keep().display());
    }
    Ok(())
}

/// The scenarios that the flags name.
pub fn scenarios(names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(Scenario::ALL.to_vec());
    }
    let mut scenarios = Vec::new();
    for name in names {
        if name == "bulk" {
            scenarios.extend([Scenario::Bulk1, Scenario::Bulk8]);
            continue;
        }
        match Scenario::from_str(name, true) {
            Ok(scenario) => scenarios.push(scenario),
            Err(_) => {
                let all = Scenario::ALL.map(Scenario::name).join(", ");
                bail!("there is no scenario {name:?}: {all}; bulk means bulk1 and bulk8")
            }
        }
    }
    Ok(scenarios)
}

/// Who comes when: the start moves on every round, the direction changes every other, so that nobody always follows
/// the same one.
fn order(contenders: &[Contender], round: usize) -> Vec<Contender> {
    let mut order = contenders.to_vec();
    let turns = round % order.len().max(1);
    order.rotate_left(turns);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

impl Bench {
    /// Starts the backends and the contenders.
    pub fn start(arguments: &RunArgs) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("awe4lb-bench-").tempdir()?;
        certificate::write(folder.path())?;
        let (backends, backend) = start_backends(folder.path())?;
        let tls = Tls {
            config: certificate::client(&certificate::Trust::Roots(folder.path().join("roots.pem")), true)?,
            name: ServerName::try_from(certificate::NAME)?,
        };
        let mut bench = Self {
            arguments: arguments.clone(),
            folder,
            backend,
            running: Vec::new(),
            tls,
            _backends: backends,
        };
        let wanted = if arguments.contender.is_empty() { &Contender::ALL[..] } else { &arguments.contender };
        for contender in wanted {
            if *contender == Contender::Ours && !arguments.bin.is_file() {
                eprintln!(
                    "!!! OURS IS NOT MEASURED: there is no {} (build it, or say --bin PATH) !!!",
                    arguments.bin.display()
                );
                continue;
            }
            let running = bench.launch(*contender)?;
            bench.running.push(running);
        }
        Ok(bench)
    }

    fn launch(&self, contender: Contender) -> anyhow::Result<Running> {
        let ours = OursOptions { binary: self.arguments.bin.clone(), threads: self.arguments.threads };
        Running::start(contender, self.backend, self.folder.path(), &ours)
    }

    /// The processes of a contender that serves.
    pub fn pids(&self, contender: Contender) -> Vec<u32> {
        self.running.iter().find(|one| one.contender == contender).map_or_else(Vec::new, Running::pids)
    }

    /// The contenders that serve.
    pub fn contenders(&self) -> Vec<Contender> {
        self.running.iter().map(|running| running.contender).collect()
    }

    fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// A load of a scenario against a contender; none where it does not apply.
    pub fn work(&self, scenario: Scenario, contender: Contender) -> anyhow::Result<Option<Box<dyn Work>>> {
        let Some(running) = self.running.iter().find(|one| one.contender == contender) else {
            return Ok(None);
        };
        let arguments = &self.arguments;
        let work: Box<dyn Work> = match scenario {
            Scenario::Conn => Box::new(self.short(&running.echo, None, false, arguments.conn_rate)?),
            Scenario::Bulk1 => Box::new(Bulk::open(&running.bulk, 1, None)?),
            Scenario::Bulk8 => Box::new(Bulk::open(&running.bulk, 8, None)?),
            Scenario::Echo => Box::new(Echoes::open(&running.echo, None, 64, 100, arguments.echo_rate)?),
            udp if udp.is_udp() && running.udp.is_empty() => return Ok(None),
            Scenario::UdpBurst => Box::new(Datagrams::open(&running.udp, 4, 64, 1_200)?),
            Scenario::UdpSingle => Box::new(Datagrams::open(&running.udp, 1_000, 1, 200)?),
            Scenario::UdpNew => Box::new(Newcomers::open(running.udp_new[0], 64)?),
            Scenario::Udp | Scenario::UdpRate => Box::new(Datagrams::open(&running.udp, 64, 4, 200)?),
            Scenario::Tls
            | Scenario::TlsRsa
            | Scenario::TlsResumed
            | Scenario::TlsEcho
            | Scenario::TlsBulk => match &running.tls {
                Some(addresses) => self.tls_work(scenario, addresses)?,
                None => return Ok(None),
            },
            Scenario::Idle | Scenario::IdleTls | Scenario::IdleUdp => return Ok(None),
        };
        Ok(Some(work))
    }

    fn tls_work(
        &self,
        scenario: Scenario,
        to: &Terminating<[SocketAddr; 1]>,
    ) -> anyhow::Result<Box<dyn Work>> {
        let (tls, rate) = (self.tls.clone(), self.arguments.tls_rate);
        Ok(match scenario {
            Scenario::TlsEcho => {
                Box::new(Echoes::open(&to.ecdsa, Some(&tls), 64, 100, self.arguments.tls_echo_rate)?)
            }
            Scenario::TlsBulk => Box::new(Bulk::open(&to.bulk, 1, Some(&tls))?),
            Scenario::TlsResumed => {
                // Its own client each time: the tickets of one contender are nothing to another.
                let config = certificate::resuming_client(&self.trust())?;
                Box::new(self.short(&to.ecdsa, Some(Tls { config, ..tls }), true, rate)?)
            }
            Scenario::TlsRsa => Box::new(self.short(&to.rsa, Some(tls), false, rate)?),
            _ => Box::new(self.short(&to.ecdsa, Some(tls), false, rate)?),
        })
    }

    fn trust(&self) -> certificate::Trust {
        certificate::Trust::Roots(self.folder.path().join("roots.pem"))
    }

    fn short(
        &self,
        targets: &[SocketAddr],
        tls: Option<Tls>,
        resumed: bool,
        rate: f64,
    ) -> std::io::Result<ShortConnections> {
        ShortConnections::new(short::Spec {
            targets: targets.to_vec(),
            spread_sources: true,
            tls,
            resumed,
            request_bytes: 64,
            rate,
            read_to_end: false,
            patience: Duration::from_secs(5),
            most_open: 2000,
        })
    }

    fn sample(
        &mut self,
        scenario: Scenario,
        contender: Contender,
        round: usize,
    ) -> anyhow::Result<Option<Sample>> {
        let seconds = self.arguments.seconds.unwrap_or(if self.arguments.quick { 2.0 } else { 5.0 });
        let window = Duration::try_from_secs_f64(seconds).context("--seconds")?;
        let about = || format!("{scenario:?} through {contender}");
        if scenario.is_idle() {
            // Fresh, because memory once taken is rarely given back; the one that was there stays out of the way.
            let fresh = self.launch(contender)?;
            let needed = 2 * self.arguments.idle_connections as u64 + 500;
            if sys::open_files() < needed {
                bail!("{needed} open files are needed and {} allowed", sys::open_files());
            }
            if scenario == Scenario::IdleUdp {
                let Some(to) = fresh.udp.first() else { return Ok(None) };
                let idle = idle::measure_flows(*to, IDLE_FLOWS, window, &fresh.pids()).with_context(about)?;
                return Ok(Some(Sample::idle(scenario, contender, round, idle)));
            }
            let (to, tls) = match (&fresh.tls, scenario) {
                (_, Scenario::Idle) => (&fresh.echo[..], None),
                (Some(addresses), _) => (&addresses.ecdsa[..], Some(&self.tls)),
                (None, _) => return Ok(None),
            };
            let idle = idle::measure(to, tls, self.arguments.idle_connections, window, &fresh.pids())
                .with_context(about)?;
            return Ok(Some(Sample::idle(scenario, contender, round, idle)));
        }
        let warm_up = window.mul_f64(0.2).clamp(Duration::from_millis(400), Duration::from_secs(1));
        let pids = self.pids(contender);
        let Some(mut work) = self.work(scenario, contender).with_context(about)? else { return Ok(None) };
        let window = measure(work.as_mut(), Plan { warm_up, window }, &pids).with_context(about)?;
        drop(work);
        for running in &mut self.running {
            running.alive().with_context(|| told(running.contender, self.folder.path()))?;
        }
        let offered = match scenario {
            Scenario::Conn => Some(self.arguments.conn_rate),
            Scenario::Tls | Scenario::TlsRsa | Scenario::TlsResumed => Some(self.arguments.tls_rate),
            Scenario::Echo => Some(self.arguments.echo_rate),
            Scenario::TlsEcho => Some(self.arguments.tls_echo_rate),
            _ => None,
        };
        if scenario == Scenario::TlsResumed && window.failed > window.units {
            eprintln!("!!! {contender} resumes no session: tls-resumed is not measured for it !!!");
            return Ok(None);
        }
        Ok(Some(Sample::load(scenario, contender, round, &window, offered)))
    }
}
