//! The same as `pump` where TLS ends here: ciphertext on the client's side, plain bytes on the backend's.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use awe4lb_model::{EndReason, Side, TcpTimeouts};

use super::{
    deadlines::Deadlines, gate::Guard, local::Tally, pump::Broken, socket::Socket, tls::TlsSession,
    worker::Worker,
};

/// One read of ciphertext: a record and its frame.
const READ: usize = 16 * 1024 + 512;
const BUDGET: u64 = 512 * 1024;

enum Failure {
    Socket(Broken),
    /// Broken TLS, or an end without close_notify: never passed on as a clean end.
    Tls,
}

#[derive(Default)]
struct Up {
    /// Ciphertext that the session had no room for.
    ciphertext: Vec<u8>,
    /// Plaintext that the backend did not take.
    rest: Vec<u8>,
    finished: bool,
}

#[derive(Default)]
struct Down {
    ended: bool,
    finished: bool,
}

/// Copies until the end. `first` is ciphertext that came right behind the handshake.
#[expect(clippy::too_many_arguments, reason = "the parts of one connection")]
pub(super) async fn run(
    worker: &Rc<Worker>,
    client: &Socket,
    session: &mut TlsSession,
    first: Vec<u8>,
    backend: &Socket,
    timeouts: &TcpTimeouts,
    tally: &Tally,
    guard: &Guard<'_>,
) -> EndReason {
    let (mut up, mut down) = (Up { ciphertext: first, ..Up::default() }, Down::default());
    let mut deadlines = Deadlines::new(worker.timers(), timeouts);
    poll_fn(|cx| poll(worker, client, session, backend, &mut up, &mut down, &mut deadlines, tally, guard, cx))
        .await
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one connection; a struct of them would live only here"
)]
fn poll(
    worker: &Worker,
    client: &Socket,
    session: &mut TlsSession,
    backend: &Socket,
    up: &mut Up,
    down: &mut Down,
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
    let most = allowance.most() as u64;
    let (mut sent, mut received) = (0, 0);
    let moved = up.transfer(worker, client, session, backend, most, &mut sent).and_then(|up_more| {
        Ok(up_more | down.transfer(worker, client, session, backend, most, &mut received)?)
    });
    tally.add_in(sent);
    tally.add_out(received);
    guard.settle(&allowance, sent + received);
    let more = match moved {
        Ok(more) => more,
        Err(Failure::Socket(broken)) => return Poll::Ready(broken.pass_on(client, backend)),
        Err(Failure::Tls) => {
            // An alert may wait; the backend must not take this for a clean end.
            let _ = session.send(|bytes| client.try_write(bytes));
            backend.reset_on_close();
            return Poll::Ready(EndReason::TlsError);
        }
    };
    if up.finished && down.finished {
        return Poll::Ready(EndReason::Finished);
    }
    if let Some(reason) = deadlines.check(sent + received > 0, up.finished || down.finished, cx) {
        return Poll::Ready(reason);
    }
    if more {
        cx.waker().wake_by_ref();
    } else {
        client.wake_with(cx);
        backend.wake_with(cx);
    }
    Poll::Pending
}

impl Up {
    /// Client to backend. True: there may be more at once.
    fn transfer(
        &mut self,
        worker: &Worker,
        client: &Socket,
        session: &mut TlsSession,
        backend: &Socket,
        most: u64,
        moved: &mut u64,
    ) -> Result<bool, Failure> {
        while !self.finished {
            if !deliver(&mut self.rest, backend, moved)? {
                return Ok(false);
            }
            let mut scratch = worker.scratch();
            let (incoming, plain) = scratch.split_at_mut(READ);
            let length = session.read(plain);
            if length > 0 {
                let written = write(backend, &plain[..length])?;
                *moved += written as u64;
                self.rest.extend_from_slice(&plain[written..length]);
                continue;
            }
            if !self.ciphertext.is_empty() {
                let waiting = std::mem::take(&mut self.ciphertext);
                let taken = session.receive(&waiting).map_err(|_| Failure::Tls)?;
                self.ciphertext.extend_from_slice(&waiting[taken..]);
                continue;
            }
            if session.is_closed() {
                self.finished = true;
                backend.shutdown_write();
                break;
            }
            if !client.ready().readable {
                return Ok(false);
            }
            if *moved >= BUDGET.min(most) {
                return Ok(true);
            }
            let length = match client.try_read(incoming) {
                Ok(0) => return Err(Failure::Tls),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Failure::Socket(Broken::of(Side::Client, &error))),
            };
            let taken = session.receive(&incoming[..length]).map_err(|_| Failure::Tls)?;
            self.ciphertext.extend_from_slice(&incoming[taken..length]);
        }
        Ok(false)
    }
}

impl Down {
    /// Backend to client. True: there may be more at once.
    fn transfer(
        &mut self,
        worker: &Worker,
        client: &Socket,
        session: &mut TlsSession,
        backend: &Socket,
        most: u64,
        moved: &mut u64,
    ) -> Result<bool, Failure> {
        loop {
            match session.send(|bytes| client.try_write(bytes)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Failure::Socket(Broken::of(Side::Client, &error))),
            }
            if self.ended {
                if !self.finished {
                    self.finished = true;
                    client.shutdown_write();
                }
                return Ok(false);
            }
            if !backend.ready().readable {
                return Ok(false);
            }
            if *moved >= BUDGET.min(most) {
                return Ok(true);
            }
            let mut scratch = worker.scratch();
            // What is read here always fits: the session's buffer is empty and as large.
            let room = scratch.len().min(usize::try_from(most - *moved).unwrap_or(usize::MAX));
            match backend.try_read(&mut scratch[..room]) {
                Ok(0) => {
                    self.ended = true;
                    session.close();
                }
                Ok(length) => {
                    let taken = session.write(&scratch[..length]);
                    debug_assert_eq!(taken, length);
                    *moved += taken as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Failure::Socket(Broken::of(Side::Backend, &error))),
            }
        }
    }
}

/// False: the backend takes no more now.
fn deliver(rest: &mut Vec<u8>, backend: &Socket, moved: &mut u64) -> Result<bool, Failure> {
    if rest.is_empty() {
        return Ok(true);
    }
    if !backend.ready().writable {
        return Ok(false);
    }
    let written = write(backend, rest)?;
    *moved += written as u64;
    if written < rest.len() {
        rest.drain(..written);
        return Ok(false);
    }
    *rest = Vec::new();
    Ok(true)
}

fn write(backend: &Socket, bytes: &[u8]) -> Result<usize, Failure> {
    match backend.try_write(bytes) {
        Ok(length) => Ok(length),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(Failure::Socket(Broken::of(Side::Backend, &error))),
    }
}
