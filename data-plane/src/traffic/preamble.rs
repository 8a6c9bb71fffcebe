//! Requests for TLS that come before the ClientHello (PostgreSQL, LDAP): the client's is answered, and where TLS passes
//! through the backend is asked the same, so that both sides go on with their handshake.

use std::{future::poll_fn, io, rc::Rc, task::Poll, time::Duration};

use awe4lb_engine::preamble::{Answer, MAX_REFUSALS, Read, answer, read, request};
use awe4lb_model::{EndReason, Preamble};

use super::{connection::wait_and_read, socket::Socket, timers::Timer, worker::Worker};

/// Reads what the client says before TLS, and answers it. Afterwards `first` begins with TLS, or with the protocol itself.
/// Whether TLS was asked for.
pub(super) async fn take(
    worker: &Rc<Worker>,
    socket: &Socket,
    kind: Preamble,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> Result<bool, EndReason> {
    let mut refusals = 0;
    loop {
        match read(kind, first) {
            Read::NeedMore => {
                let mut more = wait_and_read(worker, socket, deadline).await?;
                first.append(&mut more);
            }
            Read::Tls | Read::Plain { .. } | Read::Cancel { .. } => return Ok(false),
            Read::StartTls { length, answer, .. } => {
                say(socket, &answer, deadline).await?;
                first.drain(..length.min(first.len()));
                return Ok(true);
            }
            Read::Refuse { length, answer } => {
                refusals += 1;
                if refusals > MAX_REFUSALS {
                    return Err(EndReason::BadPreamble);
                }
                say(socket, &answer, deadline).await?;
                first.drain(..length.min(first.len()));
            }
            Read::Malformed(_) => return Err(EndReason::BadPreamble),
        }
    }
}

/// Asks the backend for TLS, and waits until it agrees.
pub(super) async fn pass_on(
    worker: &Rc<Worker>,
    backend: &Socket,
    kind: Preamble,
    within: Duration,
) -> Result<(), EndReason> {
    let deadline = worker.timers().arm(within);
    let by_backend = |reason| match reason {
        EndReason::HandshakeTimeout => EndReason::DialTimeout,
        _ => EndReason::BackendReset,
    };
    say(backend, request(kind), &deadline).await.map_err(by_backend)?;
    let mut said = Vec::new();
    loop {
        match answer(kind, &said) {
            Answer::NeedMore => {
                let mut more = wait_and_read(worker, backend, &deadline).await.map_err(by_backend)?;
                said.append(&mut more);
            }
            // Bytes behind its answer would be taken for what TLS protects.
            Answer::Accepted { length } if length == said.len() => return Ok(()),
            Answer::Accepted { .. } | Answer::Refused | Answer::Malformed(_) => {
                return Err(EndReason::BackendRefusedTls);
            }
        }
    }
}

/// A few bytes; all of them.
pub(super) async fn say(socket: &Socket, bytes: &[u8], deadline: &Timer) -> Result<(), EndReason> {
    let mut rest = bytes;
    poll_fn(|cx| {
        while !rest.is_empty() {
            if socket.poll_writable(cx).is_pending() {
                return deadline.poll_fired(cx).map(|()| Err(EndReason::HandshakeTimeout));
            }
            match socket.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(EndReason::ClientGone)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
