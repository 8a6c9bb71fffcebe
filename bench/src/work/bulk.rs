//! Bulk: streams that take all that comes. A unit is a byte.

use std::{io, net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;

use super::{LONGEST_WAIT, PATIENCE, Work, source};
use crate::{
    sys::{self, Epoll},
    transport::{Tls, Transport, connect},
};

/// The load.
#[derive(Debug)]
pub struct Bulk {
    epoll: Epoll,
    streams: Vec<Option<Transport>>,
    buffer: Vec<u8>,
    received: u64,
    failed: u64,
}

impl Bulk {
    /// Opens the streams; the source starts to send at once.
    pub fn open(targets: &[SocketAddr], streams: usize, tls: Option<&Tls>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut open = Vec::with_capacity(streams);
        for number in 0..streams {
            let socket = connect(targets[number % targets.len()], Some(source(number as u64)), false)?;
            let mut stream = Transport::new(socket, tls)?;
            stream.handshake(PATIENCE)?;
            epoll.add(stream.socket(), number as u64, sys::READABLE)?;
            open.push(Some(stream));
        }
        Ok(Self { epoll, streams: open, buffer: vec![0; 128 << 10], received: 0, failed: 0 })
    }
}

impl Work for Bulk {
    fn step(&mut self) -> io::Result<()> {
        for (token, _) in self.epoll.wait(LONGEST_WAIT)?.to_vec() {
            let Some(stream) = &mut self.streams[token as usize] else { continue };
            // The socket may be drained by one reading of TLS, which then gives several.
            loop {
                match stream.read(&mut self.buffer) {
                    Ok(count) if count > 0 => self.received += count as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(_) | Err(_) => {
                        self.failed += 1;
                        self.streams[token as usize] = None;
                        break;
                    }
                }
                if !stream.buffers() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn units(&self) -> u64 {
        self.received
    }

    fn failed(&self) -> u64 {
        self.failed
    }

    fn latencies(&self) -> Option<&Histogram<u64>> {
        None
    }

    fn restart_latencies(&mut self) {}

    fn finish(&mut self, _patience: Duration) -> io::Result<()> {
        self.streams.clear();
        Ok(())
    }
}
