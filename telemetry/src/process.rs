//! What the kernel says of this process.

/// User and system time come in hundredths of a second on every Linux.
const MICROS_A_TICK: u64 = 10_000;

/// What this process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// User and system time, microseconds.
    pub cpu_micros_total: u64,
    /// Bytes of memory.
    pub resident_bytes: u64,
    /// Descriptors.
    pub open_files: u64,
    /// How many there may be.
    pub open_files_limit: u64,
}

/// Reads `/proc/self`; what cannot be read is 0.
#[must_use]
pub fn read() -> Process {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    Process {
        cpu_micros_total: cpu_micros(&text("/proc/self/stat")),
        resident_bytes: resident_bytes(&text("/proc/self/status")),
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        open_files_limit: open_files_limit(&text("/proc/self/limits")),
    }
}

fn cpu_micros(stat: &str) -> u64 {
    // The name in parentheses may hold anything; the fields after it are numbers.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * MICROS_A_TICK
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn open_files_limit(limits: &str) -> u64 {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => u64::MAX,
        Some(number) => number.parse().unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let gauges = read();
        assert!(gauges.resident_bytes > 100_000 && gauges.open_files >= 3 && gauges.open_files_limit > 3);
    }

    #[test]
    fn reads_the_kernels_texts() {
        let stat = "12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_micros(stat), 2_000_000);
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n"), 12 * 1024);
        assert_eq!(open_files_limit("Max open files            1024                 4096   files\n"), 1024);
        assert_eq!((cpu_micros(""), resident_bytes(""), open_files_limit("")), (0, 0, 0));
    }
}
