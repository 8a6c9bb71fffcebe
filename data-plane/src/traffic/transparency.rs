//! Whether this node may send as its clients, asked before a configuration that wants it goes live.

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
    let Err(error) = try_it() else { return Vec::new() };
    pools
        .map(|placed| Problem {
            resource: ResourceId { kind: ResourceKind::Pool, name: placed.pool.name.clone() },
            code: "not-permitted",
            field_path: "/preserveClientAddress".to_owned(),
            message: format!("this node may not send as its clients: {error}. It needs CAP_NET_ADMIN"),
        })
        .collect()
}

fn try_it() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    options::set_transparent(socket.as_fd(), false)
}
