//! Finds a backend that answers: candidates in the pool's order, each with its time, until one stands.

use std::{future::poll_fn, io, net::SocketAddr, rc::Rc, sync::Arc, task::Poll, time::Instant};

use awe4lb_engine::affinity::{AffinityTable, Membership};
use awe4lb_model::EndReason;
use rand::RngCore;

use super::{
    local::{Chosen, Hashable, LocalPool},
    socket::Socket,
    worker::Worker,
};

/// A backend that answered.
pub(super) struct Dialled {
    pub(super) socket: Socket,
    pub(super) chosen: Chosen,
    /// How long it took.
    pub(super) micros: u32,
    /// Of the listener's group, until the connection ends. Boxed: few have one.
    pub(super) _membership: Option<Box<Membership>>,
}

/// Dials until one answers, the attempts are used up, or nobody is left. Not a byte has been sent so far, so that the next
/// candidate is always safe.
pub(super) async fn dial(
    worker: &Rc<Worker>,
    pool: &LocalPool,
    hashable: &Hashable<'_>,
    listener_port: u16,
    group: Option<&(Arc<AffinityTable>, u64)>,
) -> Result<Dialled, EndReason> {
    let mut tried = Vec::new();
    let mut last = None;
    let (client, now) = (hashable.client, worker.timers().now());
    let preferred = group.and_then(|(group, ttl)| group.backend_of(client.ip(), now, *ttl));
    let hashable = &Hashable { preferred, ..*hashable };
    loop {
        let chosen = pool.choose(&mut tried, hashable, &mut worker.rng(), worker.counters());
        // What the last attempt died of says more than that nobody is left.
        let chosen = chosen.map_err(|none| last.unwrap_or(none))?;
        let connect = chosen.members.placed.pool.connect;
        let from = Instant::now();
        let as_client = chosen.members.placed.pool.preserve_client_address.then_some(client);
        match attempt(worker, &chosen, listener_port, as_client, connect.timeout).await {
            Ok(socket) => {
                let micros = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
                for counters in [&pool.counters, &chosen.counters] {
                    counters.dials.add(1);
                    counters.dial_micros.add(micros);
                }
                pool.state.dial_succeeded(chosen.permit.member(), Some(micros));
                let seed = chosen.members.view.seed_of(chosen.index as usize);
                let join = |((group, ttl), seed): (&(Arc<AffinityTable>, u64), u64)| {
                    Box::new(group.join(client.ip(), seed, now, *ttl))
                };
                return Ok(Dialled {
                    socket,
                    micros: u32::try_from(micros).unwrap_or(u32::MAX),
                    _membership: group.zip(seed).map(join),
                    chosen,
                });
            }
            Err(reason) => {
                chosen.counters.end(reason);
                // A shortage of ours says nothing of the backend.
                if reason != EndReason::ResourceExhausted {
                    pool.state.dial_failed(chosen.permit.member());
                }
                tried.push(chosen.index);
                last = Some(reason);
                if tried.len() >= connect.attempts as usize {
                    return Err(reason);
                }
            }
        }
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    chosen: &Chosen,
    listener_port: u16,
    as_client: Option<SocketAddr>,
    timeout: std::time::Duration,
) -> Result<Socket, EndReason> {
    let random = worker.rng().next_u64();
    let address = chosen.permit.member().address(listener_port, random).ok_or(EndReason::NoBackend)?;
    let socket = Socket::connect(address, as_client, worker.reactor()).map_err(|error| reason(&error))?;
    let timer = worker.timers().arm(timeout);
    let connected = poll_fn(|cx| match socket.poll_connected(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|error| reason(&error))),
        Poll::Pending => timer.poll_fired(cx).map(|()| Err(EndReason::DialTimeout)),
    });
    connected.await?;
    Ok(socket)
}

fn reason(error: &io::Error) -> EndReason {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            EndReason::ResourceExhausted
        }
        Some(libc::ETIMEDOUT) => EndReason::DialTimeout,
        _ => EndReason::DialFailed,
    }
}
