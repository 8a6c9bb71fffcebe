//! Copies both ways between a client and a backend until both directions have ended.
//!
//! Bytes go through the worker's one scratch buffer, which is always warm; what the receiver does not take at once is kept
//! in a buffer of its own size. A direction that proves to be a stream is spliced. An idle connection holds nothing.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use awe4lb_model::{EndReason, Side, TcpTimeouts};

use super::{
    deadlines::Deadlines,
    gate::Guard,
    local::Tally,
    socket::Socket,
    splice::{Pipe, Pipes},
    worker::Worker,
};

/// What one direction may move before others get their turn.
const BUDGET: usize = 1024 * 1024;
/// Full reads in a row after which a direction is a stream.
const STREAM_READS: u8 = 3;
/// A spliced piece smaller than this speaks against a stream.
const SMALL: usize = 16 * 1024;
/// Small pieces in a row after which it is none.
const SMALL_READS: u8 = 4;

/// The side that broke, and how.
pub(super) struct Broken {
    side: Side,
    reset: bool,
}

impl Broken {
    pub(super) fn of(side: Side, error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        Self { side, reset: matches!(error.kind(), ConnectionReset | BrokenPipe) }
    }

    /// A reset on one side is a reset on the other.
    pub(super) fn pass_on(&self, client: &Socket, backend: &Socket) -> EndReason {
        match self.side {
            Side::Client => {
                backend.reset_on_close();
                EndReason::ClientReset
            }
            Side::Backend | Side::Us => {
                client.reset_on_close();
                if self.reset { EndReason::BackendReset } else { EndReason::ResourceExhausted }
            }
        }
    }
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// Read but not yet taken by the receiver.
    rest: Vec<u8>,
    /// How much of `rest` was taken.
    taken: usize,
    pipe: Option<Pipe>,
    full_reads: u8,
    small_reads: u8,
    streaming: bool,
    cannot_splice: bool,
    /// The sender has ended.
    ended: bool,
    /// … and the receiver has been told, after everything was delivered.
    finished: bool,
}

/// How far a direction got in one turn.
struct Moved {
    bytes: u64,
    more: bool,
}

/// Copies until the end. `first` was read from the client before it was routed.
pub(super) async fn run(
    worker: &Rc<Worker>,
    client: &Socket,
    backend: &Socket,
    first: Vec<u8>,
    timeouts: &TcpTimeouts,
    tally: &Tally,
    guard: &Guard<'_>,
) -> EndReason {
    let mut up = Direction { rest: first, ..Direction::default() };
    let mut down = Direction::default();
    let mut deadlines = Deadlines::new(worker.timers(), timeouts);
    poll_fn(|cx| poll(worker, client, backend, &mut up, &mut down, &mut deadlines, tally, guard, cx)).await
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one connection; a struct of them would live only here"
)]
fn poll(
    worker: &Worker,
    client: &Socket,
    backend: &Socket,
    up: &mut Direction,
    down: &mut Direction,
    deadlines: &mut Deadlines,
    tally: &Tally,
    guard: &Guard<'_>,
    cx: &Context<'_>,
) -> Poll<EndReason> {
    if let Some(reason) = guard.revoked() {
        return Poll::Ready(reason);
    }
    let allowance = guard.allow(cx);
    if allowance.is_none() {
        // It is we who are slow: nobody is idle.
        if let Some(reason) = deadlines.check(true, up.finished || down.finished, cx) {
            return Poll::Ready(reason);
        }
        client.wake_with(cx);
        backend.wake_with(cx);
        return Poll::Pending;
    }
    let most = allowance.most();
    let sent = match up.transfer(client, backend, Side::Client, Side::Backend, down.finished, worker, most) {
        Ok(moved) => moved,
        Err(broken) => return Poll::Ready(broken.pass_on(client, backend)),
    };
    tally.add_in(sent.bytes);
    let most = most.saturating_sub(usize::try_from(sent.bytes).unwrap_or(usize::MAX));
    let finished = up.finished;
    let received = match down.transfer(backend, client, Side::Backend, Side::Client, finished, worker, most) {
        Ok(moved) => moved,
        Err(broken) => return Poll::Ready(broken.pass_on(client, backend)),
    };
    tally.add_out(received.bytes);
    guard.settle(&allowance, sent.bytes + received.bytes);
    if up.finished && down.finished {
        return Poll::Ready(EndReason::Finished);
    }
    let progress = sent.bytes + received.bytes > 0;
    if let Some(reason) = deadlines.check(progress, up.finished || down.finished, cx) {
        return Poll::Ready(reason);
    }
    if sent.more || received.more {
        cx.waker().wake_by_ref();
    } else {
        client.wake_with(cx);
        backend.wake_with(cx);
    }
    Poll::Pending
}

