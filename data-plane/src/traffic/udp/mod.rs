//! UDP: clients' datagrams to backends and back, by flows.
//!
//! One task a listening socket and worker. It takes datagrams in batches, sends those of one flow in runs, and hands all
//! answers of a turn to the kernel at once. No flow has a task, a timer or a buffer of its own.
//!
//! - `server`: a turn of the task, and what it knows
//! - `clients`: from clients to backends
//! - `begin`: how a flow comes to be
//! - `backends`: from backends to clients
//! - `endings`: what is over
//! - `upstream`, `carriers`: sockets to backends, a flow's own or shared
//! - `quic`, `connection_ids`: server names of QUIC, and flows that follow their client to another port
//! - `mirror`: copies for another pool
//! - `newcomers`: clients that wait for their flow when many come at once
//! - `room`: how many flows there can be
//! - `runs`, `send`: what goes together, and how it is sent

mod backends;
mod begin;
mod carriers;
mod clients;
mod connection_ids;
mod endings;
mod extras;
mod flow;
mod mirror;
mod newcomers;
mod quic;
pub(crate) mod room;
mod runs;
mod send;
mod server;
mod upstream;

use std::{cell::RefCell, os::fd::OwnedFd, rc::Rc};

pub(super) use connection_ids::ConnectionIds;
pub(super) use send::Scratch;

use super::{compile::SocketKey, local::LocalListener, reactor::Token, worker::Worker};

/// Where datagrams come in, and the listener they come to: swapped when the configuration changes.
pub(super) struct Entrance {
    pub(super) key: SocketKey,
    pub(super) listener: Rc<RefCell<Rc<LocalListener>>>,
}

/// Serves until it is dropped; then all its flows end.
pub(super) async fn serve(worker: Rc<Worker>, entrance: Entrance, socket: &OwnedFd, token: Token) {
    let mut server = server::Server::new(worker, entrance, socket, token);
    std::future::poll_fn(|cx| server.poll(cx)).await
}
