//! Binary headers, and what is in them.

use super::*;

#[test]
fn headers_of_haproxy() {
    for (hex, source, destination) in [
        (HAPROXY_V4, "127.0.0.1:35764", "127.0.0.1:21003"),
        (HAPROXY_V6, "[::1]:46942", "[::1]:21004"),
        (HAPROXY_MIXED, "192.0.2.1:38380", "[::1]:21008"),
        (HAPROXY_MIXED_OTHER, "[2001:db8::7]:41114", "127.0.0.1:21009"),
        (HAPROXY_FULL, "127.0.0.1:40538", "127.0.0.1:21005"),
        (HAPROXY_NO_CERTIFICATE, "[::1]:36240", "[::1]:21006"),
    ] {
        let header = whole(&bytes(hex));
        assert_eq!(ends(&header), Some((source.to_owned(), destination.to_owned())), "{hex}");
        assert_eq!((header.version, header.is_local, header.is_datagram), (Version::V2, false, false));
    }
    let check = whole(&bytes(HAPROXY_LOCAL));
    assert!(check.is_local);
    assert_eq!((ends(&check), check.tlvs.iter().collect::<Vec<_>>()), (None, vec![Tlv::Crc32c]));
}

#[test]
fn values_of_haproxy() {
    let header = whole(&bytes(HAPROXY_FULL));
    let tlvs = &header.tlvs;
    assert_eq!(tlvs.alpn(), Some(&b"h2"[..]));
    assert_eq!(tlvs.authority(), Some("app.example.com"));
    assert_eq!(tlvs.unique_id(), Some(&b"7F000001:9E5A_7F000001:520D"[..]));
    assert_eq!(tlvs.netns(), None);
    assert_eq!(
        tlvs.ssl(),
        Some(Ssl {
            is_tls: true,
            certificate_on_connection: true,
            certificate_in_session: true,
            verified: true,
            version: Some("TLSv1.3"),
            common_name: Some("alice"),
            cipher: Some("TLS_AES_256_GCM_SHA384"),
            signature_algorithm: Some("RSA-SHA256"),
            key_algorithm: Some("RSA2048"),
        })
    );
    let kinds: Vec<_> = tlvs.iter().map(|tlv| std::mem::discriminant(&tlv)).collect();
    let expected =
        [Tlv::Crc32c, Tlv::Alpn(b""), Tlv::Authority(""), Tlv::UniqueId(b""), Tlv::Ssl(Ssl::default())];
    assert_eq!(kinds, expected.map(|tlv| std::mem::discriminant(&tlv)));
}

#[test]
fn a_client_without_a_certificate_is_not_verified() {
    let header = whole(&bytes(HAPROXY_NO_CERTIFICATE));
    let ssl = header.tlvs.ssl().expect("TLS");
    assert!(ssl.is_tls && !ssl.verified && !ssl.certificate_on_connection && !ssl.certificate_in_session);
    assert_eq!(ssl.common_name, None);
}

#[test]
fn every_flipped_bit_fails_the_checksum() {
    for hex in [HAPROXY_FULL, HAPROXY_MIXED, HAPROXY_LOCAL] {
        let good = bytes(hex);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match parse(&bad) {
                // Not the length, nor the kind of the checksum itself: those make another header.
                Parsed::Header { header, length } => {
                    assert!(length < good.len() || header.tlvs.get(3).is_none(), "bit {bit} of {hex}");
                }
                Parsed::NeedMore => assert!((14..16).contains(&(bit / 8)), "bit {bit} of {hex}"),
                Parsed::NotProxy | Parsed::Malformed(_) => {}
            }
        }
    }
}

