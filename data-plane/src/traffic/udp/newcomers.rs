//! Clients without a flow wait in line when there are many: a flow costs much more than a datagram of one that is there,
//! and whoever is served must not wait behind a flood of those who are not.

use std::collections::VecDeque;

use awe4lb_engine::flows::{FlowId, FlowKey};
use awe4lb_model::EndReason;

use super::{
    quic::{Arrival, ClientRun},
    server::Server,
};

/// Flows that are begun for one batch of datagrams, while more of them wait in the kernel.
const A_BATCH: u32 = 16;
/// Who waits at most, and with how many bytes.
const LINE: usize = 4_096;
const BYTES: usize = 4 * 1024 * 1024;

/// The line of a listening socket and worker.
#[derive(Default)]
pub(super) struct Newcomers {
    line: VecDeque<Waiting>,
    bytes: usize,
    /// Flows that may still be begun for the batch at hand; `None`: any number.
    left: Option<u32>,
}

struct Waiting {
    key: FlowKey,
    bytes: Box<[u8]>,
    each: usize,
}

impl Newcomers {
    /// A batch begins. `more`: the kernel has others.
    pub(super) fn next_batch(&mut self, more: bool) {
        self.left = more.then_some(A_BATCH);
    }

    /// Whether a client's flow may be begun at once. Not while others wait: its own datagrams may be among theirs.
    fn may_begin(&mut self) -> bool {
        if !self.line.is_empty() {
            return false;
        }
        match &mut self.left {
            None => true,
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Some(_) => false,
        }
    }

    /// False: there is no room.
    fn put(&mut self, key: FlowKey, run: ClientRun<'_>) -> bool {
        if self.line.len() >= LINE || self.bytes + run.bytes.len() > BYTES {
            return false;
        }
        self.bytes += run.bytes.len();
        self.line.push_back(Waiting { key, bytes: run.bytes.into(), each: run.each });
        true
    }

    fn take(&mut self) -> Option<Waiting> {
        let next = self.line.pop_front()?;
        self.bytes -= next.bytes.len();
        Some(next)
    }
}

impl Server<'_> {
    /// The flow of a client that has none, if it gets one now.
    pub(super) fn begin_or_wait<'b>(
        &mut self,
        key: FlowKey,
        run: impl FnOnce() -> ClientRun<'b>,
        now: u64,
    ) -> Option<FlowId> {
        if self.newcomers.may_begin() {
            return self.begin_flow(key, run, now);
        }
        let run = run();
        if !self.newcomers.put(key, run) {
            self.listener.counters.dropped(run.datagrams().count() as u64, EndReason::DatagramOverflow);
        }
        None
    }

    fn begin_flow<'b>(
        &mut self,
        key: FlowKey,
        run: impl FnOnce() -> ClientRun<'b>,
        now: u64,
    ) -> Option<FlowId> {
        let arrival = if self.quic.is_some() { self.arrive(key, run(), now) } else { Arrival::New };
        match arrival {
            Arrival::New => self.start(key, None, now),
            Arrival::Of(id) => Some(id),
            Arrival::Done => None,
        }
    }

    /// Those next in line. True: there are more.
    pub(super) fn begin_waiting(&mut self, now: u64) -> bool {
        self.evictions = 0;
        for _ in 0..A_BATCH {
            let Some(next) = self.newcomers.take() else { return false };
            let run = ClientRun { bytes: &next.bytes, each: next.each };
            let there = self.flow_of(&next.key, now);
            let Some(id) = there.or_else(|| self.begin_flow(next.key, || run, now)) else { continue };
            for datagram in run.datagrams() {
                self.send_single(id, datagram, now);
            }
        }
        !self.newcomers.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn key(port: u16) -> FlowKey {
        let client = SocketAddr::from(([127, 0, 0, 1], port));
        FlowKey { client, local: client.ip() }
    }

    #[test]
    fn nobody_overtakes_and_the_line_has_an_end() {
        let run = ClientRun { bytes: &[7; 2_000], each: 1_000 };
        let mut newcomers = Newcomers::default();
        newcomers.next_batch(false);
        assert!((0..1_000).all(|_| newcomers.may_begin()), "without a crowd everybody begins at once");
        newcomers.next_batch(true);
        assert_eq!((0..1_000).filter(|_| newcomers.may_begin()).count(), 16);
        let fit = (0..u16::MAX).take_while(|port| newcomers.put(key(*port), run)).count();
        assert_eq!(fit, BYTES / 2_000);
        newcomers.next_batch(false);
        assert!(!newcomers.may_begin(), "not before those who wait");
        let order: Vec<u16> =
            std::iter::from_fn(|| newcomers.take()).map(|next| next.key.client.port()).collect();
        assert!(order.is_sorted() && order.len() == fit);
        assert!(newcomers.may_begin() && newcomers.bytes == 0);
    }
}
