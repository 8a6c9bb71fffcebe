//! Whether this node may send as its clients, asked before a configuration that wants it goes live, and whether answers find
//! their way back to it.

mod way_back;

use std::{io, os::fd::AsFd as _};

use awe4lb_model::placed::{NodeConfig, ResourceId, ResourceKind};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{control::hot::Problem, sys::options};

/// One problem for each pool with `preserveClientAddress`, if it cannot be.
pub(super) fn check(config: &NodeConfig) -> Vec<Problem> {
    let mut pools = config.pools.iter().filter(|placed| placed.pool.preserve_client_address).peekable();
    if pools.peek().is_none() {
        return Vec::new();
    }
    let Err(error) = try_it() else {
        // Only a warning: routes may come later, and answers may take other ways to the node.
        for why in missing_ways() {
            tracing::warn!("preserveClientAddress: {why}");
        }
        return Vec::new();
    };
    pools
        .map(|placed| Problem {
            resource: ResourceId { kind: ResourceKind::Pool, name: placed.pool.name.clone() },
            code: "not-permitted",
            field_path: "/preserveClientAddress".to_owned(),
            message: format!("this node may not send as its clients: {error}. It needs CAP_NET_ADMIN"),
        })
        .collect()
}

/// What this machine lacks for `preserveClientAddress`, each in a sentence that says what to do. What other machines need,
/// and rules of the firewall, cannot be seen from here.
pub fn missing() -> Vec<String> {
    let permission = try_it().err();
    let permission =
        permission.map(|error| format!("it may not send as its clients: {error}. It needs CAP_NET_ADMIN"));
    permission.into_iter().chain(missing_ways()).collect()
}

fn missing_ways() -> Vec<String> {
    [("IPv4", "-4", "0.0.0.0/0", false), ("IPv6", "-6", "::/0", true)]
        .into_iter()
        .filter_map(|(name, flag, all, v6)| match way_back::is_there(v6) {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "answers by {name} do not find back: no mark leads packets for anybody to this machine. \
                 Run: ip {flag} rule add fwmark 1 lookup 100; ip {flag} route add local {all} dev lo table 100"
            )),
            Err(error) => Some(format!("routes of {name} cannot be asked: {error}")),
        })
        .collect()
}

fn try_it() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    options::set_transparent(socket.as_fd(), false)
}
