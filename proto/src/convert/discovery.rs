//! Sources of backends. A node learns of what it asks itself; of all others only that they are there.

use std::{net::SocketAddr, str::FromStr};

use awe4lb_model::discovery::{DnsSource, DnsSourceRecord, OnFailure, RunOn, Source, SourceKind, Template};

use super::{At, at_most, duration, ip, ip_bytes, millis, name, port};
use crate::{Problem, WireError, v1};

pub(super) fn to_wire(source: &Source) -> v1::Source {
    let id = source.id.to_string();
    let (SourceKind::Dns(dns), RunOn::Node) = (&source.kind, source.run_on) else {
        return v1::Source { id, ..v1::Source::default() };
    };
    let template = &source.template;
    v1::Source {
        id,
        kind: Some(v1::source::Kind::Dns(dns_to_wire(dns))),
        interval_ms: millis(source.interval),
        timeout_ms: millis(source.timeout),
        clear_on_failure: source.on_failure == OnFailure::Clear,
        min_backends: source.min_backends,
        max_vanish_percent: source.max_vanish_percent.into(),
        port: template.port.unwrap_or(0).into(),
        weight: template.weight,
        priority: template.priority,
        max_connections: template.max_connections,
        zone: template.zone.as_deref().unwrap_or_default().to_owned(),
        select: source.select.as_ref().map(ToString::to_string).unwrap_or_default(),
        name_template: template.name.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(super) fn from_wire(wire: v1::Source, at: At<'_>) -> Result<Source, WireError> {
    let id = name(&wire.id, at.field("id"))?;
    let Some(v1::source::Kind::Dns(dns)) = wire.kind else { return Ok(Source::elsewhere(id)) };
    Ok(Source {
        id,
        kind: SourceKind::Dns(dns_from_wire(dns, at.field("dns"))?),
        run_on: RunOn::Node,
        interval: duration(wire.interval_ms, at.field("interval_ms"))?,
        timeout: duration(wire.timeout_ms, at.field("timeout_ms"))?,
        on_failure: if wire.clear_on_failure { OnFailure::Clear } else { OnFailure::Keep },
        min_backends: wire.min_backends,
        max_vanish_percent: at_most(wire.max_vanish_percent, 100, at.field("max_vanish_percent"))? as u8,
        select: read(&wire.select, at.field("select"))?,
        template: Template {
            port: Some(port(wire.port, at.field("port"))?).filter(|port| *port != 0),
            weight: at_most(wire.weight, u16::MAX.into(), at.field("weight"))?,
            priority: wire.priority,
            max_connections: wire.max_connections,
            zone: Some(wire.zone.into_boxed_str()).filter(|zone| !zone.is_empty()),
            name: read(&wire.name_template, at.field("name_template"))?,
        },
    })
}

/// What is written as users write it; nothing is none.
fn read<T: FromStr>(text: &str, at: At<'_>) -> Result<Option<T>, WireError>
where
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| at.refuse(Problem::Malformed(error.to_string())))
}

fn dns_to_wire(dns: &DnsSource) -> v1::DnsSource {
    v1::DnsSource {
        name: dns.name.to_string(),
        record: match dns.record {
            DnsSourceRecord::Both => v1::DnsRecord::Unspecified,
            DnsSourceRecord::A => v1::DnsRecord::A,
            DnsSourceRecord::Aaaa => v1::DnsRecord::Aaaa,
            DnsSourceRecord::Srv => v1::DnsRecord::Srv,
        }
        .into(),
        servers: dns
            .servers
            .iter()
            .map(|server| v1::SocketAddress { ip: ip_bytes(server.ip()), port: server.port().into() })
            .collect(),
        ttl_min_ms: millis(dns.ttl_min),
        ttl_max_ms: millis(dns.ttl_max),
    }
}

fn dns_from_wire(wire: v1::DnsSource, at: At<'_>) -> Result<DnsSource, WireError> {
    let servers_at = at.field("servers");
    let mut servers = Vec::with_capacity(wire.servers.len());
    for (index, server) in wire.servers.into_iter().enumerate() {
        let at = servers_at.index(index);
        servers.push(SocketAddr::new(ip(&server.ip, at.field("ip"))?, port(server.port, at.field("port"))?));
    }
    Ok(DnsSource {
        name: wire.name.into_boxed_str(),
        record: match v1::DnsRecord::try_from(wire.record) {
            Ok(v1::DnsRecord::Unspecified) => DnsSourceRecord::Both,
            Ok(v1::DnsRecord::A) => DnsSourceRecord::A,
            Ok(v1::DnsRecord::Aaaa) => DnsSourceRecord::Aaaa,
            Ok(v1::DnsRecord::Srv) => DnsSourceRecord::Srv,
            Err(_) => return Err(at.field("record").refuse(Problem::UnknownValue(wire.record))),
        },
        servers,
        ttl_min: duration(wire.ttl_min_ms, at.field("ttl_min_ms"))?,
        ttl_max: duration(wire.ttl_max_ms, at.field("ttl_max_ms"))?,
    })
}
