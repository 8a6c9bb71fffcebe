//! The way to the control plane, for ever: join once, then one stream after the other.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::{
    backoff::Backoff,
    connect,
    enrol::{self, EnrolError},
    identity::Identity,
    node::LinkState,
    session::{self, Ended, Uplink},
    token::JoinToken,
};

/// After `banned`: the node asks again now and then, in case the operator changes their mind.
const BANNED: Duration = Duration::from_secs(30);

/// How to join.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Control planes, in order of preference.
    pub control_planes: Vec<String>,
    /// Needed until there is an identity.
    pub token: Option<JoinToken>,
    /// The name to ask for.
    pub name: Option<String>,
}

/// Why the node cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot join: {0}")]
pub struct CannotJoin(String);

/// Runs until the node goes. The only error is a join that can never work.
pub async fn run(mut uplink: Uplink, joining: Joining) -> Result<(), CannotJoin> {
    let mut backoff = Backoff::reconnect();
    let mut turn = 0;
    loop {
        if *uplink.flush.borrow() {
            return Ok(());
        }
        let url = match urls(&uplink, &joining).get(turn) {
            Some(url) => url.clone(),
            None => {
                turn = 0;
                let Some(url) = urls(&uplink, &joining).first().cloned() else {
                    return Err(CannotJoin("no control plane is known: give --control-plane".to_owned()));
                };
                url
            }
        };
        let wait = match attempt(&mut uplink, &joining, &url).await {
            Ok(Ended::Flushed) => return Ok(()),
            Ok(Ended::Goodbye { reason, retry_after }) => {
                backoff.reset();
                let banned = reason == "banned";
                if banned {
                    tracing::error!(
                        "this node is banned by the control plane; it keeps serving what it runs"
                    );
                } else {
                    tracing::info!(%reason, "the control plane says goodbye");
                }
                disconnected(&uplink, format!("the control plane said goodbye: {reason}"));
                turn += 1;
                retry_after.max(if banned { BANNED } else { Duration::ZERO }) + backoff.next(&mut rand::rng())
            }
            Err(Failure::Final(why)) => return Err(CannotJoin(why)),
            Err(Failure::Lost { error, was_connected }) => {
                if was_connected {
                    backoff.reset();
                }
                let wait = backoff.next(&mut rand::rng());
                tracing::warn!(control_plane = %url, retry_in_ms = wait.as_millis(), "no control plane: {error:#}");
                disconnected(&uplink, format!("{error:#}"));
                turn += 1;
                wait
            }
        };
        rest(&mut uplink, wait).await;
    }
}

enum Failure {
    /// Nothing that is tried again can help.
    Final(String),
    /// Maybe next time.
    Lost { error: anyhow::Error, was_connected: bool },
}

fn urls<'a>(uplink: &'a Uplink, joining: &'a Joining) -> &'a [String] {
    match &uplink.identity {
        Some(identity) if joining.control_planes.is_empty() => &identity.control_planes,
        _ => &joining.control_planes,
    }
}

/// Joins if need be, connects, and speaks.
async fn attempt(uplink: &mut Uplink, joining: &Joining, url: &str) -> Result<Ended, Failure> {
    let lost = |error| Failure::Lost { error, was_connected: false };
    let identity = match &uplink.identity {
        Some(identity) if !(identity.validity.is_over(SystemTime::now()) && joining.token.is_some()) => {
            identity.clone()
        }
        _ => join(uplink, joining, url).await?,
    };
    let config = identity.for_tls().and_then(|tls| connect::mutual_tls(&identity.ca, tls)).map_err(lost)?;
    let stream = connect::dial(url, config).await.map_err(lost)?;
    let channel = connect::channel(stream).await.context("HTTP/2").map_err(lost)?;
    let result = session::run(uplink, channel, url).await;
    let was_connected = uplink.node.link.borrow().state == LinkState::Connected;
    result.map_err(|error| Failure::Lost { error, was_connected })
}

async fn join(uplink: &mut Uplink, joining: &Joining, url: &str) -> Result<Identity, Failure> {
    let Some(token) = &joining.token else {
        return Err(Failure::Final(
            "this node has no identity yet: give a join token with --join-token-file".to_owned(),
        ));
    };
    // A node that slept too long comes back under its name.
    let before = uplink.identity.as_ref().map(|identity| identity.name.clone());
    let name = before.as_deref().or(joining.name.as_deref());
    match enrol::enrol(url, token, name, &joining.control_planes, &uplink.dir).await {
        Ok(identity) => {
            tracing::info!(name = identity.name, cluster = token.cluster, "joined");
            know(uplink, &identity);
            uplink.identity = Some(identity.clone());
            Ok(identity)
        }
        // A node that was one goes on serving, whatever becomes of its token.
        Err(error) if uplink.identity.is_some() => {
            Err(Failure::Lost { error: anyhow::anyhow!("cannot join again: {error}"), was_connected: false })
        }
        Err(EnrolError::Refused(why)) => Err(Failure::Final(why)),
        Err(EnrolError::Unreachable(error)) => Err(Failure::Lost { error, was_connected: false }),
        Err(EnrolError::Local(error)) => Err(Failure::Final(format!("{error:#}"))),
    }
}

/// Shows who this node is.
pub fn know(uplink: &Uplink, identity: &Identity) {
    let not_after = identity.validity.not_after.duration_since(SystemTime::UNIX_EPOCH).ok();
    uplink.node.link.send_modify(|link| {
        link.node = Some(identity.name.clone());
        link.certificate_not_after = not_after.map(|not_after| not_after.as_secs());
        if link.state == LinkState::Joining {
            link.state = LinkState::Disconnected;
        }
    });
}

fn disconnected(uplink: &Uplink, error: String) {
    uplink.node.link.send_modify(|link| {
        link.state = if uplink.identity.is_some() { LinkState::Disconnected } else { LinkState::Joining };
        link.control_plane = None;
        link.error = Some(error);
    });
}

/// Waits; overlays go on meanwhile, their deadlines pass also without a control plane.
async fn rest(uplink: &mut Uplink, wait: Duration) {
    let until = tokio::time::Instant::now() + wait;
    let mut flush = uplink.flush.clone();
    loop {
        let now = SystemTime::now();
        uplink.overlays.apply(&uplink.node.live, None, now);
        let step = uplink.overlays.next_deadline(now).unwrap_or(wait);
        let next = until.min(tokio::time::Instant::now() + step);
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = async { drop(flush.wait_for(|flush| *flush).await) } => return,
        }
        if tokio::time::Instant::now() >= until {
            return;
        }
    }
}
