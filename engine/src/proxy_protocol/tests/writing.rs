//! What is written, against what HAProxy writes and against what is read.

use super::*;

#[test]
fn written_as_haproxy_writes() {
    let (v1, v2) = (Version::V1, Version::V2);
    for (hex, source, destination, tlvs) in [
        (HAPROXY_V4, "127.0.0.1:35764", "127.0.0.1:21003", &[][..]),
        (HAPROXY_V6, "[::1]:46942", "[::1]:21004", &[]),
        (HAPROXY_MIXED, "192.0.2.1:38380", "[::1]:21008", &[Tlv::Crc32c]),
        (HAPROXY_MIXED, "[::ffff:192.0.2.1]:38380", "[::1]:21008", &[Tlv::Crc32c]),
        (HAPROXY_MIXED_OTHER, "[2001:db8::7]:41114", "127.0.0.1:21009", &[]),
    ] {
        assert_eq!(written(&outgoing(v2, source, destination, tlvs)), bytes(hex), "{hex}");
    }
    let local =
        Outgoing { is_local: true, ..outgoing(v2, "1.2.3.4:5", "[::1]:6", &[Tlv::Alpn(b"h2"), Tlv::Crc32c]) };
    assert_eq!(written(&local), bytes(HAPROXY_LOCAL));

    for (source, destination, line) in [
        ("127.0.0.1:52914", "127.0.0.1:21001", "TCP4 127.0.0.1 127.0.0.1 52914 21001"),
        ("[::ffff:1.2.3.4]:5", "[::ffff:5.6.7.8]:6", "TCP4 1.2.3.4 5.6.7.8 5 6"),
        ("[::1]:45218", "[::1]:21002", "TCP6 ::1 ::1 45218 21002"),
        ("192.0.2.1:38772", "[::1]:21007", "TCP6 ::ffff:192.0.2.1 ::1 38772 21007"),
        ("[2001:db8::7]:52374", "127.0.0.1:21010", "TCP6 2001:db8::7 ::ffff:127.0.0.1 52374 21010"),
    ] {
        let expected = format!("PROXY {line}\r\n");
        let header = outgoing(v1, source, destination, &[Tlv::Crc32c]);
        assert_eq!(String::from_utf8_lossy(&written(&header)), expected);
        assert_eq!(String::from_utf8_lossy(&written(&Outgoing { is_local: true, ..header })), expected);
        assert_eq!(written(&Outgoing { is_datagram: true, ..header }), b"PROXY UNKNOWN\r\n");
    }
}

#[test]
fn what_was_read_can_be_written_again() {
    for hex in [HAPROXY_FULL, HAPROXY_NO_CERTIFICATE, HAPROXY_MIXED] {
        let header = whole(&bytes(hex));
        let tlvs: Vec<_> = header.tlvs.iter().collect();
        let (source, destination) = (header.source.expect("said"), header.destination.expect("said"));
        let again = Outgoing {
            version: Version::V2,
            is_local: false,
            is_datagram: false,
            source,
            destination,
            tlvs: &tlvs,
        };
        let again = whole(&written(&again));
        assert_eq!((again.source, again.destination), (header.source, header.destination));
        assert_eq!(again.tlvs.iter().count(), tlvs.len());
        for tlv in again.tlvs.iter() {
            assert!(tlvs.contains(&tlv), "{tlv:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_left_out_as_a_whole() {
    // Envoy's CVE-2026-47692: values that were left out of the length were sent all the same.
    let (long, id) = (vec![b'x'; 70_000], vec![b'i'; 129]);
    let tlvs = [
        Tlv::Other { kind: 0xe0, value: &long },
        Tlv::UniqueId(&id),
        Tlv::Other { kind: 0xe1, value: &long[..4000] },
        Tlv::Other { kind: 0xe2, value: &long[..60] },
        Tlv::Crc32c,
        Tlv::Authority("a.b"),
        Tlv::Authority("c.d"),
        Tlv::Other { kind: 3, value: b"abcd" },
        Tlv::Ssl(Ssl { cipher: Some(std::str::from_utf8(&long).expect("text")), ..Ssl::default() }),
    ];
    let bytes = written(&outgoing(Version::V2, "1.2.3.4:5", "5.6.7.8:9", &tlvs));
    let header = whole(&bytes);
    assert!(bytes.len() <= MAX_V2_BYTES);
    let kinds: Vec<_> = (0..=255).filter(|kind| header.tlvs.get(*kind).is_some()).collect();
    assert_eq!((kinds, header.tlvs.authority()), (vec![2, 3, 0xe1], Some("a.b")));
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 4]>().prop_map(|ip| std::net::Ipv4Addr::from(ip).to_ipv6_mapped().into()),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

proptest! {
    #[test]
    fn round_trips(
        source in any_address(),
        destination in any_address(),
        is_v2 in any::<bool>(),
        is_datagram in any::<bool>(),
        authority in proptest::option::of("[a-z.]{0,300}"),
        unique_id in proptest::option::of(prop::collection::vec(any::<u8>(), 0..=128)),
        ssl in proptest::option::of((any::<[bool; 4]>(), proptest::option::of("[A-Za-z0-9._-]{0,40}"))),
        others in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..1500)), 0..5),
        checksum in any::<bool>(),
    ) {
        let version = if is_v2 { Version::V2 } else { Version::V1 };
        let ssl = ssl.as_ref().map(|(flags, name)| Ssl {
            is_tls: flags[0],
            certificate_on_connection: flags[1],
            certificate_in_session: flags[2],
            verified: flags[3] && (flags[1] || flags[2]),
            common_name: name.as_deref(),
            ..Ssl::default()
        });
        let mut tlvs: Vec<_> = authority.as_deref().map(Tlv::Authority).into_iter().collect();
        tlvs.extend(unique_id.as_deref().map(Tlv::UniqueId));
        tlvs.extend(ssl.map(Tlv::Ssl));
        tlvs.extend(others.iter().map(|(kind, value)| Tlv::Other { kind: *kind, value }));
        tlvs.extend(checksum.then_some(Tlv::Crc32c));
        let out = Outgoing { version, is_local: false, is_datagram, source, destination, tlvs: &tlvs };
        let header = whole(&written(&out));
        prop_assert_eq!(header.version, version);
        if is_v2 || !is_datagram {
            prop_assert_eq!(header.source, Some(canonical(source)));
            prop_assert_eq!(header.destination, Some(canonical(destination)));
        }
        prop_assert_eq!(header.is_datagram, is_v2 && is_datagram);
        if is_v2 {
            prop_assert_eq!(header.tlvs.unique_id(), unique_id.as_deref());
            prop_assert_eq!(header.tlvs.ssl(), ssl);
            prop_assert_eq!(header.tlvs.get(3).is_some(), checksum);
            if authority.is_some() {
                prop_assert_eq!(header.tlvs.authority(), authority.as_deref());
            }
        }
    }
}
