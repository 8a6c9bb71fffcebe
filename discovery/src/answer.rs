//! What a source says.

use std::time::Duration;

use awe4lb_model::{
    Backend, BackendAddress, Labels, Name, discovery::Template, document::made_backend_name, labels,
};

/// The most labels of an endpoint, and the longest of them in bytes: more are not kept.
const MAX_LABELS: usize = 128;
const MAX_LABEL: usize = 255;

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
    /// What else is known of it: for choosing among endpoints, for names, and for its zone.
    pub labels: Labels,
}

impl Endpoint {
    /// One of which only the address is known.
    pub fn at(address: BackendAddress) -> Self {
        Self { address, weight: None, priority: None, max_connections: None, labels: Labels::new() }
    }

    /// The same with a label, unless that is there already or longer than labels are.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        let fits = !key.is_empty() && key.len() <= MAX_LABEL && value.len() <= MAX_LABEL;
        if fits && self.labels.len() < MAX_LABELS && !self.labels.contains_key(key) {
            self.labels.insert(key.to_owned(), value.to_owned());
        }
        self
    }

    /// The backend: named by its address (or what the template makes of it), so that it is the same one on every node and
    /// after every restart.
    pub fn backend(self, template: &Template) -> Option<Backend> {
        let address = BackendAddress { port: template.port.or(self.address.port), ..self.address };
        let made = template.name.as_ref().and_then(|name| name.name(&address, &self.labels));
        Some(Backend {
            name: made.or_else(|| by_address(&address))?,
            zone: labels::zone(&self.labels).map(Into::into).or_else(|| template.zone.clone()),
            address,
            weight: self.weight.unwrap_or(template.weight),
            priority: self.priority.unwrap_or(template.priority),
            max_connections: self.max_connections.or(template.max_connections),
        })
    }
}

fn by_address(address: &BackendAddress) -> Option<Name> {
    let mut name = made_backend_name(&address.to_string());
    name.truncate(Name::MAX_LEN);
    name.trim_end_matches('-').parse().ok()
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
