//! Arbitrary valid configurations, for the property tests.

mod checks;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use awe4lb_model::{
    ACCESS_LOG_ALL, Access, AccessRule, AddressList, Addresses, Backend, BackendAddress, BackendHost,
    Balance, BindAddress, BindHost, Certificate, ClientPrefix, Connect, HashOn, Limits, Listener, Locality,
    MIRROR_ALL, MapKey, Match, MinTlsVersion, Mirror, Name, Outlier, Pool, PortRange, Preamble, Protocol,
    ProxyVersion, Rule, RuleAction, SniMap, SniPattern, SplitTarget, TcpTimeouts, Tiers, TlsMode,
    TlsSettings, UdpSettings, Verdict, WhenAllDown,
    discovery::{DnsSource, DnsSourceRecord, OnFailure, RunOn, Source, SourceKind, Template},
    placed::{NodeConfig, Number, PlacedCertificate, PlacedListener, PlacedPool, PrivateKeyPem, Staple},
};
use awe4lb_model::{Affinity, OnDown, ProxyDatagrams};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*};

pub fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn millis() -> impl Strategy<Value = Duration> {
    (1u64..1_000_000_000).prop_map(Duration::from_millis)
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0u8..=128)
        .prop_map(|(ip, length)| IpNet::new(ip, if ip.is_ipv4() { length % 33 } else { length }).unwrap())
}

fn sni() -> impl Strategy<Value = SniPattern> {
    let name = "[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,3}";
    let described = (name, 0..5).prop_map(|(name, kind)| match kind {
        0 => SniPattern::Wildcard(name.into()),
        1 => SniPattern::Prefix(name.into()),
        2 => SniPattern::Suffix(name.into()),
        3 => SniPattern::Regex(format!("[0-9]+{name}").into()),
        _ => SniPattern::None,
    });
    prop_oneof![name.prop_map(|name| SniPattern::Exact(name.into())), described]
}

fn action(pool: &'static [&'static str]) -> impl Strategy<Value = RuleAction> {
    let pool = proptest::sample::select(pool).prop_map(|name| name.parse::<Name>().unwrap());
    prop_oneof![
        pool.clone().prop_map(RuleAction::Pool),
        vec((pool, 1u32..1000).prop_map(|(pool, weight)| SplitTarget { pool, weight }), 1..4)
            .prop_map(RuleAction::Split),
        Just(RuleAction::Reject),
    ]
}

fn rule() -> impl Strategy<Value = (Number, Rule)> {
    let mirror = option::of((Just("p1".parse().unwrap()), 0..=MIRROR_ALL));
    let mirror = mirror.prop_map(|mirror| mirror.map(|(pool, share)| Mirror { pool, share }));
    let rest = (action(&["p0", "p1"]), any::<bool>(), any::<bool>(), any::<bool>(), mirror);
    (1u64.., name(), conditions(), rest).prop_map(|(number, name, mut matches, rest)| {
        let (mut action, terminate, sticky, by_map, mirror) = rest;
        if by_map {
            let map: Name = "m0".parse().unwrap();
            (matches.sni, action) = (vec![SniPattern::Map(map.clone())], RuleAction::Map(map));
        }
        let tls = if terminate { TlsMode::Terminate } else { TlsMode::Passthrough };
        (Number(number), Rule { name, matches, action, tls, sticky, mirror })
    })
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let lists = vec(Just("l0".parse::<Name>().unwrap()), 0..2);
    (vec(prefix(), 0..3), lists).prop_map(|(prefixes, lists)| Addresses { prefixes, lists })
}

fn address_list() -> impl Strategy<Value = AddressList> {
    (name(), vec(prefix().prop_map(|net| net.trunc()), 0..20))
        .prop_map(|(name, entries)| AddressList::new(name, entries))
}

fn map() -> impl Strategy<Value = SniMap> {
    let key = ("[a-z0-9]{1,3}(\\.[a-z0-9]{1,3}){0,2}", any::<bool>()).prop_map(|(name, wildcard)| {
        if wildcard { MapKey::Wildcard(name.into()) } else { MapKey::Exact(name.into()) }
    });
    let pool = proptest::sample::select(vec!["p0", "p1"]).prop_map(|name| name.parse().unwrap());
    (name(), proptest::collection::btree_map(key, pool, 0..20))
        .prop_map(|(name, entries)| SniMap { name, entries: std::sync::Arc::new(entries) })
}

