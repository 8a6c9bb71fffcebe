//! One check over a socket: connects, introduces itself, and speaks as the engine's conversations say.

use std::{io, net::SocketAddr};

use awe4lb_engine::checks::{Conversation, Event, Step, Verdict, conversation};
use awe4lb_model::{CheckKind, ProxyVersion};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use crate::traffic::proxy;

/// What became of a check.
#[derive(Debug)]
pub(super) enum Asked {
    /// It says something about the backend.
    Answered(Verdict),
    /// It says something about this node.
    Ours(io::Error),
}

impl From<io::Error> for Asked {
    fn from(error: io::Error) -> Self {
        if is_ours(&error) { Self::Ours(error) } else { Self::unhealthy(reason(&error)) }
    }
}

/// The first of `targets` that takes a connection is asked.
pub(super) async fn ask(
    targets: impl Iterator<Item = SocketAddr>,
    kind: &CheckKind,
    proxy: Option<ProxyVersion>,
) -> Asked {
    let conversation = conversation(kind, &|_| None, rand::random());
    if kind.is_datagram() {
        let Some(conversation) = conversation else { return Asked::unhealthy("nothing to say") };
        return by_datagram(targets, conversation).await;
    }
    match connect(targets, proxy).await {
        Ok(stream) => match conversation {
            Some(conversation) => Asked::Answered(converse(stream, conversation).await),
            None => Asked::Answered(Verdict { is_healthy: true, reason: String::new(), advice: None }),
        },
        Err(error) => error.into(),
    }
}

async fn connect(
    targets: impl Iterator<Item = SocketAddr>,
    proxy: Option<ProxyVersion>,
) -> io::Result<TcpStream> {
    let mut last = io::Error::other("no address");
    for target in targets {
        match TcpStream::connect(target).await {
            Ok(stream) => return introduce(stream, proxy).await,
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Says that this connection is the node's own.
async fn introduce(mut stream: TcpStream, proxy: Option<ProxyVersion>) -> io::Result<TcpStream> {
    if let Some(version) = proxy {
        let header = proxy::header(version, true, stream.local_addr()?, stream.peer_addr()?);
        stream.write_all(&header).await?;
    }
    Ok(stream)
}

/// Until the verdict. What goes wrong on the way is a backend that closed: the conversation knows what that means.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut conversation: Box<dyn Conversation>,
) -> Verdict {
    let mut buffer = vec![0; 16 * 1024];
    let mut step = conversation.next(Event::Connected);
    loop {
        match step {
            Step::Done(verdict) => {
                let goodbye = conversation.goodbye();
                if !goodbye.is_empty() {
                    let _ = stream.write(goodbye).await;
                }
                return verdict;
            }
            Step::Send(bytes) => {
                // A backend that closed while we wrote may have said why before.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
            }
            Step::Receive => {}
        }
        step = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => conversation.next(Event::Closed),
            Ok(length) => conversation.next(Event::Received(buffer.get(..length).unwrap_or_default())),
        };
    }
}

async fn by_datagram(
    mut targets: impl Iterator<Item = SocketAddr>,
    mut conversation: Box<dyn Conversation>,
) -> Asked {
    let Some(target) = targets.next() else { return Asked::unhealthy("no address") };
    let own: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = match UdpSocket::bind(own).await {
        Ok(socket) => socket,
        Err(error) => return Asked::Ours(error),
    };
    if let Err(error) = socket.connect(target).await {
        return error.into();
    }
    let mut buffer = vec![0; 65_536];
    let mut step = conversation.next(Event::Connected);
    loop {
        match step {
            Step::Done(verdict) => return Asked::Answered(verdict),
            Step::Send(bytes) => {
                if let Err(error) = socket.send(&bytes).await {
                    return error.into();
                }
            }
            Step::Receive => {}
        }
        step = match socket.recv(&mut buffer).await {
            Ok(length) => conversation.next(Event::Received(buffer.get(..length).unwrap_or_default())),
            // The machine is there and says that nobody listens.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return error.into(),
            Err(_) => conversation.next(Event::Closed),
        };
    }
}

/// Out of something on this node.
fn is_ours(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

/// In few words, always the same for the same cause.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        io::ErrorKind::TimedOut => "timeout".to_owned(),
        kind => kind.to_string(),
    }
}
