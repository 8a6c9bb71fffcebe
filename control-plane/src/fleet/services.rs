//! The two gRPC services: how an unknown machine becomes a node, and the one stream of each node.

use std::{io, sync::Arc, time::Duration};

use awe4lb_proto::v1::{
    self,
    enrolment_server::{Enrolment, EnrolmentServer},
    fleet_server::{Fleet, FleetServer},
};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    FleetError, Inner,
    acceptor::{Connection, Peer},
    authority::Csr,
    session, tokens,
};

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Certificates are made by few at a time: a herd that joins must not starve the nodes.
const MAX_JOINING: usize = 4;
/// Messages of a stream between us and tonic, at most 64 KiB each.
const STREAM_DEPTH: usize = 4;

/// Serves until the connections end.
pub async fn serve(
    inner: Arc<Inner>,
    incoming: ReceiverStream<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let joining = Joining { inner: inner.clone(), turns: Semaphore::new(MAX_JOINING) };
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(8)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20)
        .http2_max_header_list_size(16 * 1024)
        .add_service(EnrolmentServer::new(joining).max_decoding_message_size(64 * 1024))
        .add_service(FleetServer::new(Attaching(inner)).max_decoding_message_size(1 << 20))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!("the gRPC server ended: {error}");
    }
}

struct Joining {
    inner: Arc<Inner>,
    turns: Semaphore,
}

#[tonic::async_trait]
impl Enrolment for Joining {
    async fn authority(
        &self,
        _: Request<v1::AuthorityRequest>,
    ) -> Result<Response<v1::AuthorityReply>, Status> {
        let ca_der = Bytes::copy_from_slice(self.inner.authority.certificate());
        Ok(Response::new(v1::AuthorityReply { ca_der }))
    }

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolReply>, Status> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let message = request.into_inner();
        let (inner, wish) = (&self.inner, message.name.as_str());
        let _turn = self.turns.acquire().await.map_err(|_| Status::unavailable("going down"))?;
        let join = async {
            let csr = Csr::parse(&message.csr_der)?;
            let _writing = inner.planner.writing().await;
            let joined = tokens::join(&inner.store, &inner.authority, &message.token, wish, &csr).await?;
            inner.registry.reload(&inner.store, joined.name.as_str()).await?;
            Ok::<_, FleetError>(joined)
        };
        let joined = join.await.inspect_err(|error| {
            tracing::warn!(peer = peer.map(tracing::field::display), wish, "a machine may not join: {error}");
        })?;
        let name = joined.name.as_str();
        if joined.is_new {
            tracing::info!(node = name, peer = peer.map(tracing::field::display), labels = ?joined.labels, "a node joined");
        }
        inner.publish_node(name);
        Ok(Response::new(v1::EnrolReply {
            name: name.to_owned(),
            certificate_der: joined.issued.certificate_der,
            ca_der: Bytes::copy_from_slice(inner.authority.certificate()),
            not_after_unix: joined.issued.not_after,
        }))
    }
}

struct Attaching(Arc<Inner>);

#[tonic::async_trait]
impl Fleet for Attaching {
    type AttachStream = ReceiverStream<Result<v1::ToNode, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromNode>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("a connection without a peer"))?;
        let Some(node) = peer.node.clone() else {
            return Err(Status::unauthenticated("this needs the certificate of a node: join first"));
        };
        let (out, outgoing) = mpsc::channel(STREAM_DEPTH);
        let run = session::run(self.0.clone(), node, peer, request.into_inner(), out);
        self.0.sessions.spawn(run);
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
