//! Initials of QUIC as a client sends them (RFC 9001 section 5, RFC 9369 section 3), for the target and its seeds.
#![allow(dead_code, reason = "the target and the seeds use a part each")]

use std::sync::LazyLock;

use rustls::{Side, crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, quic::Version};

const ID: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// A ClientHello of post-quantum size, for `app.example.com` and `h3`.
pub static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut extensions = Vec::new();
    extension(&mut extensions, 0, &counted(&[&[0][..], &counted(b"app.example.com")].concat()));
    extension(&mut extensions, 10, &counted(&[0x11, 0xec]));
    extension(&mut extensions, 13, &counted(&[4, 3, 8, 4]));
    extension(&mut extensions, 16, &counted(b"\x02h3"));
    extension(&mut extensions, 43, &[2, 3, 4]);
    extension(&mut extensions, 51, &counted(&[&[0x11, 0xec][..], &counted(&[9; 1216])].concat()));
    extension(&mut extensions, 57, &[4, 1, 9]);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(counted(&extensions));
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
});

fn extension(into: &mut Vec<u8>, number: u16, content: &[u8]) {
    into.extend(number.to_be_bytes());
    into.extend(counted(content));
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

fn put_number(out: &mut Vec<u8>, value: usize) {
    out.extend((u32::try_from(value).expect("small") | 0x8000_0000).to_be_bytes());
}

/// A frame with a part of a hello.
pub fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![6];
    put_number(&mut frame, offset);
    put_number(&mut frame, data.len());
    frame.extend(data);
    frame
}

/// A packet with these frames.
pub fn initial(second_version: bool, packet_number: u32, frames: &[u8]) -> Vec<u8> {
    let (version, wire, first) =
        if second_version { (Version::V2, 0x6b33_43cfu32, 0xd3) } else { (Version::V1, 1, 0xc3) };
    let mut payload = frames.to_vec();
    payload.resize(payload.len().max(32), 0);
    let mut packet = vec![first];
    packet.extend(wire.to_be_bytes());
    packet.push(ID.len() as u8);
    packet.extend(ID);
    packet.extend([4, 9, 9, 9, 9, 0]);
    put_number(&mut packet, 4 + payload.len() + 16);
    let number_at = packet.len();
    packet.extend(packet_number.to_be_bytes());
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite()).expect("a suite");
    let keys = suite.keys(ID, Side::Client, version).local;
    let tag = keys.packet.encrypt_in_place(packet_number.into(), &packet, &mut payload).expect("encrypted");
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let sample = packet[number_at + 4..number_at + 20].to_vec();
    let (head, tail) = packet.split_at_mut(number_at);
    keys.header.encrypt_in_place(&sample, &mut head[0], &mut tail[..4]).expect("protected");
    packet
}
