//! The life of a node: everything is started here, and ended here.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use awe4lb_model::{BindAddress, BindHost};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    access_log, admin, discovery,
    file_source::{FileSource, Refused},
    fleet_source::{self, FleetSource},
    gauges, live,
    node::{LinkState, Node},
    options::RunArgs,
    probes, resolve,
    state_dir::StateDir,
};
use crate::traffic::{Traffic, TrafficOptions};

/// How long a node without a configuration waits for its first one before it says that it is up.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(2);
/// How long the last counters may take, all in all.
const LAST_WORD: Duration = Duration::from_secs(5);

/// What brings configurations.
enum Source {
    File(JoinHandle<()>),
    Fleet(FleetSource),
}

/// Runs the node until a signal ends it.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    args.check()?;
    let mut signals = Signals::install()?;
    gauges::raise_open_files_limit();
    let dir = args.state_dir().map(|path| StateDir::open(&path)).transpose()?.map(Arc::new);
    let threads = args.threads.map_or_else(cores, usize::from);
    let (access_log, log_writer) = access_log::channel(args.access_log.clone())?;
    let access_log = Some(access_log);
    let traffic = Traffic::start(TrafficOptions { threads, bind_address: args.bind_address, access_log })
        .context("start the workers")?;
    let node = Node::new(traffic, threads)?;
    let admin = admin::bind(args.admin).await?;
    let socket_path = dir.as_ref().map(|dir| dir.file("node.sock"));
    let local = socket_path.as_ref().map(admin::bind_local).transpose()?;
    let admin_address = admin.local_addr()?.to_string();

    let reload = Arc::new(Notify::new());
    let mut source = start_source(&args, &node, dir.as_ref(), &admin_address, reload.clone()).await?;
    let servers = Servers::start(admin, local, &node);
    let reopen = log_writer.start(&node)?;
    let background = [
        tokio::spawn(probes::run(node.live.clone(), probes::Allowed { programs: args.allow_exec.clone() })),
        tokio::spawn(resolve::run(node.live.clone())),
        tokio::spawn(live::retry_missing_forever(node.live.clone())),
    ];

    let wait_for_first = async {
        let mut running = node.live.watch();
        let _ =
            tokio::time::timeout(FIRST_CONFIGURATION, running.wait_for(|running| running.is_configured()))
                .await;
    };
    let end = tokio::select! {
        end = until_end(&mut signals, &mut source, &reload, &reopen) => Some(end),
        () = wait_for_first => None,
    };
    let end = match end {
        Some(end) => end,
        None => {
            say_ready(&node, &args, &admin_address, socket_path.as_deref());
            until_end(&mut signals, &mut source, &reload, &reopen).await
        }
    };
    let stopped = stop(&node, &args, source, &mut signals, background).await;
    servers.stop(socket_path.as_deref()).await;
    stopped.and(end)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn start_source(
    args: &RunArgs,
    node: &Arc<Node>,
    dir: Option<&Arc<StateDir>>,
    admin_address: &str,
    reload: Arc<Notify>,
) -> anyhow::Result<Source> {
    if let Some(path) = &args.snapshot_file {
        node.link.send_modify(|link| link.node = args.name.clone());
        node.live.path().set_zone(args.zone.as_deref());
        let mut file = FileSource::new(path.clone());
        file.load(&node.live).await.map_err(|refused| not_run(path, &refused))?;
        // What a control plane would ask nobody asks here; names are asked by every node.
        tokio::spawn(discovery::run(Arc::default(), node.live.clone()));
        return Ok(Source::File(tokio::spawn(file.follow(node.live.clone(), reload))));
    }
    let dir = dir.context("a node with a control plane has a state directory")?;
    let fleet = fleet_source::start(args, node, dir, admin_address.to_owned()).await?;
    Ok(Source::Fleet(fleet))
}

/// All that is wrong with the document, one a line.
pub fn not_run(path: &Path, refused: &Refused) -> anyhow::Error {
    anyhow::anyhow!("{}:\n  {}", path.display(), refused.lines().join("\n  "))
}

