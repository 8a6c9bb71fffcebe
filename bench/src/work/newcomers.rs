//! Datagrams of which each comes from a client that was never seen: closed loop, some in flight. A unit is one that came back.
//!
//! One socket sends from addresses all over 127/8 (IP_PKTINFO), which costs no more than sending from one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{LONGEST_WAIT, Work, latencies};
use crate::sys::{self, Batch, Epoll};

/// What is silent for so long has lost what was in flight.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// The load.
pub struct Newcomers {
    epoll: Epoll,
    socket: UdpSocket,
    target: SocketAddrV4,
    most: usize,
    in_flight: usize,
    heard: Instant,
    begin: Instant,
    next: u32,
    returned: u64,
    lost: u64,
    latencies: Histogram<u64>,
    batch: Batch,
}

/// The address of the n-th client: none of those that other loads and backends use.
pub(super) fn client(n: u32) -> Ipv4Addr {
    let n = n % (200 * 250 * 250);
    Ipv4Addr::new(127, (40 + n / 62_500) as u8, (1 + n / 250 % 250) as u8, (1 + n % 250) as u8)
}

impl Newcomers {
    /// Opens the socket; the first step sends.
    pub fn open(target: SocketAddr, in_flight: usize) -> io::Result<Self> {
        let SocketAddr::V4(target) = target else { return Err(io::ErrorKind::Unsupported.into()) };
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        socket.set_nonblocking(true)?;
        let (epoll, socket) = (Epoll::new()?, UdpSocket::from(socket));
        epoll.add(&socket, 0, sys::READABLE)?;
        let now = Instant::now();
        let mut load = Self {
            epoll,
            socket,
            target,
            most: in_flight,
            in_flight: 0,
            heard: now,
            begin: now,
            next: 0,
            returned: 0,
            lost: 0,
            latencies: latencies(),
            batch: Batch::default(),
        };
        load.refill();
        Ok(load)
    }

    fn refill(&mut self) {
        while self.in_flight < self.most {
            let count = (self.most - self.in_flight).min(sys::BATCH);
            let now = (self.begin.elapsed().as_nanos() as u64).to_le_bytes();
            let mut sources = Vec::with_capacity(count);
            for slot in 0..count {
                self.batch.datagram_mut(slot, 64)[..8].copy_from_slice(&now);
                sources.push(client(self.next));
                self.next = self.next.wrapping_add(1);
            }
            let sent = self.batch.send_from(&self.socket, self.target, &sources).unwrap_or(0);
            self.lost += (count - sent) as u64;
            self.in_flight += sent;
            if sent < count {
                return;
            }
        }
    }

    fn receive(&mut self, wait: Duration) -> io::Result<()> {
        if self.epoll.wait(wait)?.is_empty() {
            return Ok(());
        }
        while let Ok(count) = self.batch.receive(&self.socket, sys::BATCH) {
            let now = self.begin.elapsed().as_nanos() as u64;
            for slot in 0..count {
                if let Some(sent) = self.batch.datagram(slot).get(..8).and_then(|bytes| bytes.try_into().ok())
                {
                    self.latencies.saturating_record(now.saturating_sub(u64::from_le_bytes(sent)));
                }
            }
            self.returned += count as u64;
            self.in_flight = self.in_flight.saturating_sub(count);
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// So many clients, each with one datagram there and back, and then silence.
    pub fn visit(target: SocketAddr, clients: usize) -> io::Result<Self> {
        let mut load = Self::open(target, 32)?;
        while (load.returned as usize) < clients {
            load.receive(LONGEST_WAIT)?;
            if load.heard.elapsed() > LOST_AFTER {
                return Err(io::Error::other(format!("{} of {clients} answers came", load.returned)));
            }
            if (load.next as usize) < clients {
                load.most = 32.min(load.in_flight + clients - load.next as usize);
                load.refill();
            }
        }
        Ok(load)
    }
}

impl Work for Newcomers {
    fn step(&mut self) -> io::Result<()> {
        self.receive(LONGEST_WAIT)?;
        if self.heard.elapsed() > LOST_AFTER {
            self.heard = Instant::now();
            self.lost += self.in_flight as u64;
            self.in_flight = 0;
        }
        self.refill();
        Ok(())
    }

    fn units(&self) -> u64 {
        self.returned
    }

    fn failed(&self) -> u64 {
        self.lost
    }

    fn latencies(&self) -> Option<&Histogram<u64>> {
        Some(&self.latencies)
    }

    fn restart_latencies(&mut self) {
        self.latencies.reset();
    }

    fn finish(&mut self, patience: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while self.in_flight > 0 && begin.elapsed() < patience.min(LOST_AFTER) {
            self.receive(LONGEST_WAIT)?;
        }
        self.lost += self.in_flight as u64;
        Ok(())
    }
}
