//! UDP: sticky flows between clients and backends.

use std::{cell::RefCell, os::fd::OwnedFd, rc::Rc};

use super::{compile::SocketKey, local::LocalListener, reactor::Token, worker::Worker};

/// Where datagrams come in.
pub(super) struct Entrance {
    pub(super) key: SocketKey,
    /// Swapped when the configuration changes.
    pub(super) listener: Rc<RefCell<Rc<LocalListener>>>,
}

/// Serves one socket until the task is dropped.
pub(super) async fn serve(_worker: Rc<Worker>, _entrance: Entrance, _fd: &OwnedFd, _token: Token) {
    std::future::pending().await
}