/// Until a signal to end, or until the source is of no use and never will be.
async fn until_end(
    signals: &mut Signals,
    source: &mut Source,
    reload: &Notify,
    reopen: &access_log::Reopen,
) -> anyhow::Result<()> {
    loop {
        let cannot_go_on = async {
            match source {
                Source::File(_) => std::future::pending().await,
                Source::Fleet(fleet) => fleet.cannot_go_on().await,
            }
        };
        tokio::select! {
            is_end = signals.next() => match is_end {
                true => return Ok(()),
                false => {
                    reopen.ask();
                    reload.notify_one();
                }
            },
            error = cannot_go_on => return Err(error),
        }
    }
}

/// Readiness off, patience for whoever announces this node, no new connections, drain, last counters.
async fn stop(
    node: &Arc<Node>,
    args: &RunArgs,
    source: Source,
    signals: &mut Signals,
    background: [JoinHandle<()>; 3],
) -> anyhow::Result<()> {
    notify_manager(&[sd_notify::NotifyState::Stopping]);
    node.draining.send_modify(|draining| draining.stopping = true);
    let is_serving = node.live.running().is_configured();
    tracing::info!(connections = node.live.path().active_connections(), "stopping");
    if is_serving && !args.pre_stop.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(args.pre_stop) => {}
            () = signals.end() => tracing::warn!("a second signal: not waiting"),
        }
    }
    // From here on nothing binds again.
    let link = match source {
        Source::File(task) => {
            task.abort();
            None
        }
        Source::Fleet(fleet) => Some(fleet.freeze().await),
    };
    for task in background {
        task.abort();
    }
    let path = node.live.path();
    path.stop_accepting();
    let is_hurried = tokio::select! {
        () = path.drain(args.drain_timeout) => false,
        () = signals.end() => true,
    };
    if is_hurried {
        tracing::warn!(connections = path.active_connections(), "a second signal: closing what is open");
        path.drain(Duration::ZERO).await;
    }
    if let Some(link) = link
        && node.link.borrow().state == LinkState::Connected
        && tokio::time::timeout(LAST_WORD, link.flush()).await.is_err()
    {
        tracing::warn!("the control plane did not take the last counters");
    }
    tracing::info!("stopped");
    Ok(())
}

/// One line on standard output for whoever started this, and a word to the service manager.
fn say_ready(node: &Node, args: &RunArgs, admin: &str, socket: Option<&Path>) {
    let running = node.live.running();
    let listeners: Vec<_> = running
        .config
        .listeners
        .iter()
        .map(|placed| {
            let bind: Vec<String> =
                placed.listener.bind.iter().map(|bind| really_bound(bind, args.bind_address)).collect();
            json!({ "name": placed.listener.name.as_str(), "bind": bind })
        })
        .collect();
    let line = json!({
        "event": "ready",
        "admin": admin,
        "socket": socket,
        "pid": std::process::id(),
        "name": node.name(),
        "configured": running.is_configured(),
        "missing": running.missing_listeners(),
        "listeners": listeners,
    });
    // Whoever closed standard output does not want to know.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    notify_manager(&[sd_notify::NotifyState::Ready]);
}

/// What stands in for a wildcard (several nodes on one host).
fn really_bound(bind: &BindAddress, own: Option<IpAddr>) -> String {
    let is_replaced = |own: &IpAddr| match bind.host {
        BindHost::Any => true,
        BindHost::Ip(ip) => ip.is_unspecified() && ip.is_ipv4() == own.is_ipv4(),
    };
    match own.filter(is_replaced) {
        Some(own) => SocketAddr::new(own, bind.port).to_string(),
        None => bind.to_string(),
    }
}

fn notify_manager(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// The admin address and the local socket.
struct Servers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Servers {
    fn start(admin: TcpListener, local: Option<UnixListener>, node: &Arc<Node>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = vec![tokio::spawn(admin::serve(admin, node.clone(), stop.clone()))];
        if let Some(local) = local {
            tasks.push(tokio::spawn(admin::serve_local(local, node.clone(), stop.clone())));
        }
        Self { stop, tasks }
    }

    /// Answers that are under way get a moment; connections that idle get none.
    async fn stop(self, socket: Option<&Path>) {
        self.stop.cancel();
        for task in self.tasks {
            let _ = tokio::time::timeout(Duration::from_millis(200), task).await;
        }
        if let Some(socket) = socket {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// The signals a node knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// True: the node is to end. False: it is to read its files again.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }

    async fn end(&mut self) {
        while !self.next().await {}
    }
}
