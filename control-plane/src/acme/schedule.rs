//! Which certificate is ordered when: those that end first come first, a few at a time, and what is wished otherwise is given up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use awe4lb_engine::renewal::{self, Life, Next, Why};
use awe4lb_model::acme::{AcmeAccount, AcmeCertificate, KeyType, Secret};
use tokio::{
    sync::watch::Receiver,
    task::{AbortHandle, JoinSet},
};

use super::{
    Acme, Key, issued,
    live::Live,
    order::{Job, source_of},
    verify,
};
use crate::catalog::{Chain, ChainOrigin, Head, Issued, Kind};

/// Orders at a time of one account: an authority that hangs holds up nobody but its own.
const AT_ONCE: usize = 8;
/// What changes by itself (a clock that is set, say) is seen after this at the latest.
const LOOK: Duration = Duration::from_secs(60);

/// An order on its way.
struct Running {
    wish: Wish,
    handle: AbortHandle,
}

/// What an order depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    wanted: Arc<AcmeCertificate>,
    secret: Option<Secret>,
    account: AcmeAccount,
    account_secret: Option<Secret>,
}

impl Acme {
    pub(super) async fn order_forever(&self, mut head: Receiver<Arc<Head>>) {
        let mut orders: JoinSet<()> = JoinSet::new();
        let mut running: BTreeMap<Key, Running> = BTreeMap::new();
        loop {
            let now = jiff::Timestamp::now().as_second();
            let current = head.borrow_and_update().clone();
            self.end_the_outdated(&current, &mut running);
            self.forget_the_gone(&current).await;
            let mut waiting = self.due(&current, now, &running);
            // Who ends first comes first.
            waiting.sort_by_key(|(_, next, ends)| (*ends, next.at));
            let mut soonest = LOOK;
            for (key, next, _) in waiting {
                if next.at > now {
                    soonest = soonest.min(Duration::from_secs(next.at.abs_diff(now)));
                } else if let Some(job) = self.job(&current, &key) {
                    let of_account = |one: &&Running| one.wish.account.name == job.account.name;
                    if running.values().filter(of_account).count() >= AT_ONCE {
                        continue;
                    }
                    self.live(&key, |live| live.begin());
                    let (this, of, wish) = (self.clone(), key.clone(), wish(&current, &key.0));
                    let Some(wish) = wish else { continue };
                    let handle = orders.spawn(async move { this.order(of, job).await });
                    running.insert(key, Running { wish, handle });
                }
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return },
                () = self.0.moved.notified() => {}
                Some(ended) = orders.join_next_with_id() => {
                    let id = match ended {
                        Ok((id, ())) => id,
                        Err(error) => {
                            if error.is_panic() {
                                tracing::error!("an order ended badly: {error}");
                            }
                            error.id()
                        }
                    };
                    running.retain(|_, one| one.handle.id() != id);
                }
                () = tokio::time::sleep(soonest.max(Duration::from_millis(100))) => {}
            }
        }
    }

    /// Orders of what is wished otherwise by now, or not at all. They end as if the control plane had: what they left behind is known.
    fn end_the_outdated(&self, head: &Head, running: &mut BTreeMap<Key, Running>) {
        running.retain(|key, one| {
            let is_wished = wish(head, &key.0).as_ref() == Some(&one.wish);
            if !is_wished {
                tracing::info!(certificate = key.0, "the order is given up: something else is wished by now");
                one.handle.abort();
                self.live(key, Live::end);
                let (this, key, wish) = (self.clone(), key.clone(), one.wish.clone());
                tokio::spawn(async move {
                    this.0.clerk.take_out(&key.0, key.1, &wish.wanted, wish.secret.as_ref()).await
                });
            }
            is_wished
        });
        // What failed with another wish says nothing about this one.
        for (name, issued) in issued(head) {
            let Some(wish) = wish(head, name) else { continue };
            for key_type in &issued.wanted.key_types {
                self.live(&(name.to_owned(), *key_type), |live| {
                    if live.wish.as_ref().is_some_and(|known| *known != wish) {
                        live.attempt.failures = 0;
                    }
                    live.wish = Some(wish.clone());
                });
            }
        }
    }

    /// When each certificate is due that is not being ordered, and when it ends.
    fn due(&self, head: &Head, now: i64, running: &BTreeMap<Key, Running>) -> Vec<(Key, Next, i64)> {
        let mut due = Vec::new();
        for (name, issued) in issued(head) {
            // The key types of a name come one after another: the authority is convinced once. Whoever is among those that run
            // may have put its chain into a newer head than this.
            if running.keys().any(|(of, _)| of == name) {
                continue;
            }
            let first = issued.wanted.key_types.iter().filter_map(|key_type| {
                let key = (name.to_owned(), *key_type);
                let next = self.next(head, issued, &key)?;
                let ends =
                    self.current(head, issued, *key_type).map_or(0, |chain| verify::life(&chain.facts).1);
                Some((key, next, ends))
            });
            let mut of_name: Vec<_> = first.collect();
            of_name.sort_by_key(|(_, next, _)| next.at.max(now));
            due.extend(of_name.into_iter().next());
        }
        due
    }

    /// When a certificate is ordered next. None: its account is not there.
    pub(super) fn next(&self, head: &Head, issued: &Issued, key: &Key) -> Option<Next> {
        head.model.get(Kind::AcmeAccount, issued.wanted.account.as_str())?;
        let known = {
            let all = self.all();
            all.get(key).map(|live| (live.attempt.clone(), live.window, live.is_forced)).unwrap_or_default()
        };
        let (attempt, window, is_forced) = known;
        let current = self.current(head, issued, key.1);
        let life = current.map(|chain| {
            let (not_before, not_after) = verify::life(&chain.facts);
            Life { not_before, not_after }
        });
        if is_forced {
            let why = if attempt.not_sooner > 0 { Why::Patience } else { Why::Missing };
            return Some(Next { at: attempt.not_sooner, why });
        }
        let luck = current.map_or_else(|| luck(&key.0), |chain| luck(&chain.facts.fingerprint));
        Some(renewal::next(&renewal::Known {
            life,
            window: window.filter(|_| current.is_some()),
            renew_before: issued
                .wanted
                .renew_before
                .map(|before| i64::try_from(before.as_secs()).unwrap_or(0)),
            failures: attempt.failures,
            last_failure: attempt.failed_at,
            not_sooner: attempt.not_sooner,
            luck,
        }))
    }

    /// The chain that serves, if it is what is wished: by this authority, for these names.
    pub(super) fn current<'a>(
        &self,
        head: &Head,
        issued: &'a Issued,
        key_type: KeyType,
    ) -> Option<&'a Chain> {
        let (account, _) =
            head.model.get(Kind::AcmeAccount, issued.wanted.account.as_str())?.acme_account()?;
        let source = source_of(account, &issued.wanted);
        issued.chain(key_type).filter(|chain| chain.origin == ChainOrigin::Acme(source))
    }

    fn job(&self, head: &Head, key: &Key) -> Option<Job> {
        let issued = head.model.get(Kind::Certificate, &key.0)?.issued()?;
        let entry = head.model.get(Kind::AcmeAccount, issued.wanted.account.as_str())?;
        let (account, account_secret) = entry.acme_account()?;
        let (this, of) = (self.clone(), key.clone());
        Some(Job {
            wanted: issued.wanted.clone(),
            secret: issued.secret.clone(),
            account: account.clone(),
            account_secret: account_secret.cloned(),
            key_type: key.1,
            current: self.current(head, issued, key.1).cloned(),
            revision: head.revision,
            tell: Box::new(move |step| this.step(&of, step)),
        })
    }

    /// What is deleted, or no longer wished by ACME, is not remembered.
    pub(super) async fn forget_the_gone(&self, head: &Head) {
        let gone: Vec<Key> = {
            let is_there = |key: &Key| {
                let entry = head.model.get(Kind::Certificate, &key.0);
                entry
                    .and_then(|entry| entry.issued())
                    .is_some_and(|issued| issued.wanted.key_types.contains(&key.1))
            };
            self.all()
                .iter()
                .filter(|(key, live)| !is_there(key) && live.step.is_none())
                .map(|(key, _)| key.clone())
                .collect()
        };
        let store = &self.0.clerk.store;
        for key in gone {
            let forgotten = async {
                store.forget_acme_attempt(&key.0, key.1).await?;
                store.forget_acme_order(&key.0, key.1).await
            };
            if let Err(error) = forgotten.await {
                tracing::warn!(certificate = key.0, "what is gone is not forgotten: {error:#}");
                continue;
            }
            self.all().remove(&key);
        }
    }
}

/// What an order of a certificate would depend on; none: it is not issued by ACME, or its account is not there.
fn wish(head: &Head, certificate: &str) -> Option<Wish> {
    let issued = head.model.get(Kind::Certificate, certificate)?.issued()?;
    let entry = head.model.get(Kind::AcmeAccount, issued.wanted.account.as_str())?;
    let (account, account_secret) = entry.acme_account()?;
    Some(Wish {
        wanted: issued.wanted.clone(),
        secret: issued.secret.clone(),
        account: account.clone(),
        account_secret: account_secret.cloned(),
    })
}

/// The same for the same text.
fn luck(text: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(text.as_bytes());
    let first: [u8; 8] = std::array::from_fn(|at| hash[at]);
    u64::from_be_bytes(first)
}
