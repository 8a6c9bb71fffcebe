//! `load`: a known load for the end-to-end tests. It prints exactly what was sent and received, as one JSON document.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rustls_pki_types::ServerName;
use serde::Serialize;

use crate::{
    certificate::{self, Trust},
    transport::Tls,
    work::{
        Work, datagrams::Datagrams, flood::Flood, paced::PacedDatagrams, short, short::ShortConnections,
        streams, streams::Streams,
    },
};

/// What is spoken to the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP; a full handshake each.
    Tls,
    /// Datagrams.
    Udp,
    /// Datagrams from made-up addresses, whose answers nobody waits for.
    Flood,
}

/// Flags of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What is spoken.
    #[arg(long, value_enum, default_value = "tcp")]
    pub protocol: Protocol,
    /// Where an echo answers; several are taken in turn.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',')]
    pub target: Vec<SocketAddr>,
    /// The server name of TLS.
    #[arg(long, default_value = "localhost")]
    pub sni: String,
    /// Roots that the server's certificate must lead to. Without: any certificate is taken.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// New connections (UDP: datagrams) a second over all targets; 0 for none.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// Seconds of load.
    #[arg(long, default_value_t = 5.0)]
    pub duration: f64,
    /// Go on until standard input is closed (at most `--duration`, when that is given, too).
    #[arg(long)]
    pub until_stdin_closes: bool,
    /// Bytes of a request, or of a datagram.
    #[arg(long, default_value_t = 64)]
    pub bytes: usize,
    /// Long streams beside the short connections, every byte of them checked.
    #[arg(long, default_value_t = 0)]
    pub streams: usize,
    /// Bytes a second of each stream.
    #[arg(long, default_value_t = 65536.0)]
    pub stream_rate: f64,
    /// Flows of datagrams.
    #[arg(long, default_value_t = 64)]
    pub flows: usize,
    /// Datagrams that each flow keeps on their way, as fast as they come back: instead of `--rate`, for saturation.
    #[arg(long, default_value_t = 0)]
    pub in_flight: usize,
    /// Addresses that a flood comes from.
    #[arg(long, default_value_t = 200_000)]
    pub sources: u32,
    /// Let clients come from 127.0.0.2–20 in turn, so that ports do not run out.
    #[arg(long)]
    pub spread_sources: bool,
    /// Seconds after which an unfinished connection has failed.
    #[arg(long, default_value_t = 10.0)]
    pub patience: f64,
    /// The most connections at once.
    #[arg(long, default_value_t = 4096)]
    pub most_open: usize,
}

/// What was sent and received, over all targets and by target.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    seconds: f64,
    all: Sums,
    targets: BTreeMap<SocketAddr, Sums>,
    latency_micros: Latency,
    first_failures: Vec<String>,
}

/// Exact sums. "Bytes" are of the application; "wire" is TCP payload, so it includes TLS.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    connections_started: u64,
    connections_connected: u64,
    connections_completed: u64,
    connections_failed: u64,
    failures: BTreeMap<String, u64>,
    streams_opened: u64,
    streams_intact: u64,
    streams_broken: u64,
    bytes_sent: u64,
    bytes_received: u64,
    wire_bytes_sent: u64,
    wire_bytes_received: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    datagrams_repeated: u64,
    datagrams_damaged: u64,
    datagrams_refused: u64,
}

#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(all: &hdrhistogram::Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Self {
            p50: micros(all.value_at_quantile(0.5)),
            p99: micros(all.value_at_quantile(0.99)),
            max: micros(all.max()),
        }
    }
}

