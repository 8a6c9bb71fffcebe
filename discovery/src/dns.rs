//! Names: A, AAAA (RFC 1035, 3596) and SRV (RFC 2782), over UDP and, where the answer is cut, TCP.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use awe4lb_model::{
    BackendAddress, BackendHost,
    discovery::{DnsSource, DnsSourceRecord, may_be_backend},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType, rdata::SRV},
};

use crate::{Answer, Endpoint, Failure};

/// A weight of 0 means a very small chance beside others (RFC 2782), where ours means none: others count so much more.
const LITTLE: u32 = 100;

pub(crate) async fn ask(source: &DnsSource, timeout: Duration) -> Result<Answer, Failure> {
    let resolver = resolver(source, timeout)?;
    // Names of given servers are whole; others go through the search domains.
    let name = if source.servers.is_empty() { source.name.to_string() } else { format!("{}.", source.name) };
    let mut answer = match source.record {
        DnsSourceRecord::A => of_addresses(addresses(&resolver, &name, &[RecordType::A]).await?),
        DnsSourceRecord::Aaaa => of_addresses(addresses(&resolver, &name, &[RecordType::AAAA]).await?),
        DnsSourceRecord::Both => {
            of_addresses(addresses(&resolver, &name, &[RecordType::A, RecordType::AAAA]).await?)
        }
        DnsSourceRecord::Srv => services(&resolver, &name).await?,
    };
    answer.valid_for = answer.valid_for.map(|ttl| ttl.clamp(source.ttl_min, source.ttl_max));
    Ok(answer)
}

/// Made anew each time: `/etc/resolv.conf` may have changed, and nothing is remembered between two questions.
fn resolver(source: &DnsSource, timeout: Duration) -> Result<TokioResolver, Failure> {
    let cannot = |error: NetError| Failure::new(format!("/etc/resolv.conf: {error}"));
    let mut builder = if source.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(cannot)?
    } else {
        let servers = source.servers.iter().map(|server| name_server(*server)).collect();
        let config = ResolverConfig::from_name_servers(servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    // Two tries within the time there is.
    options.attempts = 1;
    options.timeout = (timeout / 2).max(Duration::from_millis(50));
    options.try_tcp_on_error = false;
    options.edns_payload_len = 1_232;
    if !source.servers.is_empty() {
        options.use_hosts_file = ResolveHosts::Never;
    }
    builder.build().map_err(|error| Failure::new(error.to_string()))
}

/// One server, by UDP and, where an answer is cut, TCP.
pub fn name_server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    // NXDOMAIN and empty answers are answers, whoever gives them.
    NameServerConfig::new(address.ip(), true, connections)
}

/// Addresses, and how long they may be believed.
#[derive(Default)]
struct Found {
    addresses: BTreeSet<IpAddr>,
    ttl: Option<Duration>,
}

/// Looks up all types. A type without records is no failure beside another that has some; a server that fails is one,
/// as half an answer would take backends away.
async fn addresses(resolver: &TokioResolver, name: &str, types: &[RecordType]) -> Result<Found, Failure> {
    let asked = types.iter().map(|kind| resolver.lookup(name, *kind));
    let mut found = Found::default();
    let mut no_name = 0;
    for (kind, result) in types.iter().zip(futures_util::future::join_all(asked).await) {
        match result {
            Ok(lookup) => {
                let records = lookup.answers().iter().filter_map(|record| address_of(&record.data));
                found.addresses.extend(records.filter(|ip| may_be_backend(*ip)));
                found.ttl = shorter(found.ttl, ttl(&lookup));
            }
            Err(error) if error.is_nx_domain() => no_name += 1,
            Err(error) if error.is_no_records_found() => {}
            Err(error) => return Err(failed(name, *kind, &error)),
        }
    }
    if no_name == types.len() {
        return Err(Failure::new(format!("there is no name {name} (NXDOMAIN)")));
    }
    Ok(found)
}

fn failed(name: &str, kind: RecordType, error: &NetError) -> Failure {
    Failure::new(format!("{name} {kind}: {error}"))
}

fn address_of(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn ttl(lookup: &Lookup) -> Option<Duration> {
    let by_records = lookup.answers().iter().map(|record| Duration::from_secs(record.ttl.into())).min();
    // What comes from the hosts file says nothing.
    by_records
        .filter(|_| lookup.valid_until() > Instant::now() || lookup.answers().iter().any(|one| one.ttl == 0))
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

fn of_addresses(found: Found) -> Answer {
    let endpoint = |ip| Endpoint::at(BackendAddress { host: BackendHost::Ip(ip), port: None });
    Answer {
        endpoints: found.addresses.into_iter().map(endpoint).collect(),
        rejected: Vec::new(),
        valid_for: found.ttl,
    }
}

async fn services(resolver: &TokioResolver, name: &str) -> Result<Answer, Failure> {
    let lookup = match resolver.lookup(name, RecordType::SRV).await {
        Ok(lookup) => lookup,
        Err(error) if error.is_nx_domain() => {
            return Err(Failure::new(format!("there is no name {name} (NXDOMAIN)")));
        }
        Err(error) if error.is_no_records_found() => return Ok(Answer::default()),
        Err(error) => return Err(failed(name, RecordType::SRV, &error)),
    };
    let services: Vec<&SRV> = lookup
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            // The root as a target: the service is decidedly not there (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() => Some(srv),
            _ => None,
        })
        .collect();
    let mut hosts: HashMap<&Name, BTreeSet<IpAddr>> = HashMap::new();
    for record in lookup.additionals() {
        if let Some(ip) = address_of(&record.data).filter(|ip| may_be_backend(*ip)) {
            hosts.entry(&record.name).or_default().insert(ip);
        }
    }
    let mut valid_for = ttl(&lookup);
    let mut answer = Answer::default();
    let (some_weigh, all_weigh) =
        (services.iter().any(|srv| srv.weight > 0), services.iter().all(|srv| srv.weight > 0));
    for srv in services {
        let addresses = match hosts.get(&srv.target) {
            Some(addresses) => addresses.clone(),
            None => {
                let types = [RecordType::A, RecordType::AAAA];
                match self::addresses(resolver, &srv.target.to_ascii(), &types).await {
                    Ok(found) => {
                        valid_for = shorter(valid_for, found.ttl);
                        hosts.entry(&srv.target).or_insert(found.addresses).clone()
                    }
                    // A name that is not there is one bad item; a server that fails, a failure.
                    Err(failure) if failure.0.contains("NXDOMAIN") => {
                        answer.rejected.push(failure.0);
                        continue;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        if srv.port == 0 {
            answer.rejected.push(format!("{}: port 0", srv.target));
            continue;
        }
        let weight = match (all_weigh, some_weigh, u32::from(srv.weight)) {
            (true, _, weight) => weight,
            (false, true, weight) if weight > 0 => (weight * LITTLE).min(65_535),
            _ => 1,
        };
        let target = srv.target.to_ascii();
        let target = target.trim_end_matches('.');
        answer.endpoints.extend(addresses.into_iter().map(|ip| {
            Endpoint {
                weight: Some(weight),
                priority: Some(srv.priority.into()),
                ..Endpoint::at(BackendAddress { host: BackendHost::Ip(ip), port: Some(srv.port) })
                    .label("target", target)
            }
        }));
    }
    answer.valid_for = valid_for;
    Ok(answer)
}
