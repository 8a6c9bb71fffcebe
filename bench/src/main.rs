//! `awe4lb-bench`: compare proxies (`run`), count their system calls (`syscalls`), or drive exact load (`load`).

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "awe4lb-bench", version, about = "The benchmark and the load generator of awe4lb")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare direct, HAProxy, nginx and awe4lb; print the table.
    Run(awe4lb_bench::run::RunArgs),
    /// Count system calls per unit of work with strace (never in the same run as times).
    Syscalls(awe4lb_bench::syscalls::SyscallArgs),
    /// Send a known load to one or several addresses and print exactly what was sent and received, as JSON.
    Load(awe4lb_bench::load::LoadArgs),
    /// The backends of the benchmark, as a process of their own.
    Backend(awe4lb_bench::backend::BackendArgs),
}

fn main() -> anyhow::Result<()> {
    awe4lb_bench::sys::raise_open_files();
    match Cli::parse().command {
        Command::Run(arguments) => awe4lb_bench::run::run(&arguments),
        Command::Syscalls(arguments) => awe4lb_bench::syscalls::run(&arguments),
        Command::Load(arguments) => awe4lb_bench::load::run(&arguments),
        Command::Backend(arguments) => awe4lb_bench::backend::run(&arguments),
    }
}
