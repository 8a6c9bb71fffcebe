//! Headers as HAProxy 2.6 wrote them, the examples and rules of the specification, and whatever else may come.

mod version1;
mod version2;
mod writing;

use proptest::prelude::*;

use super::*;

/// `send-proxy-v2` with every option, for a client with a certificate.
const HAPROXY_FULL: &str = "0d0a0d0a000d0a515549540a 21 11 0092 7f000001 7f000001 9e5a 520d \
    03 0004 b4b4c858 01 0002 6832 02 000f 6170702e6578616d706c652e636f6d \
    05 001b 37463030303030313a394535415f37463030303030313a35323044 \
    20 0047 07 00000000 21 0007 544c5376312e33 22 0005 616c696365 25 0007 52534132303438 \
    24 000a 5253412d534841323536 23 0016 544c535f4145535f3235365f47434d5f534841333834";
/// For a client without a certificate, over IPv6.
const HAPROXY_NO_CERTIFICATE: &str = "0d0a0d0a000d0a515549540a 21 21 006d \
    00000000000000000000000000000001 00000000000000000000000000000001 8d90 520e \
    03 0004 85b1a80a 01 0002 6832 02 000f 6170702e6578616d706c652e636f6d \
    20 0028 01 00000000 21 0007 544c5376312e33 23 0016 544c535f4145535f3235365f47434d5f534841333834";
const HAPROXY_V4: &str = "0d0a0d0a000d0a515549540a 21 11 000c 7f000001 7f000001 8bb4 520b";
const HAPROXY_V6: &str = "0d0a0d0a000d0a515549540a 21 21 0024 \
    00000000000000000000000000000001 00000000000000000000000000000001 b75e 520c";
/// From 192.0.2.1 to ::1.
const HAPROXY_MIXED: &str = "0d0a0d0a000d0a515549540a 21 21 002b \
    00000000000000000000ffffc0000201 00000000000000000000000000000001 95ec 5210 03 0004 4d4a0f12";
/// From 2001:db8::7 to 127.0.0.1.
const HAPROXY_MIXED_OTHER: &str = "0d0a0d0a000d0a515549540a 21 21 0024 \
    20010db8000000000000000000000007 00000000000000000000ffff7f000001 a09a 5211";
/// A health check.
const HAPROXY_LOCAL: &str = "0d0a0d0a000d0a515549540a 20 00 0007 03 0004 a9b87e8f";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The header and nothing else, by every prefix.
fn whole(bytes: &[u8]) -> Header {
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), Parsed::NeedMore, "{length} of {bytes:02x?}");
    }
    let Parsed::Header { header, length } = parse(&[bytes, b"\r\nrest"].concat()) else {
        panic!("no header: {:?} {:?}", parse(bytes), String::from_utf8_lossy(bytes))
    };
    assert_eq!(length, bytes.len());
    assert_eq!(parse(bytes), Parsed::Header { header: header.clone(), length });
    header
}

fn ends(header: &Header) -> Option<(String, String)> {
    Some((header.source?.to_string(), header.destination?.to_string()))
}

fn malformed(bytes: &[u8]) -> &'static str {
    match parse(bytes) {
        Parsed::Malformed(reason) => reason,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Version 2 with these bytes of command and family, and this payload.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, payload].concat()
}

fn written(header: &Outgoing<'_>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    header.write(&mut out);
    out.split_off(6)
}

fn outgoing<'a>(version: Version, source: &str, destination: &str, tlvs: &'a [Tlv<'a>]) -> Outgoing<'a> {
    let (source, destination) = (address(source), address(destination));
    Outgoing { version, is_local: false, is_datagram: false, source, destination, tlvs }
}

#[test]
fn what_is_not_proxy_is_known_at_the_first_byte_that_differs() {
    for other in [
        &b"GET / HTTP/1.1"[..],
        b"\x16\x03\x01",
        b"PROXX",
        b"PROXYTCP4",
        b"PUT",
        b"\r\n\r\n\0\r\nQUIX",
        b"\r\nX",
        b" PROXY",
    ] {
        assert_eq!(parse(other), Parsed::NotProxy, "{other:?}");
        let first = (1..other.len()).find(|length| parse(&other[..*length]) != Parsed::NeedMore);
        for length in first.unwrap_or(other.len())..other.len() {
            assert_eq!(parse(&other[..length]), Parsed::NotProxy);
        }
    }
    assert_eq!(parse(b""), Parsed::NeedMore);
    assert_eq!(parse(b"PROXZ"), Parsed::NotProxy);
    assert_eq!(parse(b"PROXY"), Parsed::NeedMore);
}

proptest! {
    #[test]
    fn damaged_headers_never_panic_and_what_is_said_is_never_taken_back(
        which in 0usize..8,
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        cut in any::<usize>(),
    ) {
        let mut bytes = match which {
            7 => b"PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 52374 21010\r\nrest".to_vec(),
            _ => bytes([
                HAPROXY_FULL, HAPROXY_NO_CERTIFICATE, HAPROXY_V4, HAPROXY_V6, HAPROXY_MIXED, HAPROXY_MIXED_OTHER,
                HAPROXY_LOCAL,
            ][which]),
        };
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = parse(&bytes);
        let part = parse(&bytes[..cut % (bytes.len() + 1)]);
        if part != Parsed::NeedMore {
            prop_assert_eq!(part, whole);
        }
    }

    #[test]
    fn never_panics_and_never_waits_forever(
        start in 0usize..4,
        bytes in prop::collection::vec(any::<u8>(), MAX_V2_BYTES..MAX_V2_BYTES + 10),
    ) {
        let start = [&b""[..], V1_SIGNATURE, &V2_SIGNATURE[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11"][start];
        let bytes = [start, &bytes].concat();
        prop_assert_ne!(parse(&bytes), Parsed::NeedMore);
    }
}
