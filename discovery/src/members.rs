//! From the answers of all sources of a pool to its members.

use std::collections::HashSet;

use awe4lb_model::{Backend, BackendAddress, placed::Number};
use xxhash_rust::xxh3::xxh3_64;

/// Discovered backends have numbers from here on; those that are counted up never get there.
const FIRST: u64 = 1 << 62;

/// The number of a discovered backend: made of its pool and its address, so that all nodes and the control plane find the
/// same one without asking each other, and find it again when it comes back. (62 bits: among a hundred thousand backends
/// two share one with a chance of one in a thousand million.)
pub fn discovered_number(pool: Number, address: &BackendAddress) -> Number {
    let text = format!("{}/{address}", pool.0);
    Number(FIRST | (xxh3_64(text.as_bytes()) & (FIRST - 1)))
}

/// Whether a number is that of a discovered backend.
pub fn is_discovered(number: Number) -> bool {
    number.0 >= FIRST
}

/// The members that come from sources: those of each source in its order, without what `configured` has already. Of
/// two at one address the first counts; of two with one name, which two addresses can make, the second gets another.
pub fn members<'a>(
    pool: Number,
    configured: &[Backend],
    answers: impl IntoIterator<Item = &'a [Backend]>,
) -> Vec<(Number, Backend)> {
    let mut addresses: HashSet<&BackendAddress> = configured.iter().map(|backend| &backend.address).collect();
    let mut names: HashSet<String> = configured.iter().map(|backend| backend.name.to_string()).collect();
    let mut members = Vec::new();
    for backend in answers.into_iter().flatten() {
        if !addresses.insert(&backend.address) {
            continue;
        }
        let number = discovered_number(pool, &backend.address);
        let mut backend = backend.clone();
        if !names.insert(backend.name.to_string()) {
            let stem: String = backend.name.as_str().chars().take(40).collect();
            let other = format!("{}-{:x}", stem.trim_end_matches('-'), number.0 & 0xffff_ffff);
            let Ok(other) = other.parse::<awe4lb_model::Name>() else { continue };
            names.insert(other.to_string());
            backend.name = other;
        }
        members.push((number, backend));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn backend(address: &str) -> Backend {
        let address = awe4lb_model::document::backend_address(address).unwrap();
        Endpoint::at(address).backend(&Default::default()).unwrap()
    }

    #[test]
    fn the_first_at_an_address_counts_and_what_is_configured_before_all() {
        let configured = [backend("10.0.0.1:80")];
        let first = [backend("10.0.0.1:80"), backend("10.0.0.2:80")];
        let second = [Backend { weight: 7, ..backend("10.0.0.2:80") }, backend("10.0.0.3:80")];
        let members = members(Number(5), &configured, [&first[..], &second[..]]);
        let found: Vec<_> = members.iter().map(|(_, one)| (one.address.to_string(), one.weight)).collect();
        assert_eq!(found, [("10.0.0.2:80".to_owned(), 1), ("10.0.0.3:80".to_owned(), 1)]);
    }

    #[test]
    fn a_number_is_that_of_pool_and_address() {
        let address = backend("10.0.0.2:80").address;
        // Pinned: nodes of other versions find the same one.
        assert_eq!(discovered_number(Number(5), &address), discovered_number(Number(5), &address));
        assert_ne!(discovered_number(Number(5), &address), discovered_number(Number(6), &address));
        assert!(is_discovered(discovered_number(Number(5), &address)));
        assert!(i64::try_from(discovered_number(Number(5), &address).0).is_ok());
    }

    #[test]
    fn two_addresses_with_one_name_are_two_backends() {
        let both = [backend("a-b.example:80"), backend("a.b.example:80")];
        let members = members(Number(1), &[], [&both[..]]);
        assert_eq!(members.len(), 2);
        assert_ne!(members[0].1.name, members[1].1.name);
    }
}
