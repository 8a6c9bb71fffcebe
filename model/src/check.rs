//! What an active health check asks a backend, and what it takes for health. How often is
//! [`HealthCheck`](crate::HealthCheck)'s to say.

use std::{ops::RangeInclusive, time::Duration};

use crate::Name;

/// What is asked. All defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Connects and closes.
    Tcp,
    /// A handshake, and closes.
    Tls(TlsCheck),
    /// One request of HTTP/1.1.
    Http(HttpCheck),
    /// `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc(GrpcCheck),
    /// One datagram and its answer.
    Udp(UdpCheck),
    /// One question to a name server, over UDP.
    Dns(DnsCheck),
    /// What is sent and expected in turn.
    Script(ScriptCheck),
    /// The start of a session with PostgreSQL.
    Postgres(PostgresCheck),
    /// The start of a session with MySQL or MariaDB.
    Mysql(MysqlCheck),
    /// PING, and what comes before.
    Redis(RedisCheck),
    /// Reads what an agent beside the backend says of it, in the words of HAProxy's `agent-check`.
    Agent,
    /// Runs a program on the node.
    Exec(ExecCheck),
}

impl CheckKind {
    /// The word for it in a document.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Grpc(_) => "grpc",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Script(_) => "script",
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::Redis(_) => "redis",
            Self::Agent => "agent",
            Self::Exec(_) => "exec",
        }
    }

    /// Whether it speaks in datagrams.
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Dns(_))
    }

    /// What the connection is wrapped in from its first byte.
    pub fn tls(&self) -> Option<&TlsCheck> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Http(HttpCheck { tls, .. })
            | Self::Grpc(GrpcCheck { tls, .. })
            | Self::Script(ScriptCheck { tls, .. })
            | Self::Redis(RedisCheck { tls, .. }) => tls.as_ref(),
            Self::Tcp
            | Self::Udp(_)
            | Self::Dns(_)
            | Self::Postgres(_)
            | Self::Mysql(_)
            | Self::Agent
            | Self::Exec(_) => None,
        }
    }
}

/// How a check speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCheck {
    /// The server name that is asked for, and that the certificate is for. Default none: the backend's own name, if it
    /// has one.
    pub sni: Option<Box<str>>,
    /// Whether the certificate must be valid. Default true.
    pub verify: bool,
    /// The bundles of authorities that may have issued it. Default none: those of the system.
    pub ca: Vec<Name>,
    /// A certificate that ends sooner is warned of; the check succeeds all the same. Default 14 days, zero is never.
    pub warn_before_expiry: Duration,
}

impl Default for TlsCheck {
    fn default() -> Self {
        let warn_before_expiry = Duration::from_secs(14 * 24 * 60 * 60);
        Self { sni: None, verify: true, ca: Vec::new(), warn_before_expiry }
    }
}

/// One request of HTTP/1.1. Redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// HTTPS. Default none.
    pub tls: Option<TlsCheck>,
    /// Default `GET`.
    pub method: Box<str>,
    /// With the query, if there is one. Default `/`.
    pub path: Box<str>,
    /// The `Host` header. Default none: the server name of TLS, else `localhost`.
    pub host: Option<Box<str>>,
    /// More headers: names and values.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The status is in one of these. Default 200 to 399.
    pub expected: Vec<RangeInclusive<u16>>,
    /// What is in the body, or which expression describes a part of it. Default none: the body is not read.
    pub body: Option<Pattern>,
    /// As much of the body is looked at. Default 64 KiB, which is also the most.
    pub max_body_bytes: usize,
}

impl HttpCheck {
    /// The default of `max_body_bytes`, and the most.
    pub const MAX_BODY_BYTES: usize = 64 * 1024;
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self {
            tls: None,
            method: "GET".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            expected: vec![200..=399],
            body: None,
            max_body_bytes: Self::MAX_BODY_BYTES,
        }
    }
}

/// The health service of gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcCheck {
    /// With TLS, which then speaks `h2`. Default none: HTTP/2 without it, by prior knowledge.
    pub tls: Option<TlsCheck>,
    /// Which service is asked about. Default empty: the server as a whole.
    pub service: Box<str>,
    /// The `:authority`. Default none: the server name of TLS, else `localhost`.
    pub authority: Option<Box<str>>,
}

