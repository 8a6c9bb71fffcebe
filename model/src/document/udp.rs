//! What a listener says of datagrams, and which of its fields are for one transport alone.

use std::time::Duration;

use super::{
    build::{Findings, boolean, duration, limit, name, number, text},
    tree::Node,
    violation::Path,
};
use crate::{Affinity, Protocol, UdpSettings};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn settings(node: Option<&Node>, path: &Path<'_>, found: &mut Findings) -> UdpSettings {
    let Some(node) = node else { return UdpSettings::default() };
    let path = Path::Field(path, "udp");
    let base = match text(node, "preset") {
        Some("dns") => UdpSettings {
            idle_timeout: 5 * SECOND,
            unanswered_timeout: 5 * SECOND,
            max_requests: Some(1),
            max_responses: Some(1),
            ..UdpSettings::default()
        },
        Some("quic") => UdpSettings { quic: true, ecn: true, ..UdpSettings::default() },
        _ => UdpSettings::default(),
    };
    let by_packet = boolean(node, "perPacket");
    if by_packet == Some(true)
        && let Some(requests) = node.field("maxRequests")
    {
        let detail = "with \"perPacket\" a flow takes one datagram";
        found.error(&Path::Field(&path, "maxRequests"), requests, "conflict", detail);
    }
    let by_preset = if by_packet == Some(false) { None } else { base.max_requests };
    let max_requests = limit(node, "maxRequests").unwrap_or(by_preset);
    UdpSettings {
        idle_timeout: duration(node, "idleTimeout").unwrap_or(base.idle_timeout),
        unanswered_timeout: duration(node, "unansweredTimeout").unwrap_or(base.unanswered_timeout),
        max_flows: number(node, "maxFlows").unwrap_or(base.max_flows),
        max_flows_per_client: number(node, "maxFlowsPerClient").unwrap_or(base.max_flows_per_client),
        max_requests: if by_packet == Some(true) { Some(1) } else { max_requests },
        max_responses: limit(node, "maxResponses").unwrap_or(base.max_responses),
        max_reply_ratio: limit(node, "maxReplyRatio").unwrap_or(base.max_reply_ratio),
        quic: base.quic,
        ecn: boolean(node, "ecn").unwrap_or(base.ecn),
    }
}

pub(super) fn affinity(node: &Node) -> Option<Affinity> {
    Some(Affinity { group: name(node, "group")?, ttl: duration(node, "ttl").unwrap_or(600 * SECOND) })
}

/// Fields that have no meaning with the listener's transport.
pub(super) fn check_transport(node: &Node, protocol: Protocol, path: &Path<'_>, found: &mut Findings) {
    let of_listener = [
        ("udp", Protocol::Udp),
        ("timeouts", Protocol::Tcp),
        ("proxyProtocol", Protocol::Tcp),
        ("preamble", Protocol::Tcp),
        ("acmeHttp01", Protocol::Tcp),
    ];
    if protocol == Protocol::Tcp {
        let rules_path = Path::Field(path, "rules");
        for (index, rule) in node.field("rules").map(Node::items).unwrap_or_default().iter().enumerate() {
            if let Some(mirror) = rule.field("mirror") {
                let here = Path::Index(&rules_path, index);
                let detail = "copies are made of datagrams: \"mirror\" is for UDP listeners";
                found.error(&Path::Field(&here, "mirror"), mirror, "conflict", detail);
            }
        }
    }
    let of_limits = [
        ("maxConnections", Protocol::Tcp),
        ("maxConnectionsPerClient", Protocol::Tcp),
        ("packetsPerSecond", Protocol::Udp),
        ("packetsPerSecondPerClient", Protocol::Udp),
    ];
    let limits_path = Path::Field(path, "limits");
    let own = of_listener.into_iter().map(|(field, wanted)| (Some(node), path, field, wanted));
    let limits =
        of_limits.into_iter().map(|(field, wanted)| (node.field("limits"), &limits_path, field, wanted));
    for (parent, path, field, wanted) in own.chain(limits) {
        if let Some(value) = parent.and_then(|parent| parent.field(field))
            && protocol != wanted
        {
            let other = if wanted == Protocol::Udp { "UDP" } else { "TCP" };
            let instead = match field {
                "maxConnections" => ": those of datagrams are flows, see \"udp\"",
                "maxConnectionsPerClient" => ": see \"maxFlowsPerClient\" of \"udp\"",
                _ => "",
            };
            let detail = format!("{field:?} is for {other} listeners{instead}");
            found.error(&Path::Field(path, field), value, "conflict", detail);
        }
    }
}
