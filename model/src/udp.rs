//! What is special about datagrams: flows in place of connections.

use std::time::Duration;

use crate::Name;

/// Flow settings of a UDP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSettings {
    /// A flow ends this long after its last datagram in either direction. Default 60 s.
    pub idle_timeout: Duration,
    /// A flow that never saw an answer ends this long after its last datagram. Default 10 s.
    pub unanswered_timeout: Duration,
    /// Flows at a time, per node. Default 65,536.
    pub max_flows: u32,
    /// Flows at a time of one client ([`crate::ClientPrefix`] says what one is). Default 1,024.
    pub max_flows_per_client: u32,
    /// Datagrams of the client that a flow takes; the next one begins another. `None`, the default: any number.
    pub max_requests: Option<u32>,
    /// Datagrams of the backend after which a flow ends. `None`, the default: any number.
    pub max_responses: Option<u32>,
    /// Bytes that a client gets for each byte it sent, until it has sent again after an answer and so has shown that its
    /// address is its own. `None`, the default: any number.
    pub max_reply_ratio: Option<u32>,
    /// Whether flows are those of QUIC (RFC 9000): they follow their connection id when a NAT changes the client's port.
    pub quic: bool,
    /// Whether marks for congestion (ECN, RFC 3168) pass, which costs about a twelfth of a datagram. Default: with QUIC.
    pub ecn: bool,
}

impl Default for UdpSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            unanswered_timeout: Duration::from_secs(10),
            max_flows: 65_536,
            max_flows_per_client: 1024,
            max_requests: None,
            max_responses: None,
            max_reply_ratio: None,
            quic: false,
            ecn: false,
        }
    }
}

/// Listeners of one group send a client to the same backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// The group. Backends of different pools are the same one when their names are.
    pub group: Name,
    /// How long a client is remembered that has nothing open. Default 10 min.
    pub ttl: Duration,
}

/// What becomes of connections and flows whose backend is down or in maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// Connections stay, flows go elsewhere with their client's next datagram.
    #[default]
    Auto,
    /// They stay.
    Keep,
    /// They end at once.
    Close,
    /// Flows go elsewhere with their client's next datagram; connections, which cannot, end at once.
    Rechoose,
}

/// Which datagrams carry the PROXY header that tells a backend of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyDatagrams {
    /// Every one, as PowerDNS and dnsdist want it.
    #[default]
    Every,
    /// The first of a flow.
    First,
}