/// Conditions, up to two levels inside each other.
fn conditions() -> impl Strategy<Value = Match> {
    let port = (1u16.., any::<u16>())
        .prop_map(|(first, more)| PortRange { first, last: first.saturating_add(more) });
    let alpn = vec("[a-z0-9/.]{1,8}".prop_map(String::into_boxed_str), 0..2);
    let addresses = (addresses(), addresses());
    let flat = (vec(sni(), 0..3), alpn, option::of(any::<bool>()), addresses, vec(port, 0..2));
    let flat = flat.prop_map(|(sni, alpn, tls, (client, peer), port)| Match {
        sni,
        alpn,
        tls,
        client,
        peer,
        port,
        ..Match::default()
    });
    flat.prop_recursive(2, 6, 2, |inner| {
        let parts = || vec(inner.clone(), 0..2);
        (inner.clone(), parts(), parts(), parts()).prop_map(|(flat, any, all, not)| Match {
            any,
            all,
            not,
            ..flat
        })
    })
}

fn tls() -> impl Strategy<Value = TlsSettings> {
    (any::<bool>(), vec("[a-z0-9/.]{1,8}", 0..3), any::<bool>()).prop_map(|(new, alpn, require_sni)| {
        TlsSettings {
            certificates: vec!["c0".parse().unwrap()],
            min_version: if new { MinTlsVersion::V1_3 } else { MinTlsVersion::V1_2 },
            alpn,
            require_sni,
        }
    })
}

fn bind() -> impl Strategy<Value = BindAddress> {
    (option::of(any::<IpAddr>()), 1u16..)
        .prop_map(|(ip, port)| BindAddress { host: ip.map_or(BindHost::Any, BindHost::Ip), port })
}

pub fn listener() -> impl Strategy<Value = PlacedListener> {
    let labels = proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..3);
    let timeouts = (millis(), option::of(millis()), millis(), option::of(millis())).prop_map(
        |(handshake, idle, half_close, lifetime)| TcpTimeouts { handshake, idle, half_close, lifetime },
    );
    let counts = (option::of(1u32..), option::of(1u32..), option::of(1u32..), any::<bool>());
    let udp = (millis(), millis(), 1u32.., 1u32.., counts).prop_map(
        |(idle_timeout, unanswered_timeout, max_flows, max_flows_per_client, counts)| UdpSettings {
            idle_timeout,
            unanswered_timeout,
            max_flows,
            max_flows_per_client,
            max_requests: counts.0,
            max_responses: counts.1,
            max_reply_ratio: counts.2,
            quic: counts.3,
            ecn: counts.3,
        },
    );
    let affinity = (name(), millis()).prop_map(|(group, ttl)| Affinity { group, ttl });
    let head = (1u64.., name(), labels, vec(bind(), 1..4), any::<bool>());
    let from = (
        vec(prefix(), 0..3),
        option::of(access()),
        limits(),
        option::of(0u32..=ACCESS_LOG_ALL),
        (option::of(proptest::sample::select(vec![Preamble::Postgres, Preamble::Ldap])), any::<bool>()),
        option::of(affinity),
    );
    (head, option::of(tls()), vec(rule(), 1..5), option::of(any::<u32>()), timeouts, udp, from).prop_map(
        |(
            (number, name, labels, bind, udp_transport),
            tls,
            rules,
            max_connections,
            timeouts,
            udp,
            (proxy_from, access, limits, access_log, (preamble, acme_http01), affinity),
        )| {
            let (rule_numbers, rules) = rules.into_iter().unzip();
            let listener = Listener {
                name,
                labels,
                bind,
                protocol: if udp_transport { Protocol::Udp } else { Protocol::Tcp },
                tls,
                proxy_from,
                rules,
                access,
                limits: Limits { max_connections, ..limits },
                timeouts,
                udp,
                access_log,
                preamble,
                acme_http01,
                affinity,
            };
            PlacedListener { number: Number(number), rule_numbers, listener }
        },
    )
}

