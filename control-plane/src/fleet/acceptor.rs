//! Takes connections of nodes: an own TLS acceptor under tonic, because tonic's takes no verifier of ours.
//!
//! A client certificate is optional in TLS: machines that want to join have none yet. Who has none may hold a
//! connection for a minute, and there is a limit on how many of them there are.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{
    FleetError,
    authority::{Authority, PeerIdentity},
};

const MAX_CONNECTIONS: usize = 8_192;
const MAX_HANDSHAKES: usize = 64;
const MAX_STRANGERS: usize = 256;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const STRANGER_DEADLINE: Duration = Duration::from_secs(60);

/// Whoever is on the other side of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// Which node, by its certificate; whether it still may is asked at each call.
    pub node: Option<PeerIdentity>,
    /// Ends the connection at once.
    pub cut: CancellationToken,
}

/// The TLS side of the gRPC server.
pub struct Acceptor {
    config: ArcSwap<ServerConfig>,
    connections: Arc<Semaphore>,
    handshakes: Semaphore,
    strangers: Arc<Semaphore>,
}

impl Acceptor {
    /// With a fresh server certificate.
    pub fn new(authority: &Authority) -> Result<Self, FleetError> {
        Ok(Self {
            config: ArcSwap::from(config(authority)?),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        })
    }

    /// Another server certificate, for a process that runs for years.
    pub fn renew(&self, authority: &Authority) -> Result<(), FleetError> {
        self.config.store(config(authority)?);
        Ok(())
    }

    /// Connections whose handshake is done.
    pub fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> ReceiverStream<io::Result<Connection>> {
        let (ready, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            tokio::select! {
                () = self.accept(listener, &ready) => {}
                () = stop.cancelled() => {}
                () = ready.closed() => {}
            }
        });
        ReceiverStream::new(incoming)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, ready: &mpsc::Sender<io::Result<Connection>>) {
        loop {
            let Ok(slot) = self.connections.clone().acquire_owned().await else { return };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others have to end first.
                    tracing::warn!("cannot accept a connection of a node: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (this, ready) = (self.clone(), ready.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE_DEADLINE, this.shake_hands(stream, address, slot)).await
                {
                    Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%address, "TLS handshake failed: {error}"),
                    Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
                }
            });
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(self.config.load_full()).accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|certificates| certificates.first());
        let node = leaf.and_then(|leaf| PeerIdentity::read(leaf));
        let cut = CancellationToken::new();
        let stranger = match &node {
            Some(_) => None,
            None => {
                let slot = self.strangers.clone().try_acquire_owned().map_err(io::Error::other)?;
                let cut = cut.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(STRANGER_DEADLINE, cut.cancelled()).await;
                    cut.cancel();
                });
                Some(slot)
            }
        };
        Ok(Connection {
            stream,
            ended: Box::pin(cut.clone().cancelled_owned()),
            peer: Peer { address, node, cut },
            _slots: (slot, stranger),
        })
    }
}

fn config(authority: &Authority) -> Result<Arc<ServerConfig>, FleetError> {
    let refuse = |error: &dyn std::fmt::Display| FleetError::Authority(error.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|error| refuse(&error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| refuse(&error))?;
    let (certificate, key) = authority.issue_server()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refuse(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .map_err(|error| refuse(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed connection would skip the look at the certificate's dates; nodes connect once in days.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// One TLS connection, which ends at once when its peer is cut.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _slots: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The watch over a stranger ends with its connection.
        self.peer.cut.cancel();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.peer.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.peer.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
