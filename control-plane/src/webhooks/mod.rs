//! Webhooks: events are posted to the addresses that the operator named, each in order, each event until it is taken or an hour
//! has passed. Whoever publishes an event never waits for it.

mod queue;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use awe4lb_discovery::{
    Allowed,
    outgoing::{Outgoing, Question},
};
use aws_lc_rs::hmac;
use rand::Rng as _;
use tokio::sync::{
    Notify,
    broadcast::{Receiver, error::RecvError},
};
use tokio_util::sync::CancellationToken;

use crate::{events::Event, options::Options};

use queue::{Delivery, Queue};

/// Kinds of events that can be sent.
pub const KINDS: [&str; 5] = ["certificate", "node", "revision", "source", "backend"];
/// The header that proves where a request comes from.
pub const SIGNATURE: &str = "awe4lb-signature";
/// For one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A shorter secret can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Sends events. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    targets: Vec<Target>,
    kinds: Vec<String>,
    key: Option<hmac::Key>,
    outgoing: Outgoing,
    counts: Counts,
}

/// One address.
struct Target {
    url: String,
    /// Without what may be a secret in it.
    shown: String,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    retried: AtomicU64,
    expired: AtomicU64,
    dropped: AtomicU64,
}

impl Webhooks {
    /// By the flags.
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let key = options.webhook_secret_file.as_deref().map(read_secret).transpose()?;
        Self::new(&options.webhook, options.webhook_events.clone(), key, options.allowed())
    }

    fn new(
        urls: &[String],
        kinds: Vec<String>,
        key: Option<hmac::Key>,
        allowed: Allowed,
    ) -> anyhow::Result<Self> {
        let target = |url: &String| Target {
            url: url.clone(),
            shown: shown(url),
            queue: Mutex::default(),
            filled: Notify::new(),
        };
        Ok(Self(Arc::new(Inner {
            targets: urls.iter().map(target).collect(),
            kinds,
            key,
            outgoing: Outgoing::new(Arc::new(allowed))?,
            counts: Counts::default(),
        })))
    }

    /// Whether there is anyone to send to.
    pub fn is_empty(&self) -> bool {
        self.0.targets.is_empty()
    }

    /// Sends until `stop`. What waits then is lost.
    pub async fn run(&self, events: Receiver<Event>, stop: CancellationToken) {
        let inner = &self.0;
        let deliver =
            futures_util::future::join_all(inner.targets.iter().map(|target| inner.deliver(target)));
        tokio::select! {
            () = inner.feed(events) => {}
            _ = deliver, if !inner.targets.is_empty() => {}
            () = stop.cancelled() => {}
        }
    }

    /// How deliveries ended, and how many did so.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let counts = &self.0.counts;
        [
            ("delivered", counts.delivered.load(Relaxed)),
            ("retried", counts.retried.load(Relaxed)),
            ("expired", counts.expired.load(Relaxed)),
            ("dropped", counts.dropped.load(Relaxed)),
        ]
    }
}

impl Inner {
    async fn feed(&self, mut events: Receiver<Event>) {
        loop {
            match events.recv().await {
                Ok(event) => self.take(&event),
                Err(RecvError::Lagged(missed)) => {
                    self.counts.dropped.fetch_add(missed, Relaxed);
                    tracing::warn!(missed, "events came faster than webhooks could be told");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn take(&self, event: &Event) {
        if !self.kinds.iter().any(|kind| kind == event.kind) {
            return;
        }
        let at = jiff::Timestamp::now();
        let (id, kind, data) = (event.sequence, event.kind, &event.data);
        let body: Arc<str> = format!(r#"{{"id":{id},"kind":"{kind}","at":"{at}","data":{data}}}"#).into();
        for target in &self.targets {
            let delivery = Delivery { id, at: at.as_second(), body: body.clone() };
            if !target.queue().push(delivery) {
                self.counts.dropped.fetch_add(1, Relaxed);
            }
            target.filled.notify_one();
        }
    }

    /// For ever.
    async fn deliver(&self, target: &Target) {
        let mut failures: u32 = 0;
        loop {
            let delivery = target.first().await;
            match self.post(target, &delivery.body).await {
                Ok(()) => {
                    target.queue().done(delivery.id);
                    self.counts.delivered.fetch_add(1, Relaxed);
                    if failures > 0 {
                        tracing::info!(webhook = target.shown, failures, "the webhook takes events again");
                    }
                    failures = 0;
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    self.counts.retried.fetch_add(1, Relaxed);
                    if failures == 1 {
                        let event = delivery.id;
                        tracing::warn!(
                            webhook = target.shown,
                            event,
                            "an event is not taken, it is sent again: {why}"
                        );
                    }
                    let wait = queue::wait(failures, rand::rng().random());
                    tokio::time::sleep(Duration::from_secs_f64(wait)).await;
                }
            }
            let expired = target.queue().expire(jiff::Timestamp::now().as_second());
            if expired > 0 {
                self.counts.expired.fetch_add(expired as u64, Relaxed);
                tracing::error!(
                    webhook = target.shown,
                    expired,
                    "events are given up: nobody took them for an hour"
                );
            }
        }
    }

    async fn post(&self, target: &Target, body: &str) -> Result<(), String> {
        let at = jiff::Timestamp::now().as_second();
        let signature = self.key.as_ref().map(|key| sign(key, at, body));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(signature.as_deref().map(|signature| (SIGNATURE, signature)));
        let question = Question {
            url: &target.url,
            headers: &headers,
            body: body.as_bytes().to_vec(),
            timeout: TIMEOUT,
            most: None,
            redirects: 0,
        };
        // Errors may name the whole address.
        let hide = |text: String| text.replace(&target.url, &target.shown);
        let reply = self.outgoing.post(question).await.map_err(|failure| hide(failure.0))?;
        match reply.status {
            200..=299 => Ok(()),
            status => Err(format!("it answers with status {status}")),
        }
    }
}

impl Target {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn first(&self) -> Delivery {
        loop {
            let filled = self.filled.notified();
            let first = self.queue().first();
            if let Some(delivery) = first {
                return delivery;
            }
            filled.await;
        }
    }
}

/// `t=` the time, `v1=` HMAC-SHA256 of time, point and body: who plays a request again has an old time in it.
fn sign(key: &hmac::Key, at: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(tag))
}

fn read_secret(file: &Path) -> anyhow::Result<hmac::Key> {
    let what = || format!("--webhook-secret-file {}", file.display());
    let secret = zeroize::Zeroizing::new(std::fs::read(file).with_context(what)?);
    let end = secret.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    if end < SHORTEST_SECRET {
        bail!("{}: a secret has at least {SHORTEST_SECRET} bytes; make one: openssl rand -hex 32", what());
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret[..end]))
}

/// What an address must be.
pub fn check(url: &str) -> Result<(), String> {
    let parsed: http::Uri = url.parse().map_err(|error| format!("no address: {error}"))?;
    match (parsed.scheme_str(), parsed.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err("an address begins with https:// or http://".to_owned()),
    }
}

/// Scheme, host and port: paths and users of such addresses are often secrets.
fn shown(url: &str) -> String {
    let Ok(parsed) = url.parse::<http::Uri>() else { return "…".to_owned() };
    let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}/…", parsed.scheme_str().unwrap_or("?"), parsed.host().unwrap_or("?"))
}
