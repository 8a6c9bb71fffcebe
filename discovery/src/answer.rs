//! What a source says.

use std::time::Duration;

use awe4lb_model::{Backend, BackendAddress, discovery::Template, document::made_backend_name};

/// A backend, as a source tells of it. What it does not say comes from the source's template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: BackendAddress,
    /// Its share.
    pub weight: Option<u32>,
    /// Its tier.
    pub priority: Option<u32>,
    /// Open connections, per node.
    pub max_connections: Option<u32>,
}

impl Endpoint {
    /// One of which only the address is known.
    pub fn at(address: BackendAddress) -> Self {
        Self { address, weight: None, priority: None, max_connections: None }
    }

    /// The backend: named by its address, so that it is the same one on every node and after every restart.
    pub fn backend(self, template: &Template) -> Option<Backend> {
        let address = BackendAddress { port: template.port.or(self.address.port), ..self.address };
        let mut name = made_backend_name(&address.to_string());
        name.truncate(awe4lb_model::Name::MAX_LEN);
        Some(Backend {
            name: name.trim_end_matches('-').parse().ok()?,
            address,
            weight: self.weight.unwrap_or(template.weight),
            priority: self.priority.unwrap_or(template.priority),
            max_connections: self.max_connections.or(template.max_connections),
        })
    }
}

/// What a source says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The backends, in the order of the source.
    pub endpoints: Vec<Endpoint>,
    /// Items that are none, and why: the others count all the same.
    pub rejected: Vec<String>,
    /// When it is worth asking again, where the source knows.
    pub valid_for: Option<Duration>,
}

/// Why a source gave no answer. For people: what was tried, what happened, and what to do where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl Failure {
    /// In words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
