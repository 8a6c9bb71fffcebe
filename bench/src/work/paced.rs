//! Datagrams at a fixed rate over a number of flows, every one numbered, so that what returned is known exactly.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{datagrams::flow_socket, due, latencies};
use crate::{
    bytes::Pattern,
    sys::{self, Batch, Epoll},
};

/// What came of the datagrams to one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Payload bytes of these.
    pub sent_bytes: u64,
    /// Datagrams that came back as they were sent.
    pub received: u64,
    /// Payload bytes of all that came back.
    pub received_bytes: u64,
    /// Datagrams that came back a second time.
    pub repeated: u64,
    /// Datagrams that came back to another flow, or with other bytes.
    pub damaged: u64,
    /// Sends that the kernel refused (a full buffer, an ICMP error from before).
    pub refused: u64,
}

#[derive(Debug)]
struct Flow {
    socket: UdpSocket,
    target: usize,
    returned: Vec<u64>,
    next: u64,
}

/// The load.
pub struct PacedDatagrams {
    epoll: Epoll,
    flows: Vec<Flow>,
    rate: f64,
    bytes: usize,
    begin: Instant,
    started: u64,
    totals: Vec<Totals>,
    /// Nanoseconds there and back.
    pub latencies: Histogram<u64>,
    batch: Batch,
    /// Whether new datagrams are sent.
    pub sending: bool,
}

/// Flow, number, time: eight bytes each.
const HEADER: usize = 24;

impl PacedDatagrams {
    /// Opens the flows.
    pub fn open(
        targets: &[SocketAddr],
        flows: usize,
        rate: f64,
        bytes: usize,
        spread_sources: bool,
    ) -> io::Result<Self> {
        sys::precise_timers();
        let epoll = Epoll::new()?;
        let mut open = Vec::with_capacity(flows);
        for number in 0..flows {
            let target = number % targets.len();
            let socket = flow_socket(targets[target], number as u64, spread_sources)?;
            epoll.add(&socket, number as u64, sys::READABLE)?;
            open.push(Flow { socket, target, returned: Vec::new(), next: 0 });
        }
        Ok(Self {
            epoll,
            flows: open,
            rate,
            bytes: bytes.clamp(HEADER, sys::DATAGRAM),
            begin: Instant::now(),
            started: 0,
            totals: vec![Totals::default(); targets.len()],
            latencies: latencies(),
            batch: Batch::default(),
            sending: true,
        })
    }

    /// By target, in the order of the targets.
    pub fn totals(&self) -> &[Totals] {
        &self.totals
    }

    /// Sends what is due, receives what is there.
    pub fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let mut wait = longest;
        while self.sending {
            let (intended, now) = (due(self.begin, self.started, self.rate), Instant::now());
            if intended > now {
                wait = wait.min(intended - now);
                break;
            }
            let index = (self.started % self.flows.len() as u64) as usize;
            self.started += 1;
            self.send(index);
        }
        for (token, _) in self.epoll.wait(wait)?.to_vec() {
            let index = token as usize;
            if let Ok(count) = self.batch.receive(&self.flows[index].socket, sys::BATCH) {
                self.account(index, count);
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let totals = &mut self.totals[flow.target];
        let sent_at = self.begin.elapsed().as_nanos() as u64;
        let datagram = self.batch.datagram_mut(0, self.bytes);
        datagram[0..8].copy_from_slice(&(index as u64).to_le_bytes());
        datagram[8..16].copy_from_slice(&flow.next.to_le_bytes());
        datagram[16..24].copy_from_slice(&sent_at.to_le_bytes());
        Pattern::new(index as u64 ^ (flow.next << 20)).fill(0, &mut datagram[HEADER..]);
        match flow.socket.send(datagram) {
            Ok(count) => {
                flow.next += 1;
                totals.sent += 1;
                totals.sent_bytes += count as u64;
            }
            Err(_) => totals.refused += 1,
        }
    }

    fn account(&mut self, index: usize, count: usize) {
        let now = self.begin.elapsed().as_nanos() as u64;
        for slot in 0..count {
            let datagram = self.batch.datagram(slot);
            let flow = &mut self.flows[index];
            let totals = &mut self.totals[flow.target];
            totals.received_bytes += datagram.len() as u64;
            let field = |at: usize| datagram.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
            let (Some(of), Some(number), Some(sent_at)) = (field(0), field(8), field(16)) else {
                totals.damaged += 1;
                continue;
            };
            let intact = of == index as u64
                && number < flow.next
                && datagram.len() == self.bytes
                && Pattern::new(of ^ (number << 20)).matches(0, &datagram[HEADER..]);
            if !intact {
                totals.damaged += 1;
                continue;
            }
            let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
            if flow.returned.len() <= word {
                flow.returned.resize(word + 1, 0);
            }
            if flow.returned[word] & bit != 0 {
                totals.repeated += 1;
                continue;
            }
            flow.returned[word] |= bit;
            totals.received += 1;
            self.latencies.saturating_record(now.saturating_sub(sent_at));
        }
    }
}
