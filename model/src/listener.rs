//! Listeners: where traffic enters, and by which rules it goes on.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;

use crate::{Access, Affinity, BindAddress, ClientPrefix, Name, Rule, UdpSettings};

/// Addresses and a protocol on which nodes accept traffic. All defaults are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique among listeners.
    pub name: Name,
    /// Free labels, for people and for the scope of tokens.
    pub labels: BTreeMap<String, String>,
    /// At least one. No two listeners of a protocol share one.
    pub bind: Vec<BindAddress>,
    /// TCP or UDP. Whether TLS is terminated is a matter of rules.
    pub protocol: Protocol,
    /// How to terminate TLS, for the rules that do. Only with TCP.
    pub tls: Option<TlsSettings>,
    /// Peers that must send a PROXY header first; all others must not. Empty: nobody does. Only with TCP.
    pub proxy_from: Vec<IpNet>,
    /// Who may connect. `None`: everybody.
    pub access: Option<Access>,
    /// Which request for TLS is understood before the ClientHello. Only with TCP.
    pub preamble: Option<Preamble>,
    /// Whether the challenges http-01 of certificate authorities are answered here (RFC 8555 section 8.3). Only with TCP.
    pub acme_http01: bool,
    /// In order, first match wins. Empty only with [`Self::acme_http01`].
    pub rules: Vec<Rule>,
    /// Caps on what clients may use.
    pub limits: Limits,
    /// Deadlines of TCP and TLS connections.
    pub timeouts: TcpTimeouts,
    /// Flow settings of a UDP listener.
    pub udp: UdpSettings,
    /// Listeners that send a client to the same backend as this one. `None`, the default: none.
    pub affinity: Option<Affinity>,
    /// Of how many of a million connections or flows ([`ACCESS_LOG_ALL`]) the access log tells. `None`, the default: of
    /// none.
    pub access_log: Option<u32>,
}

/// [`Listener::access_log`] that tells of every connection.
pub const ACCESS_LOG_ALL: u32 = 1_000_000;

impl Listener {
    /// The address lists that it refers to.
    pub fn lists(&self) -> Vec<&Name> {
        let access = self.access.iter().flat_map(|access| &access.rules);
        let access = access.flat_map(|rule| &rule.addresses.lists);
        self.rules.iter().flat_map(|rule| rule.matches.lists()).chain(access).collect()
    }
}

/// What comes before the ClientHello: a request for TLS in the protocol's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preamble {
    /// `SSLRequest`, or TLS at once, which PostgreSQL 17 calls direct.
    Postgres,
    /// StartTLS (RFC 4511 section 4.14), or TLS at once, as LDAPS is.
    Ldap,
}

/// The transport of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, with or without TLS inside.
    Tcp,
    /// UDP.
    Udp,
}

/// How a listener terminates TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates by name, chosen by SNI and key type; the first is the default. Never empty.
    pub certificates: Vec<Name>,
    /// The oldest version that is spoken. Default 1.2.
    pub min_version: MinTlsVersion,
    /// Application protocols offered, in order of preference; empty: no ALPN.
    pub alpn: Vec<String>,
    /// Whether clients that send no server name are refused. Default no.
    pub require_sni: bool,
}

/// The oldest TLS version a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinTlsVersion {
    /// TLS 1.2 and 1.3.
    V1_2,
    /// TLS 1.3 only.
    V1_3,
}

/// Caps of a listener, per node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections (TCP). `None`: unlimited. Default 20,000.
    pub max_connections: Option<u32>,
    /// Open connections of one client. `None`: unlimited, as with all that follow.
    pub max_connections_per_client: Option<u32>,
    /// Connections accepted a second.
    pub new_connections_per_second: Option<u32>,
    /// The same of one client.
    pub new_per_client_per_second: Option<u32>,
    /// Payload a second, both directions together.
    pub bytes_per_second: Option<u64>,
    /// The same of one client.
    pub bytes_per_second_per_client: Option<u64>,
    /// The same of one connection.
    pub bytes_per_second_per_connection: Option<u64>,
    /// Datagrams a second, both directions together. Only with UDP.
    pub packets_per_second: Option<u32>,
    /// The same of one client. Only with UDP.
    pub packets_per_second_per_client: Option<u32>,
    /// What counts as one client.
    pub client_prefix: ClientPrefix,
}

/// Deadlines of a TCP listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpTimeouts {
    /// From accept until the connection is routed: sniffing and TLS handshake together. Default 10 s.
    pub handshake: Duration,
    /// Without a byte in either direction. `None`: unlimited. Default 1 h.
    pub idle: Option<Duration>,
    /// From the end of one direction to the end of the other, without a byte. Default 1 min.
    pub half_close: Duration,
    /// Of the whole connection. `None`: unlimited, the default.
    pub lifetime: Option<Duration>,
}
