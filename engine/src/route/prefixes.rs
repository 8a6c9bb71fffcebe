//! Sets of addresses, by prefix: disjoint ranges in order, found by halving. Half a million prefixes are nineteen steps
//! and eight bytes each.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which addresses are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the address is listed. Addresses of IPv4 in IPv6 count as those of IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => holds(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => holds(&self.v6, ip.to_bits()),
        }
    }
}

impl<'a> FromIterator<&'a IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = &'a IpNet>>(prefixes: I) -> Self {
        let mut set = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => set.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => set.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        merge(&mut set.v4, |last| last.checked_add(1));
        merge(&mut set.v6, |last| last.checked_add(1));
        set
    }
}

/// The last range that does not begin behind the address decides.
fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// Sorts, and joins what overlaps or touches.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>, next: impl Fn(T) -> Option<T>) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let joins = later.0 <= earlier.1 || next(earlier.1) == Some(later.0);
        if joins {
            earlier.1 = earlier.1.max(later.1);
        }
        joins
    });
    ranges.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_prefix() -> impl Strategy<Value = IpNet> {
        // Few bits differ, so that prefixes overlap and touch.
        let v4 =
            (0u32..64, 24u8..=32).prop_map(|(low, length)| (IpAddr::V4((0x0A00_0000 | low).into()), length));
        let v6 = (0u128..64, 120u8..=128)
            .prop_map(|(low, length)| (IpAddr::V6((0xFD << 120 | low).into()), length));
        prop_oneof![v4, v6].prop_map(|(ip, length)| IpNet::new(ip, length).expect("fits").trunc())
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_prefixes_holds(
            prefixes in prop::collection::vec(any_prefix(), 0..20),
            low in 0u32..80,
            is_v4: bool,
        ) {
            let set: PrefixSet = prefixes.iter().collect();
            let address: IpAddr = if is_v4 {
                IpAddr::V4((0x0A00_0000 | low).into())
            } else {
                IpAddr::V6((0xFD << 120 | u128::from(low)).into())
            };
            prop_assert_eq!(set.contains(address), prefixes.iter().any(|prefix| prefix.contains(&address)));
        }
    }

    #[test]
    fn the_ends_of_the_world() {
        let all: [IpNet; 2] = ["0.0.0.0/0".parse().expect("a prefix"), "::/0".parse().expect("a prefix")];
        let set: PrefixSet = all.iter().collect();
        for address in
            ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:1.2.3.4"]
        {
            assert!(set.contains(address.parse().expect("an address")), "{address}");
        }
        assert!(!PrefixSet::default().contains(IpAddr::from([0, 0, 0, 0])));
    }

    /// Half a million prefixes that neither overlap nor touch: the most that a list holds.
    #[test]
    fn half_a_million_prefixes_are_eight_bytes_each() {
        let prefixes: Vec<IpNet> = (0..500_000u32)
            .map(|n| IpNet::new((0x0B00_0000 + n * 64).to_be_bytes().into(), 27).unwrap())
            .collect();
        let set: PrefixSet = prefixes.iter().collect();
        assert_eq!(set.v4.len(), prefixes.len());
        assert!(set.v4.capacity() * size_of::<(u32, u32)>() <= 4_500_000, "{}", set.v4.capacity());
        assert!(set.contains(prefixes[250_000].network()) && !set.contains("10.0.0.1".parse().unwrap()));
    }
}
