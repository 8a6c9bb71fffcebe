//! A flow's way to its backend: a socket of its own, or a place on one that flows to different backends share.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use awe4lb_model::EndReason;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::{
    super::{
        counters::Counters,
        reactor::{Reactor, ReadyList, Token},
    },
    carriers::Lane,
};
use crate::sys::options;

/// Closed, or given back, when dropped.
pub(super) enum Upstream {
    /// Connected, so that refusals reach us and nobody else's datagrams do.
    Own(Own),
    /// One of several.
    Shared(Lane),
}

pub(super) struct Own {
    fd: OwnedFd,
    v6: bool,
    overflow: Overflow,
    watched: Option<(Token, Rc<Reactor>)>,
}

impl Upstream {
    /// A socket of its own. Never waits: UDP has nobody to wait for. `as_client`: the address that the backend is to see,
    /// which is not ours (IP_TRANSPARENT). `runs`: see [`options::ask_for_runs`].
    pub(super) fn connect(
        to: SocketAddr,
        as_client: Option<SocketAddr>,
        runs: bool,
        ecn: bool,
    ) -> io::Result<Self> {
        let fd = socket(to, ecn)?;
        if let Some(client) = as_client {
            options::set_transparent(fd.as_fd(), to.is_ipv6())?;
            // A client may have flows to several backends, by several listeners.
            net::sockopt::set_socket_reuseaddr(&fd, true)?;
            net::bind(&fd, &client)?;
        }
        net::connect(&fd, &to)?;
        // Without it datagrams come one by one, which is only slower.
        let _ = options::ask_for_runs(fd.as_fd(), runs);
        Ok(Self::Own(Own { fd, v6: to.is_ipv6(), overflow: Overflow::default(), watched: None }))
    }

    /// Its input is listed as `tag` from now on.
    pub(super) fn watch(&mut self, reactor: &Rc<Reactor>, list: &Rc<ReadyList>, tag: u64) -> io::Result<()> {
        match self {
            Self::Own(own) => {
                let token = reactor.register_listed(own.fd.as_fd(), list, tag)?;
                own.watched = Some((token, reactor.clone()));
            }
            Self::Shared(lane) => lane.carry(tag),
        }
        Ok(())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(own) => own.fd.as_fd(),
            Self::Shared(lane) => lane.fd(),
        }
    }

    /// Where datagrams have to be addressed to; `None`: the socket knows.
    pub(super) fn to(&self) -> Option<SocketAddr> {
        match self {
            Self::Own(_) => None,
            Self::Shared(lane) => Some(lane.to()),
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        match self {
            Self::Own(own) => own.v6,
            Self::Shared(lane) => lane.to().is_ipv6(),
        }
    }

    pub(super) fn overflow(&self) -> &Overflow {
        match self {
            Self::Own(own) => &own.overflow,
            Self::Shared(lane) => lane.overflow(),
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// What the kernel has said of a socket's full queue.
#[derive(Debug, Default)]
pub(super) struct Overflow(Cell<u32>);

impl Overflow {
    /// Counts what came to the kernel's total, which only grows. What waited in the queue tells an older one than
    /// [`Self::ask`] was told.
    pub(super) fn count(&self, total: u32, counters: &Counters) {
        let more = total.wrapping_sub(self.0.get());
        if more != 0 && more <= u32::MAX / 2 {
            self.0.set(total);
            counters.dropped(more.into(), EndReason::DatagramOverflow);
        }
    }

    /// Asks the kernel, which tells by itself only with the next datagram.
    pub(super) fn ask(&self, socket: BorrowedFd<'_>, counters: &Counters) {
        if let Some(total) = options::dropped(socket) {
            self.count(total, counters);
        }
    }
}

/// Of the family of `to`. `ecn`: see [`options::ask_for_ecn`].
pub(super) fn socket(to: SocketAddr, ecn: bool) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = net::socket_with(family, SocketType::DGRAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    options::make_room(fd.as_fd());
    if ecn {
        // Without it marks are lost on the way back, which is only slower.
        let _ = options::ask_for_ecn(fd.as_fd(), to.is_ipv6(), true);
    }
    Ok(fd)
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some((token, reactor)) = self.watched.take() {
            reactor.forget(token);
        }
    }
}
