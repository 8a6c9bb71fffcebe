//! Address lists and maps.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use awe4lb_model::{AddressList, MapKey, SniMap, addresses::MAX_LIST_ENTRIES, map::MAX_MAP_ENTRIES};
use ipnet::IpNet;

use super::{At, name, rule};
use crate::{Noun, Problem, WireError, v1};

impl From<&AddressList> for v1::AddressList {
    fn from(list: &AddressList) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in list.entries.iter() {
            match entry.network() {
                IpAddr::V4(ip) => v4.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => v6.extend_from_slice(&ip.octets()),
            }
            if entry.addr().is_ipv4() { &mut v4 } else { &mut v6 }.push(entry.prefix_len());
        }
        Self { name: list.name.to_string(), v4: v4.into(), v6: v6.into() }
    }
}

impl TryFrom<v1::AddressList> for AddressList {
    type Error = WireError;

    fn try_from(wire: v1::AddressList) -> Result<Self, WireError> {
        let root = At::root(Noun::AddressList);
        let mut entries = Vec::with_capacity((wire.v4.len() / 5 + wire.v6.len() / 17).min(MAX_LIST_ENTRIES));
        unpack::<4, 5>(&wire.v4, root.field("v4"), &mut entries)?;
        unpack::<16, 17>(&wire.v6, root.field("v6"), &mut entries)?;
        if entries.len() > MAX_LIST_ENTRIES {
            return Err(root.refuse(Problem::TooLarge(MAX_LIST_ENTRIES)));
        }
        // Out of order the same list would have two encodings.
        if !entries.is_sorted_by(|a, b| a < b) {
            return Err(root.refuse(Problem::Malformed("entries are not in order".to_owned())));
        }
        Ok(Self { name: name(&wire.name, root.field("name"))?, entries: entries.into() })
    }
}

fn unpack<const ADDRESS: usize, const RECORD: usize>(
    bytes: &[u8],
    at: At<'_>,
    entries: &mut Vec<IpNet>,
) -> Result<(), WireError>
where
    IpAddr: From<[u8; ADDRESS]>,
{
    let records = bytes.chunks_exact(RECORD);
    if !records.remainder().is_empty() {
        return Err(at.refuse(Problem::Malformed("an entry is cut short".to_owned())));
    }
    for record in records {
        let entry = record.split_last_chunk::<1>().and_then(|(address, [length])| {
            let address: [u8; ADDRESS] = address.try_into().ok()?;
            IpNet::new(address.into(), *length).ok().filter(|net| net.addr() == net.network())
        });
        match entry {
            Some(entry) => entries.push(entry),
            None => return Err(at.refuse(Problem::Malformed("an entry is no prefix".to_owned()))),
        }
    }
    Ok(())
}

impl From<&SniMap> for v1::NameMap {
    fn from(map: &SniMap) -> Self {
        let pools: Vec<_> = map.pools().into_iter().collect();
        let entries = map.entries.iter().map(|(key, pool)| {
            let (name, wildcard) = match key {
                MapKey::Exact(name) => (name, false),
                MapKey::Wildcard(name) => (name, true),
            };
            // It is one of them, and there are not so many.
            let pool = u32::try_from(pools.partition_point(|known| *known < pool)).unwrap_or(u32::MAX);
            v1::MapEntry { name: name.to_string(), wildcard, pool }
        });
        let entries = entries.collect();
        let pools = pools.iter().map(|pool| pool.to_string()).collect();
        Self { name: map.name.to_string(), pools, entries }
    }
}

impl TryFrom<v1::NameMap> for SniMap {
    type Error = WireError;

    fn try_from(wire: v1::NameMap) -> Result<Self, WireError> {
        let root = At::root(Noun::Map);
        if wire.entries.len() > MAX_MAP_ENTRIES {
            return Err(root.refuse(Problem::TooLarge(MAX_MAP_ENTRIES)));
        }
        let pools = rule::names_from_wire(wire.pools, root.field("pools"))?;
        let entries_at = root.field("entries");
        let mut entries = BTreeMap::new();
        for (index, entry) in wire.entries.into_iter().enumerate() {
            let at = entries_at.index(index);
            if entry.name.is_empty() || !rule::is_server_name(&entry.name, true) {
                let problem = Problem::Malformed("not a lower-case server name".to_owned());
                return Err(at.field("name").refuse(problem));
            }
            let Some(pool) = pools.get(entry.pool as usize) else {
                return Err(at.field("pool").refuse(Problem::Dangling(format!("pool {}", entry.pool))));
            };
            let make = if entry.wildcard { MapKey::Wildcard } else { MapKey::Exact };
            let key = make(entry.name.into());
            if entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(at.field("name").refuse(Problem::Duplicate(key.to_string())));
            }
            entries.insert(key, pool.clone());
        }
        Ok(Self { name: name(&wire.name, root.field("name"))?, entries: Arc::new(entries) })
    }
}
