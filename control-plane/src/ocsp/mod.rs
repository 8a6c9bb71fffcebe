//! OCSP stapling: responders are asked about the certificates that listeners use, and what they say goes along with the
//! certificates to nodes, so that no client has to ask.
//!
//! An answer is believed when the issuer or somebody it appointed signed it (`answer`), asked for again at half of its life
//! (`schedule`), and never sent to a client once it ran out.

mod answer;
mod leaf;
mod schedule;
mod signed;
mod tell;
#[cfg(test)]
mod tests;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use awe4lb_discovery::{
    Allowed,
    outgoing::{Outgoing, Question as HttpQuestion},
};
use awe4lb_model::{Name, placed::NodeConfig};
use rand::Rng as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Staples},
    events::Events,
    store::Store,
};

use answer::Answer;
use leaf::Leaf;
use watched::Watched;

pub use watched::OcspView;

/// For one question, redirects included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// How many redirects are followed.
const REDIRECTS: u8 = 3;
/// So many questions are open at once.
const AT_ONCE: usize = 8;
/// Answers that come within this are sent to nodes together.
const TOGETHER: Duration = Duration::from_millis(200);
/// Without anything to do, look again after so long: clocks may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Asks responders. Cheap to clone.
#[derive(Clone)]
pub struct Ocsp(Arc<Inner>);

struct Inner {
    store: Store,
    catalog: Catalog,
    events: Events,
    outgoing: Outgoing,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By fingerprint.
    watched: BTreeMap<String, Watched>,
    /// What certificates say of OCSP, by their name on nodes.
    leaves: HashMap<Name, Arc<Leaf>>,
    /// What `leaves` was read from.
    seen: Arc<NodeConfig>,
}

/// What `/metrics` tells of a certificate.
#[derive(Debug)]
pub struct OcspMetric {
    /// Its name on nodes.
    pub certificate: String,
    /// Until when the answer counts that goes along with it, in unix seconds.
    pub next_update: Option<i64>,
    /// Tries that failed since the start.
    pub failures: u64,
}

impl Ocsp {
    /// Recalls what is stored, so that nodes get it with the first configuration.
    pub async fn open(
        store: Store,
        catalog: Catalog,
        events: Events,
        allowed: Allowed,
    ) -> anyhow::Result<Self> {
        let stored = store.ocsp_answers(now()).await?;
        let outgoing = Outgoing::new(Arc::new(allowed))?;
        let known = Mutex::new(Known::default());
        let ocsp = Self(Arc::new(Inner { store, catalog, events, outgoing, known }));
        ocsp.adopt(&stored);
        ocsp.publish().await;
        Ok(ocsp)
    }

