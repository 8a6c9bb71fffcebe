//! Idle connections: what they hold after a little traffic, and what they cost while nothing happens.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{echo::Echoes, newcomers::Newcomers};
use crate::{cost, transport::Tls};

/// What every connection sends and gets back before it rests.
const BYTES: usize = 16 << 10;

/// What idle connections cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idle {
    /// User memory per connection in KiB, by the proportional share.
    pub pss_kib: f64,
    /// User memory per connection in KiB, resident pages.
    pub rss_kib: f64,
    /// Slab memory of the whole machine per connection in KiB; `direct` shows the share of the two ends.
    pub slab_kib: f64,
    /// CPU of the proxy while all are idle, in percent of one core.
    pub cpu_percent: f64,
}

/// Opens the connections, lets each carry 16 KiB both ways, and weighs the proxy before and after.
pub fn measure(
    targets: &[SocketAddr],
    tls: Option<&Tls>,
    connections: usize,
    window: Duration,
    pids: &[u32],
) -> io::Result<Idle> {
    // The first connections of a process make it allocate what it allocates once; that is not theirs.
    let mut first = Echoes::open(targets, tls, 64, BYTES, 1.0)?;
    first.once_around()?;
    drop(first);
    std::thread::sleep(Duration::from_millis(300));
    weigh(connections, window, pids, || {
        let mut held = Echoes::open(targets, tls, connections, BYTES, 1.0)?;
        held.once_around()?;
        Ok(held)
    })
}

/// The same for flows of datagrams, each of which had one there and one back.
pub fn measure_flows(target: SocketAddr, flows: usize, window: Duration, pids: &[u32]) -> io::Result<Idle> {
    weigh(flows, window, pids, || Newcomers::visit(target, flows))
}

fn weigh<T>(
    connections: usize,
    window: Duration,
    pids: &[u32],
    open: impl FnOnce() -> io::Result<T>,
) -> io::Result<Idle> {
    let (before, slab) = (cost::memory(pids), cost::slab_kib());
    let _held = open()?;
    std::thread::sleep(Duration::from_secs(1));
    let (cpu, begin) = (cost::cpu_nanos(pids), Instant::now());
    std::thread::sleep(window);
    let spent = cost::cpu_nanos(pids).saturating_sub(cpu) as f64;
    let seconds = begin.elapsed().as_secs_f64();
    let after = cost::memory(pids);
    let each = |after: u64, before: u64| (after as f64 - before as f64) / connections as f64;
    Ok(Idle {
        pss_kib: each(after.pss, before.pss),
        rss_kib: each(after.rss, before.rss),
        slab_kib: each(cost::slab_kib(), slab),
        cpu_percent: spent / seconds / 1e7,
    })
}