/// Runs the load, then prints the outcome. Lost connections are an outcome, not an error.
pub fn run(arguments: &LoadArgs) -> anyhow::Result<()> {
    let until = Until::new(arguments)?;
    let outcome = match arguments.protocol {
        Protocol::Udp if arguments.in_flight > 0 => echoes(arguments, &until)?,
        Protocol::Udp => datagrams(arguments, &until)?,
        Protocol::Flood => flood(arguments, &until)?,
        Protocol::Tcp | Protocol::Tls => connections(arguments, &until)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// When the load is over.
struct Until {
    begin: Instant,
    duration: Option<Duration>,
    closed: Arc<AtomicBool>,
}

impl Until {
    fn new(arguments: &LoadArgs) -> anyhow::Result<Self> {
        let duration = Duration::try_from_secs_f64(arguments.duration).context("--duration")?;
        let closed = Arc::new(AtomicBool::new(false));
        if arguments.until_stdin_closes {
            let closed = closed.clone();
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                closed.store(true, Ordering::Relaxed);
            });
        }
        let duration = (!arguments.until_stdin_closes).then_some(duration);
        Ok(Self { begin: Instant::now(), duration, closed })
    }

    fn over(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
            || self.duration.is_some_and(|duration| self.begin.elapsed() >= duration)
    }
}

fn connections(arguments: &LoadArgs, until: &Until) -> anyhow::Result<Outcome> {
    if arguments.rate <= 0.0 && arguments.streams == 0 {
        bail!("neither --rate nor --streams asks for anything");
    }
    let patience = Duration::try_from_secs_f64(arguments.patience).context("--patience")?;
    let tls = match arguments.protocol {
        Protocol::Tls => {
            let trust = arguments.ca.clone().map_or(Trust::Anything, Trust::Roots);
            let name = ServerName::try_from(arguments.sni.clone()).context("--sni")?;
            Some(Tls { config: certificate::client(&trust, false)?, name })
        }
        Protocol::Tcp | Protocol::Udp | Protocol::Flood => None,
    };
    let mut short = (arguments.rate > 0.0)
        .then(|| {
            ShortConnections::new(short::Spec {
                targets: arguments.target.clone(),
                spread_sources: arguments.spread_sources,
                tls: tls.clone(),
                request_bytes: arguments.bytes,
                rate: arguments.rate,
                resumed: false,
                read_to_end: true,
                patience,
                most_open: arguments.most_open,
            })
        })
        .transpose()?;
    let mut long = Streams::open(streams::Spec {
        targets: arguments.target.clone(),
        spread_sources: arguments.spread_sources,
        tls,
        count: arguments.streams,
        bytes_per_second: arguments.stream_rate,
    })?;

    let turn = |short: &mut Option<ShortConnections>, long: &mut Streams| -> std::io::Result<()> {
        if let Some(short) = short {
            short.turn(Duration::from_millis(2))?;
            if arguments.streams > 0 {
                long.turn(Duration::ZERO)?;
            }
        } else {
            long.turn(Duration::from_millis(2))?;
        }
        Ok(())
    };
    while !until.over() {
        turn(&mut short, &mut long)?;
    }
    let seconds = until.begin.elapsed().as_secs_f64();
    long.stop();
    if let Some(short) = &mut short {
        short.finish(patience)?;
    }
    let end = Instant::now();
    while long.open_now() > 0 && end.elapsed() < patience {
        long.turn(Duration::from_millis(2))?;
    }
    long.abandon();

    let mut outcome = Outcome { seconds, first_failures: long.failures.clone(), ..Outcome::default() };
    for (index, target) in arguments.target.iter().enumerate() {
        let mut sums = Sums::default();
        if let Some(short) = &short {
            sums.add_short(&short.totals()[index]);
        }
        sums.add_streams(&long.totals()[index]);
        outcome.add(*target, &sums);
    }
    if let Some(short) = &mut short {
        outcome.first_failures.append(&mut short.first_failures);
        if let Some(all) = short.latencies() {
            outcome.latency_micros = Latency::of(all);
        }
    }
    Ok(outcome)
}

