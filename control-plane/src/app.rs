//! What the handlers share.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    acme::Acme, auth::Auth, catalog::Catalog, discovery::Discovery, events::Events, fleet::Fleet,
    folders::Folders, ocsp::Ocsp, options::Options, rest::trace::Answers, stats::Stats, store::Store,
    webhooks::Webhooks,
};

/// The parts of the running control plane.
pub struct AppState {
    /// Flags.
    pub options: Options,
    /// Where nodes connect to, as bound.
    pub grpc: SocketAddr,
    /// The database.
    pub store: Store,
    /// The configuration.
    pub catalog: Catalog,
    /// Users, sessions, tokens.
    pub auth: Auth,
    /// What server-sent events carry.
    pub events: Events,
    /// The nodes.
    pub fleet: Fleet,
    /// Sources of backends.
    pub discovery: Discovery,
    /// Orders of certificates.
    pub acme: Acme,
    /// Certificates in folders.
    pub folders: Folders,
    /// What responders say of certificates.
    pub ocsp: Ocsp,
    /// Who is told of events.
    pub webhooks: Webhooks,
    /// Counters.
    pub stats: Stats,
    /// HTTP answers by status.
    pub answers: Answers,
    /// Ends everything.
    pub stop: tokio_util::sync::CancellationToken,
}

/// Shared.
pub type App = Arc<AppState>;
