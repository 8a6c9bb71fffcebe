//! A flow's socket to its backend: connected, so that refusals reach us and nobody else's datagrams do.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::super::reactor::{Reactor, ReadyList, Token};
use crate::sys::mmsg;

/// Closed and forgotten when dropped.
pub(super) struct Upstream {
    fd: OwnedFd,
    watched: Option<(Token, Rc<Reactor>)>,
}

impl Upstream {
    /// Never waits: UDP has nobody to wait for.
    pub(super) fn connect(to: SocketAddr) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = net::socket_with(family, SocketType::DGRAM, flags, None)?;
        net::connect(&fd, &to)?;
        // Without it datagrams come one by one, which is only slower.
        let _ = mmsg::ask_for_runs(fd.as_fd());
        Ok(Self { fd, watched: None })
    }

    /// Its input is listed as `tag` from now on.
    pub(super) fn watch(&mut self, reactor: &Rc<Reactor>, list: &Rc<ReadyList>, tag: u64) -> io::Result<()> {
        let token = reactor.register_listed(self.fd.as_fd(), list, tag)?;
        self.watched = Some((token, reactor.clone()));
        Ok(())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some((token, reactor)) = self.watched.take() {
            reactor.forget(token);
        }
    }
}