/// One datagram, and one that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpCheck {
    /// What is sent.
    pub send: Payload,
    /// What the answer holds. Default none: any answer will do.
    pub expect: Option<Pattern>,
}

/// One question to a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCheck {
    /// Of which name. Default `.`.
    pub name: Box<str>,
    /// For which records. Default `ns`.
    pub record: DnsRecord,
    /// The response code that is healthy. Default 0, which is NOERROR.
    pub rcode: u8,
}

impl Default for DnsCheck {
    fn default() -> Self {
        Self { name: ".".into(), record: DnsRecord::Ns, rcode: 0 }
    }
}

/// A type of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsRecord {
    /// An IPv4 address.
    A,
    /// Name servers.
    Ns,
    /// Another name.
    Cname,
    /// The start of a zone.
    Soa,
    /// A name for an address.
    Ptr,
    /// Mail servers.
    Mx,
    /// Text.
    Txt,
    /// An IPv6 address.
    Aaaa,
    /// A service.
    Srv,
}

/// What is sent and expected in turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptCheck {
    /// With TLS. Default none.
    pub tls: Option<TlsCheck>,
    /// In this order. When the last of them is done the backend is healthy.
    pub steps: Vec<ScriptStep>,
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptStep {
    /// Says something. Behind the last `Expect` it is said for politeness: nothing waits for an answer.
    Send(Payload),
    /// Waits until this comes. It is looked for behind what the `Expect` before it found; an expression describes a part
    /// of one line, as only a whole line does not change its meaning when more arrives.
    Expect(Pattern),
    /// Waits until the backend closes, whatever it says before.
    End,
}

/// Bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// These.
    Bytes(Vec<u8>),
    /// The value of this secret.
    Secret(Name),
}

/// Something to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// These bytes, anywhere; none at all are found in anything that comes.
    Bytes(Vec<u8>),
    /// What this expression describes; checked to compile by [`pattern_regex`].
    Regex(Box<str>),
}

/// The longest program that the expression of a check may compile to.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Compiles a [`Pattern::Regex`]: it describes a part of what is looked at, in linear time, in ASCII.
pub fn pattern_regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .build()
}

/// What a database must be. Asking takes a login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendRole {
    /// Nobody asks. The default.
    #[default]
    Any,
    /// It takes writes.
    Primary,
    /// It follows another.
    Replica,
}

/// The start of a session with PostgreSQL, or what speaks like it. Without a password it is enough that the server asks
/// for one, or knows no such user or database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresCheck {
    /// Default `awe4lb`.
    pub user: Box<str>,
    /// Default `postgres`.
    pub database: Box<str>,
    /// The secret that holds it. Default none.
    pub password: Option<Name>,
    /// By `pg_is_in_recovery()`.
    pub role: BackendRole,
}

impl Default for PostgresCheck {
    fn default() -> Self {
        let (user, database) = ("awe4lb".into(), "postgres".into());
        Self { user, database, password: None, role: BackendRole::Any }
    }
}

/// The start of a session with MySQL or MariaDB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MysqlCheck {
    /// Default none: a greeting is enough. MySQL counts that as an error of this node, and may refuse it after
    /// `max_connect_errors` of them: a user without rights is better.
    pub user: Option<Box<str>>,
    /// The secret that holds it. Default none: logs in without one.
    pub password: Option<Name>,
    /// By `read_only`. Anything but `Any` takes a user.
    pub role: BackendRole,
}

/// PING, and what comes before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisCheck {
    /// With TLS. Default none.
    pub tls: Option<TlsCheck>,
    /// Of an access list. Default none: the default user.
    pub user: Option<Box<str>>,
    /// The secret that holds it. Default none: no AUTH, unless there is a user.
    pub password: Option<Name>,
    /// By `ROLE`.
    pub role: BackendRole,
}

/// A program that says by its exit code how the backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCheck {
    /// The program and its arguments; no shell. Never empty.
    pub argv: Vec<Box<str>>,
    /// As much of what it writes is kept. Default 4 KiB.
    pub max_output_bytes: usize,
}

impl ExecCheck {
    /// The default of `max_output_bytes`.
    pub const MAX_OUTPUT_BYTES: usize = 4 * 1024;
}
