//! Maps from server names: the exact name, then the longest wildcard, at a cost that does not grow with their number.

use std::collections::HashMap;

use awe4lb_model::{MapKey, Name, SniMap};

/// A map in the form that is asked for every connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    exact: HashMap<Box<str>, u32>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, u32>,
    pools: Vec<Name>,
}

impl NameTable {
    /// Indexes a map.
    pub fn compile(map: &SniMap) -> Self {
        let mut table = Self { pools: map.pools().into_iter().cloned().collect(), ..Self::default() };
        for (key, pool) in map.entries.iter() {
            let place = table.pools.partition_point(|known| known < pool) as u32;
            match key {
                MapKey::Exact(name) => table.exact.insert(name.clone(), place),
                MapKey::Wildcard(name) => table.wildcard.insert(name.clone(), place),
            };
        }
        table
    }

    /// The pools that entries name, each once, in order.
    pub fn pools(&self) -> &[Name] {
        &self.pools
    }

    /// The pool of a name, by its place in [`Self::pools`]. The name is lower case and without a trailing dot.
    pub fn find(&self, name: &str) -> Option<usize> {
        if let Some(place) = self.exact.get(name) {
            return Some(*place as usize);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(place) = self.wildcard.get(parent) {
                return Some(*place as usize);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Instant};

    use super::*;

    fn map(entries: impl Iterator<Item = (MapKey, &'static str)>) -> SniMap {
        let entries: BTreeMap<_, _> = entries.map(|(key, pool)| (key, pool.parse().unwrap())).collect();
        SniMap { name: "tenants".parse().unwrap(), entries: Arc::new(entries) }
    }

    fn pool_of<'a>(table: &'a NameTable, name: &str) -> Option<&'a str> {
        table.find(name).map(|place| table.pools()[place].as_str())
    }

    #[test]
    fn the_exact_name_wins_then_the_longest_wildcard() {
        let table = NameTable::compile(&map([
            (MapKey::Exact("a.example.com".into()), "exact"),
            (MapKey::Wildcard("example.com".into()), "short"),
            (MapKey::Wildcard("b.example.com".into()), "long"),
            (MapKey::Exact("only.test".into()), "exact"),
        ]
        .into_iter()));
        for (name, wanted) in [
            ("a.example.com", Some("exact")),
            ("x.a.example.com", Some("short")),
            ("c.example.com", Some("short")),
            ("b.example.com", Some("short")),
            ("x.b.example.com", Some("long")),
            ("x.y.b.example.com", Some("long")),
            ("example.com", None),
            ("only.test", Some("exact")),
            ("x.only.test", None),
            ("", None),
            ("com", None),
        ] {
            assert_eq!(pool_of(&table, name), wanted, "{name}");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "it is the time that is tested")]
    /// Generous: a walk over the entries would be a thousand times as long, not ten.
    #[test]
    fn a_hundred_thousand_names_cost_what_a_hundred_do() {
        let of = |many: usize| {
            NameTable::compile(&map((0..many).map(|n| {
                let name = format!("tenant-{n}.example.com").into();
                (if n % 2 == 0 { MapKey::Exact(name) } else { MapKey::Wildcard(name) }, "app")
            })))
        };
        let time = |table: &NameTable, many: usize| {
            let names: Vec<String> =
                (0..many).step_by(many / 100).map(|n| format!("www.tenant-{n}.example.com")).collect();
            let best = (0..20).map(|_| {
                let from = Instant::now();
                let found: usize =
                    (0..50).map(|_| names.iter().filter_map(|name| table.find(name)).count()).sum();
                assert!(found <= 50 * names.len());
                from.elapsed()
            });
            best.min().unwrap()
        };
        let (few, many) = (time(&of(100), 100), time(&of(100_000), 100_000));
        assert!(many < few * 20, "{few:?} for a hundred names, {many:?} for a hundred thousand");
    }
}
