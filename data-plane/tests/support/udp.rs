//! Clients and backends of UDP.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

use crate::support::{PATIENCE, simple};

/// A backend that gives each datagram to `answer` and sends back what that says.
pub fn udp_backend(answer: impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length], from) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    address
}

pub fn udp_echo() -> SocketAddr {
    udp_backend(|datagram, _| Some(datagram.to_vec()))
}

/// Says its name to whatever comes.
pub fn named(name: &'static str) -> SocketAddr {
    udp_backend(move |_, _| Some(name.as_bytes().to_vec()))
}

pub fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.connect((Ipv4Addr::LOCALHOST, port)).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

pub fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).expect("sent");
    let mut buffer = vec![0; 65_536];
    let length = client.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

/// Like `simple`, for UDP.
pub fn simple_udp(port: u16, backends: &[SocketAddr], listener: &str, pool: &str) -> String {
    simple(port, backends, &format!(", protocol: udp{listener}"), pool)
}

/// A port that no socket takes by chance: those are from 32,768 on, and some tests have thousands of them.
pub fn free_udp_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let turn = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (std::process::id() * 37 + turn) % 20_000;
        let port = u16::try_from(port).expect("less than 30,000");
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
