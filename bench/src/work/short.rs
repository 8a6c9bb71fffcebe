//! Short connections at a fixed rate: connect, (handshake,) request, echoed reply, end.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use slab::Slab;

use super::{LONGEST_WAIT, Work, due, latencies, source};
use crate::{
    bytes::Pattern,
    sys::{self, Epoll},
    transport::{Tls, Transport, connect},
};

/// Why a connection failed that was to resume a session.
pub const NOT_RESUMED: &str = "handshake: the session was not resumed";

/// What to connect to, and how.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Taken in turn.
    pub targets: Vec<SocketAddr>,
    /// Whether clients come from 127.0.0.2–20 in turn.
    pub spread_sources: bool,
    /// TLS, or plain.
    pub tls: Option<Tls>,
    /// Each connection resumes a session; one that does not has failed. Those of the warm-up fetch the tickets.
    pub resumed: bool,
    /// Bytes of the request; the reply must be the same bytes.
    pub request_bytes: usize,
    /// Connections a second, over all targets.
    pub rate: f64,
    /// Read to the end of the connection instead of closing with the last byte: slower, but then every byte that the
    /// other side sent is counted here, too.
    pub read_to_end: bool,
    /// After this a connection has failed.
    pub patience: Duration,
    /// No more than this many at once; what is due later starts late and its latency says so.
    pub most_open: usize,
}

/// What came of the connections to one target. Bytes are application bytes; wire bytes include TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Started, over all ends.
    pub started: u64,
    /// Completed as promised.
    pub completed: u64,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
    /// Connections (failed ones too) for which connect succeeded.
    pub connected: u64,
    /// Application bytes sent.
    pub sent: u64,
    /// Application bytes received.
    pub received: u64,
    /// TCP payload bytes sent.
    pub wire_sent: u64,
    /// TCP payload bytes received.
    pub wire_received: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asking,
    Listening,
    Ending,
    EndingWire,
}

#[derive(Debug)]
struct Connection {
    transport: Transport,
    target: usize,
    stage: Stage,
    intended: Instant,
    started: Instant,
    pattern: Pattern,
    sent: usize,
    received: usize,
}

/// The load.
#[derive(Debug)]
pub struct ShortConnections {
    spec: Spec,
    epoll: Epoll,
    connections: Slab<Connection>,
    begin: Instant,
    swept: Instant,
    started: u64,
    completed: u64,
    failed: u64,
    totals: Vec<Totals>,
    /// The first failures in words, with the second they happened in.
    pub first_failures: Vec<String>,
    latencies: Histogram<u64>,
    /// Since when latencies are of interest.
    warm: Option<Instant>,
    accepting: bool,
    request: Vec<u8>,
}

impl ShortConnections {
    /// A load that starts now.
    pub fn new(spec: Spec) -> io::Result<Self> {
        sys::precise_timers();
        let now = Instant::now();
        Ok(Self {
            epoll: Epoll::new()?,
            connections: Slab::new(),
            begin: now,
            swept: now,
            started: 0,
            completed: 0,
            failed: 0,
            totals: vec![Totals::default(); spec.targets.len()],
            first_failures: Vec::new(),
            latencies: latencies(),
            warm: None,
            accepting: true,
            request: vec![0; spec.request_bytes],
            spec,
        })
    }

    /// By target, in the order of the targets.
    pub fn totals(&self) -> &[Totals] {
        &self.totals
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.connections.len()
    }

    /// Starts what is due and serves what is ready, waiting no longer than `longest`.
    pub fn turn(&mut self, longest: Duration) -> io::Result<()> {
        let mut wait = longest;
        while self.accepting {
            let intended = due(self.begin, self.started, self.spec.rate);
            let now = Instant::now();
            if intended > now {
                wait = wait.min(intended - now);
                break;
            }
            if self.connections.len() >= self.spec.most_open {
                break;
            }
            self.start(intended, now)?;
        }
        let ready: Vec<(u64, u32)> = self.epoll.wait(wait)?.to_vec();
        for (token, _) in ready {
            self.advance(token as usize);
        }
        if self.swept.elapsed() > Duration::from_millis(100) {
            self.sweep();
        }
        Ok(())
    }

    fn start(&mut self, intended: Instant, now: Instant) -> io::Result<()> {
        let number = self.started;
        self.started += 1;
        let target = (number % self.spec.targets.len() as u64) as usize;
        self.totals[target].started += 1;
        let from = self.spec.spread_sources.then(|| source(number));
        let socket = match connect(self.spec.targets[target], from, true) {
            Ok(socket) => socket,
            Err(error) => {
                self.fail(target, &reason("connect", &error));
                return Ok(());
            }
        };
        let transport = Transport::new(socket, self.spec.tls.as_ref())?;
        let entry = self.connections.vacant_entry();
        self.epoll.add(transport.socket(), entry.key() as u64, sys::EDGE)?;
        entry.insert(Connection {
            transport,
            target,
            stage: Stage::Connecting,
            intended,
            started: now,
            pattern: Pattern::new(number),
            sent: 0,
            received: 0,
        });
        Ok(())
    }

