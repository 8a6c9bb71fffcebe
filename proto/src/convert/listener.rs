//! Listeners.

use std::collections::BTreeMap;

use awe4lb_model::{
    ACCESS_LOG_ALL, Affinity, BindAddress, BindHost, Listener, MinTlsVersion, Name, Preamble, Protocol,
    TcpTimeouts, TlsSettings, UdpSettings, placed::PlacedListener,
};
use bytes::Bytes;

use super::{
    At, access, at_most, duration, ip, ip_bytes, millis, name, number, optional_duration, optional_millis,
    port, positive, rule,
};
use crate::{Noun, Problem, WireError, v1};

impl From<&PlacedListener> for v1::Listener {
    fn from(placed: &PlacedListener) -> Self {
        let listener = &placed.listener;
        Self {
            number: placed.number.0,
            name: listener.name.to_string(),
            labels: listener
                .labels
                .iter()
                .map(|(key, value)| v1::Label { key: key.clone(), value: value.clone() })
                .collect(),
            bind: listener.bind.iter().map(bind_to_wire).collect(),
            protocol: match listener.protocol {
                Protocol::Tcp => v1::Transport::Tcp,
                Protocol::Udp => v1::Transport::Udp,
            }
            .into(),
            tls: listener.tls.as_ref().map(tls_to_wire),
            rules: listener
                .rules
                .iter()
                .zip(&placed.rule_numbers)
                .map(|(rule, number)| rule::to_wire(rule, *number))
                .collect(),
            max_connections: listener.limits.max_connections,
            handshake_timeout_ms: millis(listener.timeouts.handshake),
            idle_timeout_ms: optional_millis(listener.timeouts.idle),
            half_close_timeout_ms: millis(listener.timeouts.half_close),
            lifetime_ms: optional_millis(listener.timeouts.lifetime),
            udp_idle_timeout_ms: millis(listener.udp.idle_timeout),
            udp_unanswered_timeout_ms: millis(listener.udp.unanswered_timeout),
            udp_max_flows: listener.udp.max_flows,
            udp_max_flows_per_client: listener.udp.max_flows_per_client,
            udp_max_requests: listener.udp.max_requests.unwrap_or(0),
            udp_max_responses: listener.udp.max_responses.unwrap_or(0),
            udp_max_reply_ratio: listener.udp.max_reply_ratio.unwrap_or(0),
            udp_quic: listener.udp.quic,
            udp_ecn: listener.udp.ecn,
            affinity: listener.affinity.as_ref().map(|affinity| v1::Affinity {
                group: affinity.group.to_string(),
                ttl_ms: millis(affinity.ttl),
            }),
            access_log: listener.access_log,
            preamble: match listener.preamble {
                None => v1::PreambleKind::Unspecified,
                Some(Preamble::Postgres) => v1::PreambleKind::Postgres,
                Some(Preamble::Ldap) => v1::PreambleKind::Ldap,
            }
            .into(),
            acme_http01: listener.acme_http01,
            proxy_from: listener.proxy_from.iter().map(rule::prefix_to_wire).collect(),
            access: listener.access.as_ref().map(access::to_wire),
            limits: Some(access::limits_to_wire(&listener.limits)),
        }
    }
}

impl TryFrom<v1::Listener> for PlacedListener {
    type Error = WireError;

