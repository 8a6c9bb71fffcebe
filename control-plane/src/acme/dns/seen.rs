//! What name servers say: where a record belongs, which zone it is in, and whether it is there yet.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use awe4lb_discovery::name_server;
use awe4lb_model::acme::{AcmeDns, DnsHook};
use hickory_resolver::{
    TokioResolver,
    config::{ResolveHosts, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};
use tokio::time::{Instant, sleep};

use super::{super::failure::Failure, Record};

/// Of one question.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks, at first and later.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// One that asks these servers; none: those of the system.
fn resolver(servers: &[SocketAddr]) -> Option<TokioResolver> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().ok()?
    } else {
        let config =
            ResolverConfig::from_name_servers(servers.iter().map(|server| name_server(*server)).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.attempts = 1;
    options.timeout = TIMEOUT;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().ok()
}

/// A name and those above it, with at least one dot each.
fn upwards(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest))
        .filter(|name| name.contains('.'))
}

/// Where a name leads to by CNAME; itself where it does not, or where nobody can say.
pub(super) async fn target(dns: &AcmeDns, name: &str) -> String {
    let mut name = name.to_owned();
    let Some(resolver) = resolver(&dns.servers) else { return name };
    // More links than this are a mistake.
    for _ in 0..8 {
        let Ok(found) = resolver.lookup(format!("{name}."), RecordType::CNAME).await else { break };
        let next = found.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(to) => Some(to.0.to_ascii()),
            _ => None,
        });
        match next {
            Some(next) => next.trim_end_matches('.').clone_into(&mut name),
            None => break,
        }
    }
    name
}

/// The zone of a server that a name is in.
pub(super) async fn zone_at(server: SocketAddr, name: &str) -> Result<String, String> {
    let resolver = resolver(&[server]).ok_or("no resolver")?;
    for zone in upwards(name) {
        let Ok(found) = resolver.lookup(format!("{zone}."), RecordType::SOA).await else { continue };
        let is_its_own = found.answers().iter().any(|record| {
            matches!(record.data, RData::SOA(_)) && record.name.to_ascii().trim_end_matches('.') == zone
        });
        if is_its_own {
            return Ok(zone.to_owned());
        }
    }
    Err(format!("{server} has no zone that {name} is in: name it with \"zone\""))
}

/// The name servers of the zone of a name, as the system's resolver finds them.
async fn authoritative(name: &str) -> Vec<SocketAddr> {
    let Some(resolver) = resolver(&[]) else { return Vec::new() };
    for zone in upwards(name) {
        let Ok(found) = resolver.lookup(format!("{zone}."), RecordType::NS).await else { continue };
        let names = found.answers().iter().filter_map(|record| match &record.data {
            RData::NS(server) => Some(server.0.to_ascii()),
            _ => None,
        });
        let mut addresses = BTreeSet::new();
        for server in names {
            for kind in [RecordType::A, RecordType::AAAA] {
                let Ok(found) = resolver.lookup(server.as_str(), kind).await else { continue };
                addresses.extend(found.answers().iter().filter_map(|record| match &record.data {
                    RData::A(ip) => Some(IpAddr::V4(ip.0)),
                    RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
                    _ => None,
                }));
            }
        }
        if !addresses.is_empty() {
            return addresses.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect();
        }
    }
    Vec::new()
}

/// Waits until every server has all records.
pub(super) async fn wait(dns: &AcmeDns, records: &[Record]) -> Result<(), Failure> {
    let deadline = Instant::now() + dns.timeout;
    let mut servers = Vec::new();
    let mut pause = LOOKS.0;
    for record in records {
        if servers.is_empty() {
            servers = match (&dns.servers[..], &dns.hook) {
                ([], hook) => match (authoritative(&record.name).await, hook) {
                    // A zone that the system's resolver does not know: its primary server does.
                    (found, DnsHook::Rfc2136 { server, .. }) if found.is_empty() => vec![*server],
                    (found, _) => found,
                },
                (given, _) => given.to_vec(),
            };
        }
        if servers.is_empty() {
            let detail = format!("no name server of {} can be found", record.name);
            let hint = "name the servers to ask with \"servers\", or set \"check\" to false";
            return Err(Failure::new("dns-unseen", detail, hint));
        }
        for server in &servers {
            while let Err(what) = has(*server, record).await {
                if Instant::now() + pause > deadline {
                    let seconds = dns.timeout.as_secs();
                    let detail =
                        format!("{server} has not the record {} after {seconds} s: {what}", record.name);
                    let hint = "does the hook change the zone that is public? a slow provider needs a longer \"timeout\"";
                    return Err(Failure::new("dns-unseen", detail, hint));
                }
                sleep(pause).await;
                pause = (pause * 2).min(LOOKS.1);
            }
        }
    }
    Ok(())
}

/// Whether a server has a record.
async fn has(server: SocketAddr, record: &Record) -> Result<(), String> {
    let resolver = resolver(&[server]).ok_or("no resolver")?;
    let found = resolver.lookup(format!("{}.", record.name), RecordType::TXT).await;
    let found = found.map_err(|error| error.to_string())?;
    let is_there = found.answers().iter().any(|one| match &one.data {
        RData::TXT(text) => text.txt_data.concat() == record.value.as_bytes(),
        _ => false,
    });
    if is_there { Ok(()) } else { Err("it has others".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_looked_for_upwards() {
        let names: Vec<&str> = upwards("_acme-challenge.www.example.com").collect();
        assert_eq!(names, ["_acme-challenge.www.example.com", "www.example.com", "example.com"]);
        assert_eq!(upwards("com").count(), 0);
    }
}
