//! Addresses by the role they play: where a listener binds, where a backend is.

use std::{fmt, net::IpAddr};

/// Where a listener accepts: `*:443`, `0.0.0.0:53`, `[::1]:8443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindAddress {
    /// The interface address.
    pub host: BindHost,
    /// The port, never 0 in a document. (Tests that want a free port ask the kernel for one first.)
    pub port: u16,
}

/// The host part of a [`BindAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindHost {
    /// `*`: every address of both families.
    Any,
    /// One address (which may be `0.0.0.0` or `::`, every address of that family alone).
    Ip(IpAddr),
}

/// Where a backend is: `10.0.0.1:80`, `[::1]:80`, `app.internal:80`; without a port, the port the client came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendAddress {
    /// An address, or a name that each node resolves for itself.
    pub host: BackendHost,
    /// `None`: the listener's port.
    pub port: Option<u16>,
}

/// The host part of a [`BackendAddress`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendHost {
    /// A fixed address.
    Ip(IpAddr),
    /// A host name, lower case, without a trailing dot. The node resolves it; a name that does not resolve is a
    /// state of the backend, not an error.
    Name(Box<str>),
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            BindHost::Any => write!(f, "*:{}", self.port),
            BindHost::Ip(ip) => write!(f, "{}", std::net::SocketAddr::new(ip, self.port)),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (BackendHost::Ip(ip), Some(port)) => write!(f, "{}", std::net::SocketAddr::new(*ip, port)),
            (BackendHost::Ip(IpAddr::V6(ip)), None) => write!(f, "[{ip}]"),
            (BackendHost::Ip(ip), None) => write!(f, "{ip}"),
            (BackendHost::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (BackendHost::Name(name), None) => f.write_str(name),
        }
    }
}