    fn try_from(wire: v1::Listener) -> Result<Self, WireError> {
        let root = At::root(Noun::Listener);
        let rules_at = root.field("rules");
        let mut rules = Vec::with_capacity(wire.rules.len());
        let mut rule_numbers = Vec::with_capacity(wire.rules.len());
        for (index, rule) in wire.rules.into_iter().enumerate() {
            let (number, rule) = rule::from_wire(rule, rules_at.index(index))?;
            rule_numbers.push(number);
            rules.push(rule);
        }
        if rules.is_empty() && !wire.acme_http01 {
            return Err(rules_at.refuse(Problem::Missing));
        }
        let listener = Listener {
            name: name(&wire.name, root.field("name"))?,
            labels: labels(wire.labels, root.field("labels"))?,
            bind: binds(&wire.bind, root.field("bind"))?,
            protocol: match v1::Transport::try_from(wire.protocol) {
                Ok(v1::Transport::Tcp) => Protocol::Tcp,
                Ok(v1::Transport::Udp) => Protocol::Udp,
                Ok(v1::Transport::Unspecified) => {
                    return Err(root.field("protocol").refuse(Problem::Missing));
                }
                Err(_) => return Err(root.field("protocol").refuse(Problem::UnknownValue(wire.protocol))),
            },
            tls: wire.tls.map(|tls| tls_from_wire(tls, root.field("tls"))).transpose()?,
            proxy_from: rule::all(wire.proxy_from, root.field("proxy_from"), rule::prefix_from_wire)?,
            access: wire.access.map(|access| access::from_wire(access, root.field("access"))).transpose()?,
            rules,
            limits: access::limits_from_wire(wire.max_connections, wire.limits, root.field("limits"))?,
            timeouts: TcpTimeouts {
                handshake: duration(wire.handshake_timeout_ms, root.field("handshake_timeout_ms"))?,
                idle: optional_duration(wire.idle_timeout_ms),
                half_close: duration(wire.half_close_timeout_ms, root.field("half_close_timeout_ms"))?,
                lifetime: optional_duration(wire.lifetime_ms),
            },
            preamble: match v1::PreambleKind::try_from(wire.preamble) {
                Ok(v1::PreambleKind::Unspecified) => None,
                Ok(v1::PreambleKind::Postgres) => Some(Preamble::Postgres),
                Ok(v1::PreambleKind::Ldap) => Some(Preamble::Ldap),
                Err(_) => return Err(root.field("preamble").refuse(Problem::UnknownValue(wire.preamble))),
            },
            acme_http01: wire.acme_http01,
            access_log: wire
                .access_log
                .map(|share| at_most(share, ACCESS_LOG_ALL, root.field("access_log")))
                .transpose()?,
            udp: UdpSettings {
                idle_timeout: duration(wire.udp_idle_timeout_ms, root.field("udp_idle_timeout_ms"))?,
                unanswered_timeout: duration(
                    wire.udp_unanswered_timeout_ms,
                    root.field("udp_unanswered_timeout_ms"),
                )?,
                max_flows: positive(wire.udp_max_flows, root.field("udp_max_flows"))?,
                max_flows_per_client: positive(
                    wire.udp_max_flows_per_client,
                    root.field("udp_max_flows_per_client"),
                )?,
                max_requests: (wire.udp_max_requests > 0).then_some(wire.udp_max_requests),
                max_responses: (wire.udp_max_responses > 0).then_some(wire.udp_max_responses),
                max_reply_ratio: (wire.udp_max_reply_ratio > 0).then_some(wire.udp_max_reply_ratio),
                quic: wire.udp_quic,
                ecn: wire.udp_ecn,
            },
            affinity: wire.affinity.map(|wire| affinity(&wire, root.field("affinity"))).transpose()?,
        };
        Ok(Self { number: number(wire.number, root.field("number"))?, rule_numbers, listener })
    }
}

fn affinity(wire: &v1::Affinity, at: At<'_>) -> Result<Affinity, WireError> {
    Ok(Affinity {
        group: name(&wire.group, at.field("group"))?,
        ttl: duration(wire.ttl_ms, at.field("ttl_ms"))?,
    })
}

fn bind_to_wire(bind: &BindAddress) -> v1::Bind {
    let address = match bind.host {
        BindHost::Any => Bytes::new(),
        BindHost::Ip(ip) => ip_bytes(ip),
    };
    v1::Bind { address, port: bind.port.into() }
}

fn binds(wire: &[v1::Bind], at: At<'_>) -> Result<Vec<BindAddress>, WireError> {
    if wire.is_empty() {
        return Err(at.refuse(Problem::Missing));
    }
    let one = |(index, bind): (usize, &v1::Bind)| {
        let at = at.index(index);
        let host = match &*bind.address {
            [] => BindHost::Any,
            bytes => BindHost::Ip(ip(bytes, at.field("address"))?),
        };
        match port(bind.port, at.field("port"))? {
            0 => Err(at.field("port").refuse(Problem::Missing)),
            port => Ok(BindAddress { host, port }),
        }
    };
    wire.iter().enumerate().map(one).collect()
}

fn labels(wire: Vec<v1::Label>, at: At<'_>) -> Result<BTreeMap<String, String>, WireError> {
    let mut labels = BTreeMap::new();
    for (index, label) in wire.into_iter().enumerate() {
        // Sorted, or the same labels would have two encodings.
        if labels.last_key_value().is_some_and(|(last, _): (&String, _)| *last >= label.key) {
            return Err(at.index(index).field("key").refuse(Problem::Duplicate(label.key)));
        }
        labels.insert(label.key, label.value);
    }
    Ok(labels)
}

fn tls_to_wire(tls: &TlsSettings) -> v1::Tls {
    v1::Tls {
        certificates: tls.certificates.iter().map(Name::to_string).collect(),
        min_version: match tls.min_version {
            MinTlsVersion::V1_2 => 12,
            MinTlsVersion::V1_3 => 13,
        },
        alpn: tls.alpn.clone(),
        require_sni: tls.require_sni,
    }
}

fn tls_from_wire(wire: v1::Tls, at: At<'_>) -> Result<TlsSettings, WireError> {
    let certificates_at = at.field("certificates");
    if wire.certificates.is_empty() {
        return Err(certificates_at.refuse(Problem::Missing));
    }
    let certificates = wire.certificates.iter().enumerate();
    Ok(TlsSettings {
        certificates: certificates
            .map(|(index, text)| name(text, certificates_at.index(index)))
            .collect::<Result<_, _>>()?,
        min_version: match wire.min_version {
            12 => MinTlsVersion::V1_2,
            13 => MinTlsVersion::V1_3,
            other => {
                let problem = Problem::UnknownValue(i32::try_from(other).unwrap_or(i32::MAX));
                return Err(at.field("min_version").refuse(problem));
            }
        },
        alpn: wire.alpn,
        require_sni: wire.require_sni,
    })
}
