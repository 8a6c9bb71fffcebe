//! What all parts of the control half share.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use super::{hot::DataPath, live::Live};

/// The node, as its control half sees it.
pub struct Node {
    /// What runs.
    pub live: Arc<Live>,
    /// Of this process start.
    pub boot_id: [u8; 16],
    /// Of this process.
    pub started: SystemTime,
    /// Workers.
    pub threads: usize,
    /// Why it is not to get new traffic, if so.
    pub draining: watch::Sender<Draining>,
    /// The way to the control plane.
    pub link: watch::Sender<Link>,
}

/// Who wants this node to drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draining {
    /// Somebody on this machine.
    pub local: bool,
    /// The control plane.
    pub commanded: bool,
    /// The node is going.
    pub stopping: bool,
}

impl Draining {
    /// Anybody.
    pub fn is_on(self) -> bool {
        self.local || self.commanded || self.stopping
    }
}

/// The way to the control plane.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Where it is.
    pub state: LinkState,
    /// As the control plane calls this node.
    pub node: Option<String>,
    /// Which control plane, while there is a connection.
    pub control_plane: Option<String>,
    /// Of the control plane's software.
    pub version: Option<String>,
    /// Why there is no connection.
    pub error: Option<String>,
    /// The end of the node's certificate, in seconds since 1970.
    pub certificate_not_after: Option<u64>,
}

/// Where the link is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkState {
    /// This node runs from a file.
    #[default]
    Off,
    /// It has no identity yet.
    Joining,
    /// Trying.
    Disconnected,
    /// Welcome was said.
    Connected,
}

impl Node {
    /// Nothing runs yet.
    pub fn new(path: Arc<dyn DataPath>, threads: usize) -> anyhow::Result<Arc<Self>> {
        let mut boot_id = [0; 16];
        getrandom::fill(&mut boot_id).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        Ok(Arc::new(Self {
            live: Arc::new(Live::new(path)),
            boot_id,
            started: SystemTime::now(),
            threads,
            draining: watch::Sender::default(),
            link: watch::Sender::default(),
        }))
    }

    /// The name, once there is one.
    pub fn name(&self) -> Option<String> {
        self.link.borrow().node.clone()
    }

    /// Why this node is not ready, in words; empty: it is.
    pub fn not_ready(&self) -> Vec<String> {
        let running = self.live.running();
        let draining = *self.draining.borrow();
        let mut reasons = Vec::new();
        if draining.stopping {
            reasons.push("stopping".to_owned());
        } else if draining.is_on() {
            reasons.push("draining".to_owned());
        }
        if !running.is_configured() {
            reasons.push("no configuration yet".to_owned());
        }
        reasons.extend(running.missing.iter().map(super::file_source::describe));
        reasons
    }
}

/// Milliseconds since 1970.
pub fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
