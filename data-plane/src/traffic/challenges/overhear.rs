//! Finds an authority's ClientHello where nothing else reads one, without getting in the way.

use std::{future::poll_fn, io, rc::Rc, sync::Arc, task::Poll, time::Duration};

use awe4lb_engine::client_hello::{Sniff, sniff};
use rustls::ServerConfig;

use crate::traffic::{socket::Socket, timers::Timer, worker::Worker};

/// How long a connection is listened to. An authority speaks as soon as it is connected.
const EARSHOT: Duration = Duration::from_secs(5);

/// What happened first.
pub(super) enum Next {
    /// The client spoke.
    Bytes(Vec<u8>),
    /// The client has ended its direction. Whoever reads next finds that, too.
    End,
    /// The backend spoke, or nobody did in time.
    Quiet,
    /// The client is gone.
    Broken(io::Error),
}

/// Waits for the client, and for nobody longer than for the backend.
pub(super) async fn next(
    worker: &Rc<Worker>,
    client: &Socket,
    backend: Option<&Socket>,
    deadline: &Timer,
) -> Next {
    poll_fn(|cx| {
        while client.poll_readable(cx).is_ready() {
            let mut scratch = worker.scratch();
            match client.try_read(&mut scratch) {
                Ok(0) => return Poll::Ready(Next::End),
                Ok(length) => return Poll::Ready(Next::Bytes(scratch[..length].to_vec())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Next::Broken(error)),
            }
        }
        if backend.is_some_and(|backend| backend.poll_readable(cx).is_ready()) {
            return Poll::Ready(Next::Quiet);
        }
        deadline.poll_fired(cx).map(|()| Next::Quiet)
    })
    .await
}

/// Where TLS passes through unread: looks at the client's first bytes on their way to the backend that was dialled as
/// ever. As soon as the backend speaks or the bytes are anything else, `None`: `first` is to go on. An error: the client
/// broke the connection.
pub(in crate::traffic) async fn overhear(
    worker: &Rc<Worker>,
    client: &Socket,
    backend: &Socket,
    first: &mut Vec<u8>,
) -> io::Result<Option<Arc<ServerConfig>>> {
    listen(worker, client, Some(backend), first, &worker.timers().arm(EARSHOT)).await
}

/// Where TLS ends here without a rule that reads names: looks at the hello before the handshake, or before the client is
/// refused.
pub(in crate::traffic) async fn before_tls(
    worker: &Rc<Worker>,
    client: &Socket,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> io::Result<Option<Arc<ServerConfig>>> {
    listen(worker, client, None, first, deadline).await
}

async fn listen(
    worker: &Rc<Worker>,
    client: &Socket,
    backend: Option<&Socket>,
    first: &mut Vec<u8>,
    deadline: &Timer,
) -> io::Result<Option<Arc<ServerConfig>>> {
    loop {
        match sniff(first) {
            Sniff::NeedMore => {}
            Sniff::Hello(hello) => return Ok(worker.challenges().of_hello(&hello, worker.timers().now())),
            Sniff::NotTls | Sniff::Malformed | Sniff::TooLarge => return Ok(None),
        }
        match next(worker, client, backend, deadline).await {
            Next::Bytes(mut bytes) => first.append(&mut bytes),
            Next::Quiet | Next::End => return Ok(None),
            Next::Broken(error) => return Err(error),
        }
    }
}
