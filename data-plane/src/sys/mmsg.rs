//! Many datagrams a system call: recvmmsg, sendmmsg, and runs of equal datagrams as one send (UDP_SEGMENT, UDP_GRO).
//!
//! A [`Batch`] owns the bytes of what was received until it is cleared; [`Outbox`] sends pieces of a batch without
//! copying them. Neither knows flows, listeners or counters. One of each a worker thread.

#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and control messages have no safe binding here")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// Datagrams a batch holds.
pub const SLOTS: usize = 64;
/// The most datagrams the kernel takes in one send (UDP_MAX_SEGMENTS of the oldest kernels that have it).
pub const MAX_SEGMENTS: usize = 64;
/// The greatest payload of a UDP datagram over IPv4: the limit of a run, too.
pub const MAX_PAYLOAD: usize = 65_507;

/// Room for one datagram, or for several of one sender that the kernel glued together.
const SLOT_BYTES: usize = 65_536;
/// Slots do not start at the same place of a cache set.
const SLOT_STRIDE: usize = SLOT_BYTES + 5 * 64;

const CONTROL_BYTES: usize = 160;

/// Those of the bits of the traffic class that ECN has.
const ECN: u8 = 0b11;

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Room for an address of either family.
#[repr(C)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    pub(super) const EMPTY: Self = Self {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all-zero is a valid mmsghdr: null pointers with zero lengths.
    unsafe { std::mem::zeroed() }
}

/// What one slot holds.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Its slot.
    pub slot: u32,
    /// The sender; only with [`Source::Listener`].
    pub from: Option<SocketAddr>,
    /// The address it was sent to; only where the socket asks for it ([`super::options::ask_for_local_address`]).
    pub local: Option<IpAddr>,
    /// Bytes of payload.
    pub len: u32,
    /// Bytes of each datagram in it (the last may be shorter), or `len` when it is one.
    pub segment: u32,
    /// The kernel cut it: more than a datagram can be, so it never happens unless the kernel breaks its word.
    pub truncated: bool,
    /// Datagrams that found the socket's queue full since it was made; only where some did, and where the socket asks for
    /// it.
    pub overflow: Option<u32>,
    /// The two bits of ECN (RFC 3168), the same for all in it; 0 where the socket does not ask
    /// ([`super::options::ask_for_ecn`]).
    pub ecn: u8,
}

/// What is known about the socket that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Not connected: the sender is asked for.
    Listener,
    /// Connected: the sender is known.
    Connected,
}

/// Received datagrams. What was received stays until [`Batch::clear`].
pub struct Batch {
    /// Lazily mapped: only what is used costs memory.
    bytes: Vec<u8>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
    used: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            bytes: vec![0; SLOTS * SLOT_STRIDE],
            headers: (0..SLOTS).map(|_| empty_header()).collect(),
            iovecs: (0..SLOTS).map(|_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }).collect(),
            names: (0..SLOTS).map(|_| Name::EMPTY).collect(),
            controls: (0..SLOTS).map(|_| Control([0; CONTROL_BYTES])).collect(),
            used: 0,
        }
    }
}

impl Batch {
    /// Slots that are free.
    pub fn room(&self) -> usize {
        SLOTS - self.used
    }

    /// Nothing of it is needed any more.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The bytes of a piece of a slot.
    pub fn payload(&self, slot: u32, offset: u32, len: u32) -> &[u8] {
        let start = slot as usize * SLOT_STRIDE + offset as usize;
        &self.bytes[start..start + len as usize]
    }

