//! Puts the parts together, and takes them apart again.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    acme::Acme,
    app::{App, AppState},
    auth::Auth,
    catalog::Catalog,
    discovery::Discovery,
    events::Events,
    fleet::Fleet,
    folders::Folders,
    ocsp::Ocsp,
    options::Options,
    rest,
    stats::Stats,
    store::{Store, data_dir::DataDir},
    webhooks::Webhooks,
};

/// Who was discovered is counted by name after so much time.
const NAMES_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
/// Of all time they take at most so small a part.
const NAMES_PART: u32 = 50;

/// A running control plane.
pub struct Running {
    /// Where REST and console are.
    pub http: SocketAddr,
    /// Where nodes connect to.
    pub grpc: SocketAddr,
    /// Its parts.
    pub app: App,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts everything; ready when this returns.
pub async fn start(options: Options) -> anyhow::Result<Running> {
    options.check()?;
    let webhooks = Webhooks::open(&options)?;
    let data_dir = DataDir::open(&options.data_dir)?;
    // Both ports first: nothing is written when somebody else holds one.
    let http = TcpListener::bind(options.http).await.with_context(|| format!("--http {}", options.http))?;
    let grpc = TcpListener::bind(options.grpc).await.with_context(|| format!("--grpc {}", options.grpc))?;
    let (http_address, grpc_address) = (http.local_addr()?, grpc.local_addr()?);
    let stats_path = data_dir.file("stats.db");
    let store = Store::open(data_dir, options.key_file.as_deref()).await?;
    let tls = rest::tls::server_config(&options, store.data_dir())?;
    let catalog = Catalog::open(store.clone()).await?;
    let events = Events::new();
    let heard = (!webhooks.is_empty()).then(|| events.listen_without_statistics());
    // Before the fleet, so that the first configuration that nodes are offered is the one that they run.
    let ocsp = Ocsp::open(store.clone(), catalog.clone(), events.clone(), options.allowed()).await?;
    let stats = Stats::open(&stats_path).await?;
    let fleet = Fleet::open(store.clone(), catalog.subscribe(), events.clone(), stats.clone()).await?;
    let discovery = Discovery::open(store.clone(), fleet.clone(), events.clone(), options.allowed()).await?;
    let folders = Folders::new(catalog.clone(), events.clone(), options.allowed());
    let acme = Acme::open(
        store.clone(),
        catalog.clone(),
        fleet.clone(),
        (folders.clone(), ocsp.clone()),
        events.clone(),
        options.allowed(),
    )
    .await?;
    let auth = Auth::open(store.clone()).await?;
    let stop = CancellationToken::new();
    let app: App = Arc::new(AppState {
        options,
        grpc: grpc_address,
        store,
        catalog,
        auth,
        events,
        fleet,
        discovery,
        acme,
        folders,
        ocsp,
        webhooks,
        stats,
        answers: rest::trace::Answers::default(),
        stop: stop.clone(),
    });
    let mut tasks = vec![
        tokio::spawn(rest::server::serve(http, tls, rest::router(&app), stop.clone())),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.fleet.serve(grpc, stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { tell_revisions(&app, stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.stats.run(app.catalog.subscribe(), app.events.clone(), stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.discovery.run(app.catalog.subscribe(), stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.acme.run(app.catalog.subscribe(), stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.folders.run(stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { app.ocsp.run(stop).await }
        }),
        tokio::spawn({
            let (app, stop) = (app.clone(), stop.clone());
            async move { name_discovered(&app, stop).await }
        }),
    ];
    if let Some(heard) = heard {
        let (app, stop) = (app.clone(), stop.clone());
        tasks.push(tokio::spawn(async move { app.webhooks.run(heard, stop).await }));
    }
    Ok(Running { http: http_address, grpc: grpc_address, app, tasks })
}

/// Tells the statistics what discovered backends are called.
async fn name_discovered(app: &App, stop: CancellationToken) {
    let mut seen = 0;
    let mut ticks = tokio::time::interval(NAMES_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let version = app.fleet.discovered_version();
        if version != seen {
            seen = version;
            let begin = std::time::Instant::now();
            app.stats.set_discovered(app.fleet.discovered());
            // Of a hundred thousand that come and go all the time it takes its time: names may be late by a few seconds then.
            ticks.reset_after(NAMES_EVERY.max(begin.elapsed() * NAMES_PART));
        }
    }
}

/// An event for each revision, in order.
async fn tell_revisions(app: &App, stop: CancellationToken) {
    let mut head = app.catalog.subscribe();
    let mut told = head.borrow_and_update().revision;
    loop {
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let newest = head.borrow_and_update().revision;
        for number in told + 1..=newest {
            match app.store.revision(number).await {
                Ok(Some(revision)) => app.events.publish(
                    "revision",
                    &serde_json::json!({
                        "revision": number,
                        "author": revision.author,
                        "message": revision.message,
                        "summary": revision.summary,
                    }),
                ),
                Ok(None) => {}
                Err(error) => tracing::warn!(number, "a revision was not told: {error}"),
            }
        }
        told = newest;
    }
}

impl Running {
    /// Stops accepting, lets open requests end, closes the database.
    pub async fn stop(self) {
        self.app.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!("a task ended badly: {error}");
            }
        }
        self.app.stats.close().await;
        self.app.store.close().await;
    }
}
