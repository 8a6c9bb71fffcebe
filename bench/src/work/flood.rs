//! Datagrams at a fixed rate of which each comes from the next of many addresses, and whose answers nobody waits for: what
//! an attacker with made-up addresses sends.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use super::{due, newcomers};
use crate::sys::{self, Batch};

/// The load.
pub struct Flood {
    socket: UdpSocket,
    target: SocketAddrV4,
    sources: u32,
    rate: f64,
    begin: Instant,
    batch: Batch,
    turns: u64,
    /// Datagrams that the kernel took.
    pub sent: u64,
}

impl Flood {
    /// Opens the socket. `rate` in datagrams a second.
    pub fn open(target: SocketAddr, sources: u32, rate: f64, bytes: usize) -> io::Result<Self> {
        let SocketAddr::V4(target) = target else { return Err(io::ErrorKind::Unsupported.into()) };
        sys::precise_timers();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let mut batch = Batch::default();
        for slot in 0..sys::BATCH {
            batch.datagram_mut(slot, bytes).fill(0x5a);
        }
        Ok(Self { socket, target, sources, rate, begin: Instant::now(), batch, turns: 0, sent: 0 })
    }

    /// Sends a batch when it is due, or waits for that for at most `longest`.
    pub fn turn(&mut self, longest: Duration) {
        let (intended, now) = (due(self.begin, self.turns, self.rate), Instant::now());
        if intended > now {
            return std::thread::sleep(longest.min(intended - now));
        }
        let next = |slot: u64| newcomers::client(((self.turns + slot) % u64::from(self.sources)) as u32);
        let sources: Vec<Ipv4Addr> = (0..sys::BATCH as u64).map(next).collect();
        self.sent += self.batch.send_from(&self.socket, self.target, &sources).unwrap_or(0) as u64;
        self.turns += sys::BATCH as u64;
    }
}