    fn advance(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.proceed(&mut self.request, self.spec.read_to_end) {
            Ok(false) => {}
            Ok(true) => {
                let connection = &self.connections[key];
                let full = self.warm.is_some_and(|warm| connection.started > warm)
                    && self.spec.resumed
                    && connection.transport.full_handshake();
                self.close(key, full.then(|| NOT_RESUMED.to_owned()));
            }
            Err((step, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                debug_assert!(!step.is_empty());
            }
            Err((step, error)) => self.close(key, Some(reason(step, &error))),
        }
    }

    fn close(&mut self, key: usize, failure: Option<String>) {
        let connection = self.connections.remove(key);
        let (wire_in, wire_out) = connection.transport.wire();
        let totals = &mut self.totals[connection.target];
        totals.connected += u64::from(connection.stage != Stage::Connecting);
        totals.sent += connection.sent as u64;
        totals.received += connection.received as u64;
        totals.wire_sent += wire_out;
        totals.wire_received += wire_in;
        match failure {
            Some(failure) => self.fail(connection.target, &failure),
            None => {
                totals.completed += 1;
                self.completed += 1;
                let nanos = connection.intended.elapsed().as_nanos() as u64;
                self.latencies.saturating_record(nanos);
            }
        }
    }

    fn fail(&mut self, target: usize, failure: &str) {
        self.failed += 1;
        *self.totals[target].failures.entry(failure.to_owned()).or_default() += 1;
        if self.first_failures.len() < 20 {
            let at = self.begin.elapsed().as_secs_f64();
            self.first_failures.push(format!("{at:.3}s {}: {failure}", self.spec.targets[target]));
        }
    }

    fn sweep(&mut self) {
        self.swept = Instant::now();
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.started.elapsed() > self.spec.patience)
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let stage = self.connections[key].stage;
            self.close(key, Some(format!("{stage:?}: no progress in time")));
        }
    }
}

fn reason(step: &str, error: &io::Error) -> String {
    // The text of the system names the cause; ports and addresses would make every failure its own reason.
    format!("{step}: {error}")
}

impl Connection {
    /// Goes as far as the socket allows. `Ok(true)` at the end of all.
    fn proceed(&mut self, request: &mut [u8], read_to_end: bool) -> Result<bool, (&'static str, io::Error)> {
        if self.stage == Stage::Connecting {
            if let Some(error) = self.transport.socket().take_error().map_err(|error| ("connect", error))? {
                return Err(("connect", error));
            }
            self.stage = Stage::Asking;
        }
        if self.stage == Stage::Asking {
            self.pattern.fill(0, request);
            while self.sent < request.len() {
                self.sent += self.transport.write(&request[self.sent..]).map_err(|error| ("send", error))?;
            }
            self.stage = Stage::Listening;
        }
        let mut buffer = [0; 4096];
        if self.stage == Stage::Listening {
            self.flush()?;
            while self.received < request.len() {
                let count = self.transport.read(&mut buffer).map_err(|error| ("receive", error))?;
                if count == 0 {
                    return Err(("receive", io::Error::other("closed before the reply")));
                }
                let intact = self.pattern.matches(self.received as u64, &buffer[..count]);
                self.received += count;
                if !intact || self.received > request.len() {
                    return Err(("receive", io::Error::other("the reply is not the request")));
                }
            }
            self.transport.finish().map_err(|error| ("end", error))?;
            if !read_to_end {
                return Ok(true);
            }
            self.stage = Stage::Ending;
        }
        if self.stage == Stage::Ending {
            let count = self.transport.read(&mut buffer).map_err(|error| ("end", error))?;
            if count > 0 {
                self.received += count;
                return Err(("end", io::Error::other("more than the reply")));
            }
            self.stage = Stage::EndingWire;
        }
        self.transport.read_wire_to_end().map_err(|error| ("end", error))?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), (&'static str, io::Error)> {
        match self.transport.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(("send", error)),
            _ => Ok(()),
        }
    }
}

impl Work for ShortConnections {
    fn step(&mut self) -> io::Result<()> {
        self.turn(LONGEST_WAIT)
    }

    fn units(&self) -> u64 {
        self.completed
    }

    fn failed(&self) -> u64 {
        self.failed
    }

    fn latencies(&self) -> Option<&Histogram<u64>> {
        Some(&self.latencies)
    }

    fn restart_latencies(&mut self) {
        self.latencies.reset();
        self.warm = Some(Instant::now());
    }

    fn finish(&mut self, patience: Duration) -> io::Result<()> {
        self.accepting = false;
        let begin = Instant::now();
        while !self.connections.is_empty() && begin.elapsed() < patience {
            self.turn(LONGEST_WAIT)?;
        }
        for key in self.connections.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.close(key, Some("unfinished at the end".to_owned()));
        }
        Ok(())
    }
}
