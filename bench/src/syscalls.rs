//! `syscalls`: system calls per unit of work, counted by strace. The one number that is free of noise.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    contender::Contender,
    process::Process,
    run::{Bench, RunArgs, Scenario, scenarios},
    sys,
    work::drive,
};

/// Flags of `syscalls`.
#[derive(Debug, Args)]
pub struct SyscallArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// Runs every scenario once for every contender under strace and prints the counts.
pub fn run(arguments: &SyscallArgs) -> anyhow::Result<()> {
    let scenarios = scenarios(&arguments.run.scenario)?;
    let mut flags = arguments.run.clone();
    // Under strace everything is ten times slower: the rates must leave room for that.
    flags.conn_rate = flags.conn_rate.min(300.0);
    flags.echo_rate = flags.echo_rate.min(2000.0);
    flags.tls_rate = flags.tls_rate.min(200.0);
    flags.tls_echo_rate = flags.tls_echo_rate.min(2000.0);
    let bench = Bench::start(&flags)?;
    let window = Duration::try_from_secs_f64(flags.seconds.unwrap_or(3.0)).context("--seconds")?;
    for scenario in scenarios.into_iter().filter(|scenario| !scenario.is_idle()) {
        for contender in bench.contenders().into_iter().filter(|contender| *contender != Contender::Direct) {
            count(&bench, scenario, contender, window)?;
        }
    }
    Ok(())
}

fn count(bench: &Bench, scenario: Scenario, contender: Contender, window: Duration) -> anyhow::Result<()> {
    let Some(mut work) = bench.work(scenario, contender)? else { return Ok(()) };
    drive(work.as_mut(), Duration::from_millis(500))?;
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("counts");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-q", "-o"]).arg(&output);
    for pid in bench.pids(contender) {
        command.arg("-p").arg(pid.to_string());
    }
    let tracer = Process::start("strace", command, &folder.path().join("log"), sys::SIGINT)?;
    // It attaches to every thread before it counts.
    drive(work.as_mut(), Duration::from_millis(700))?;
    let before = work.units();
    drive(work.as_mut(), window)?;
    let units = work.units() - before;
    drop(tracer);
    work.finish(Duration::from_secs(2))?;
    let text = std::fs::read_to_string(&output).unwrap_or_default();
    let calls = parse(&text);
    if calls.is_empty() {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        bail!("strace counted nothing: {log}");
    }
    // What was counted while strace settled has its units, too: the share of the window is by time.
    let share = window.as_secs_f64() / (window.as_secs_f64() + 0.7);
    let unit = if scenario.is_bulk() { 1e6 } else { 1.0 };
    let each = |count: u64| count as f64 * share * unit / units.max(1) as f64;
    let total: u64 = calls.values().sum();
    let name = if unit > 1.0 { "MB" } else { "unit" };
    print!("{scenario:?} {contender}: {:.2} system calls a {name} ({units} units):", each(total));
    let mut sorted: Vec<_> = calls.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (call, count) in sorted.iter().filter(|(_, count)| each(**count) >= 0.01) {
        print!(" {call} {:.2}", each(**count));
    }
    println!();
    Ok(())
}

/// The table of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let (true, Some(count), Some(name)) =
            (fields.len() >= 5, fields.get(3).and_then(|text| text.parse::<u64>().ok()), fields.last())
            && *name != "total"
        {
            *calls.entry((*name).to_owned()).or_default() += count;
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let calls = parse(
            "% time     seconds  usecs/call     calls    errors syscall\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
              61.11    0.000011           0        22           read\n\
              38.89    0.000007           1         7         2 openat\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             100.00    0.000018           0        29         2 total\n",
        );
        assert_eq!(calls, BTreeMap::from([("read".to_owned(), 22), ("openat".to_owned(), 7)]));
    }
}
