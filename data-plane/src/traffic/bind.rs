//! Listening sockets: one a worker by SO_REUSEPORT, all of them made before anything live is touched.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use awe4lb_model::Protocol;
use socket2::{Domain, Socket, Type};

use super::compile::SocketKey;
use crate::sys::options;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Binds `key` once for each worker. The port of another process is an error, although SO_REUSEPORT might share it:
/// `probe` finds that out, and is left out only where a socket of ours holds the port until the change is made.
pub(super) fn bind(key: SocketKey, workers: usize, probe: bool) -> io::Result<Vec<OwnedFd>> {
    if probe {
        drop(bound(key, false)?);
    }
    (0..workers).map(|_| Ok(bound(key, true)?.into())).collect()
}

/// Whether this family does not exist here, so that `*` means the other one alone.
pub(super) fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bound(key: SocketKey, shared: bool) -> io::Result<Socket> {
    let kind = match key.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(key.address), kind.nonblocking().cloexec(), None)?;
    if key.address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if key.protocol == Protocol::Tcp {
        // Connections of an earlier process in TIME_WAIT do not hold the port.
        socket.set_reuse_address(true)?;
        // Accepted connections inherit it.
        socket.set_tcp_nodelay(true)?;
    } else {
        options::make_room(socket.as_fd());
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&key.address.into())?;
    Ok(socket)
}

/// Clients may connect from now on.
pub(super) fn listen(socket: &OwnedFd) -> io::Result<()> {
    rustix::net::listen(socket, BACKLOG).map_err(io::Error::from)
}
