//! Active health checks: one small task a checked backend. Results go into the running pools.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use awe4lb_engine::health::{self, Checked, Health};
use awe4lb_model::{
    HealthCheck, ProxyVersion,
    placed::{NodeConfig, Number, PlacedPool},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::Semaphore, task::JoinSet};

use super::{hot::PoolHandle, live::Live};
use crate::traffic::proxy;

/// Checks that run at the same time on one node.
const CONCURRENT: usize = 64;

/// What a check task was started for; another one takes its place when this changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spec {
    check: HealthCheck,
    port: u16,
    pool: Number,
    /// Checks introduce themselves where clients are introduced.
    proxy: Option<ProxyVersion>,
}

/// Keeps one task a checked backend of what runs, for ever.
pub async fn run(live: Arc<Live>) {
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut changes = live.watch();
    let mut tasks: HashMap<Number, (Spec, tokio::task::AbortHandle)> = HashMap::new();
    let mut set = JoinSet::new();
    loop {
        let config = changes.borrow_and_update().config.clone();
        let wanted = wanted(&config);
        let pools: HashMap<Number, Arc<dyn PoolHandle>> =
            live.path().pools().into_iter().map(|pool| (pool.placed().number, pool)).collect();
        tasks.retain(|backend, (spec, task)| {
            let keep = wanted.get(backend) == Some(spec);
            if !keep {
                task.abort();
                // Without a check nothing is known; with another one the first result decides.
                if let (None, Some(pool)) = (wanted.get(backend), pools.get(&spec.pool)) {
                    pool.set_health(*backend, Health::Unknown, "");
                }
            }
            keep
        });
        for (backend, spec) in wanted {
            let Some(pool) = pools.get(&spec.pool) else { continue };
            tasks.entry(backend).or_insert_with(|| {
                let task = set.spawn(check_forever(pool.clone(), backend, spec, permits.clone()));
                (spec, task)
            });
        }
        while set.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// All checked backends.
fn wanted(config: &NodeConfig) -> HashMap<Number, Spec> {
    let mut wanted = HashMap::new();
    for placed in &config.pools {
        let Some(check) = placed.pool.health_check else { continue };
        for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
            let port = check.port.or(backend.address.port).or_else(|| listener_port(config, placed));
            let Some(port) = port else { continue };
            wanted.insert(
                *number,
                Spec { check, port, pool: placed.number, proxy: placed.pool.proxy_protocol },
            );
        }
    }
    wanted
}

/// A backend without a port gets the port the client came to; its check the first port that leads to it.
fn listener_port(config: &NodeConfig, pool: &PlacedPool) -> Option<u16> {
    let leads = |rule: &awe4lb_model::Rule| rule.action.pools().any(|name| *name == pool.pool.name);
    let listener = config.listeners.iter().find(|placed| placed.listener.rules.iter().any(leads))?;
    listener.listener.bind.first().map(|bind| bind.port)
}

async fn check_forever(pool: Arc<dyn PoolHandle>, backend: Number, spec: Spec, permits: Arc<Semaphore>) {
    let mut state = Checked::default();
    let mut said = String::new();
    tokio::time::sleep(health::first_check(spec.check.interval, rand::random())).await;
    loop {
        let started = tokio::time::Instant::now();
        let result = {
            let Ok(_permit) = permits.acquire().await else { return };
            check(&pool, backend, spec).await
        };
        match result {
            Err(error) if is_ours(&error) => {
                tracing::warn!(backend = backend.0, %error, "a health check could not run");
            }
            result => {
                let reason = result.as_ref().err().map(reason).unwrap_or_default();
                let changed = state.result(result.is_ok(), &spec.check);
                let is_new_reason = state.health() == Health::Down && !reason.is_empty() && reason != said;
                if changed.is_some() || is_new_reason {
                    said = if state.health() == Health::Down { reason } else { String::new() };
                    pool.set_health(backend, state.health(), &said);
                }
            }
        }
        let next = started + health::next_check(spec.check.interval, rand::random());
        tokio::time::sleep_until(next).await;
    }
}

/// Connects to one of the backend's addresses and closes. All of them within the one timeout.
async fn check(pool: &Arc<dyn PoolHandle>, backend: Number, spec: Spec) -> io::Result<()> {
    let members = pool.members();
    let addresses: Vec<IpAddr> = members
        .into_iter()
        .find(|member| member.number == backend)
        .map(|member| member.addresses)
        .unwrap_or_default();
    if addresses.is_empty() {
        return Err(io::Error::other("the name does not resolve"));
    }
    let connect = async {
        let mut last = io::Error::other("no address");
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, spec.port)).await {
                Ok(stream) => return introduce(stream, spec.proxy).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    tokio::time::timeout(at_least(spec.check.timeout), connect)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "timeout")))
}

/// Says that this connection is the node's own.
async fn introduce(mut stream: TcpStream, proxy: Option<ProxyVersion>) -> io::Result<()> {
    let Some(version) = proxy else { return Ok(()) };
    let header = proxy::header(version, true, stream.local_addr()?, stream.peer_addr()?);
    stream.write_all(&header).await
}

fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

/// Out of something on this node: says nothing about the backend.
fn is_ours(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

/// In few words, always the same for the same cause.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        io::ErrorKind::TimedOut => "timeout".to_owned(),
        kind => kind.to_string(),
    }
}
