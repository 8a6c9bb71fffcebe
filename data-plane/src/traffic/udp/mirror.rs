//! Copies of what a client sends, for a backend whose answers go nowhere.
//!
//! Nothing of it reaches the flow itself: without a backend there are no copies, and what cannot be sent is dropped.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::Arc,
};

use awe4lb_model::EndReason;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::{
    super::{
        connection::Ending,
        counters::{Counters, Open},
        local::{Chosen, LocalPool},
    },
    extras::Introduction,
    send::is_refusal,
};
use crate::sys::mmsg::{self, Ecn};

/// Answers that the kernel may keep before it drops them: nobody reads any. It makes the least it can of it.
const NO_ROOM: usize = 1;

/// A flow's copies.
pub(super) struct Mirror {
    socket: OwnedFd,
    introduction: Option<Introduction>,
    pool: Rc<LocalPool>,
    chosen: Chosen,
    ending: Ending,
    _open: [Open; 2],
}

impl Mirror {
    /// To a backend that was chosen, at this address. Counted in its pool until it is dropped.
    pub(super) fn to(
        to: SocketAddr,
        pool: Rc<LocalPool>,
        chosen: Chosen,
        introduction: Option<Introduction>,
    ) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
        net::sockopt::set_socket_recv_buffer_size(&socket, NO_ROOM)?;
        net::connect(&socket, &to)?;
        let ending = Ending::new(pool.counters.clone());
        ending.also(&chosen.counters);
        let open = [Open::new(&pool.counters), Open::new(&chosen.counters)];
        Ok(Self { socket, introduction, pool, chosen, ending, _open: open })
    }

    /// Sends one. A full queue, or a backend that is not there, costs the copy.
    pub(super) fn copy(&mut self, payload: &[u8]) {
        let head = self.introduction.as_mut().map(Introduction::head).unwrap_or_default();
        let sent = if head.is_empty() {
            mmsg::send_one(self.socket.as_fd(), payload)
        } else {
            mmsg::send_parts(self.socket.as_fd(), None, head, payload, Ecn::default())
        };
        match sent {
            Ok(()) => self.each(|counters| {
                counters.datagrams_in.add(1);
                counters.bytes_in.add(payload.len() as u64);
            }),
            Err(error) => {
                if is_refusal(&error) {
                    self.pool.state.dial_failed(self.chosen.permit.member());
                }
                self.each(|counters| counters.dropped(1, EndReason::DatagramUnsent));
            }
        }
    }

    /// Why the flow ends, which counts when this is dropped.
    pub(super) fn because(&self, reason: EndReason) {
        self.ending.because(reason);
    }

    fn each(&self, count: impl Fn(&Arc<Counters>)) {
        count(&self.pool.counters);
        count(&self.chosen.counters);
    }
}
