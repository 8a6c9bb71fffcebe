//! Host names of backends: resolved on the node, every ten seconds; the last good answer is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use awe4lb_engine::health::Health;
use awe4lb_model::{
    BackendHost,
    placed::{Number, PlacedPool},
};
use futures_util::{StreamExt as _, stream};
use rand::Rng as _;

use super::live::Live;

const EVERY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
const CONCURRENT: usize = 8;

/// Who uses a name: pool, backend, and whether the backend is checked.
type Users = BTreeSet<(Number, Number, bool)>;

#[derive(Debug, Default)]
struct Host {
    users: Users,
    /// `None`: never asked. Empty: never answered.
    last: Option<Vec<IpAddr>>,
    failing: bool,
}

/// Resolves the names of what runs, for ever.
pub async fn run(live: Arc<Live>) {
    let mut seen = live.seen();
    let mut hosts: BTreeMap<Box<str>, Host> = BTreeMap::new();
    loop {
        let _ = seen.config();
        let mut wanted = names(&live.pools());
        hosts.retain(|name, _| wanted.contains_key(name));
        for (name, users) in &mut wanted {
            let host = hosts.entry(name.clone()).or_default();
            host.users = std::mem::take(users);
            if host.last.as_ref().is_some_and(|last| !last.is_empty()) {
                publish(&live, host);
            }
        }
        let new: Vec<Box<str>> =
            hosts.iter().filter(|(_, host)| host.last.is_none()).map(|(name, _)| name.clone()).collect();
        lookup(&live, &mut hosts, new).await;
        let wait = EVERY.mul_f64(rand::rng().random_range(0.9..1.1));
        tokio::select! {
            goes_on = live.changed(&mut seen) => if !goes_on { return },
            () = tokio::time::sleep(wait), if !hosts.is_empty() => {
                let all = hosts.keys().cloned().collect();
                lookup(&live, &mut hosts, all).await;
            }
        }
    }
}

fn names(pools: &[Arc<PlacedPool>]) -> BTreeMap<Box<str>, Users> {
    let mut names: BTreeMap<Box<str>, Users> = BTreeMap::new();
    for placed in pools {
        for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
            if let BackendHost::Name(name) = &backend.address.host {
                let user = (placed.number, *number, placed.pool.health_check.is_some());
                names.entry(name.clone()).or_default().insert(user);
            }
        }
    }
    names
}

async fn lookup(live: &Live, hosts: &mut BTreeMap<Box<str>, Host>, names: Vec<Box<str>>) {
    let mut answers = stream::iter(names)
        .map(|name| async move {
            let asked =
                tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((String::from(&*name), 0))).await;
            let answer = match asked {
                Ok(Ok(addresses)) => {
                    let addresses: BTreeSet<IpAddr> =
                        addresses.map(|address| address.ip().to_canonical()).collect();
                    Ok(addresses.into_iter().collect::<Vec<_>>())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            (name, answer)
        })
        .buffer_unordered(CONCURRENT);
    while let Some((name, answer)) = answers.next().await {
        let Some(host) = hosts.get_mut(&name) else { continue };
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                if host.failing {
                    tracing::info!(%name, "the name resolves again");
                }
                host.failing = false;
                if host.last.as_ref() != Some(&addresses) {
                    host.last = Some(addresses);
                    publish(live, host);
                }
            }
            answer => {
                let error = answer.err().unwrap_or_else(|| "no addresses".to_owned());
                if !host.failing {
                    tracing::warn!(%name, %error, "a backend's name does not resolve; the last answer is kept");
                }
                host.failing = true;
                if host.last.is_none() {
                    host.last = Some(Vec::new());
                    publish(live, host);
                }
            }
        }
    }
}

/// Tells the pools. A backend that is not checked is down as long as its name never resolved.
fn publish(live: &Live, host: &Host) {
    let addresses = host.last.clone().unwrap_or_default();
    let pools = live.path().pools();
    for (pool_number, backend, is_checked) in &host.users {
        let Some(pool) = pools.iter().find(|pool| pool.placed().number == *pool_number) else { continue };
        let before = pool.members().into_iter().find(|member| member.number == *backend);
        if before.as_ref().is_none_or(|member| member.addresses != addresses) {
            pool.set_resolved(*backend, addresses.clone());
        }
        if *is_checked {
            continue;
        }
        let health = if addresses.is_empty() { Health::Down } else { Health::Unknown };
        if before.is_none_or(|member| member.health != health) {
            let reason = if addresses.is_empty() { "the name does not resolve" } else { "" };
            pool.set_health(*backend, health, reason);
        }
    }
}
