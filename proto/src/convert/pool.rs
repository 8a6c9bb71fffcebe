//! Pools and their backends.

use awe4lb_model::{
    Backend, BackendAddress, BackendHost, Balance, Connect, HashOn, Locality, OnDown, Outlier, Pool,
    ProxyDatagrams, ProxyVersion, Tiers, WhenAllDown,
    placed::{Number, PlacedPool},
};
use bytes::Bytes;

use super::{
    At, at_most, discovery, duration, health, ip, ip_bytes, millis, name, number, optional_duration,
    optional_millis, port, positive,
};
use crate::{Noun, Problem, WireError, v1};

impl From<&PlacedPool> for v1::Pool {
    fn from(placed: &PlacedPool) -> Self {
        let pool = &placed.pool;
        Self {
            number: placed.number.0,
            name: pool.name.to_string(),
            balance: match pool.balance {
                Balance::Random => v1::Balance::Random,
                Balance::RoundRobin => v1::Balance::RoundRobin,
                Balance::LeastConn => v1::Balance::LeastConn,
                Balance::Hash => v1::Balance::Hash,
                Balance::Maglev => v1::Balance::Maglev,
                Balance::P2c => v1::Balance::P2c,
                Balance::Ewma => v1::Balance::Ewma,
                Balance::LeastBandwidth => v1::Balance::LeastBandwidth,
            }
            .into(),
            hash_on: match pool.hash_on {
                HashOn::Client => v1::HashOn::Client,
                HashOn::ClientPort => v1::HashOn::ClientPort,
                HashOn::Sni => v1::HashOn::Sni,
                HashOn::Listener => v1::HashOn::Listener,
            }
            .into(),
            backends: pool
                .backends
                .iter()
                .zip(&placed.backend_numbers)
                .map(|(backend, number)| backend_to_wire(backend, *number))
                .collect(),
            spill_when_full: pool.tiers.spill_when_full,
            min_usable: pool.tiers.min_usable,
            locality_spill_below: pool.locality.map(|locality| locality.spill_below.into()),
            manual_failback: !pool.tiers.auto_failback,
            single_active: pool.tiers.single_active,
            slow_start_ms: optional_millis(pool.slow_start),
            proxy_first_datagram: pool.proxy_datagrams == ProxyDatagrams::First,
            preserve_client_address: pool.preserve_client_address,
            on_down: match pool.on_down {
                OnDown::Auto => v1::OnDown::Unspecified,
                OnDown::Keep => v1::OnDown::Keep,
                OnDown::Close => v1::OnDown::Close,
                OnDown::Rechoose => v1::OnDown::Rechoose,
            }
            .into(),
            removed_drain_ms: pool.removed_drain.map(millis),
            sources: pool.discovery.iter().map(discovery::to_wire).collect(),
            health_check: pool.health_check.as_ref().map(health::to_wire),
            outlier_consecutive_failures: pool.outlier.consecutive_failures,
            outlier_ejection_ms: millis(pool.outlier.ejection),
            outlier_max_ejected_percent: pool.outlier.max_ejected_percent.into(),
            any_when_all_down: pool.when_all_down == WhenAllDown::Any,
            connect_timeout_ms: millis(pool.connect.timeout),
            connect_attempts: pool.connect.attempts,
            proxy_version: match pool.proxy_protocol {
                None => 0,
                Some(ProxyVersion::V1) => 1,
                Some(ProxyVersion::V2) => 2,
            },
        }
    }
}

impl TryFrom<v1::Pool> for PlacedPool {
    type Error = WireError;

