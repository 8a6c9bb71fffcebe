//! Datagrams: flows that keep some in flight each, closed loop. A unit is a datagram that came back.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{LONGEST_WAIT, Work, latencies, source};
use crate::{
    bytes::Pattern,
    sys::{self, Batch, Epoll},
};

/// A flow that hears nothing for so long has lost what was in flight.
const LOST_AFTER: Duration = Duration::from_millis(250);
/// Flow number, datagram number, time of sending: eight bytes each; the pattern follows.
const HEADER: usize = 24;

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    in_flight: usize,
    heard: Instant,
}

/// The load.
pub struct Datagrams {
    epoll: Epoll,
    flows: Vec<Flow>,
    each: usize,
    bytes: usize,
    begin: Instant,
    swept: Instant,
    next: u64,
    returned: u64,
    lost: u64,
    /// Datagrams that came back to the wrong flow or with other bytes.
    pub damaged: u64,
    latencies: Histogram<u64>,
    batch: Batch,
}

/// A socket of its own for a flow.
pub fn flow_socket(target: SocketAddr, number: u64, spread_sources: bool) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(1 << 20)?;
    if spread_sources && target.is_ipv4() {
        socket.bind(&SocketAddr::from((source(number), 0)).into())?;
    }
    socket.connect(&target.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Datagrams {
    /// Opens the flows; the first step sends.
    pub fn open(targets: &[SocketAddr], flows: usize, each: usize, bytes: usize) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let now = Instant::now();
        let mut open = Vec::with_capacity(flows);
        for number in 0..flows {
            let socket = flow_socket(targets[number % targets.len()], number as u64, true)?;
            epoll.add(&socket, number as u64, sys::READABLE)?;
            open.push(Flow { socket, in_flight: 0, heard: now });
        }
        let bytes = bytes.max(HEADER);
        let mut load = Self {
            epoll,
            flows: open,
            each,
            bytes,
            begin: now,
            swept: now,
            next: 0,
            returned: 0,
            lost: 0,
            damaged: 0,
            latencies: latencies(),
            batch: Batch::default(),
        };
        for index in 0..flows {
            load.send(index, each);
        }
        Ok(load)
    }

    fn send(&mut self, index: usize, count: usize) {
        let count = count.min(sys::BATCH);
        let now = self.begin.elapsed().as_nanos() as u64;
        for slot in 0..count {
            let number = self.next + slot as u64;
            let datagram = self.batch.datagram_mut(slot, self.bytes);
            datagram[0..8].copy_from_slice(&(index as u64).to_le_bytes());
            datagram[8..16].copy_from_slice(&number.to_le_bytes());
            datagram[16..24].copy_from_slice(&now.to_le_bytes());
            Pattern::new(number).fill(0, &mut datagram[HEADER..]);
        }
        self.next += count as u64;
        let flow = &mut self.flows[index];
        let sent = self.batch.send(&flow.socket, count, false).unwrap_or(0);
        self.lost += (count - sent) as u64;
        flow.in_flight += sent;
    }

    fn receive(&mut self, wait: Duration, refill: bool) -> io::Result<()> {
        for (token, _) in self.epoll.wait(wait)?.to_vec() {
            let index = token as usize;
            let Ok(count) = self.batch.receive(&self.flows[index].socket, self.each) else { continue };
            let now = self.begin.elapsed().as_nanos() as u64;
            for slot in 0..count {
                match read_header(self.batch.datagram(slot), self.bytes) {
                    Some((flow, sent_at)) if flow == token => {
                        self.returned += 1;
                        self.latencies.saturating_record(now.saturating_sub(sent_at));
                    }
                    _ => self.damaged += 1,
                }
            }
            let flow = &mut self.flows[index];
            flow.heard = Instant::now();
            flow.in_flight = flow.in_flight.saturating_sub(count);
            if refill {
                self.send(index, count);
            }
        }
        Ok(())
    }

    fn sweep(&mut self) {
        self.swept = Instant::now();
        for index in 0..self.flows.len() {
            let flow = &mut self.flows[index];
            if flow.heard.elapsed() > LOST_AFTER {
                flow.heard = Instant::now();
                self.lost += flow.in_flight as u64;
                flow.in_flight = 0;
                self.send(index, self.each);
            }
        }
    }
}

/// Flow and time of sending, when the bytes are as they were sent.
fn read_header(datagram: &[u8], bytes: usize) -> Option<(u64, u64)> {
    let field = |at: usize| datagram.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (flow, number, sent_at) = (field(0)?, field(8)?, field(16)?);
    let intact = datagram.len() == bytes && Pattern::new(number).matches(0, &datagram[HEADER..]);
    intact.then_some((flow, sent_at))
}

impl Work for Datagrams {
    fn step(&mut self) -> io::Result<()> {
        self.receive(LONGEST_WAIT, true)?;
        if self.swept.elapsed() > Duration::from_millis(50) {
            self.sweep();
        }
        Ok(())
    }

    fn units(&self) -> u64 {
        self.returned
    }

    fn failed(&self) -> u64 {
        self.lost + self.damaged
    }

    fn latencies(&self) -> Option<&Histogram<u64>> {
        Some(&self.latencies)
    }

    fn restart_latencies(&mut self) {
        self.latencies.reset();
    }

    fn finish(&mut self, patience: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while self.flows.iter().any(|flow| flow.in_flight > 0) && begin.elapsed() < patience.min(LOST_AFTER) {
            self.receive(LONGEST_WAIT, false)?;
        }
        self.lost += self.flows.iter().map(|flow| flow.in_flight as u64).sum::<u64>();
        Ok(())
    }
}
