//! The fleet: who may be a node, what each is told to run, what each says is true.
//!
//! A head becomes one `placement::Snapshot`, encoded once. The planner gives every node its assignment of it in one
//! transaction, then the streams send it: each only what its node lacks.

mod acceptor;
mod authority;
mod challenges;
mod discovered;
mod error;
mod operations;
mod outgoing;
mod overlay;
mod placement;
mod planner;
mod registry;
mod services;
mod session;
mod tokens;
mod view;

use std::sync::Arc;

use awe4lb_proto::v1;
use futures_util::future::BoxFuture;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{catalog::Head, events::Events, store::Store};

pub use challenges::{Challenge, ChallengeKind};
pub use discovered::SourceOnNode;
pub use error::FleetError;
pub use overlay::Admin;
pub use tokens::{JoinToken, NewToken};
pub use view::{BackendView, HealthCounts, NodeView, time};

use acceptor::Acceptor;
use authority::Authority;
use challenges::Challenges;
use discovered::Discovered;
use overlay::Overlays;
use planner::Planner;
use registry::Registry;

/// Where counters go.
pub trait Ingest: Send + Sync + 'static {
    /// Takes the report of a node; resolves once it is durable.
    fn ingest(&self, node: &str, report: v1::CounterReport) -> BoxFuture<'static, anyhow::Result<()>>;
}

/// The fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    store: Store,
    authority: Authority,
    registry: Arc<Registry>,
    planner: Planner,
    overlays: Overlays,
    discovered: Discovered,
    challenges: Challenges,
    events: Events,
    counters: Box<dyn Ingest>,
    head: watch::Receiver<Arc<Head>>,
    /// The streams that are open.
    sessions: TaskTracker,
    stop: CancellationToken,
}

impl Fleet {
    /// Loads what is stored; makes the certificate authority at first start.
    pub async fn open(
        store: Store,
        mut head: watch::Receiver<Arc<Head>>,
        events: Events,
        counters: impl Ingest,
    ) -> anyhow::Result<Self> {
        let authority = Authority::open(&store).await?;
        let registry = Arc::new(Registry::open(&store).await?);
        let overlays = Overlays::open(&store).await?;
        let first = head.borrow_and_update().clone();
        let planner = Planner::open(store.clone(), registry.clone(), &first).await?;
        Ok(Self(Arc::new(Inner {
            store,
            authority,
            registry,
            planner,
            overlays,
            discovered: Discovered::default(),
            challenges: Challenges::default(),
            events,
            counters: Box::new(counters),
            head,
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
        })))
    }

    /// Lets nodes connect, until `stop`; then says goodbye to them.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let inner = &self.0;
        let acceptor = match Acceptor::new(&inner.authority) {
            Ok(acceptor) => Arc::new(acceptor),
            Err(error) => return tracing::error!("nodes cannot connect: {error}"),
        };
        let accepted = acceptor.clone().listen(listener, stop.clone());
        let background = async {
            tokio::join!(
                inner.planner.follow(inner.head.clone()),
                operations::end_admin_states(inner),
                operations::sweep(inner, &acceptor),
            )
        };
        let serving = services::serve(inner.clone(), accepted, stop.clone());
        tokio::select! {
            () = serving => {}
            _ = background => {}
            () = async {
                stop.cancelled().await;
                inner.stop.cancel();
                inner.sessions.close();
                let _ = tokio::time::timeout(session::GRACE, inner.sessions.wait()).await;
            } => {}
        }
        // Streams that could not say goodbye are dropped with their tasks; what they knew is written.
        inner.stop.cancel();
        inner.sessions.close();
        let _ = tokio::time::timeout(session::GRACE, inner.sessions.wait()).await;
    }
}

fn random<const N: usize>() -> Result<[u8; N], FleetError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| FleetError::Seal(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// Unix seconds.
fn now() -> i64 {
    now_ms() / 1000
}

/// Unix milliseconds.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
