//! The machine of a run, and how quiet it was.

use std::fs;

use serde::Serialize;

/// What a report says of the machine.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// CPUs that are online.
    pub cpus: usize,
    /// The model, as the kernel names it.
    pub model: String,
    /// The kernel's release.
    pub kernel: String,
    /// The load average before the run.
    pub load: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.unwrap_or("unknown").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// Ticks of the whole machine: all, idle, and stolen by the hypervisor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ticks {
    all: u64,
    idle: u64,
    steal: u64,
}

impl Ticks {
    /// The account of this moment.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields: Vec<u64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        Self { all: fields.iter().take(8).sum(), idle: field(3) + field(4), steal: field(7) }
    }

    /// `(busy, stolen)` in percent of all CPUs since an earlier account.
    pub fn since(self, earlier: Self) -> (f64, f64) {
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        let idle = self.idle.saturating_sub(earlier.idle) as f64;
        let steal = self.steal.saturating_sub(earlier.steal) as f64;
        (100.0 * (all - idle) / all, 100.0 * steal / all)
    }
}
