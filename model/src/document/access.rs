//! `access` and `limits` of a listener.

use super::{
    build::{Findings, limit, number, one_or_many},
    lists::addresses,
    tree::{Node, NodeKind},
    violation::Path,
};
use crate::{Access, AccessRule, Addresses, ClientPrefix, Limits, Verdict};

pub(super) fn access(node: &Node, path: &Path<'_>, found: &mut Findings) -> Access {
    let rules_path = Path::Field(path, "rules");
    let rules = one_or_many(node.field("rules")).enumerate();
    Access {
        default: match node.field("default").and_then(Node::as_text) {
            Some("deny") => Verdict::Deny,
            _ => Verdict::Allow,
        },
        rules: rules.filter_map(|(at, item)| rule(item, &Path::Index(&rules_path, at), found)).collect(),
    }
}

fn rule(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<AccessRule> {
    let (verdict, named) = match (node.field("allow"), node.field("deny")) {
        (Some(named), None) => (Verdict::Allow, named),
        (None, Some(named)) => (Verdict::Deny, named),
        _ => {
            found.error(path, node, "bad-action", "a rule of access has either \"allow\" or \"deny\"");
            return None;
        }
    };
    let named: Addresses = addresses(Some(named));
    if named.is_empty() {
        found.error(path, node, "empty", "it names nobody: what holds for all others is \"default\"");
    }
    let is_set = |field| matches!(node.field(field).map(|node| &node.kind), Some(NodeKind::Bool(true)));
    let rule = AccessRule {
        verdict,
        addresses: named,
        shadow: is_set("shadow"),
        close_existing: is_set("closeExisting"),
    };
    if rule.close_existing && (rule.shadow || verdict == Verdict::Allow) {
        let detail = "only a rule that denies, and is no shadow, closes connections";
        found.error(&Path::Field(path, "closeExisting"), node, "conflict", detail);
    }
    Some(rule)
}

pub(super) fn limits(node: Option<&Node>) -> Limits {
    let count = |field| node.and_then(|node| limit(node, field)).unwrap_or(None);
    let bytes = |field| node.and_then(|node| number::<u64>(node, field));
    let prefix = node.and_then(|node| node.field("clientPrefix"));
    let bits = |field| prefix.and_then(|node| number(node, field));
    let whole = ClientPrefix::default();
    Limits {
        max_connections: node.and_then(|node| limit(node, "maxConnections")).unwrap_or(Some(20_000)),
        max_connections_per_client: count("maxConnectionsPerClient"),
        new_connections_per_second: count("newConnectionsPerSecond"),
        new_per_client_per_second: count("newPerClientPerSecond"),
        packets_per_second: count("packetsPerSecond"),
        packets_per_second_per_client: count("packetsPerSecondPerClient"),
        bytes_per_second: bytes("bytesPerSecond"),
        bytes_per_second_per_client: bytes("bytesPerSecondPerClient"),
        bytes_per_second_per_connection: bytes("bytesPerSecondPerConnection"),
        client_prefix: ClientPrefix {
            v4: bits("v4").unwrap_or(whole.v4),
            v6: bits("v6").unwrap_or(whole.v6),
        },
    }
}