    fn try_from(wire: v1::Pool) -> Result<Self, WireError> {
        let root = At::root(Noun::Pool);
        let backends_at = root.field("backends");
        let mut backends = Vec::with_capacity(wire.backends.len());
        let mut backend_numbers = Vec::with_capacity(wire.backends.len());
        for (index, backend) in wire.backends.into_iter().enumerate() {
            let (number, backend) = backend_from_wire(backend, backends_at.index(index))?;
            backend_numbers.push(number);
            backends.push(backend);
        }
        let sources_at = root.field("sources");
        let sources = wire.sources.into_iter().enumerate();
        let sources = sources.map(|(index, source)| discovery::from_wire(source, sources_at.index(index)));
        let percent =
            at_most(wire.outlier_max_ejected_percent, 100, root.field("outlier_max_ejected_percent"))?;
        let pool = Pool {
            name: name(&wire.name, root.field("name"))?,
            balance: balance(wire.balance, root.field("balance"))?,
            hash_on: hash_on(wire.hash_on, root.field("hash_on"))?,
            tiers: Tiers {
                spill_when_full: wire.spill_when_full,
                min_usable: wire.min_usable.max(1),
                auto_failback: !wire.manual_failback,
                single_active: wire.single_active,
            },
            locality: wire
                .locality_spill_below
                .map(|percent| at_most(percent, 100, root.field("locality_spill_below")))
                .transpose()?
                .map(|percent| Locality { spill_below: percent as u8 }),
            slow_start: optional_duration(wire.slow_start_ms),
            backends,
            discovery: sources.collect::<Result<_, _>>()?,
            health_check: wire
                .health_check
                .map(|check| health::from_wire(check, root.field("health_check")))
                .transpose()?,
            outlier: Outlier {
                consecutive_failures: wire.outlier_consecutive_failures,
                ejection: std::time::Duration::from_millis(wire.outlier_ejection_ms),
                max_ejected_percent: percent as u8,
            },
            when_all_down: if wire.any_when_all_down { WhenAllDown::Any } else { WhenAllDown::Reject },
            connect: Connect {
                timeout: duration(wire.connect_timeout_ms, root.field("connect_timeout_ms"))?,
                attempts: positive(wire.connect_attempts, root.field("connect_attempts"))?,
            },
            proxy_protocol: match wire.proxy_version {
                0 => None,
                1 => Some(ProxyVersion::V1),
                2 => Some(ProxyVersion::V2),
                other => {
                    let problem = Problem::UnknownValue(i32::try_from(other).unwrap_or(i32::MAX));
                    return Err(root.field("proxy_version").refuse(problem));
                }
            },
            proxy_datagrams: if wire.proxy_first_datagram {
                ProxyDatagrams::First
            } else {
                ProxyDatagrams::Every
            },
            preserve_client_address: wire.preserve_client_address,
            on_down: match v1::OnDown::try_from(wire.on_down) {
                Ok(v1::OnDown::Unspecified) => OnDown::Auto,
                Ok(v1::OnDown::Keep) => OnDown::Keep,
                Ok(v1::OnDown::Close) => OnDown::Close,
                Ok(v1::OnDown::Rechoose) => OnDown::Rechoose,
                Err(_) => return Err(root.field("on_down").refuse(Problem::UnknownValue(wire.on_down))),
            },
            removed_drain: wire.removed_drain_ms.map(std::time::Duration::from_millis),
        };
        Ok(Self { number: number(wire.number, root.field("number"))?, backend_numbers, pool })
    }
}

fn balance(wire: i32, at: At<'_>) -> Result<Balance, WireError> {
    match v1::Balance::try_from(wire) {
        Ok(v1::Balance::Random) => Ok(Balance::Random),
        Ok(v1::Balance::RoundRobin) => Ok(Balance::RoundRobin),
        Ok(v1::Balance::LeastConn) => Ok(Balance::LeastConn),
        Ok(v1::Balance::Hash) => Ok(Balance::Hash),
        Ok(v1::Balance::Maglev) => Ok(Balance::Maglev),
        Ok(v1::Balance::P2c) => Ok(Balance::P2c),
        Ok(v1::Balance::Ewma) => Ok(Balance::Ewma),
        Ok(v1::Balance::LeastBandwidth) => Ok(Balance::LeastBandwidth),
        Ok(v1::Balance::Unspecified) => Err(at.refuse(Problem::Missing)),
        Err(_) => Err(at.refuse(Problem::UnknownValue(wire))),
    }
}

fn hash_on(wire: i32, at: At<'_>) -> Result<HashOn, WireError> {
    match v1::HashOn::try_from(wire) {
        Ok(v1::HashOn::Client) => Ok(HashOn::Client),
        Ok(v1::HashOn::ClientPort) => Ok(HashOn::ClientPort),
        Ok(v1::HashOn::Sni) => Ok(HashOn::Sni),
        Ok(v1::HashOn::Listener) => Ok(HashOn::Listener),
        Ok(v1::HashOn::Unspecified) => Err(at.refuse(Problem::Missing)),
        Err(_) => Err(at.refuse(Problem::UnknownValue(wire))),
    }
}

pub(crate) fn backend_to_wire(backend: &Backend, number: Number) -> v1::Backend {
    let (ip, host) = match &backend.address.host {
        BackendHost::Ip(ip) => (ip_bytes(*ip), String::new()),
        BackendHost::Name(name) => (Bytes::new(), name.to_string()),
    };
    v1::Backend {
        number: number.0,
        name: backend.name.to_string(),
        ip,
        host,
        port: backend.address.port.unwrap_or(0).into(),
        weight: backend.weight,
        priority: backend.priority,
        max_connections: backend.max_connections,
        zone: backend.zone.as_deref().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn backend_from_wire(wire: v1::Backend, at: At<'_>) -> Result<(Number, Backend), WireError> {
    let host = match (wire.ip.is_empty(), wire.host.is_empty()) {
        (false, true) => BackendHost::Ip(ip(&wire.ip, at.field("ip"))?),
        (true, false) => BackendHost::Name(wire.host.into_boxed_str()),
        (true, true) => return Err(at.field("ip").refuse(Problem::Missing)),
        (false, false) => {
            let problem = Problem::Malformed("both an address and a host name".to_owned());
            return Err(at.field("host").refuse(problem));
        }
    };
    let backend = Backend {
        name: name(&wire.name, at.field("name"))?,
        address: BackendAddress {
            host,
            port: Some(port(wire.port, at.field("port"))?).filter(|port| *port != 0),
        },
        weight: at_most(wire.weight, u16::MAX.into(), at.field("weight"))?,
        priority: wire.priority,
        max_connections: wire.max_connections,
        zone: Some(wire.zone.into_boxed_str()).filter(|zone| !zone.is_empty()),
    };
    Ok((number(wire.number, at.field("number"))?, backend))
}