#[test]
fn families_and_transports() {
    let v4 = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];
    let said = ("1.2.3.4:80".to_owned(), "5.6.7.8:443".to_owned());
    assert_eq!(ends(&whole(&v2(0x21, 0x11, &v4))), Some(said.clone()));
    let datagram = whole(&v2(0x21, 0x12, &v4));
    assert_eq!((ends(&datagram), datagram.is_datagram), (Some(said), true));

    let tlv = b"\xea\0\x01x";
    for (family, size) in
        [(0x00, 0), (0x01, 0), (0x02, 0), (0x10, 12), (0x20, 36), (0x30, 216), (0x31, 216), (0x32, 216)]
    {
        let header = whole(&v2(0x21, family, &[&vec![7; size][..], tlv].concat()));
        assert_eq!((ends(&header), header.tlvs.get(0xea)), (None, Some(&b"x"[..])), "{family:x}");
        assert!(!header.is_local);
    }
    for (family, size) in [(0x11, 11), (0x12, 0), (0x21, 35), (0x22, 12), (0x31, 215), (0x10, 3)] {
        assert_eq!(malformed(&v2(0x21, family, &vec![0; size])), "addresses that go beyond the header");
    }
    for family in [0x40, 0x13, 0x03, 0xff] {
        assert_eq!(malformed(&v2(0x21, family, &[])[..14]), "a family or transport that does not exist");
    }
    assert_eq!(malformed(&v2(0x22, 0x11, &v4)[..13]), "a command that is neither LOCAL nor PROXY");
    assert_eq!(malformed(&v2(0x31, 0x11, &v4)[..13]), "a version other than 2");
    assert_eq!(malformed(&v2(0x11, 0x11, &v4)[..13]), "a version other than 2");
}

#[test]
fn local_is_taken_whatever_is_in_it() {
    // Also addresses, families that do not exist, and no TLVs at all (Envoy's CVE-2024-23327 was a crash here).
    for (family, payload) in
        [(0x00, 0), (0x11, 12), (0x11, 3), (0x21, 36), (0x31, 216), (0xff, 5), (0x00, 2), (0x40, 4080)]
    {
        let header = whole(&v2(0x20, family, &vec![0x20; payload]));
        assert!(
            header.is_local && !header.is_datagram && header.source.is_none() && header.destination.is_none()
        );
    }
    let header = whole(&v2(0x20, 0x11, b"\0\0\0\0\0\0\0\0\0\0\0\0\xea\0\x01x"));
    assert_eq!(header.tlvs.get(0xea), Some(&b"x"[..]));
}

#[test]
fn lengths_within_a_header() {
    let with = |tlvs: &[u8]| v2(0x21, 0x11, &[&[9; 12][..], tlvs].concat());
    for (tlvs, reason) in [
        (&b"\x01"[..], "a TLV that goes beyond the header"),
        (b"\x01\0", "a TLV that goes beyond the header"),
        (b"\x01\0\x02x", "a TLV that goes beyond the header"),
        (b"\x02\xff\xff", "a TLV that goes beyond the header"),
        (b"\x02\0\x01a\x02\0\x01a", "a TLV twice"),
        (b"\x03\0\x03abc", "a checksum of the wrong length"),
        (b"\x03\0\x04abcd", "a checksum that does not hold"),
        (b"\x20\0\x04abcd", "a TLV about TLS that is too short"),
        (b"\x20\0\x06\x01\0\0\0\0\x21", "a TLV that goes beyond the one around it"),
        (b"\x20\0\x09\x01\0\0\0\0\x21\0\x02a\x04\0\0", "a TLV that goes beyond the one around it"),
        (b"\x20\0\x0b\x01\0\0\0\0\x22\0\0\x22\0\0", "a TLV about TLS twice"),
    ] {
        assert_eq!(malformed(&with(tlvs)), reason, "{tlvs:?}");
    }
    let id = |length: u8| with(&[&[5, 0, length][..], &vec![b'i'; usize::from(length)]].concat());
    assert_eq!(whole(&id(128)).tlvs.unique_id().map(<[u8]>::len), Some(128));
    assert_eq!(malformed(&id(129)), "a unique id of more than 128 bytes");
    // Padding and what is not known may be there often; a name that is no text is reachable.
    let header = whole(&with(b"\x04\0\0\x04\0\x01x\xea\0\x01a\xea\0\x01b\x02\0\x01\xff"));
    assert_eq!((header.tlvs.iter().count(), header.tlvs.authority()), (5, None));
    assert_eq!(header.tlvs.iter().last(), Some(Tlv::Other { kind: 2, value: b"\xff" }));
}

#[test]
fn a_header_has_4096_bytes_at_most() {
    let mut longest = vec![0; MAX_V2_BYTES - V2_FIXED_BYTES];
    longest[12..15].copy_from_slice(&[4, 0x0f, 0xe1]);
    whole(&v2(0x21, 0x11, &longest));
    longest.push(0);
    assert_eq!(malformed(&v2(0x21, 0x11, &longest)[..16]), "a header of more than 4096 bytes");
    assert_eq!(malformed(&v2(0x20, 0x00, &[0; 0xffff])[..16]), "a header of more than 4096 bytes");
}