impl Direction {
    /// Moves what can be moved now. `other_finished`: nobody needs to be told of this end, as both sockets close.
    /// `most`: no more than that is read.
    #[expect(clippy::too_many_arguments, reason = "the two ends of a direction and what holds for it")]
    fn transfer(
        &mut self,
        from: &Socket,
        to: &Socket,
        sender: Side,
        receiver: Side,
        other_finished: bool,
        worker: &Worker,
        most: usize,
    ) -> Result<Moved, Broken> {
        let mut moved = 0;
        let more = loop {
            if !self.deliver(to, receiver, &mut moved)? {
                break false;
            }
            if self.ended {
                if !self.finished {
                    self.finished = true;
                    if !other_finished {
                        to.shutdown_write();
                    }
                }
                break false;
            }
            if !from.ready().readable {
                break false;
            }
            if moved >= BUDGET.min(most) {
                break true;
            }
            if !self.take(from, to, (sender, receiver), worker, most - moved, &mut moved)? {
                break false;
            }
        };
        // Nothing is held while nothing flows.
        self.pipe.take_if(|pipe| pipe.holds == 0);
        Ok(Moved { bytes: moved as u64, more })
    }

    /// Delivers what was read before. False: the receiver takes no more now.
    fn deliver(&mut self, to: &Socket, receiver: Side, moved: &mut usize) -> Result<bool, Broken> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.holds > 0) {
            if !to.ready().writable {
                return Ok(false);
            }
            let Some(end) = pipe.read_end() else { break };
            match to.splice_from(end, pipe.holds) {
                Ok(length) => {
                    pipe.holds -= length;
                    *moved += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Broken::of(receiver, &error)),
            }
        }
        while self.taken < self.rest.len() {
            if !to.ready().writable {
                return Ok(false);
            }
            match to.try_write(&self.rest[self.taken..]) {
                Ok(length) => {
                    self.taken += length;
                    *moved += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Broken::of(receiver, &error)),
            }
        }
        if self.taken > 0 {
            self.rest = Vec::new();
            self.taken = 0;
        }
        Ok(true)
    }

    /// Reads once and passes on. False: the sender has no more now.
    fn take(
        &mut self,
        from: &Socket,
        to: &Socket,
        (sender, receiver): (Side, Side),
        worker: &Worker,
        most: usize,
        moved: &mut usize,
    ) -> Result<bool, Broken> {
        if self.streaming
            && !self.cannot_splice
            && let Some(read) = self.splice(from, worker.pipes(), most).transpose()
        {
            return read.map_err(|error| Broken::of(sender, &error));
        }
        let mut scratch = worker.scratch();
        let whole = scratch.len();
        let length = match from.try_read(&mut scratch[..whole.min(most)]) {
            Ok(0) => {
                self.ended = true;
                return Ok(true);
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Broken::of(sender, &error)),
        };
        self.full_reads = if length == whole { self.full_reads + 1 } else { 0 };
        if self.full_reads >= STREAM_READS {
            (self.streaming, self.full_reads, self.small_reads) = (true, 0, 0);
        }
        let bytes = &scratch[..length];
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Broken::of(receiver, &error)),
        };
        *moved += written;
        if written < length {
            self.rest = bytes[written..].to_vec();
        }
        Ok(true)
    }

    /// `None`: this cannot be spliced now, copy instead.
    fn splice(&mut self, from: &Socket, pipes: &Rc<Pipes>, most: usize) -> io::Result<Option<bool>> {
        if self.pipe.is_none() {
            self.pipe = pipes.borrow();
        }
        let Some(pipe) = &mut self.pipe else { return Ok(None) };
        let Some(end) = pipe.write_end() else { return Ok(None) };
        match from.splice_into(end, pipe.most().min(most)) {
            Ok(0) => {
                self.ended = true;
                Ok(Some(true))
            }
            Ok(length) => {
                pipe.holds += length;
                self.small_reads = if length < SMALL { self.small_reads + 1 } else { 0 };
                self.streaming = self.small_reads < SMALL_READS;
                Ok(Some(true))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(false)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.cannot_splice = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
