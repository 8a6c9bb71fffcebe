//! Listeners that terminate TLS for clients that say whom they want, and for no others.

use std::{net::IpAddr, rc::Rc};

use awe4lb_engine::client_hello::ServerName;
use awe4lb_model::EndReason;

use super::{connection::read_hello, socket::Socket, timers::Timer, worker::Worker};

/// A fatal `missing_extension` alert, as RFC 8446 section 9.2 has it for a client that sends no name.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 109];

/// Lets a client pass that sends a host name. What is no TLS at all passes too: the handshake says so.
pub(super) async fn demand(
    worker: &Rc<Worker>,
    client: &Socket,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> Result<(), EndReason> {
    let Some(hello) = read_hello(worker, client, first, deadline).await? else { return Ok(()) };
    if hello.server_name.as_ref().is_some_and(is_host_name) {
        return Ok(());
    }
    let _ = client.try_write(&ALERT);
    Err(EndReason::SniMissing)
}

/// An address is none (RFC 6066 section 3), and the certificate is chosen as if nothing had been sent.
fn is_host_name(name: &ServerName) -> bool {
    name.as_str().parse::<IpAddr>().is_err()
}
