//! PROXY headers on connections: read from the peers that must send one, written to backends of pools that want one.

use std::{net::SocketAddr, rc::Rc};

use awe4lb_engine::proxy_protocol::{Header, Outgoing, Parsed, Version, parse};
use awe4lb_model::{EndReason, ProxyVersion};

use super::{connection::wait_and_read, socket::Socket, timers::Timer, worker::Worker};

/// Reads a header; what came behind it stays in `first`.
pub(super) async fn read(
    worker: &Rc<Worker>,
    socket: &Socket,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> Result<Header, EndReason> {
    loop {
        match parse(first) {
            Parsed::NeedMore => {}
            Parsed::Header { header, length } => {
                first.drain(..length.min(first.len()));
                return Ok(header);
            }
            Parsed::NotProxy | Parsed::Malformed(_) => return Err(EndReason::BadProxyHeader),
        }
        first.append(&mut wait_and_read(worker, socket, deadline).await?);
    }
}

/// Tells a backend who the client is, before anything else. A header is far smaller than what an empty socket takes.
pub(super) fn send(
    backend: &Socket,
    version: ProxyVersion,
    source: SocketAddr,
    destination: SocketAddr,
) -> std::io::Result<()> {
    let header = header(version, false, source, destination);
    if backend.try_write(&header)? == header.len() {
        Ok(())
    } else {
        Err(std::io::ErrorKind::WriteZero.into())
    }
}

/// What goes to a backend first: for a client, or `is_local` for ourselves.
pub(crate) fn header(
    version: ProxyVersion,
    is_local: bool,
    source: SocketAddr,
    destination: SocketAddr,
) -> Vec<u8> {
    let version = match version {
        ProxyVersion::V1 => Version::V1,
        ProxyVersion::V2 => Version::V2,
    };
    let mut bytes = Vec::with_capacity(128);
    Outgoing { version, is_local, is_datagram: false, source, destination, tlvs: &[] }.write(&mut bytes);
    bytes
}
