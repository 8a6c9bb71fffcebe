use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use super::*;
use crate::sys::options;

fn pair() -> (UdpSocket, UdpSocket) {
    let a = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let b = UdpSocket::bind("127.0.0.1:0").expect("bind");
    a.connect(b.local_addr().expect("address")).expect("connect");
    (a, b)
}

fn payloads(batch: &Batch, slots: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    slots
        .flat_map(|slot| {
            let received = batch.received(slot);
            let bytes = batch.payload(slot, 0, received.len);
            bytes.chunks(received.segment.max(1) as usize).map(<[u8]>::to_vec).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_batch_is_received_at_once_with_its_senders() {
    let (a, b) = pair();
    for length in [1usize, 0, 1500, 65_507] {
        a.send(&vec![length as u8; length]).expect("send");
    }
    let mut batch = Batch::default();
    let slots = batch.receive(b.as_fd(), Source::Listener, SLOTS).expect("receive");
    assert_eq!(slots, 0..4);
    let lens: Vec<u32> = slots.map(|slot| batch.received(slot).len).collect();
    assert_eq!(lens, [1, 0, 1500, 65_507]);
    let received = batch.received(3);
    assert_eq!(received.from, a.local_addr().ok());
    assert!(!received.truncated && received.local.is_none());
    assert_eq!(batch.room(), SLOTS - 4);
    let nothing = batch.receive(b.as_fd(), Source::Listener, SLOTS).expect_err("nothing is there");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_run_is_cut_apart_by_the_kernel_and_glued_on_request() {
    let (a, b) = pair();
    for glued in [false, true] {
        if glued {
            options::ask_for_runs(b.as_fd(), true).expect("UDP_GRO");
        }
        let source = UdpSocket::bind("127.0.0.1:0").expect("bind");
        source.connect(a.local_addr().expect("address")).expect("connect");
        // `a` is connected to `b`, so it does not take what `source` sends: read it through another socket.
        let inbox = UdpSocket::bind("127.0.0.1:0").expect("bind");
        source.connect(inbox.local_addr().expect("address")).expect("connect");
        let sent: Vec<Vec<u8>> =
            [100usize, 100, 100, 7].iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
        for datagram in &sent {
            source.send(datagram).expect("send");
        }
        let mut batch = Batch::default();
        let slots = batch.receive(inbox.as_fd(), Source::Connected, 16).expect("receive");
        let pieces: Vec<Piece> =
            slots.map(|slot| Piece { slot, offset: 0, len: batch.received(slot).len }).collect();
        let run = Run { to: None, from: None, first_piece: 0, pieces: 4, segment: 100, ecn: Ecn::default() };
        assert_eq!(Outbox::default().send(a.as_fd(), &batch, &[run], &pieces).expect("send"), 1);
        let mut there = Batch::default();
        let slots = there.receive(b.as_fd(), Source::Listener, SLOTS).expect("receive");
        assert_eq!(slots.len(), if glued { 1 } else { 4 });
        assert_eq!(payloads(&there, slots), sent);
    }
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    for (wildcard, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
        let server = UdpSocket::bind(wildcard).expect("bind");
        let asked: IpAddr = asked.parse().expect("an address");
        options::ask_for_local_address(server.as_fd(), asked.is_ipv6()).expect("pktinfo");
        let client =
            UdpSocket::bind(SocketAddr::new(if asked.is_ipv6() { asked } else { [127, 0, 0, 1].into() }, 0))
                .expect("bind");
        client.connect((asked, server.local_addr().expect("address").port())).expect("connect");
        client.send(b"question").expect("send");
        let mut batch = Batch::default();
        let slots = batch.receive(server.as_fd(), Source::Listener, 8).expect("receive");
        let received = batch.received(slots.start);
        assert_eq!(received.local, Some(asked));
        let piece = Piece { slot: 0, offset: 0, len: received.len };
        let run = Run {
            to: received.from,
            from: received.local,
            first_piece: 0,
            pieces: 1,
            segment: 0,
            ecn: Ecn::default(),
        };
        Outbox::default().send(server.as_fd(), &batch, &[run], &[piece]).expect("send");
        // The client is connected: it only takes what comes from the address it asked.
        assert_eq!(client.recv(&mut [0; 16]).expect("receive"), 8);
    }
}

#[test]
fn what_was_sent_before_an_error_is_told() {
    let (_, b) = pair();
    let to = b.local_addr().ok();
    let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let batch = Batch::default();
    let pieces = [Piece { slot: 0, offset: 0, len: 3 }];
    let good = Run { to, from: None, first_piece: 0, pieces: 1, segment: 0, ecn: Ecn::default() };
    let bad = Run { to: Some("127.0.0.1:0".parse().expect("an address")), ..good };
    let mut outbox = Outbox::default();
    assert_eq!(outbox.send(sender.as_fd(), &batch, &[good, good, bad, good], &pieces).expect("some"), 2);
    assert!(outbox.send(sender.as_fd(), &batch, &[bad, good], &pieces).is_err());
}