fn access() -> impl Strategy<Value = Access> {
    let verdict = any::<bool>().prop_map(|deny| if deny { Verdict::Deny } else { Verdict::Allow });
    let named = addresses().prop_filter("somebody", |addresses| !addresses.is_empty());
    let rule = (verdict.clone(), named, any::<bool>(), any::<bool>()).prop_map(
        |(verdict, addresses, shadow, close_existing)| AccessRule {
            verdict,
            addresses,
            shadow,
            close_existing,
        },
    );
    (verdict, vec(rule, 0..3)).prop_map(|(default, rules)| Access { default, rules })
}

fn limits() -> impl Strategy<Value = Limits> {
    let counts = (option::of(1u32..), option::of(1u32..), option::of(1u32..));
    let bytes = (option::of(1u64..), option::of(1u64..), option::of(1u64..));
    let packets = (option::of(1u32..), option::of(1u32..));
    (counts, bytes, packets, 0u8..=32, 0u8..=128).prop_map(|(counts, bytes, packets, v4, v6)| Limits {
        packets_per_second: packets.0,
        packets_per_second_per_client: packets.1,
        max_connections: None,
        max_connections_per_client: counts.0,
        new_connections_per_second: counts.1,
        new_per_client_per_second: counts.2,
        bytes_per_second: bytes.0,
        bytes_per_second_per_client: bytes.1,
        bytes_per_second_per_connection: bytes.2,
        client_prefix: ClientPrefix { v4, v6 },
    })
}

fn backend() -> impl Strategy<Value = (Number, Backend)> {
    let host = prop_oneof![
        any::<IpAddr>().prop_map(BackendHost::Ip),
        "[a-z]{1,9}(\\.[a-z]{1,9})?".prop_map(|name| BackendHost::Name(name.into())),
    ];
    let zone = option::of("[a-z]{1,5}".prop_map(String::into_boxed_str));
    let rest = (option::of(any::<u32>()), zone);
    (1u64.., name(), host, option::of(1u16..), 0u32..65_536, any::<u32>(), rest).prop_map(
        |(number, name, host, port, weight, priority, (max_connections, zone))| {
            let address = BackendAddress { host, port };
            (Number(number), Backend { name, address, weight, priority, max_connections, zone })
        },
    )
}

fn source() -> impl Strategy<Value = Source> {
    use proptest::sample::select;
    let records =
        select(vec![DnsSourceRecord::A, DnsSourceRecord::Aaaa, DnsSourceRecord::Both, DnsSourceRecord::Srv]);
    let dns = ("[a-z.]{1,20}", records, vec(any::<SocketAddr>(), 0..3), millis(), millis());
    let template = (option::of(1u16..), 0u32..65_536, any::<u32>(), option::of(any::<u32>()));
    let times = (millis(), millis(), any::<bool>(), any::<u32>(), 0u8..=100);
    let zone = option::of("[a-z]{1,5}".prop_map(String::into_boxed_str));
    let named = select(vec![None, Some("${address}"), Some("x-${label.app}")]);
    let selected = select(vec![None, Some("a=b"), Some("zone in (a, b), !c")]);
    let labels = (zone, named, selected);
    (name(), option::of(dns), times, template, labels).prop_map(|(id, dns, times, template, labels)| {
        let Some((name, record, servers, ttl_min, ttl_max)) = dns else { return Source::elsewhere(id) };
        let servers = servers.into_iter().map(|at| SocketAddr::new(at.ip(), at.port())).collect();
        let (interval, timeout, clears, min_backends, max_vanish_percent) = times;
        let (port, weight, priority, max_connections) = template;
        Source {
            id,
            kind: SourceKind::Dns(DnsSource { name: name.into(), record, servers, ttl_min, ttl_max }),
            run_on: RunOn::Node,
            interval,
            timeout,
            on_failure: if clears { OnFailure::Clear } else { OnFailure::Keep },
            min_backends,
            max_vanish_percent,
            select: labels.2.map(|text| text.parse().unwrap()),
            template: Template {
                port,
                weight,
                priority,
                max_connections,
                zone: labels.0,
                name: labels.1.map(|text| text.parse().unwrap()),
            },
        }
    })
}