    /// Asks until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut head = self.0.catalog.subscribe();
        head.mark_changed();
        let mut running = JoinSet::new();
        let mut publish_at = None;
        loop {
            self.start(&mut running);
            let wait = self.wait(running.len() < AT_ONCE);
            let publish = async {
                match publish_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let is_news = tokio::select! {
                changed = head.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    head.borrow_and_update();
                    self.adopt(&HashMap::new())
                }
                Some(done) = running.join_next(), if !running.is_empty() => match done {
                    Ok((fingerprint, result)) => {
                        self.take(&fingerprint, result).await;
                        true
                    }
                    Err(error) => {
                        tracing::error!("a question to an OCSP responder ended badly: {error}");
                        false
                    }
                },
                () = publish => {
                    publish_at = None;
                    self.publish().await;
                    false
                }
                // Something is due, or an answer ran out.
                () = tokio::time::sleep(wait) => true,
                () = stop.cancelled() => return,
            };
            if is_news {
                publish_at.get_or_insert_with(|| tokio::time::Instant::now() + TOGETHER);
            }
        }
    }

    /// How the certificate of this name and fingerprint (SHA-256, hex) stands; `None`: it has nothing to do with OCSP, or no
    /// listener uses it.
    pub fn ocsp_of(&self, _name: &str, fingerprint: &str) -> Option<OcspView> {
        self.known().watched.get(fingerprint).map(|watched| watched.view(now()))
    }

    /// For `/metrics`, in order of name.
    pub fn metrics(&self) -> Vec<OcspMetric> {
        let now = now();
        let known = self.known();
        let of = |watched: &Watched, name: &Name| OcspMetric {
            certificate: name.to_string(),
            next_update: watched.staple(now).map(|staple| staple.until),
            failures: watched.failures_total,
        };
        let all = known.watched.values();
        let mut all: Vec<OcspMetric> =
            all.flat_map(|watched| watched.names.iter().map(|name| of(watched, name))).collect();
        all.sort_by(|a, b| a.certificate.cmp(&b.certificate));
        all
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks which certificates there are. Whether nodes may have to get other answers.
    fn adopt(&self, stored: &HashMap<String, Vec<u8>>) -> bool {
        let placed = self.0.catalog.head().placed.clone();
        let mut known = self.known();
        if Arc::ptr_eq(&placed, &known.seen) {
            return false;
        }
        let used: BTreeSet<&Name> = placed
            .listeners
            .iter()
            .flat_map(|listener| listener.listener.tls.iter().flat_map(|tls| &tls.certificates))
            .collect();
        let before = known.seen.clone();
        let before: HashMap<&Name, &str> = before
            .certificates
            .iter()
            .map(|placed| (&placed.certificate.name, placed.certificate.chain_pem.as_str()))
            .collect();
        let mut leaves = HashMap::new();
        for certificate in placed.certificates.iter().map(|placed| &placed.certificate) {
            let leaf = match before.get(&certificate.name) {
                Some(chain) if *chain == certificate.chain_pem => {
                    known.leaves.get(&certificate.name).cloned()
                }
                _ => Leaf::read(&certificate.chain_pem).map(Arc::new),
            };
            leaves.extend(leaf.map(|leaf| (certificate.name.clone(), leaf)));
        }
        let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
        let (now, jitter) = (now(), jitter());
        for (name, leaf) in leaves.iter().filter(|(name, _)| used.contains(name)) {
            let one = watched.entry(leaf.fingerprint.clone()).or_insert_with(|| {
                let old = known.watched.remove(&leaf.fingerprint);
                // With another issuer in its chain it may be asked for at last.
                let old = old.filter(|old| old.leaf.question.is_ok() || Arc::ptr_eq(&old.leaf, leaf));
                let mut one = old.unwrap_or_else(|| Watched::new(leaf.clone(), now));
                one.names.clear();
                if let (Some(answer), Ok(question)) = (stored.get(&leaf.fingerprint), &leaf.question)
                    && let Ok(answer) = Answer::read(answer, question, now)
                {
                    one.recall(answer, now, jitter);
                }
                one
            });
            one.names.insert(name.clone());
        }
        // Those that are left are gone.
        let has_changed = !watched.is_empty() || !known.watched.is_empty();
        for one in watched.values().filter(|one| one.leaf.question.is_err()) {
            if !known.leaves.values().any(|leaf| Arc::ptr_eq(leaf, &one.leaf)) {
                tell::failed(one, one.error().unwrap_or_default());
            }
        }
        *known = Known { watched, leaves, seen: placed };
        has_changed
    }

    /// Starts what is due.
    fn start(&self, running: &mut JoinSet<(String, Result<Answer, String>)>) {
        let now = now();
        let mut known = self.known();
        for (fingerprint, watched) in &mut known.watched {
            if running.len() >= AT_ONCE {
                return;
            }
            if watched.is_busy || watched.next_try.is_none_or(|at| at > now) {
                continue;
            }
            watched.is_busy = true;
            let (this, fingerprint, leaf) = (self.clone(), fingerprint.clone(), watched.leaf.clone());
            running.spawn(async move {
                let result = this.ask(&leaf).await;
                (fingerprint, result)
            });
        }
    }

    /// Until something is due or runs out.
    fn wait(&self, may_start: bool) -> Duration {
        let now = now();
        let known = self.known();
        let due = known.watched.values().filter(|watched| may_start && !watched.is_busy);
        let due = due.filter_map(|watched| watched.next_try);
        let ends =
            known.watched.values().filter_map(|watched| watched.answer(now)).map(|answer| answer.until);
        let next = due.chain(ends).min().map(|at| u64::try_from(at.saturating_sub(now)).unwrap_or(0));
        next.map_or(LOOK_AGAIN, |seconds| Duration::from_secs(seconds.max(1)).min(LOOK_AGAIN))
    }

    async fn ask(&self, leaf: &Leaf) -> Result<Answer, String> {
        let question = leaf.question.as_ref().map_err(String::clone)?;
        let asked = HttpQuestion {
            url: &question.url,
            headers: &[("content-type", "application/ocsp-request"), ("accept", "application/ocsp-response")],
            body: question.encode()?,
            timeout: TIMEOUT,
            most: Some(MAX_ANSWER),
            redirects: REDIRECTS,
        };
        let url = &question.url;
        let reply = self.0.outgoing.post(asked).await.map_err(|failure| format!("{url}: {failure}"))?;
        if reply.status != 200 {
            return Err(format!("{url}: it answers with status {}", reply.status));
        }
        Answer::read(&reply.body, question, now()).map_err(|why| format!("{url}: {why}"))
    }

    /// Keeps what a question brought, and tells of what an operator should know.
    async fn take(&self, fingerprint: &str, result: Result<Answer, String>) {
        let now = now();
        let stored = result.as_ref().ok().map(|answer| (answer.der.clone(), answer.until));
        let head = self.0.catalog.head();
        let is_kept = {
            let mut known = self.known();
            // It may be gone by now.
            let Some(watched) = known.watched.get_mut(fingerprint) else { return };
            watched.is_busy = false;
            let (before, is_newly_revoked) = (watched.view(now).status, watched.revoked(now).is_none());
            watched.take(result, now, jitter());
            if let Some(error) = watched.error() {
                tell::failed(watched, error);
            }
            if let Some(at) = watched.revoked(now).filter(|_| is_newly_revoked) {
                tell::revoked(watched, at);
            }
            if watched.view(now).status != before {
                tell::changed(&self.0.events, &head, watched, now);
            }
            watched.error().is_none()
        };
        if let Some((answer, until)) = stored.filter(|_| is_kept)
            && let Err(error) = self.0.store.write_ocsp_answer(fingerprint, &answer, until).await
        {
            tracing::warn!("an OCSP answer is not stored, after a restart it is asked for again: {error}");
        }
    }

    /// Sends what counts along with certificates.
    async fn publish(&self) {
        let now = now();
        let staples = {
            let known = self.known();
            let of_each = known.watched.values().filter_map(|watched| Some((watched, watched.staple(now)?)));
            let by_name: HashMap<&Name, _> = of_each
                .flat_map(|(watched, staple)| watched.names.iter().map(move |name| (name, staple.clone())))
                .collect();
            let certificates = known.seen.certificates.iter().map(|placed| &placed.certificate);
            Staples::of(
                certificates
                    .filter_map(|certificate| Some((certificate, by_name.get(&certificate.name)?.clone()))),
            )
        };
        self.0.catalog.staple(staples).await;
    }
}

/// Unix seconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn jitter() -> f64 {
    rand::rng().random()
}
