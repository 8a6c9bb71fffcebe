//! The hash over what a node really built.

use awe4lb_model::placed::NodeConfig;

use crate::{Hash, manifest::Manifest, resources::Encoded};

/// Over a configuration as it stands in memory, not over the bytes it came from: equal to
/// [`Manifest::built_hash`] when, and only when, all of the manifest was built and nothing was misread. A node that
/// left a listener out, or understood a field in another way, gives another value.
pub fn built_hash(config: &NodeConfig) -> Hash {
    let listeners = config.listeners.iter().map(Encoded::listener);
    let pools = config.pools.iter().map(Encoded::pool);
    let certificates = config.certificates.iter().map(Encoded::certificate);
    let lists = config.address_lists.iter().map(Encoded::address_list);
    let maps = config.maps.iter().map(Encoded::map);
    let certificates = certificates.flat_map(|(chain, key)| [chain, key]);
    let all = listeners.chain(pools).chain(certificates).chain(lists).chain(maps);
    all.map(|encoded| (encoded.id, encoded.hash)).collect::<Manifest>().built_hash()
}