pub fn pool() -> impl Strategy<Value = PlacedPool> {
    let balance = proptest::sample::select(vec![
        Balance::Random,
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::Hash,
        Balance::Maglev,
        Balance::P2c,
        Balance::Ewma,
        Balance::LeastBandwidth,
    ]);
    let locality = option::of((0u8..=100).prop_map(|spill_below| Locality { spill_below }));
    let tiers = (any::<[bool; 3]>(), 1u32.., option::of(millis()), locality);
    let hash_on =
        proptest::sample::select(vec![HashOn::Client, HashOn::ClientPort, HashOn::Sni, HashOn::Listener]);
    let check = checks::health_check();
    let outlier = (any::<u32>(), millis(), 0u8..=100).prop_map(
        |(consecutive_failures, ejection, max_ejected_percent)| Outlier {
            consecutive_failures,
            ejection,
            max_ejected_percent,
        },
    );
    let connect = (millis(), 1u32..).prop_map(|(timeout, attempts)| Connect { timeout, attempts });
    let head = (1u64.., name(), balance, hash_on, vec(backend(), 0..5), vec(source(), 0..3));
    let proxy = option::of(proptest::sample::select(vec![ProxyVersion::V1, ProxyVersion::V2]));
    let on_down = proptest::sample::select(vec![OnDown::Auto, OnDown::Keep, OnDown::Close, OnDown::Rechoose]);
    let proxy = (proxy, any::<bool>(), any::<bool>(), on_down, option::of(millis()));
    (head, tiers, option::of(check), outlier, any::<bool>(), connect, proxy).prop_map(
        |(
            (number, name, balance, hash_on, backends, discovery),
            ([spill_when_full, auto_failback, single_active], min_usable, slow_start, locality),
            health_check,
            outlier,
            any_when_down,
            connect,
            (proxy_protocol, by_first, preserve_client_address, on_down, removed_drain),
        )| {
            let (backend_numbers, backends) = backends.into_iter().unzip();
            let when_all_down = if any_when_down { WhenAllDown::Any } else { WhenAllDown::Reject };
            let pool = Pool {
                name,
                balance,
                hash_on,
                tiers: Tiers { spill_when_full, min_usable, auto_failback, single_active },
                locality,
                slow_start,
                backends,
                discovery,
                health_check,
                outlier,
                when_all_down,
                connect,
                proxy_protocol,
                proxy_datagrams: if by_first { ProxyDatagrams::First } else { ProxyDatagrams::Every },
                preserve_client_address,
                on_down,
                removed_drain,
            };
            PlacedPool { number: Number(number), backend_numbers, pool }
        },
    )
}

pub fn certificate() -> impl Strategy<Value = PlacedCertificate> {
    let staple = proptest::option::of((vec(any::<u8>(), 1..40), 1..i64::MAX));
    (name(), ".{1,60}", ".{1,60}", staple).prop_map(|(name, chain_pem, key, staple)| PlacedCertificate {
        certificate: Certificate { name, chain_pem },
        key: PrivateKeyPem(key),
        ocsp: staple.map(|(der, until)| Staple { der: der.into(), until }),
    })
}

/// Whole configurations whose references resolve.
pub fn node_config() -> impl Strategy<Value = NodeConfig> {
    let listeners = vec(listener(), 0..4);
    let pools = (pool(), pool(), vec(pool(), 0..3));
    let certificates = (certificate(), vec(certificate(), 0..2));
    let tables = (address_list(), map(), map());
    let all = (listeners, pools, certificates, tables);
    all.prop_map(|(mut listeners, (p0, p1, more), (c0, others), (mut l0, mut m0, mut m1))| {
        (l0.name, m0.name, m1.name) = ("l0".parse().unwrap(), "m0".parse().unwrap(), "m1".parse().unwrap());
        let named = |mut placed: PlacedPool, name: &str| {
            placed.pool.name = name.parse().unwrap();
            placed
        };
        let mut pools = more;
        pools.push(named(p0, "p0"));
        pools.push(named(p1, "p1"));
        let mut certificates = others;
        let mut c0 = c0;
        c0.certificate.name = "c0".parse().unwrap();
        certificates.push(c0);
        listeners.sort_by(|a, b| a.listener.name.cmp(&b.listener.name));
        listeners.dedup_by(|a, b| a.listener.name == b.listener.name);
        pools.sort_by(|a, b| a.pool.name.cmp(&b.pool.name));
        pools.dedup_by(|a, b| a.pool.name == b.pool.name);
        certificates.sort_by(|a, b| a.certificate.name.cmp(&b.certificate.name));
        certificates.dedup_by(|a, b| a.certificate.name == b.certificate.name);
        NodeConfig { listeners, pools, certificates, address_lists: vec![l0], maps: vec![m0, m1] }
    })
}