    /// Receives at most `most` messages into free slots and tells the slots they are in. Fewer than asked for means
    /// that nothing more was there. Never blocks.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        source: Source,
        most: usize,
    ) -> io::Result<std::ops::Range<u32>> {
        let count = most.min(self.room());
        let first = self.used;
        for slot in first..first + count {
            let bytes = &mut self.bytes[slot * SLOT_STRIDE..][..SLOT_BYTES];
            self.iovecs[slot] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: SLOT_BYTES };
            let header = &mut self.headers[slot].msg_hdr;
            (header.msg_name, header.msg_namelen) = match source {
                Source::Listener => (ptr::from_mut(&mut self.names[slot]).cast(), size_of::<Name>() as u32),
                Source::Connected => (ptr::null_mut(), 0),
            };
            header.msg_iov = &mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
        }
        let headers = self.headers[first..first + count].as_mut_ptr();
        // SAFETY: `count` headers from `headers` on were just set to point at slots of this batch that live as long.
        let received = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers, count as u32, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        self.used += received as usize;
        Ok(first as u32..self.used as u32)
    }

    /// What is in a slot that [`Batch::receive`] told.
    pub fn received(&self, slot: u32) -> Received {
        let header = &self.headers[slot as usize];
        let len = header.msg_len.min(SLOT_BYTES as u32);
        let mut received = Received {
            slot,
            from: None,
            local: None,
            len,
            segment: len,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            overflow: None,
            ecn: 0,
        };
        if header.msg_hdr.msg_namelen > 0 {
            received.from = read_name(&self.names[slot as usize]);
        }
        if header.msg_hdr.msg_controllen > 0 {
            read_control(&header.msg_hdr, &mut received);
        }
        received
    }
}

