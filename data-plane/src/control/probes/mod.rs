//! Active health checks: one small task a checked backend. Results go into the running pools.

mod ask;
mod exec;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use awe4lb_engine::{
    checks::Verdict,
    health::{self, Checked, Health},
};
use awe4lb_model::{
    CheckKind, HealthCheck, ProxyVersion,
    placed::{NodeConfig, Number, PlacedPool},
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{hot::PoolHandle, live::Live};
use ask::Asked;

/// Checks that run at the same time on one node.
const CONCURRENT: usize = 64;

/// What this node lets checks do.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Programs that checks of type `exec` may run, by their whole path. None: none.
    pub programs: Vec<String>,
}

/// What a check task was started for; another one takes its place when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    check: HealthCheck,
    port: u16,
    pool: Number,
    /// Checks introduce themselves where clients are introduced.
    proxy: Option<ProxyVersion>,
    /// For programs: who is checked.
    names: (String, String),
}

/// Keeps one task a checked backend of what runs, for ever.
pub async fn run(live: Arc<Live>, allowed: Allowed) {
    let allowed = Arc::new(allowed);
    let permits = Arc::new(Semaphore::new(CONCURRENT));
    let mut seen = live.seen();
    let mut tasks: HashMap<Number, (Spec, tokio::task::AbortHandle)> = HashMap::new();
    let mut set = JoinSet::new();
    loop {
        let wanted = wanted(&seen.config(), &live.pools());
        let pools: HashMap<Number, Arc<dyn PoolHandle>> =
            live.path().pools().into_iter().map(|pool| (pool.placed().number, pool)).collect();
        tasks.retain(|backend, (spec, task)| {
            let keep = wanted.get(backend) == Some(spec);
            if !keep {
                task.abort();
                // Without a check nothing is known; with another one the first result decides.
                if let (None, Some(pool)) = (wanted.get(backend), pools.get(&spec.pool)) {
                    pool.set_health(*backend, Health::Unknown, "");
                    pool.set_advice(*backend, Default::default());
                }
            }
            keep
        });
        for (backend, spec) in wanted {
            let Some(pool) = pools.get(&spec.pool) else { continue };
            tasks.entry(backend).or_insert_with(|| {
                let task = set.spawn(check_forever(
                    pool.clone(),
                    backend,
                    spec.clone(),
                    permits.clone(),
                    allowed.clone(),
                ));
                (spec, task)
            });
        }
        while set.try_join_next().is_some() {}
        if !live.changed(&mut seen).await {
            return;
        }
    }
}

/// All checked backends.
fn wanted(config: &NodeConfig, pools: &[Arc<PlacedPool>]) -> HashMap<Number, Spec> {
    let mut wanted = HashMap::new();
    for placed in pools {
        let Some(check) = &placed.pool.health_check else { continue };
        let proxy = match check.proxy_protocol {
            None => placed.pool.proxy_protocol,
            Some(false) => None,
            Some(true) => Some(placed.pool.proxy_protocol.unwrap_or(ProxyVersion::V2)),
        };
        for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
            let port = check.port.or(backend.address.port).or_else(|| listener_port(config, placed));
            let Some(port) = port else { continue };
            let names = (placed.pool.name.to_string(), backend.name.to_string());
            wanted.insert(*number, Spec { check: check.clone(), port, pool: placed.number, proxy, names });
        }
    }
    wanted
}

/// A backend without a port gets the port the client came to; its check the first port that leads to it.
fn listener_port(config: &NodeConfig, pool: &PlacedPool) -> Option<u16> {
    let leads = |rule: &awe4lb_model::Rule| rule.pools().any(|name| *name == pool.pool.name);
    let listener = config.listeners.iter().find(|placed| placed.listener.rules.iter().any(leads))?;
    listener.listener.bind.first().map(|bind| bind.port)
}

async fn check_forever(
    pool: Arc<dyn PoolHandle>,
    backend: Number,
    spec: Spec,
    permits: Arc<Semaphore>,
    allowed: Arc<Allowed>,
) {
    let mut state = Checked::new(spec.check.initial);
    let mut said = String::new();
    if state.health() != Health::Unknown {
        pool.set_health(backend, state.health(), "not checked yet");
    }
    tokio::time::sleep(health::first_check(spec.check.interval, rand::random())).await;
    loop {
        let started = tokio::time::Instant::now();
        let asked = {
            let Ok(_permit) = permits.acquire().await else { return };
            check(&pool, backend, &spec, &allowed).await
        };
        match asked {
            // Out of something on this node: says nothing about the backend.
            Asked::Ours(error) => {
                tracing::warn!(backend = backend.0, %error, "a health check could not run");
            }
            Asked::Answered(verdict) => {
                let changed = state.result(verdict.is_healthy, &spec.check);
                let is_down = state.health() == Health::Down;
                let is_new_reason = is_down && !verdict.is_healthy && verdict.reason != said;
                if let Some(advice) = verdict.advice {
                    pool.set_advice(backend, advice);
                }
                if changed.is_some() || is_new_reason {
                    said = if is_down { verdict.reason } else { String::new() };
                    pool.set_health(backend, state.health(), &said);
                }
            }
        }
        let fast = spec.check.fast_interval.filter(|_| state.is_unsure());
        let interval = fast.unwrap_or(spec.check.interval);
        tokio::time::sleep_until(started + health::next_check(interval, rand::random())).await;
    }
}

/// Asks one of the backend's addresses. All of it within the one timeout.
async fn check(pool: &Arc<dyn PoolHandle>, backend: Number, spec: &Spec, allowed: &Allowed) -> Asked {
    let addresses: Vec<IpAddr> = match spec.check.address {
        Some(address) => vec![address],
        None => {
            let member = pool.members().into_iter().find(|member| member.number == backend);
            member.map(|member| member.addresses).unwrap_or_default()
        }
    };
    let Some(first) = addresses.first().copied() else {
        return Asked::unhealthy("the name does not resolve");
    };
    let timeout = spec.check.timeout.max(Duration::from_millis(1));
    if let CheckKind::Exec(exec) = &spec.check.kind {
        let program = exec::Program {
            check: exec,
            pool: &spec.names.0,
            backend: &spec.names.1,
            address: SocketAddr::new(first, spec.port),
        };
        return program.run(allowed, timeout).await;
    }
    let targets = addresses.into_iter().map(|ip| SocketAddr::new(ip, spec.port));
    let asking = ask::ask(targets, &spec.check.kind, spec.proxy);
    tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| Asked::unhealthy("timeout"))
}

impl Asked {
    fn unhealthy(reason: impl Into<String>) -> Self {
        Self::Answered(Verdict { is_healthy: false, reason: reason.into(), advice: None })
    }
}
