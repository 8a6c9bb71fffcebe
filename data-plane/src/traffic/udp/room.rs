//! How many flows there is room for. A socket to a backend takes a port and a descriptor; the first flows of a listening socket
//! have one each, and those beyond share: a shared one carries a flow to each backend.

/// So many flows of a listening socket have sockets of their own, which are cheaper to use, where there are ports enough.
const OWN_SOCKETS: u32 = 1_024;
/// The part of all ports that they may take.
const OWN_PART: u32 = 16;
/// Descriptors that are for everything else.
const OTHER_FILES: u64 = 256;

/// Flows of a listening socket that have sockets of their own.
pub(crate) fn own_sockets() -> u32 {
    own_of(ports())
}

fn own_of(ports: u32) -> u32 {
    OWN_SOCKETS.min(ports / OWN_PART)
}

/// How many flows a pool can have that has so many backends, behind so many listening sockets, if nobody else has any.
/// `files`: the limit of open files.
pub(crate) fn flows(backends: usize, listening: usize, files: u64) -> u64 {
    flows_of(backends as u64, listening as u64, files, ports())
}

fn flows_of(backends: u64, listening: u64, files: u64, ports: u32) -> u64 {
    let sockets = u64::from(ports).min(files.saturating_sub(OTHER_FILES + listening));
    let own = (u64::from(own_of(ports)) * listening).min(sockets);
    if backends == 0 { 0 } else { own + (sockets - own) * backends }
}

/// Ports that the kernel gives to sockets which ask for none: `net.ipv4.ip_local_port_range`, which counts for IPv6, too.
fn ports() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        // As the kernel has it unless told otherwise.
        _ => 28_232,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_times_backends_beyond_those_of_their_own() {
        assert_eq!(flows_of(1, 1, 1_000_000, 28_232), 28_232);
        assert_eq!(flows_of(4, 2, 1_000_000, 28_232), 2_048 + (28_232 - 2_048) * 4);
        assert_eq!(flows_of(2, 1, 1_000_000, 50), 3 + 47 * 2);
        assert_eq!(flows_of(0, 1, 1_000_000, 50), 0);
        assert_eq!(flows_of(10, 2, 1_258, 28_232), 1_000, "descriptors are fewer than ports");
    }
}
