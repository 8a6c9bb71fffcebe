//! Access rules and limits of a listener.

use awe4lb_model::{Access, AccessRule, Addresses, ClientPrefix, Limits, Verdict};

use super::{At, at_most, rule};
use crate::{Problem, WireError, v1};

pub(super) fn to_wire(access: &Access) -> v1::Access {
    let rules = access.rules.iter().map(|one| v1::AccessRule {
        deny: one.verdict == Verdict::Deny,
        prefixes: one.addresses.prefixes.iter().map(rule::prefix_to_wire).collect(),
        lists: rule::names_to_wire(&one.addresses.lists),
        shadow: one.shadow,
        close_existing: one.close_existing,
    });
    v1::Access { deny_others: access.default == Verdict::Deny, rules: rules.collect() }
}

pub(super) fn from_wire(wire: v1::Access, at: At<'_>) -> Result<Access, WireError> {
    let verdict = |deny| if deny { Verdict::Deny } else { Verdict::Allow };
    let rules = rule::all(wire.rules, at.field("rules"), |one, at| {
        let addresses = Addresses {
            prefixes: rule::all(one.prefixes, at.field("prefixes"), rule::prefix_from_wire)?,
            lists: rule::names_from_wire(one.lists, at.field("lists"))?,
        };
        if addresses.is_empty() {
            return Err(at.field("prefixes").refuse(Problem::Missing));
        }
        let (shadow, close_existing) = (one.shadow, one.close_existing);
        Ok(AccessRule { verdict: verdict(one.deny), addresses, shadow, close_existing })
    })?;
    Ok(Access { default: verdict(wire.deny_others), rules })
}

pub(super) fn limits_to_wire(limits: &Limits) -> v1::ClientLimits {
    v1::ClientLimits {
        max_connections_per_client: limits.max_connections_per_client.unwrap_or(0),
        new_connections_per_second: limits.new_connections_per_second.unwrap_or(0),
        new_per_client_per_second: limits.new_per_client_per_second.unwrap_or(0),
        bytes_per_second: limits.bytes_per_second.unwrap_or(0),
        bytes_per_second_per_client: limits.bytes_per_second_per_client.unwrap_or(0),
        bytes_per_second_per_connection: limits.bytes_per_second_per_connection.unwrap_or(0),
        packets_per_second: limits.packets_per_second.unwrap_or(0),
        packets_per_second_per_client: limits.packets_per_second_per_client.unwrap_or(0),
        client_prefix_v4: limits.client_prefix.v4.into(),
        client_prefix_v6: limits.client_prefix.v6.into(),
    }
}

pub(super) fn limits_from_wire(
    max_connections: Option<u32>,
    wire: Option<v1::ClientLimits>,
    at: At<'_>,
) -> Result<Limits, WireError> {
    let wire = wire.ok_or_else(|| at.refuse(Problem::Missing))?;
    let count = |value| (value != 0).then_some(value);
    let bytes = |value| (value != 0).then_some(value);
    Ok(Limits {
        max_connections,
        max_connections_per_client: count(wire.max_connections_per_client),
        new_connections_per_second: count(wire.new_connections_per_second),
        new_per_client_per_second: count(wire.new_per_client_per_second),
        bytes_per_second: bytes(wire.bytes_per_second),
        bytes_per_second_per_client: bytes(wire.bytes_per_second_per_client),
        bytes_per_second_per_connection: bytes(wire.bytes_per_second_per_connection),
        packets_per_second: count(wire.packets_per_second),
        packets_per_second_per_client: count(wire.packets_per_second_per_client),
        client_prefix: ClientPrefix {
            v4: at_most(wire.client_prefix_v4, 32, at.field("client_prefix_v4"))? as u8,
            v6: at_most(wire.client_prefix_v6, 128, at.field("client_prefix_v6"))? as u8,
        },
    })
}
