//! What a set of processes costs: nanoseconds on a CPU, and memory of their own.

use std::fs;

/// A process and all that descend from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; the parent is the second field after it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|text| text.parse::<u32>().ok()) {
            parents.push((child, parent));
        }
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    family
}

/// Nanoseconds that the threads of these processes were on a CPU, by the scheduler's account.
///
/// `/proc/PID/stat` counts ticks of 4 ms and is far too coarse for this.
pub fn cpu_nanos(pids: &[u32]) -> u64 {
    let threads = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    threads
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()))
        .sum()
}

/// User memory in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The proportional share: shared pages count once over all processes.
    pub pss: u64,
    /// Resident pages, shared ones counted in every process.
    pub rss: u64,
}

/// User memory of these processes together.
pub fn memory(pids: &[u32]) -> Memory {
    let mut total = Memory::default();
    for pid in pids {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let (label, value) = (fields.next(), fields.next().and_then(|text| text.parse::<u64>().ok()));
            match (label, value) {
                (Some("Pss:"), Some(value)) => total.pss += value,
                (Some("Rss:"), Some(value)) => total.rss += value,
                _ => {}
            }
        }
    }
    total
}

/// The kernel's slab memory of the whole machine in KiB: sockets, pipes, epoll entries.
pub fn slab_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let slab = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    slab.and_then(|rest| rest.split_whitespace().next()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_a_cpu_and_memory() {
        let me = family(std::process::id());
        assert_eq!(me[0], std::process::id());
        assert!(cpu_nanos(&me) > 0);
        let memory = memory(&me);
        assert!(memory.rss >= memory.pss && memory.pss > 0);
        assert!(slab_kib() > 0);
    }
}
