//! What passes along with datagrams: copies for another pool, marks for congestion.

#[expect(dead_code, reason = "each test file uses its part")]
#[path = "support/udp.rs"]
mod datagrams;
#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
};

use awe4lb_data_plane::traffic::Traffic;
use datagrams::*;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use support::*;

/// What a shadow got.
type Notes = Arc<Mutex<Vec<Vec<u8>>>>;

/// A listener (1, rule 2) to a pool `p` (3, backend 4), with copies for `shadow` (5, backend 6), which notes what it gets and
/// answers nonsense.
fn mirrored(port: u16, sample: &str, shadow_pool: &str) -> (Arc<Traffic>, Notes) {
    let notes = Notes::default();
    let noting = notes.clone();
    let shadow = udp_backend(move |datagram, _| {
        noting.lock().unwrap_or_else(PoisonError::into_inner).push(datagram.to_vec());
        Some(b"nobody may get this".to_vec())
    });
    let yaml = simple_udp(port, &[udp_echo()], "", "")
        .replace("pool: p }", &format!("pool: p, mirror: {{ pool: shadow{sample} }} }}"))
        .replace(
            "}] }]\n",
            &format!(
                "}}] }}, {{ name: shadow, backends: [{{ name: s, address: \"{shadow}\" }}]{shadow_pool} }}]\n"
            ),
        );
    (running(&yaml), notes)
}

fn noted(notes: &Notes) -> Vec<Vec<u8>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[test]
fn a_mirror_gets_copies_and_its_answers_go_nowhere() {
    let port = free_udp_port();
    let (traffic, notes) = mirrored(port, "", "");
    let client = client(port);
    let sent: Vec<Vec<u8>> = (0..20u8).map(|number| vec![number; 100 + usize::from(number)]).collect();
    for datagram in &sent {
        assert_eq!(ask(&client, datagram), *datagram, "only the backend answers");
    }
    eventually("the copies are there", || (noted(&notes).len() == sent.len()).then_some(()));
    assert_eq!(noted(&notes), sent);
    let bytes = sent.iter().map(|datagram| datagram.len() as u64).sum::<u64>();
    for number in [5, 6] {
        let copies = counters(&traffic, number);
        assert_eq!((copies.datagrams_in, copies.bytes_in, copies.datagrams_out), (20, bytes, 0), "{number}");
        assert_eq!((copies.connections_total, copies.connections_active), (1, 1), "{number}");
    }
    assert_eq!(counters(&traffic, 1).datagrams_in, 20, "copies are no traffic of clients");
}

#[test]
fn a_sample_is_a_part_of_the_flows() {
    let port = free_udp_port();
    let (_traffic, notes) = mirrored(port, ", sample: 0.25", "");
    for number in 0..200u32 {
        ask(&client(port), &number.to_be_bytes());
    }
    let copies = noted(&notes).len();
    assert!((20..90).contains(&copies), "{copies} of 200");
}

#[test]
fn a_mirror_that_is_not_there_costs_nobody_anything() {
    let port = free_udp_port();
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address");
    let yaml = simple_udp(port, &[udp_echo()], "", "")
        .replace("pool: p }", "pool: p, mirror: { pool: shadow } }")
        .replace(
            "}] }]\n",
            &format!("}}] }}, {{ name: shadow, backends: [{{ name: s, address: \"{gone}\" }}] }}]\n"),
        );
    let traffic = running(&yaml);
    let client = client(port);
    for number in 0..50u8 {
        assert_eq!(ask(&client, &[number; 64]), [number; 64]);
    }
    assert!(ended(&traffic, 6, "datagram-unsent") > 0, "what could not be copied is counted at the mirror");
    assert_eq!(ended(&traffic, 1, "datagram-unsent"), 0);
}

#[test]
fn copies_carry_the_header_that_their_pool_asks_for() {
    let port = free_udp_port();
    let (_traffic, notes) = mirrored(port, "", ", proxyProtocol: { send: v2 }");
    let client = client(port);
    ask(&client, b"hello");
    let copy = eventually("a copy", || noted(&notes).pop());
    let awe4lb_engine::proxy_protocol::Parsed::Header { header, length } =
        awe4lb_engine::proxy_protocol::parse(&copy)
    else {
        panic!("{copy:?}");
    };
    assert_eq!(header.source, client.local_addr().ok());
    assert_eq!(&copy[length..], b"hello");
}

/// A socket that sees and sets marks: quinn's.
struct Marked {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Marked {
    fn bind(ip: IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).expect("a port");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket");
        Self { socket, state }
    }

    fn send(&self, to: std::net::SocketAddr, contents: &[u8], mark: Option<EcnCodepoint>) {
        let transmit = Transmit { destination: to, ecn: mark, contents, segment_size: None, src_ip: None };
        self.state.send(UdpSockRef::from(&self.socket), &transmit).expect("sent");
    }

    /// The next datagram: who sent it, and its mark.
    fn receive(&self) -> (std::net::SocketAddr, Option<EcnCodepoint>) {
        eventually("a datagram", || {
            let mut buffer = [0; 2_048];
            let mut meta = [RecvMeta::default()];
            let mut buffers = [std::io::IoSliceMut::new(&mut buffer)];
            let count = self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, &mut meta).ok()?;
            (count == 1).then_some((meta[0].addr, meta[0].ecn))
        })
    }
}

#[test]
fn marks_for_congestion_pass_both_ways() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for extra in [", udp: { ecn: true }", ", udp: { preset: quic }, limits: { packetsPerSecond: 100000 }"]
        {
            let (backend, client) = (Marked::bind(ip), Marked::bind(ip));
            let port = free_udp_port();
            let address = backend.socket.local_addr().expect("an address");
            let yaml = simple_udp(port, &[address], extra, "")
                .replace(&format!("'*:{port}'"), &format!("'{}'", std::net::SocketAddr::new(ip, port)));
            let traffic = traffic_anywhere();
            apply(&traffic, &yaml).expect("applied");
            let entrance = std::net::SocketAddr::new(ip, port);
            for mark in [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ect1), Some(EcnCodepoint::Ce)] {
                client.send(entrance, b"?", mark);
                let (node, seen) = backend.receive();
                assert_eq!(seen, mark, "to the backend, {ip}{extra}");
                backend.send(node, b"!", mark);
                assert_eq!(client.receive().1, mark, "to the client, {ip}{extra}");
            }
        }
    }
}

/// Workers that bind what the document says.
fn traffic_anywhere() -> Arc<Traffic> {
    let options =
        awe4lb_data_plane::traffic::TrafficOptions { threads: 1, bind_address: None, access_log: None };
    Traffic::start(options).expect("a worker")
}
