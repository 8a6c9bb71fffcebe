//! The loads. Each is a state machine that is driven by `step` and counts the units it has finished, so that one loop
//! can cut any window out of it.

pub mod bulk;
pub mod datagrams;
pub mod echo;
pub mod flood;
pub mod idle;
pub mod newcomers;
pub mod paced;
pub mod short;
pub mod streams;

use std::{
    io,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{cost, machine::Ticks};

/// The addresses that clients come from: ports run out by source and destination.
pub const SOURCES: std::ops::RangeInclusive<u8> = 2..=20;

/// The n-th source address, round and round.
pub fn source(n: u64) -> Ipv4Addr {
    let count = u64::from(*SOURCES.end() - *SOURCES.start()) + 1;
    Ipv4Addr::new(127, 0, 0, *SOURCES.start() + (n % count) as u8)
}

/// No step waits longer than this, so that windows are cut where they should be.
pub const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// How long a handshake may take before the load starts.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Nanoseconds up to a minute, three digits.
pub fn latencies() -> Histogram<u64> {
    // The bounds are constants that the library accepts.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// A load in progress.
pub trait Work {
    /// Does what is due, waits for a little.
    fn step(&mut self) -> io::Result<()>;
    /// Units finished so far: connections, bytes, echoes, datagrams.
    fn units(&self) -> u64;
    /// Units that were tried and lost so far.
    fn failed(&self) -> u64;
    /// Latencies in nanoseconds since the last call of `restart_latencies`; none for bulk.
    fn latencies(&self) -> Option<&Histogram<u64>>;
    /// Forgets the latencies so far.
    fn restart_latencies(&mut self);
    /// Starts nothing new and lets what is under way end, for at most `patience`.
    fn finish(&mut self, patience: Duration) -> io::Result<()>;
}

/// How long to warm up and to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Before the window.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
}

/// What one window gave.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Units finished within it.
    pub units: u64,
    /// Units lost in the whole run, warm-up and end included.
    pub failed: u64,
    /// Its length in seconds.
    pub seconds: f64,
    /// CPU nanoseconds of the proxy within it.
    pub cpu_nanos: u64,
    /// Latencies in microseconds: p50, p99.
    pub p50_micros: f64,
    /// See `p50_micros`.
    pub p99_micros: f64,
    /// How busy the whole machine was, in percent of all CPUs.
    pub busy_percent: f64,
    /// What the hypervisor took, in percent of all CPUs.
    pub steal_percent: f64,
}

/// Drives a load through a plan and accounts what `pids` spent within the window.
pub fn measure(work: &mut dyn Work, plan: Plan, pids: &[u32]) -> io::Result<Window> {
    drive(work, plan.warm_up)?;
    work.restart_latencies();
    let (ticks, cpu, units, begin) = (Ticks::now(), cost::cpu_nanos(pids), work.units(), Instant::now());
    drive(work, plan.window)?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu_nanos = cost::cpu_nanos(pids).saturating_sub(cpu);
    let units = work.units() - units;
    let (busy_percent, steal_percent) = Ticks::now().since(ticks);
    let quantile = |q: f64| work.latencies().map_or(0.0, |all| all.value_at_quantile(q) as f64 / 1000.0);
    let (p50_micros, p99_micros) = (quantile(0.5), quantile(0.99));
    work.finish(Duration::from_secs(3))?;
    Ok(Window {
        units,
        failed: work.failed(),
        seconds,
        cpu_nanos,
        p50_micros,
        p99_micros,
        busy_percent,
        steal_percent,
    })
}

/// Steps for a time.
pub fn drive(work: &mut dyn Work, time: Duration) -> io::Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        work.step()?;
    }
    Ok(())
}

/// When the n-th unit of a constant rate is due.
pub fn due(begin: Instant, n: u64, per_second: f64) -> Instant {
    begin + Duration::from_secs_f64(n as f64 / per_second)
}