fn datagrams(arguments: &LoadArgs, until: &Until) -> anyhow::Result<Outcome> {
    let mut load = PacedDatagrams::open(
        &arguments.target,
        arguments.flows,
        arguments.rate,
        arguments.bytes,
        arguments.spread_sources,
    )?;
    while !until.over() {
        load.turn(Duration::from_millis(2))?;
    }
    let seconds = until.begin.elapsed().as_secs_f64();
    load.sending = false;
    // Loopback answers within a millisecond; what a second has not brought is lost.
    let end = Instant::now();
    while end.elapsed() < Duration::from_secs(1)
        && load.totals().iter().any(|totals| totals.received < totals.sent)
    {
        load.turn(Duration::from_millis(2))?;
    }
    let latency_micros = Latency::of(&load.latencies);
    let mut outcome = Outcome { seconds, latency_micros, ..Outcome::default() };
    for (target, totals) in arguments.target.iter().zip(load.totals()) {
        let sums = Sums {
            bytes_sent: totals.sent_bytes,
            bytes_received: totals.received_bytes,
            datagrams_sent: totals.sent,
            datagrams_received: totals.received,
            datagrams_repeated: totals.repeated,
            datagrams_damaged: totals.damaged,
            datagrams_refused: totals.refused,
            ..Sums::default()
        };
        outcome.add(*target, &sums);
    }
    Ok(outcome)
}

/// Datagrams as fast as they come back.
fn echoes(arguments: &LoadArgs, until: &Until) -> anyhow::Result<Outcome> {
    let [target] = arguments.target[..] else { bail!("--in-flight has one --target") };
    let mut load = Datagrams::open(&[target], arguments.flows, arguments.in_flight, arguments.bytes)?;
    while !until.over() {
        load.step()?;
    }
    let seconds = until.begin.elapsed().as_secs_f64();
    load.finish(Duration::from_secs(1))?;
    let latency_micros = load.latencies().map(Latency::of).unwrap_or_default();
    let (received, lost, damaged) = (load.units(), load.failed() - load.damaged, load.damaged);
    let mut outcome = Outcome { seconds, latency_micros, ..Outcome::default() };
    let sums = Sums {
        datagrams_sent: received + lost + damaged,
        datagrams_received: received,
        datagrams_damaged: damaged,
        ..Sums::default()
    };
    outcome.add(target, &sums);
    Ok(outcome)
}

fn flood(arguments: &LoadArgs, until: &Until) -> anyhow::Result<Outcome> {
    let [target] = arguments.target[..] else { bail!("a flood has one --target") };
    let mut load = Flood::open(target, arguments.sources.max(1), arguments.rate, arguments.bytes)?;
    while !until.over() {
        load.turn(Duration::from_millis(2));
    }
    let mut outcome = Outcome { seconds: until.begin.elapsed().as_secs_f64(), ..Outcome::default() };
    outcome.add(target, &Sums { datagrams_sent: load.sent, ..Sums::default() });
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, target: SocketAddr, sums: &Sums) {
        self.all.add(sums);
        // The same address given twice is one target with two turns.
        self.targets.entry(target).or_default().add(sums);
    }
}

impl Sums {
    fn add_short(&mut self, totals: &short::Totals) {
        self.connections_started += totals.started;
        self.connections_connected += totals.connected;
        self.connections_completed += totals.completed;
        self.connections_failed += totals.failures.values().sum::<u64>();
        self.failures.extend(totals.failures.clone());
        self.bytes_sent += totals.sent;
        self.bytes_received += totals.received;
        self.wire_bytes_sent += totals.wire_sent;
        self.wire_bytes_received += totals.wire_received;
    }

    fn add_streams(&mut self, totals: &streams::Totals) {
        self.streams_opened += totals.opened;
        self.streams_intact += totals.intact;
        self.streams_broken += totals.broken;
        self.bytes_sent += totals.sent;
        self.bytes_received += totals.received;
        self.wire_bytes_sent += totals.wire_sent;
        self.wire_bytes_received += totals.wire_received;
    }

    fn add(&mut self, other: &Self) {
        self.connections_started += other.connections_started;
        self.connections_connected += other.connections_connected;
        self.connections_completed += other.connections_completed;
        self.connections_failed += other.connections_failed;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        self.streams_opened += other.streams_opened;
        self.streams_intact += other.streams_intact;
        self.streams_broken += other.streams_broken;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.wire_bytes_sent += other.wire_bytes_sent;
        self.wire_bytes_received += other.wire_bytes_received;
        self.datagrams_sent += other.datagrams_sent;
        self.datagrams_received += other.datagrams_received;
        self.datagrams_repeated += other.datagrams_repeated;
        self.datagrams_damaged += other.datagrams_damaged;
        self.datagrams_refused += other.datagrams_refused;
    }
}
