//! A source, asked for ever.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_model::{Backend, discovery::Source};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{Allowed, Answer, Asker, keeper::Keeper};

/// What is known of a source now.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The last good answer. `None`: there was none yet.
    pub backends: Option<Arc<[Backend]>>,
    /// When that was.
    pub last_success: Option<SystemTime>,
    /// Why the last try failed; `None`: it did not.
    pub error: Option<String>,
    /// Some of the items of the last answer that are no backends, and why.
    pub rejected: Vec<String>,
    /// How many of them there are.
    pub rejected_total: usize,
    /// When it is asked again.
    pub next_try: Option<SystemTime>,
}

/// Asks until it is dropped. `report` has what was remembered of an earlier time, and tells of every try.
pub async fn follow(source: Source, allowed: Arc<Allowed>, report: watch::Sender<Report>) {
    let mut keeper = Keeper::new(source.clone(), remembered(&report));
    let mut asker = Asker::new(source, allowed);
    // Not all at once: sources of many pools begin within a moment.
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..FIRST_SPREAD))).await;
    loop {
        let said = asker.ask().await;
        let has_failed = keeper.error().is_some();
        let is_news = keeper.take(said);
        tell(&keeper, asker.source(), has_failed);
        let wait = keeper.next().mul_f64(rand::random_range(0.9..1.1));
        note(&report, &keeper, is_news, Some(wait));
        asker.wait(wait).await;
    }
}

/// What somebody tells of a source that nobody asks.
pub struct Push {
    /// All of its backends.
    pub answer: Answer,
    /// How many count now, or why they do not.
    pub done: oneshot::Sender<Result<usize, String>>,
}

/// As [`follow`], of a source that is told. What was told counts for `ttl`.
pub async fn follow_pushes(
    source: Source,
    ttl: Option<Duration>,
    mut pushes: mpsc::Receiver<Push>,
    report: watch::Sender<Report>,
) {
    let mut keeper = Keeper::new(source.clone(), remembered(&report));
    let after = |ttl: Option<Duration>| ttl.and_then(|ttl| Instant::now().checked_add(ttl));
    // What was remembered was told at some time before: it counts once more.
    let mut until = after(ttl.filter(|_| keeper.has_answer()));
    loop {
        let has_failed = keeper.error().is_some();
        let expiry = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let (is_news, done) = tokio::select! {
            push = pushes.recv() => {
                let Some(Push { answer, done }) = push else { return };
                let is_news = keeper.take(Ok(answer));
                if keeper.error().is_none() {
                    until = after(ttl);
                }
                (is_news, Some(done))
            }
            () = expiry => {
                until = None;
                (keeper.expire(), None)
            }
        };
        tell(&keeper, &source, has_failed);
        note(&report, &keeper, is_news, None);
        if let Some(done) = done {
            let result = keeper.error().map_or(Ok(keeper.backends().len()), |error| Err(error.to_owned()));
            let _ = done.send(result);
        }
    }
}

fn remembered(report: &watch::Sender<Report>) -> Option<Vec<Backend>> {
    report.borrow().backends.as_ref().map(|backends| backends.to_vec())
}

fn note(report: &watch::Sender<Report>, keeper: &Keeper, is_news: bool, wait: Option<Duration>) {
    report.send_modify(|report| {
        if is_news || (report.backends.is_none() && keeper.has_answer()) {
            report.backends = Some(keeper.backends().into());
        }
        report.error = keeper.error().map(str::to_owned);
        let (rejected, total) = keeper.rejected();
        report.rejected = rejected.to_vec();
        report.rejected_total = total;
        let now = SystemTime::now();
        if report.error.is_none() {
            report.last_success = Some(now);
        }
        report.next_try = wait.and_then(|wait| now.checked_add(wait));
    });
}

/// Milliseconds.
const FIRST_SPREAD: u64 = 200;

/// Once when it begins to fail, once when it is over.
fn tell(keeper: &Keeper, source: &Source, has_failed: bool) {
    let id = source.id.as_str();
    match keeper.error() {
        Some(error) if !has_failed => {
            tracing::warn!(
                source = id,
                error,
                "a source of backends fails; see what becomes of its answer in onFailure"
            );
        }
        None if has_failed => tracing::info!(source = id, "a source of backends answers again"),
        _ => {}
    }
}
