//! Discovery: where backends of a pool come from beside those that are written down.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{LabelSelector, Name, NameTemplate};

/// A source of backends. All defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called, unique in its pool. Made from the type when the user gives none.
    pub id: Name,
    /// What is asked.
    pub kind: SourceKind,
    /// Who asks.
    pub run_on: RunOn,
    /// Between two questions. Default 10 s.
    pub interval: Duration,
    /// How long one may take. Default 5 s.
    pub timeout: Duration,
    /// What becomes of the last answer when there is no new one.
    pub on_failure: OnFailure,
    /// An answer with fewer counts as a failure. Default 1.
    pub min_backends: u32,
    /// An answer without more than this share of the last one's, in percent, counts as a failure. Default 100: never.
    pub max_vanish_percent: u8,
    /// Which of those that the source names count. `None`: all.
    pub select: Option<LabelSelector>,
    /// What backends get of which the source does not say it.
    pub template: Template,
}

impl Source {
    /// One that the control plane asks, as a node knows it.
    pub fn elsewhere(id: Name) -> Self {
        Self {
            id,
            kind: SourceKind::Elsewhere,
            run_on: RunOn::ControlPlane,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            on_failure: OnFailure::Keep,
            min_backends: 1,
            max_vanish_percent: 100,
            select: None,
            template: Template::default(),
        }
    }
}

/// What a source does not say of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In place of the port that the source says. `None`: that one, or the listener's where there is none.
    pub port: Option<u16>,
    /// Default 1.
    pub weight: u32,
    /// Default 0.
    pub priority: u32,
    /// `None`: unlimited, the default.
    pub max_connections: Option<u32>,
    /// Where in the world they are. `None`, the default: nobody says.
    pub zone: Option<Box<str>>,
    /// How they are called. `None`: by their address.
    pub name: Option<NameTemplate>,
}

impl Default for Template {
    fn default() -> Self {
        Self { port: None, weight: 1, priority: 0, max_connections: None, zone: None, name: None }
    }
}

/// Who asks a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOn {
    /// The control plane, once for all nodes.
    ControlPlane,
    /// Each node for itself; works without the control plane, and with names that mean something else elsewhere.
    Node,
}

/// What becomes of the last good answer when there is no new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It stays. The default.
    Keep,
    /// It is forgotten: nothing of this source is a backend any more.
    Clear,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A name.
    Dns(DnsSource),
    /// A document behind a URL.
    Http(HttpSource),
    /// A file of the control plane.
    File(FileSource),
    /// A program of the control plane.
    Exec(ExecSource),
    /// The API of a Kubernetes cluster.
    Kubernetes(KubernetesSource),
    /// A Consul agent.
    Consul(ConsulSource),
    /// Redis Sentinels.
    Sentinel(SentinelSource),
    /// The REST API of Patroni.
    Patroni(PatroniSource),
    /// A Docker or Podman engine.
    Docker(DockerSource),
    /// A swarm of Docker engines.
    Swarm(SwarmSource),
    /// LXD or Incus.
    Lxd(LxdSource),
    /// Nobody: somebody tells.
    Push(PushSource),
    /// What the control plane asks, as a node knows it: by its name alone.
    Elsewhere,
}

impl SourceKind {
    /// The word of `type`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Http(_) => "http",
            Self::File(_) => "file",
            Self::Exec(_) => "exec",
            Self::Kubernetes(_) => "kubernetes",
            Self::Consul(_) => "consul",
            Self::Sentinel(_) => "sentinel",
            Self::Patroni(_) => "patroni",
            Self::Docker(_) => "docker",
            Self::Swarm(_) => "swarm",
            Self::Lxd(_) => "lxd",
            Self::Push(_) => "push",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// RFC 1035, 3596, 2782.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSource {
    /// Lower case, without a trailing dot.
    pub name: Box<str>,
    /// What is asked for.
    pub record: DnsSourceRecord,
    /// Who is asked. Empty: whom `/etc/resolv.conf` names, with its search domains.
    pub servers: Vec<SocketAddr>,
    /// A shorter life of records counts as this. Default 1 s.
    pub ttl_min: Duration,
    /// A longer one as this. Default: the source's interval, at least a minute.
    pub ttl_max: Duration,
}

/// Types of records that lead to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsSourceRecord {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Both. The default.
    Both,
    /// Hosts with port, priority and weight.
    Srv,
}

/// A document behind a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSource {
    /// `http` or `https`.
    pub url: Box<str>,
    /// More headers, in order.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// A file of the control plane that holds a bearer token; read anew each time.
    pub token_file: Option<Box<str>>,
    /// Whom we trust, and who we are.
    pub tls: ClientTls,
    /// How to read it.
    pub format: Format,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// TLS towards a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// PEM of the authorities to trust in place of those of the system.
    pub ca_pem: Option<Box<str>>,
    /// Files of the control plane with the client's certificate (its chain) and key.
    pub identity: Option<(Box<str>, Box<str>)>,
}

/// A file of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The whole path.
    pub path: Box<str>,
    /// How to read it.
    pub format: Format,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// A program of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSource {
    /// The program by its whole path, and its arguments; no shell.
    pub argv: Vec<Box<str>>,
    /// How to read what it writes.
    pub format: Format,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// The API of a Kubernetes cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSource {
    /// A file of the control plane that says how to reach the cluster. `None`: the one that it runs in.
    pub kubeconfig: Option<Box<str>>,
    /// Of the kubeconfig. `None`: its current one.
    pub context: Option<Box<str>>,
    /// `None`: that of the context, or the control plane's own.
    pub namespace: Option<Box<str>>,
    /// Which addresses count.
    pub mode: KubernetesMode,
    /// Of the service's ports, by name or number. `None`: its only one. With pods a number.
    pub port: Option<Box<str>>,
}