pub(super) fn read_name(name: &Name) -> Option<SocketAddr> {
    // SAFETY: every variant starts with the family, and the union is always initialised to its full size.
    match i32::from(unsafe { name.family }) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let v4 = unsafe { &name.v4 };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let v6 = unsafe { &name.v6 };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_name(address: SocketAddr) -> (Name, libc::socklen_t) {
    match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            };
            (Name { v4 }, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            (Name { v6 }, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

fn read_control(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: the header was filled by the kernel and points at the control bytes of its slot; the macros stay in
    // them, and each payload is read unaligned, at the size its type has by contract.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let segment = data.cast::<libc::c_int>().read_unaligned();
                    if let Ok(segment @ 1..) = u32::try_from(segment) {
                        received.segment = segment.min(received.len);
                    }
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    received.local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    received.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    received.ecn = data.cast::<u8>().read_unaligned() & ECN;
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    received.ecn = data.cast::<libc::c_int>().read_unaligned() as u8 & ECN;
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    received.overflow = Some(data.cast::<u32>().read_unaligned());
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}

/// Bytes of a batch that go out in one send, together with others of the same run.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Where in the batch.
    pub slot: u32,
    /// Where in the slot.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

/// One send: a datagram, or several of `segment` bytes (the last may be shorter) that the kernel cuts apart.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The receiver; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// The address of ours it comes from; `None`: the socket's.
    pub from: Option<IpAddr>,
    /// Of the pieces, where its own start …
    pub first_piece: u32,
    /// … and how many they are.
    pub pieces: u32,
    /// Bytes of each datagram; 0: it is one.
    pub segment: u16,
    /// How it is marked for congestion; of the family of the socket.
    pub ecn: Ecn,
}

/// A mark for congestion that goes out with datagrams (ECN, RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ecn {
    /// The two bits; 0: none, which costs nothing.
    pub bits: u8,
    /// Whether the socket speaks IPv6.
    pub v6: bool,
}

/// The system's side of sends. Holds nothing between two calls but room.
#[derive(Default)]
pub struct Outbox {
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
}

impl Outbox {
    /// Sends runs in their order. Gives how many were sent when at least one was, or the error of the first.
    /// Never blocks. Only the first [`SLOTS`] runs are looked at.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        batch: &Batch,
        runs: &[Run],
        pieces: &[Piece],
    ) -> io::Result<usize> {
        let runs = &runs[..runs.len().min(SLOTS)];
        self.iovecs.clear();
        for run in runs {
            for piece in &pieces[run.first_piece as usize..][..run.pieces as usize] {
                let bytes = batch.payload(piece.slot, piece.offset, piece.len);
                self.iovecs
                    .push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            }
        }
        if self.headers.len() < runs.len() {
            self.headers.resize_with(runs.len(), empty_header);
            self.names.resize_with(runs.len(), || Name::EMPTY);
            self.controls.resize_with(runs.len(), || Control([0; CONTROL_BYTES]));
        }
        let mut vector = 0;
        for (index, run) in runs.iter().enumerate() {
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = self.iovecs[vector..].as_mut_ptr();
            header.msg_iovlen = run.pieces as usize;
            vector += run.pieces as usize;
            (header.msg_name, header.msg_namelen) = match run.to {
                Some(to) => {
                    let (name, len) = write_name(to);
                    self.names[index] = name;
                    (ptr::from_mut(&mut self.names[index]).cast(), len)
                }
                None => (ptr::null_mut(), 0),
            };
            header.msg_controllen = write_control(&mut self.controls[index], run);
            header.msg_control = if header.msg_controllen == 0 {
                ptr::null_mut()
            } else {
                self.controls[index].0.as_mut_ptr().cast()
            };
        }
        // SAFETY: the headers point at vectors, names and controls of this outbox and at bytes of `batch`, all of
        // which stay where they are during the call; the kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                runs.len() as u32,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

/// Sends one datagram on a connected socket: the cheapest call there is for it. Never blocks.
pub fn send_one(socket: BorrowedFd<'_>, payload: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length are of one slice.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            payload.as_ptr().cast(),
            payload.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one datagram that is made of two parts; `to`: nobody when the socket is connected. Never blocks.
pub fn send_parts(
    socket: BorrowedFd<'_>,
    to: Option<SocketAddr>,
    head: &[u8],
    payload: &[u8],
    ecn: Ecn,
) -> io::Result<()> {
    let mut parts = [head, payload]
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut header = empty_header().msg_hdr;
    let mut name = to.map(write_name);
    if let Some((name, length)) = &mut name {
        header.msg_name = ptr::from_mut(name).cast();
        header.msg_namelen = *length;
    }
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len();
    let mut control = Control([0; CONTROL_BYTES]);
    let used = push_ecn(&mut control, 0, ecn);
    if used > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used;
    }
    // SAFETY: the header points at locals and at the two slices, which outlive the call; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes the control messages of a run and gives their length.
fn write_control(control: &mut Control, run: &Run) -> usize {
    let mut used = 0;
    if run.segment > 0 {
        used = push_control(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, run.segment);
    }
    used = push_ecn(control, used, run.ecn);
    match run.from {
        Some(IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            push_control(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        Some(IpAddr::V6(from)) => {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
            push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
        None => used,
    }
}

fn push_ecn(control: &mut Control, used: usize, ecn: Ecn) -> usize {
    let bits = libc::c_int::from(ecn.bits);
    match (ecn.bits, ecn.v6) {
        (0, _) => used,
        (_, false) => push_control(control, used, libc::IPPROTO_IP, libc::IP_TOS, bits),
        (_, true) => push_control(control, used, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, bits),
    }
}

fn push_control<T: Copy>(control: &mut Control, used: usize, level: i32, kind: i32, value: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: CMSG_LEN, CMSG_SPACE and CMSG_DATA only compute.
    let (len, space) = unsafe { (libc::CMSG_LEN(size) as usize, libc::CMSG_SPACE(size) as usize) };
    assert!(used + space <= CONTROL_BYTES, "the control messages of one run fit");
    let at = control.0[used..].as_mut_ptr().cast::<libc::cmsghdr>();
    // SAFETY: `space` bytes from `at` on lie in the control bytes, `used` is a sum of CMSG_SPACEs and so aligned for
    // a header, and the value is written unaligned.
    unsafe {
        at.write(libc::cmsghdr { cmsg_len: len, cmsg_level: level, cmsg_type: kind });
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
    }
    used + space
}

#[cfg(test)]
#[path = "mmsg_tests.rs"]
mod tests;
