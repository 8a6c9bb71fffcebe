//! Small echoes on kept connections, open loop: an echo has its time whether or not the one before has returned.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::{LONGEST_WAIT, PATIENCE, Work, due, latencies, source};
use crate::{
    sys::{self, Epoll},
    transport::{Tls, Transport, connect},
};

#[derive(Debug)]
struct Kept {
    transport: Transport,
    waiting: VecDeque<Instant>,
    partial: usize,
    broken: bool,
}

/// The load.
#[derive(Debug)]
pub struct Echoes {
    epoll: Epoll,
    connections: Vec<Kept>,
    message: Vec<u8>,
    rate: f64,
    begin: Instant,
    started: u64,
    done: u64,
    failed: u64,
    latencies: Histogram<u64>,
}

impl Echoes {
    /// Opens the connections one after the other, then starts.
    pub fn open(
        targets: &[SocketAddr],
        tls: Option<&Tls>,
        connections: usize,
        bytes: usize,
        rate: f64,
    ) -> io::Result<Self> {
        sys::precise_timers();
        let epoll = Epoll::new()?;
        let mut kept = Vec::with_capacity(connections);
        for number in 0..connections {
            let socket = connect(targets[number % targets.len()], Some(source(number as u64)), false)?;
            let mut transport = Transport::new(socket, tls)?;
            transport.handshake(PATIENCE)?;
            epoll.add(transport.socket(), number as u64, sys::READABLE)?;
            kept.push(Kept { transport, waiting: VecDeque::new(), partial: 0, broken: false });
        }
        Ok(Self {
            epoll,
            connections: kept,
            message: vec![0x61; bytes],
            rate,
            begin: Instant::now(),
            started: 0,
            done: 0,
            failed: 0,
            latencies: latencies(),
        })
    }

    /// Sends one message on every connection and waits for all of them; an error when one does not return.
    pub fn once_around(&mut self) -> io::Result<()> {
        for start in (0..self.connections.len()).step_by(64) {
            let end = (start + 64).min(self.connections.len());
            let (goal, begin) = (self.done + (end - start) as u64, Instant::now());
            for index in start..end {
                self.send(index, Instant::now());
            }
            while self.done < goal {
                if begin.elapsed() > PATIENCE || self.failed > 0 {
                    return Err(io::Error::other(format!("{} of {goal} echoes returned", self.done)));
                }
                self.receive(LONGEST_WAIT)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, index: usize, intended: Instant) {
        let kept = &mut self.connections[index];
        // A message that does not fit a socket buffer at this rate means that the other side has stopped.
        match kept.transport.write(&self.message) {
            Ok(count) if count == self.message.len() => kept.waiting.push_back(intended),
            _ => self.failed += 1,
        }
    }

    fn receive(&mut self, wait: Duration) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        for (token, _) in self.epoll.wait(wait)?.to_vec() {
            let kept = &mut self.connections[token as usize];
            // TLS takes all from the socket in one reading and gives it in several.
            while !kept.broken {
                match kept.transport.read(&mut buffer) {
                    Ok(count) if count > 0 => {
                        kept.partial += count;
                        let now = Instant::now();
                        while kept.partial >= self.message.len() {
                            kept.partial -= self.message.len();
                            if let Some(intended) = kept.waiting.pop_front() {
                                self.latencies.saturating_record((now - intended).as_nanos() as u64);
                                self.done += 1;
                            }
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(_) | Err(_) => {
                        kept.broken = true;
                        self.failed += 1;
                        let _ = kept.transport.socket().shutdown(std::net::Shutdown::Both);
                    }
                }
                if !kept.transport.buffers() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Work for Echoes {
    fn step(&mut self) -> io::Result<()> {
        let mut wait = LONGEST_WAIT;
        loop {
            let intended = due(self.begin, self.started, self.rate);
            let now = Instant::now();
            if intended > now {
                wait = wait.min(intended - now);
                break;
            }
            let index = (self.started % self.connections.len() as u64) as usize;
            self.started += 1;
            self.send(index, intended);
        }
        self.receive(wait)
    }

    fn units(&self) -> u64 {
        self.done
    }

    fn failed(&self) -> u64 {
        self.failed
    }

    fn latencies(&self) -> Option<&Histogram<u64>> {
        Some(&self.latencies)
    }

    fn restart_latencies(&mut self) {
        self.latencies.reset();
    }

    fn finish(&mut self, patience: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while self.connections.iter().any(|kept| !kept.waiting.is_empty()) && begin.elapsed() < patience {
            self.receive(LONGEST_WAIT)?;
        }
        self.failed += self.connections.iter().map(|kept| kept.waiting.len() as u64).sum::<u64>();
        Ok(())
    }
}