/// What of a cluster is a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesMode {
    /// The ready endpoints of a service: addresses of pods.
    Endpoints(Box<str>),
    /// The nodes that are ready, at the service's node port.
    NodePort(Box<str>),
    /// What the service's load balancer is.
    LoadBalancer(Box<str>),
    /// Pods that are ready, by a selector of labels.
    Pods(Box<str>),
}

/// A Consul agent, and which of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulSource {
    /// Where the agent's HTTP API is, without a path.
    pub url: Box<str>,
    /// The services, at least one; their instances are one answer.
    pub services: Vec<Box<str>>,
    /// An instance has to have all of them.
    pub tags: Vec<Box<str>>,
    /// Only instances whose checks pass. Default true.
    pub passing_only: bool,
    /// Only the agent's own when `None`.
    pub datacenter: Option<Box<str>>,
    /// Enterprise.
    pub namespace: Option<Box<str>>,
    /// Enterprise.
    pub partition: Option<Box<str>>,
    /// A file of the control plane that holds an ACL token; read anew each time.
    pub token_file: Option<Box<str>>,
    /// Whom we trust, and who we are.
    pub tls: ClientTls,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// Redis Sentinels, and which master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelSource {
    /// Host and port of each, at least one.
    pub sentinels: Vec<(Box<str>, u16)>,
    /// The master's name.
    pub master: Box<str>,
    /// Which of its servers.
    pub role: DatabaseRole,
    /// With `password_file`; `None`: the default user.
    pub user: Option<Box<str>>,
    /// A file of the control plane with the sentinels' password; read anew each time.
    pub password_file: Option<Box<str>>,
}

/// The REST API of a Patroni cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatroniSource {
    /// Of its members, at least one, without a path: the first that answers is believed.
    pub urls: Vec<Box<str>>,
    /// Which of its servers.
    pub role: DatabaseRole,
    /// Replicas further behind, in bytes, are none. `None`: whatever their lag.
    pub max_lag_bytes: Option<u64>,
    /// Whom we trust, and who we are.
    pub tls: ClientTls,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// Where the API of a manager of containers is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerApi {
    /// A socket of the control plane, or a server.
    pub address: ApiAddress,
    /// Whom we trust, and who we are.
    pub tls: ClientTls,
    /// More bytes are a failure. Default 4 MiB.
    pub max_bytes: u32,
}

/// How an API is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiAddress {
    /// A unix socket, by its whole path.
    Unix(Box<str>),
    /// `http` or `https`, without a path.
    Url(Box<str>),
}

/// Containers of one Docker or Podman engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSource {
    /// The engine.
    pub api: ContainerApi,
    /// The network in which containers have their addresses. `None`: published ports count.
    pub network: Option<Box<str>>,
    /// Which of a container's ports. `None`: the one that its label says, or its only one.
    pub port: Option<ContainerPort>,
    /// Where ports are that are published on every address. `None`: where the engine is.
    pub host: Option<Box<str>>,
}

/// A port within a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerPort {
    /// The port.
    pub number: u16,
    /// `None`: whichever of both there is.
    pub transport: Option<crate::Protocol>,
}

/// Tasks of one service of a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmSource {
    /// A manager.
    pub api: ContainerApi,
    /// The service, by its whole name.
    pub service: Box<str>,
    /// The network in which tasks have their addresses. `None`: published ports of nodes count.
    pub network: Option<Box<str>>,
    /// Which of the service's ports. `None`: the only one.
    pub port: Option<ContainerPort>,
}

/// Instances of LXD or Incus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LxdSource {
    /// The server.
    pub api: ContainerApi,
    /// `None`: the default one.
    pub project: Option<Box<str>>,
    /// Which of an instance's interfaces. `None`: the one that its key says, or the first with an address.
    pub interface: Option<Box<str>>,
    /// Whether addresses are IPv6.
    pub v6: bool,
}

/// Which servers of a database that has one primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseRole {
    /// The one that takes writes. The default.
    Primary,
    /// The others.
    Replica,
    /// All, replicas in the second tier (priority 1).
    Any,
}

/// What others tell, over the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSource {
    /// What was told is forgotten after this time. `None`, the default: never.
    pub ttl: Option<Duration>,
}

/// How a text says which backends there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// JSON where it begins as such, else lines. The default.
    Auto,
    /// Lines: `host port [weight [priority]]`, `host:port`, with `weight=`, `priority=`, `maxConnections=` in any order.
    Lines,
    /// Lines, each of them matched by an expression with the groups `host` and `port`, maybe `weight` and `priority`.
    Pattern(Box<str>),
    /// JSON in one of the known shapes.
    Json,
    /// JSON, by pointers (RFC 6901).
    Pointers(Pointers),
}

/// Where in a JSON document everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointers {
    /// The list (or object, whose values count). Empty: the document itself.
    pub items: Box<str>,
    /// From an item: its host, or `host:port`. Empty: the item itself.
    pub host: Box<str>,
    /// From an item. `None`: none, or within `host`.
    pub port: Option<Box<str>>,
    /// From an item.
    pub weight: Option<Box<str>>,
    /// From an item.
    pub priority: Option<Box<str>>,
    /// From an item, to an object whose members are labels. Default `/labels`.
    pub labels: Box<str>,
}

/// The most bytes of an answer, unless said otherwise.
pub const MAX_ANSWER_BYTES: u32 = 4 * 1024 * 1024;

/// Whether backends may be there at all: nobody answers at an address that means everybody or nobody.
pub fn may_be_backend(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}
