use std::sync::Arc;

use proptest::prelude::*;
use rustls::{
    Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{ClientConnection, Version},
};

use super::*;

/// The ClientHello of a real QUIC client.
fn hello(name: &str, post_quantum: bool) -> Vec<u8> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = if post_quantum {
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768]
    } else {
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519]
    };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let name = name.to_owned().try_into().expect("a name");
    let mut client =
        ClientConnection::new(Arc::new(config), Version::V1, name, vec![1, 2, 3]).expect("a client");
    let mut bytes = Vec::new();
    client.write_hs(&mut bytes);
    bytes
}

fn number(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(u32::try_from(value).expect("small") | 0x8000_0000).to_be_bytes());
}

fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![6];
    number(&mut frame, offset);
    number(&mut frame, data.len());
    frame.extend_from_slice(data);
    frame
}

/// An Initial as a client sends it (RFC 9001 section 5, RFC 9369 section 3).
fn initial(
    version: Version,
    keyed_by: &[u8],
    destination: &[u8],
    packet_number: u32,
    frames: &[u8],
) -> Vec<u8> {
    let (wire, first) = match version {
        Version::V2 => (0x6b33_43cfu32, 0xd3),
        _ => (1, 0xc3),
    };
    let mut payload = frames.to_vec();
    payload.resize(payload.len().max(64), 0);
    let mut packet = vec![first];
    packet.extend_from_slice(&wire.to_be_bytes());
    packet.push(u8::try_from(destination.len()).expect("short"));
    packet.extend_from_slice(destination);
    packet.extend_from_slice(&[4, 9, 9, 9, 9]);
    number(&mut packet, 3);
    packet.extend_from_slice(b"tok");
    number(&mut packet, 4 + payload.len() + 16);
    let number_at = packet.len();
    packet.extend_from_slice(&packet_number.to_be_bytes());
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite()).expect("a suite");
    let keys = suite.keys(keyed_by, Side::Client, version).local;
    let tag = keys.packet.encrypt_in_place(packet_number.into(), &packet, &mut payload).expect("encrypted");
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(tag.as_ref());
    let sample = packet[number_at + 4..number_at + 20].to_vec();
    let (head, tail) = packet.split_at_mut(number_at);
    keys.header.encrypt_in_place(&sample, &mut head[0], &mut tail[..4]).expect("protected");
    packet
}

