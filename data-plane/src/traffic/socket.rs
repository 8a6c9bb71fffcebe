//! A connected TCP socket on a worker: readiness from the reactor, bytes by plain non-blocking calls.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    task::{Context, Poll},
};

use rustix::{
    net::{self, RecvFlags, SendFlags, Shutdown},
    pipe::{self, SpliceFlags},
};

use super::reactor::{Reactor, Ready, Token};
use crate::sys::options;

/// Closed and forgotten when dropped.
pub(super) struct Socket {
    fd: OwnedFd,
    token: Token,
    reactor: Rc<Reactor>,
    nagle: Cell<Nagle>,
}

/// Whether the kernel may hold back a small piece until the one before is acknowledged. It must not, as what a client sent
/// in one piece goes on in one piece; but a first small piece has none before it, and many connections send no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nagle {
    Off,
    /// On, and nothing was sent so far.
    Untouched,
    /// On, and one piece was sent.
    Sent,
}

/// What fits into one segment of every path (RFC 9293, 3.7.1).
const ONE_SEGMENT: usize = 536;

impl Socket {
    /// An accepted connection: nothing has arrived yet, but it can be written to.
    pub(super) fn accepted(fd: OwnedFd, reactor: &Rc<Reactor>) -> io::Result<Self> {
        // NODELAY is inherited from the listening socket.
        Self::new(fd, reactor, Ready { writable: true, ..Ready::default() }, Nagle::Off)
    }

    /// Starts to connect. `as_client`: the address that the other side is to see, which is not ours (IP_TRANSPARENT).
    pub(super) fn connect(
        to: SocketAddr,
        as_client: Option<SocketAddr>,
        reactor: &Rc<Reactor>,
    ) -> io::Result<Self> {
        let family = if to.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
        let flags = net::SocketFlags::NONBLOCK | net::SocketFlags::CLOEXEC;
        let fd = net::socket_with(family, net::SocketType::STREAM, flags, None)?;
        if let Some(client) = as_client {
            options::set_transparent(fd.as_fd(), to.is_ipv6())?;
            net::sockopt::set_socket_reuseaddr(&fd, true)?;
            net::bind(&fd, &client)?;
        }
        let writable = match net::connect(&fd, &to) {
            Ok(()) => true,
            Err(rustix::io::Errno::INPROGRESS) => false,
            Err(error) => return Err(error.into()),
        };
        Self::new(fd, reactor, Ready { writable, ..Ready::default() }, Nagle::Untouched)
    }

    fn new(fd: OwnedFd, reactor: &Rc<Reactor>, ready: Ready, nagle: Nagle) -> io::Result<Self> {
        let token = reactor.register(fd.as_fd(), ready)?;
        Ok(Self { fd, token, reactor: reactor.clone(), nagle: Cell::new(nagle) })
    }

    /// Ready when the connection stands, or with the reason why it never will.
    pub(super) fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.reactor.poll(self.token, cx, |ready| ready.writable).is_pending() {
            return Poll::Pending;
        }
        // Only an error is worth asking the socket for.
        if !self.ready().error {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match net::sockopt::socket_error(&self.fd) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(error.into()),
        })
    }

    pub(super) fn ready(&self) -> Ready {
        self.reactor.ready(self.token)
    }

    /// The caller is woken by the next event of this socket.
    pub(super) fn wake_with(&self, cx: &Context<'_>) {
        self.reactor.wake_with(self.token, cx);
    }

    pub(super) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.reactor.poll(self.token, cx, |ready| ready.readable)
    }

    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.reactor.poll(self.token, cx, |ready| ready.writable)
    }

    /// Bytes that are there; 0 is the end. A short read means that there are no more: readiness is cleared, unless the end
    /// has been announced, which is then the next thing to be read.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match retry(|| net::recv(&self.fd, &mut *buffer, RecvFlags::empty()).map(|(length, _)| length)) {
            Ok(length) => {
                if length > 0 && length < buffer.len() && !self.ready().read_closed {
                    self.reactor.clear_readable(self.token);
                }
                Ok(length)
            }
            Err(error) => Err(self.not_readable(error)),
        }
    }

    /// What the socket takes of `bytes`.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.before_send(bytes.len());
        match retry(|| net::send(&self.fd, bytes, SendFlags::NOSIGNAL)) {
            Ok(length) => {
                if length < bytes.len() {
                    self.reactor.clear_writable(self.token);
                }
                Ok(length)
            }
            Err(error) => Err(self.not_writable(error)),
        }
    }

    /// Moves bytes into a pipe without copying them. 0 is the end.
    pub(super) fn splice_into(&self, pipe: &OwnedFd, most: usize) -> io::Result<usize> {
        retry(|| pipe::splice(&self.fd, None, pipe, None, most, FLAGS))
            .map_err(|error| self.not_readable(error))
    }

    /// Moves bytes out of a pipe.
    pub(super) fn splice_from(&self, pipe: &OwnedFd, most: usize) -> io::Result<usize> {
        self.before_send(most);
        retry(|| pipe::splice(pipe, None, &self.fd, None, most, FLAGS))
            .map_err(|error| self.not_writable(error))
    }

    fn before_send(&self, length: usize) {
        match self.nagle.get() {
            Nagle::Off => {}
            Nagle::Untouched if length <= ONE_SEGMENT => self.nagle.set(Nagle::Sent),
            Nagle::Untouched | Nagle::Sent => {
                // Should it fail, bytes are late and not lost.
                let _ = net::sockopt::set_tcp_nodelay(&self.fd, true);
                self.nagle.set(Nagle::Off);
            }
        }
    }

    /// Where the other side connected to.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        let address = net::getsockname(&self.fd)?;
        SocketAddr::try_from(address).map_err(|_| io::ErrorKind::AddrNotAvailable.into())
    }

    /// No more bytes from us.
    pub(super) fn shutdown_write(&self) {
        // A peer that is gone already needs no telling.
        let _ = net::shutdown(&self.fd, Shutdown::Write);
    }

    /// Closing becomes a reset: the other side's reset stays one.
    pub(super) fn reset_on_close(&self) {
        let _ = net::sockopt::set_socket_linger(&self.fd, Some(std::time::Duration::ZERO));
    }

    fn not_readable(&self, error: rustix::io::Errno) -> io::Error {
        if error == rustix::io::Errno::AGAIN {
            self.reactor.clear_readable(self.token);
        }
        error.into()
    }

    fn not_writable(&self, error: rustix::io::Errno) -> io::Error {
        if error == rustix::io::Errno::AGAIN {
            self.reactor.clear_writable(self.token);
        }
        error.into()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reactor.forget(self.token);
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (Socket, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket::connect(listener.local_addr().unwrap(), None, &Reactor::new().unwrap()).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    fn is_nodelay(socket: &Socket) -> bool {
        net::sockopt::tcp_nodelay(&socket.fd).unwrap()
    }

    #[test]
    fn only_a_first_small_piece_goes_without_nodelay() {
        let (socket, _peer) = connected();
        socket.try_write(&[0; ONE_SEGMENT]).unwrap();
        assert!(!is_nodelay(&socket), "nothing can hold it back: the option would be a call for nothing");
        socket.try_write(b"x").unwrap();
        assert!(is_nodelay(&socket));
    }

    #[test]
    fn a_first_piece_of_several_segments_goes_with_nodelay() {
        let (socket, _peer) = connected();
        socket.try_write(&[0; ONE_SEGMENT + 1]).unwrap();
        assert!(is_nodelay(&socket), "its tail would wait for the acknowledgement of its head");
    }
}
