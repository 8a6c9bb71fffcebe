//! Long streams whose every byte is checked: what returns must be what was sent, to the last byte and a clean end.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::source;
use crate::{
    bytes::Pattern,
    sys::{self, Epoll},
    transport::{Tls, Transport, connect},
};

/// What to open, and how fast to talk.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Taken in turn.
    pub targets: Vec<SocketAddr>,
    /// Whether clients come from 127.0.0.2–20 in turn.
    pub spread_sources: bool,
    /// TLS, or plain.
    pub tls: Option<Tls>,
    /// How many streams.
    pub count: usize,
    /// Bytes a second, each.
    pub bytes_per_second: f64,
}

/// What came of the streams to one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Streams that were opened.
    pub opened: u64,
    /// Streams that ended cleanly with every byte returned.
    pub intact: u64,
    /// All others.
    pub broken: u64,
    /// Application bytes sent.
    pub sent: u64,
    /// Application bytes received.
    pub received: u64,
    /// TCP payload bytes sent.
    pub wire_sent: u64,
    /// TCP payload bytes received.
    pub wire_received: u64,
}

/// As much may be on its way, per stream.
const IN_FLIGHT: u64 = 128 << 10;
const CHUNK: usize = 4 << 10;

#[derive(Debug)]
struct Stream {
    transport: Transport,
    target: usize,
    pattern: Pattern,
    sent: u64,
    received: u64,
    connected: bool,
    finished: bool,
    clean_end: bool,
    over: bool,
}

/// The streams.
#[derive(Debug)]
pub struct Streams {
    spec: Spec,
    epoll: Epoll,
    streams: Vec<Stream>,
    begin: Instant,
    totals: Vec<Totals>,
    /// What broke, in words.
    pub failures: Vec<String>,
    stopping: bool,
    buffer: Vec<u8>,
}

impl Streams {
    /// Starts to connect all streams.
    pub fn open(spec: Spec) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut streams = Vec::with_capacity(spec.count);
        let mut totals = vec![Totals::default(); spec.targets.len()];
        for number in 0..spec.count {
            let target = number % spec.targets.len();
            let from = spec.spread_sources.then(|| source(number as u64));
            let transport = Transport::new(connect(spec.targets[target], from, true)?, spec.tls.as_ref())?;
            epoll.add(transport.socket(), number as u64, sys::EDGE)?;
            totals[target].opened += 1;
            streams.push(Stream {
                transport,
                target,
                pattern: Pattern::new(0x5712_ea35 ^ number as u64),
                sent: 0,
                received: 0,
                connected: false,
                finished: false,
                clean_end: false,
                over: false,
            });
        }
        Ok(Self {
            spec,
            epoll,
            streams,
            begin: Instant::now(),
            totals,
            failures: Vec::new(),
            stopping: false,
            buffer: vec![0; 64 << 10],
        })
    }

    /// By target, in the order of the targets.
    pub fn totals(&self) -> &[Totals] {
        &self.totals
    }

    /// Streams that are not over.
    pub fn open_now(&self) -> usize {
        self.streams.iter().filter(|stream| !stream.over).count()
    }

    /// Sends nothing new, ends our direction of every stream, and still checks what returns.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Reads what is there and writes what is due.
    pub fn turn(&mut self, wait: Duration) -> io::Result<()> {
        // Edge-triggered: an event only says where to look; every stream is offered its due below.
        for (token, _) in self.epoll.wait(wait)?.to_vec() {
            self.streams[token as usize].connected = true;
        }
        let due = (self.begin.elapsed().as_secs_f64() * self.spec.bytes_per_second) as u64;
        for number in 0..self.streams.len() {
            let stream = &mut self.streams[number];
            if stream.over || !stream.connected {
                continue;
            }
            match stream.proceed(due, self.stopping, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) => self.close(number, None),
                Err(error) => self.close(number, Some(error)),
            }
        }
        Ok(())
    }

    /// Gives up on what has not ended.
    pub fn abandon(&mut self) {
        for number in 0..self.streams.len() {
            if !self.streams[number].over {
                self.close(number, Some(io::Error::other("unfinished at the end")));
            }
        }
    }

    fn close(&mut self, number: usize, error: Option<io::Error>) {
        let stream = &mut self.streams[number];
        stream.over = true;
        let (wire_in, wire_out) = stream.transport.wire();
        let totals = &mut self.totals[stream.target];
        totals.sent += stream.sent;
        totals.received += stream.received;
        totals.wire_sent += wire_out;
        totals.wire_received += wire_in;
        match error {
            None => totals.intact += 1,
            Some(error) => {
                totals.broken += 1;
                if self.failures.len() < 20 {
                    let (at, target) = (self.begin.elapsed().as_secs_f64(), self.spec.targets[stream.target]);
                    self.failures.push(format!(
                        "{at:.3}s stream {number} to {target}: {error} after {} sent, {} received",
                        stream.sent, stream.received
                    ));
                }
                let _ = stream.transport.socket().shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

impl Stream {
    /// `Ok` when the stream is over and intact; `WouldBlock` when there is nothing more to do now.
    fn proceed(&mut self, due: u64, stopping: bool, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(error) = self.transport.socket().take_error()? {
            return Err(error);
        }
        let mut chunk = [0; CHUNK];
        while !stopping && self.sent + CHUNK as u64 <= due && self.sent - self.received < IN_FLIGHT {
            self.pattern.fill(self.sent, &mut chunk);
            match self.transport.write(&chunk) {
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match self.transport.flush() {
            Ok(()) if stopping && !self.finished => {
                self.finished = true;
                self.transport.finish()?;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        while !self.clean_end {
            let count = self.transport.read(buffer)?;
            if count == 0 {
                if !self.finished || self.received != self.sent {
                    return Err(io::Error::other("ended early"));
                }
                self.clean_end = true;
                break;
            }
            if !self.pattern.matches(self.received, &buffer[..count]) {
                return Err(io::Error::other("other bytes than were sent"));
            }
            self.received += count as u64;
        }
        self.transport.read_wire_to_end()
    }
}
