//! One nonblocking client connection, plain or TLS, that counts what crossed the wire.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;

use crate::sys;

/// How a connection speaks TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Versions, groups, roots.
    pub config: Arc<ClientConfig>,
    /// The name that is sent and checked.
    pub name: ServerName<'static>,
}

/// A connection; `read` and `write` are in terms of the application's bytes.
#[derive(Debug)]
pub struct Transport {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    wire_in: u64,
    wire_out: u64,
}

/// Starts to connect. With a source, the port stays the kernel's choice at connect time.
pub fn connect(target: SocketAddr, source: Option<Ipv4Addr>, nonblocking: bool) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(target),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if let (Some(source), SocketAddr::V4(_)) = (source, target) {
        sys::bind_without_port(&socket, source)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(nonblocking)?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if nonblocking && error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Transport {
    /// Wraps a socket that is connected or on its way.
    pub fn new(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let tls = match tls {
            None => None,
            Some(tls) => Some(Box::new(
                ClientConnection::new(tls.config.clone(), tls.name.clone()).map_err(io::Error::other)?,
            )),
        };
        Ok(Self { socket, tls, wire_in: 0, wire_out: 0 })
    }

    /// The socket, to register or to ask.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// TCP payload bytes received and sent so far (TLS records included).
    pub fn wire(&self) -> (u64, u64) {
        (self.wire_in, self.wire_out)
    }

    /// Whether the handshake is over and was a full one.
    pub fn full_handshake(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() != Some(HandshakeKind::Resumed))
    }

    /// Ends the handshake, if there is one, and waits for it.
    pub fn handshake(&mut self, patience: Duration) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(patience))?;
        while tls.is_handshaking() {
            let (read, written) = tls.complete_io(&mut self.socket)?;
            self.wire_in += read as u64;
            self.wire_out += written as u64;
        }
        self.socket.set_nonblocking(true)
    }

    /// Whether `read` may hold bytes back of which the socket knows nothing any more.
    pub fn buffers(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads application bytes. `Ok(0)` is a clean end; TLS without close_notify is `UnexpectedEof`.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let count = self.socket.read(into)?;
            self.wire_in += count as u64;
            return Ok(count);
        };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let count = tls.read_tls(&mut self.socket)?;
            self.wire_in += count as u64;
            if let Err(error) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut self.socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            while tls.wants_write() {
                self.wire_out += tls.write_tls(&mut self.socket)? as u64;
            }
        }
    }

    /// Writes application bytes; TLS takes them all and sends what the socket takes now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let count = self.socket.write(bytes)?;
            self.wire_out += count as u64;
            return Ok(count);
        };
        let count = tls.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// Sends what TLS still holds.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                self.wire_out += tls.write_tls(&mut self.socket)? as u64;
            }
        }
        Ok(())
    }

    /// Ends our direction: close_notify where there is TLS, then FIN.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.flush()?;
        }
        self.socket.shutdown(Shutdown::Write)
    }

    /// After the clean end of TLS: waits for the FIN, so that nothing arrives uncounted. `Ok(0)` is the end.
    pub fn read_wire_to_end(&mut self) -> io::Result<()> {
        let mut scratch = [0; 4096];
        loop {
            let count = self.socket.read(&mut scratch)?;
            if count == 0 {
                return Ok(());
            }
            self.wire_in += count as u64;
        }
    }
}
