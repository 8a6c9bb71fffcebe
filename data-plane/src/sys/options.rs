//! Socket options that have no safe binding, and the queue of errors that ICMP brings.

#![expect(unsafe_code, reason = "these options and control messages have no safe binding here")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::mmsg::{Name, read_name};

/// Bytes that may wait in a socket for datagrams; the kernel doubles it and caps it at net.core.rmem_max. It is a bound:
/// a socket where nothing waits takes no more memory.
const BUFFER: libc::c_int = 4 * 1024 * 1024;

/// From now on the kernel tells which address a datagram was sent to: for sockets bound to every address.
pub fn ask_for_local_address(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Whether the kernel tells how each datagram was marked for congestion (ECN, RFC 3168).
pub fn ask_for_ecn(socket: BorrowedFd<'_>, v6: bool, wanted: bool) -> io::Result<()> {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, wanted.into())
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, wanted.into())
    }
}

/// Whether the kernel hands over datagrams that arrived as one run as one, and says how long each is.
pub fn ask_for_runs(socket: BorrowedFd<'_>, wanted: bool) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, wanted.into())
}

/// Room for a burst of datagrams in both directions; what finds none is counted by the kernel, and told with the next, or when
/// it is asked ([`dropped`]).
/// Nothing of it has to work: a socket with less room only loses more.
pub fn make_room(socket: BorrowedFd<'_>) {
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER);
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER);
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
}

/// What found the queue of the socket full since it was made, as the kernel counts it; wraps. `None`: it does not say.
pub fn dropped(socket: BorrowedFd<'_>) -> Option<u32> {
    // Of asm-generic/socket.h, which is that of all platforms of ours; libc does not have it.
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut told = [0u32; DROPS + 1];
    let mut length = size_of_val(&told) as libc::socklen_t;
    // SAFETY: the pointer and the length are of one array of integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            told.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of_val(&told)).then_some(told[DROPS])
}

/// From now on errors that ICMP brings are kept with the address they concern: for sockets that are not connected.
pub fn ask_for_errors(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// From now on the socket may be bound to addresses that are not this host's. Needs CAP_NET_ADMIN or CAP_NET_RAW.
pub fn set_transparent(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)
    }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length are of one integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next error that waits in the socket (see [`ask_for_errors`]): where the datagram that caused it went, if the
/// kernel says so, and what became of it. `None`: there is none.
pub fn next_error(socket: BorrowedFd<'_>) -> Option<(Option<SocketAddr>, io::Error)> {
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    let mut name = Name::EMPTY;
    let mut control = Control([0; 256]);
    let mut byte = [0u8; 1];
    let mut iovec = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = size_of::<Name>() as libc::socklen_t;
    header.msg_iov = &mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: the header points at locals that outlive the call.
    let got =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if got < 0 {
        return None;
    }
    let about = if header.msg_namelen > 0 { read_name(&name) } else { None };
    // SAFETY: the kernel filled the header and its control bytes; the payload is read unaligned, at the size of its type.
    let errno = unsafe {
        let mut found = libc::EIO;
        let mut at = libc::CMSG_FIRSTHDR(&header);
        while !at.is_null() {
            let kind = ((*at).cmsg_level, (*at).cmsg_type);
            if kind == (libc::IPPROTO_IP, libc::IP_RECVERR)
                || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            {
                let error = libc::CMSG_DATA(at).cast::<libc::sock_extended_err>().read_unaligned();
                found = i32::try_from(error.ee_errno).unwrap_or(libc::EIO);
            }
            at = libc::CMSG_NXTHDR(&header, at);
        }
        found
    };
    Some((about, io::Error::from_raw_os_error(errno)))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn an_error_says_whom_it_concerns() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        ask_for_errors(socket.as_fd(), false).unwrap();
        assert!(next_error(socket.as_fd()).is_none());
        socket.send_to(b"anybody?", gone).unwrap();
        let (about, error) = next_error(socket.as_fd()).expect("over loopback it is there at once");
        assert_eq!((about, error.raw_os_error()), (Some(gone), Some(libc::ECONNREFUSED)));
        assert!(next_error(socket.as_fd()).is_none());
    }
}