fn name_and_alpn(sniff: &Sniff) -> Option<(String, bool)> {
    match sniff {
        Sniff::Hello(hello) => {
            let name = hello.server_name.map(|name| name.as_str().to_owned());
            Some((name.unwrap_or_default(), hello.alpn.offers("h3")))
        }
        _ => None,
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

const FIRST: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

#[test]
fn a_whole_hello_in_one_datagram() {
    for version in [Version::V1, Version::V2] {
        let datagram = initial(version, FIRST, FIRST, 0, &crypto(0, &hello("App.Example.com", false)));
        let sniff = InitialSniffer::default().feed(&datagram);
        assert_eq!(name_and_alpn(&sniff), Some(("app.example.com".into(), true)), "{version:?}");
    }
}

/// RFC 9001 appendix A.5 has no Initial of a client in full; A.3 is the server's, whose keys are not the client's.
#[test]
fn the_servers_initial_of_the_rfc_tells_its_id() {
    let packet = hex(
        "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee",
    );
    let ids: Vec<_> = source_ids(&packet).collect();
    assert_eq!(ids, [ConnectionId::new(&hex("f067a5502a4262b5")).expect("an id")]);
    assert_eq!(InitialSniffer::default().feed(&packet), Sniff::Malformed, "not a client's");
}

/// RFC 9001 appendix A.4.
#[test]
fn a_retry_tells_the_id_of_the_server() {
    let packet = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
    assert_eq!(source_ids(&packet).collect::<Vec<_>>().len(), 1);
}

#[test]
fn after_a_retry_the_hello_is_read_with_the_new_id() {
    let bytes = hello("app.example.com", true);
    let mut sniffer = InitialSniffer::default();
    assert_eq!(
        sniffer.feed(&initial(Version::V1, FIRST, FIRST, 0, &crypto(0, &bytes[..500]))),
        Sniff::NeedMore
    );
    let second = [7; 12];
    let half = initial(Version::V1, &second, &second, 1, &crypto(0, &bytes[..900]));
    assert_eq!(sniffer.feed(&half), Sniff::NeedMore);
    let rest = initial(Version::V1, &second, &second, 2, &crypto(900, &bytes[900..]));
    assert_eq!(name_and_alpn(&sniffer.feed(&rest)), Some(("app.example.com".into(), true)));
}

/// Once the server has named itself the client calls it by that name, with the keys of the first.
#[test]
fn packets_to_the_servers_own_id_keep_the_keys() {
    let bytes = hello("app.example.com", true);
    let mut sniffer = InitialSniffer::default();
    sniffer.feed(&initial(Version::V1, FIRST, FIRST, 0, &crypto(0, &bytes[..900])));
    let rest = initial(Version::V1, FIRST, &[1; 8], 1, &crypto(900, &bytes[900..]));
    assert!(name_and_alpn(&sniffer.feed(&rest)).is_some());
}

#[test]
fn coalesced_packets_are_all_read() {
    let bytes = hello("app.example.com", false);
    let (head, tail) = bytes.split_at(100);
    let mut datagram = initial(Version::V1, FIRST, FIRST, 0, &crypto(0, head));
    // Early data between them: a long header and something that nobody here can read.
    datagram.extend_from_slice(&[0xd0, 0, 0, 0, 1, 1, 5, 1, 6, 4, 1, 2, 3, 4]);
    datagram.extend(initial(Version::V1, FIRST, FIRST, 1, &crypto(100, tail)));
    assert!(name_and_alpn(&InitialSniffer::default().feed(&datagram)).is_some());
}

#[test]
fn what_is_something_else_is_said_to_be() {
    let feed = |bytes: &[u8]| InitialSniffer::default().feed(bytes);
    for other in [&b""[..], b"\x12\x34 a question to a name server", b"\x40short header", &[0x80; 4]] {
        assert_eq!(feed(other), Sniff::NotQuic, "{other:?}");
    }
    let mut unknown = initial(Version::V1, FIRST, FIRST, 0, &crypto(0, &hello("a.b", false)));
    unknown[4] = 9;
    assert_eq!(feed(&unknown), Sniff::NotQuic);
    let stream = initial(Version::V1, FIRST, FIRST, 0, &[8, 0, 0]);
    assert_eq!(feed(&stream), Sniff::Malformed, "no stream in an Initial");
    let far = initial(Version::V1, FIRST, FIRST, 0, &crypto(100_000, b"x"));
    assert_eq!(feed(&far), Sniff::TooLarge);
    let mut damaged = initial(Version::V1, FIRST, FIRST, 0, &crypto(0, &hello("a.b", false)));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(feed(&damaged), Sniff::Malformed);
}

#[test]
fn ids_of_short_headers_have_the_length_one_knows() {
    let datagram = [0x41, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(destination_id(&datagram, 4), ConnectionId::new(&[1, 2, 3, 4]));
    assert_eq!(destination_id(&datagram, 20), None);
    assert_eq!(destination_id(&[0x01, 1, 2, 3, 4], 4), ConnectionId::new(&[1, 2, 3, 4]), "greased: RFC 9287");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), long in any::<bool>()) {
        let mut bytes = bytes;
        if long && bytes.len() > 8 {
            bytes[..7].copy_from_slice(&[0xc0, 0, 0, 0, 1, 4, 1]);
        }
        let mut sniffer = InitialSniffer::default();
        let _ = sniffer.feed(&bytes);
        let _ = source_ids(&bytes).count();
        let _ = destination_id(&bytes, 8);
        let _ = sniffer.feed(&bytes);
    }

    #[test]
    fn a_cut_datagram_never_panics(cut in 0usize..2_000) {
        let datagram = initial(Version::V1, FIRST, FIRST, 0, &crypto(0, &hello("app.example.com", true)));
        let _ = InitialSniffer::default().feed(&datagram[..cut.min(datagram.len())]);
    }

    #[test]
    fn a_hello_in_any_pieces_in_any_order_is_the_same(
        post_quantum in any::<bool>(),
        second_version in any::<bool>(),
        mut cuts in prop::collection::vec(1usize..1_800, 0..12),
        seed in any::<u64>(),
        overlap in 0usize..50,
    ) {
        use rand::{SeedableRng, seq::SliceRandom};
        let bytes = hello("app.example.com", post_quantum);
        cuts.retain(|cut| *cut < bytes.len());
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let mut pieces: Vec<(usize, usize)> = cuts.windows(2).map(|two| (two[0].saturating_sub(overlap), two[1])).collect();
        pieces.shuffle(&mut rand::rngs::SmallRng::seed_from_u64(seed));
        let version = if second_version { Version::V2 } else { Version::V1 };
        let mut sniffer = InitialSniffer::default();
        let mut last = Sniff::NeedMore;
        for (number, (from, to)) in (0u32..).zip(&pieces) {
            prop_assert!(overlap > 0 || name_and_alpn(&last).is_none());
            last = sniffer.feed(&initial(version, FIRST, FIRST, number, &crypto(*from, &bytes[*from..*to])));
        }
        prop_assert_eq!(name_and_alpn(&last), Some(("app.example.com".to_owned(), true)));
    }
}
