//! Certificates that authorities issue by ACME (RFC 8555), for the whole fleet: ordered when they are wished for, renewed in
//! time, tried again with patience.
//!
//! `schedule` says when there is an order (by [`awe4lb_engine::renewal`]), `order` is one (with `placing` and `authorize`), `outcome`
//! what becomes of it.

pub mod account;
mod authority;
mod authorize;
mod dns;
mod failure;
mod live;
pub mod order;
mod outcome;
mod placing;
mod presenter;
mod schedule;
mod suggestions;
mod verify;
mod view;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use awe4lb_discovery::Allowed;
use awe4lb_model::acme::KeyType;
use tokio::sync::{Notify, watch::Receiver};
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Catalog, Head, Issued, Kind},
    events::Events,
    fleet::Fleet,
    folders::Folders,
    ocsp::Ocsp,
    store::Store,
};
use account::Accounts;
pub use failure::Failure;
use live::Live;
use order::Clerk;
pub use view::{AccountView, CertificateView};

/// A certificate and one of its key types.
type Key = (String, KeyType);

/// The orders of the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Acme(Arc<Inner>);

struct Inner {
    clerk: Clerk,
    folders: Folders,
    ocsp: Ocsp,
    events: Events,
    live: Mutex<BTreeMap<Key, Live>>,
    /// Why an account could not be used lately, by name.
    troubles: Mutex<BTreeMap<String, Failure>>,
    /// Something is to be looked at now.
    moved: Notify,
    orders: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl Acme {
    /// Loads what went wrong before. `beside`: what is shown of certificates beside orders.
    pub async fn open(
        store: Store,
        catalog: Catalog,
        fleet: Fleet,
        beside: (Folders, Ocsp),
        events: Events,
        allowed: Allowed,
    ) -> anyhow::Result<Self> {
        let mut live: BTreeMap<Key, Live> = BTreeMap::new();
        for (key, attempt) in store.acme_attempts().await? {
            live.insert(key, Live::of(attempt));
        }
        for key in store.acme_orders().await? {
            live.entry(key).or_default();
        }
        let allowed = Arc::new(allowed);
        let accounts = Accounts::new(store.clone(), allowed.clone());
        Ok(Self(Arc::new(Inner {
            clerk: Clerk { store, catalog, fleet, accounts, allowed },
            folders: beside.0,
            ocsp: beside.1,
            events,
            live: Mutex::new(live),
            troubles: Mutex::default(),
            moved: Notify::new(),
            orders: Mutex::default(),
        })))
    }

    /// Orders, until `stop`.
    pub async fn run(&self, head: Receiver<Arc<Head>>, stop: CancellationToken) {
        tokio::select! {
            () = self.order_forever(head) => {}
            () = self.ask_for_suggestions() => {}
            () = self.watch_ends() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Orders a certificate now, whatever is left of it; also one that failed and waits.
    pub fn renew(&self, name: &str) -> bool {
        let head = self.0.clerk.catalog.head();
        let Some(issued) = head.model.get(Kind::Certificate, name).and_then(|entry| entry.issued()) else {
            return false;
        };
        for key_type in &issued.wanted.key_types {
            self.live(&(name.to_owned(), *key_type), |live| live.is_forced = true);
        }
        self.0.moved.notify_one();
        true
    }

    /// Gives an account another key. None: there is no such account.
    pub async fn roll_over(&self, name: &str) -> Option<Result<(), Failure>> {
        let head = self.0.clerk.catalog.head();
        let (account, secret) = head.model.get(Kind::AcmeAccount, name)?.acme_account()?;
        Some(self.0.clerk.accounts.roll_over(account, secret).await)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Live>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live<T>(&self, key: &Key, change: impl FnOnce(&mut Live) -> T) -> T {
        change(self.all().entry(key.clone()).or_default())
    }

    fn trouble(&self, account: &str, failure: Option<Failure>) {
        let mut troubles = self.0.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => drop(troubles.insert(account.to_owned(), failure)),
            None => drop(troubles.remove(account)),
        }
    }
}

/// All certificates that are issued.
fn issued(head: &Head) -> impl Iterator<Item = (&str, &Issued)> {
    head.model.all(Kind::Certificate).filter_map(|(name, entry)| Some((name, entry.issued()?)))
}
