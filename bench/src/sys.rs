//! The system calls that std and socket2 do not offer. The only module with `unsafe` in it.
#![expect(
    unsafe_code,
    reason = "epoll, batched datagrams and prctl have no safe wrapper among our dependencies"
)]

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr,
    time::Duration,
};

pub use libc::{SIGINT, SIGKILL, SIGTERM};

/// Readable, writable or hung up, reported on the change only.
pub const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// Readable, reported as long as it is.
pub const READABLE: u32 = libc::EPOLLIN as u32;
/// Writable, reported as long as it is.
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;

/// An epoll instance and the room for what it reports.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<(u64, u32)>,
}

impl Epoll {
    /// A new, empty instance.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a descriptor that is ours alone.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, owned by nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, events: Vec::with_capacity(512) })
    }

    /// Watches a descriptor; it leaves the set when it is closed.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        // SAFETY: `event` lives through the call; both descriptors are open.
        let done =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits at most `timeout` (nanoseconds count) and returns `(token, flags)` of what is ready.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<&[(u64, u32)]> {
        let mut ready = [libc::epoll_event { events: 0, u64: 0 }; 512];
        let spec = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: `ready` has the length that is passed, `spec` lives through the call, no signal mask is given.
        let count = unsafe {
            libc::epoll_pwait2(
                self.fd.as_raw_fd(),
                ready.as_mut_ptr(),
                ready.len() as i32,
                &spec,
                ptr::null(),
            )
        };
        self.events.clear();
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(&self.events) } else { Err(error) };
        }
        self.events.extend(ready.iter().take(count as usize).map(|event| (event.u64, event.events)));
        Ok(&self.events)
    }
}

/// Binds to an address and leaves the choice of the port to `connect`, so that one address serves 28,000 connections
/// to *each* destination and not in total.
pub fn bind_without_port(socket: &socket2::Socket, source: Ipv4Addr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is an int that lives through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(source, 0)).into())
}

/// Accepts one connection, nonblocking from birth. `WouldBlock` when none waits.
pub fn accept(listener: &impl AsRawFd) -> io::Result<TcpStream> {
    // SAFETY: no address is asked for, so no pointer is written to.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just accepted, owned by nobody else.
    Ok(unsafe { TcpStream::from_raw_fd(fd) })
}

/// How many datagrams one call takes or gives.
pub const BATCH: usize = 32;
/// The room of one datagram.
pub const DATAGRAM: usize = 2048;

/// Datagrams that are received and sent in one system call, with their peers.
pub struct Batch {
    bytes: Box<[[u8; DATAGRAM]; BATCH]>,
    lengths: [usize; BATCH],
    peers: [libc::sockaddr_in; BATCH],
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            bytes: Box::new([[0; DATAGRAM]; BATCH]),
            lengths: [0; BATCH],
            // SAFETY: a sockaddr_in of zeros is a valid value.
            peers: unsafe { mem::zeroed() },
        }
    }
}

impl Batch {
    /// The i-th datagram.
    pub fn datagram(&self, index: usize) -> &[u8] {
        &self.bytes[index][..self.lengths[index]]
    }

    /// Room for the i-th datagram, `length` bytes of it.
    pub fn datagram_mut(&mut self, index: usize, length: usize) -> &mut [u8] {
        self.lengths[index] = length.min(DATAGRAM);
        &mut self.bytes[index][..self.lengths[index]]
    }

    /// Receives what is there, at most `limit`. `WouldBlock` when nothing is.
    pub fn receive(&mut self, socket: &impl AsRawFd, limit: usize) -> io::Result<usize> {
        let limit = limit.min(BATCH);
        // SAFETY: zeros are valid for both types (null pointers, lengths 0).
        let mut vectors: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for index in 0..limit {
            vectors[index].iov_base = self.bytes[index].as_mut_ptr().cast();
            vectors[index].iov_len = DATAGRAM;
            headers[index].msg_hdr.msg_iov = &mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
            headers[index].msg_hdr.msg_name = ptr::from_mut(&mut self.peers[index]).cast();
            headers[index].msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        // SAFETY: every header points to buffers of ours that outlive the call, with their true lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                limit as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for (index, header) in headers.iter().enumerate().take(count as usize) {
            self.lengths[index] = header.msg_len as usize;
        }
        Ok(count as usize)
    }

    /// Sends the first `count` datagrams, to the peers they came from or to the peer the socket is connected to.
    /// Returns how many the kernel took.
    pub fn send(&mut self, socket: &impl AsRawFd, count: usize, to_peers: bool) -> io::Result<usize> {
        let count = count.min(BATCH);
        // SAFETY: zeros are valid for both types.
        let mut vectors: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for index in 0..count {
            vectors[index].iov_base = self.bytes[index].as_mut_ptr().cast();
            vectors[index].iov_len = self.lengths[index];
            headers[index].msg_hdr.msg_iov = &mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
            if to_peers {
                headers[index].msg_hdr.msg_name = ptr::from_mut(&mut self.peers[index]).cast();
                headers[index].msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
        }
        // SAFETY: every header points to buffers of ours that outlive the call, with their true lengths.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

impl Batch {
    /// Sends the first `count` datagrams from an unconnected socket to one address, each from an address of its own.
    /// Returns how many the kernel took.
    pub fn send_from(
        &mut self,
        socket: &impl AsRawFd,
        to: SocketAddrV4,
        sources: &[Ipv4Addr],
    ) -> io::Result<usize> {
        #[repr(C, align(8))]
        #[derive(Clone, Copy)]
        struct Control([u8; 64]);
        let count = sources.len().min(BATCH);
        // SAFETY: zeros are valid for all of these types.
        let (mut vectors, mut headers, mut name): (
            [libc::iovec; BATCH],
            [libc::mmsghdr; BATCH],
            libc::sockaddr_in,
        ) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        let mut controls = [Control([0; 64]); BATCH];
        for (index, source) in sources.iter().enumerate().take(count) {
            vectors[index].iov_base = self.bytes[index].as_mut_ptr().cast();
            vectors[index].iov_len = self.lengths[index];
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut name).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(*source).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            // SAFETY: the 64 bytes are aligned for a header, and hold one with this payload.
            unsafe {
                let size = mem::size_of::<libc::in_pktinfo>() as u32;
                header.msg_controllen = libc::CMSG_SPACE(size) as usize;
                let first = libc::CMSG_FIRSTHDR(header);
                (*first).cmsg_level = libc::IPPROTO_IP;
                (*first).cmsg_type = libc::IP_PKTINFO;
                (*first).cmsg_len = libc::CMSG_LEN(size) as usize;
                libc::CMSG_DATA(first).cast::<libc::in_pktinfo>().write_unaligned(info);
            }
        }
        // SAFETY: every header points to buffers of ours that outlive the call, with their true lengths.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

/// The child gets `signal` when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut Command, signal: i32) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Sends a signal to one process. A process that is gone already is no error.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Timers of this thread fire when they are due and not up to 50 µs later.
pub fn precise_timers() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Raises the soft limit of open files to the hard one; children inherit it.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// The hard limit of open files.
pub fn open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}
