//! The backends: an echo of TCP bytes, a source of bulk bytes, an echo of datagrams. One process, two threads, so
//! that what they cost is counted for nobody.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::sys::{self, Batch, Epoll};

/// Flags of `backend`.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// Addresses of the datagram echo; a wildcard would answer from the wrong one.
    #[arg(long, required = true, num_args = 1..)]
    pub udp_address: Vec<Ipv4Addr>,
}

/// The line that the process prints when it serves. TCP answers on every address of this host.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ready {
    /// Port of the TCP echo.
    pub echo: u16,
    /// Port of the bulk source: it sends for as long as the other side takes.
    pub bulk: u16,
    /// Port of the datagram echo, on the addresses that were given.
    pub udp: u16,
}

/// Serves until killed.
pub fn run(arguments: &BackendArgs) -> anyhow::Result<()> {
    let echo = listen()?;
    let bulk = listen()?;
    let datagrams = bind_datagrams(&arguments.udp_address)?;
    let ready = Ready {
        echo: echo.local_addr()?.port(),
        bulk: bulk.local_addr()?.port(),
        udp: datagrams.first().context("no address for datagrams")?.local_addr()?.port(),
    };
    println!("{}", serde_json::to_string(&ready)?);
    let datagram_thread = std::thread::spawn(move || echo_datagrams(&datagrams));
    std::thread::spawn(move || serve(&bulk, sys::WRITABLE, |connection, _| pour(connection)));
    serve(&echo, sys::READABLE, give_back)?;
    datagram_thread.join().map_err(|_| anyhow::anyhow!("the datagram echo panicked"))??;
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// One port that is free on all the addresses.
fn bind_datagrams(addresses: &[Ipv4Addr]) -> io::Result<Vec<UdpSocket>> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..20 {
        let mut port = 0;
        let mut sockets = Vec::new();
        for address in addresses {
            match bind_datagram(SocketAddr::from((*address, port))) {
                Ok(socket) => {
                    port = socket.local_addr()?.port();
                    sockets.push(socket);
                }
                Err(error) => failure = error,
            }
        }
        if sockets.len() == addresses.len() {
            return Ok(sockets);
        }
    }
    Err(failure)
}

fn bind_datagram(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What became of a connection after its turn.
enum Turn {
    Keep,
    Close,
}

/// Accepts, and gives every connection a turn whenever it is ready.
fn serve(
    listener: &TcpListener,
    interest: u32,
    mut turn: impl FnMut(&mut TcpStream, &mut [u8]) -> Turn,
) -> io::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let mut epoll = Epoll::new()?;
    epoll.add(listener, LISTENER, sys::READABLE)?;
    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let ready: Vec<u64> = epoll.wait(Duration::from_secs(60))?.iter().map(|(token, _)| *token).collect();
        for token in ready {
            if token != LISTENER {
                let Some(connection) = connections.get_mut(&token) else { continue };
                if matches!(turn(connection, &mut buffer), Turn::Close) {
                    connections.remove(&token);
                }
                continue;
            }
            // A few at a time, so that those who are connected are not kept waiting.
            for _ in 0..16 {
                let Ok(connection) = sys::accept(listener) else { break };
                let _ = connection.set_nodelay(true);
                let token = connection.as_raw_fd() as u64;
                if epoll.add(&connection, token, interest).is_ok() {
                    connections.insert(token, connection);
                }
            }
        }
    }
}

/// Echo. What the other side does not take at once is written with patience: the load never has more in flight than a
/// socket buffer holds.
fn give_back(connection: &mut TcpStream, buffer: &mut [u8]) -> Turn {
    match connection.read(buffer) {
        Ok(0) => Turn::Close,
        Ok(count) if write_all(connection, &buffer[..count]).is_ok() => Turn::Keep,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::Keep,
        Ok(_) | Err(_) => Turn::Close,
    }
}

fn write_all(connection: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match connection.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bulk: as much as the other side takes now, but no more than a few megabytes a turn, so that eight streams share.
fn pour(connection: &mut TcpStream) -> Turn {
    static BYTES: [u8; 256 << 10] = [0x5a; 256 << 10];
    for _ in 0..8 {
        match connection.write(&BYTES) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Keep,
            Err(_) => return Turn::Close,
        }
    }
    Turn::Keep
}

fn echo_datagrams(sockets: &[UdpSocket]) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    for (index, socket) in sockets.iter().enumerate() {
        epoll.add(socket, index as u64, sys::READABLE)?;
    }
    let mut batch = Batch::default();
    loop {
        let ready: Vec<u64> = epoll.wait(Duration::from_secs(60))?.iter().map(|(token, _)| *token).collect();
        for token in ready {
            let Some(socket) = sockets.get(token as usize) else { continue };
            // An error that an earlier reply caused (ICMP) is no reason to stop.
            if let Ok(count) = batch.receive(socket, sys::BATCH) {
                let _ = batch.send(socket, count, true);
            }
        }
    }
}
