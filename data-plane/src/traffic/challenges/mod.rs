//! What certificate authorities may ask right now, and who answers them: this node, in place of a backend.
//!
//! While nothing is asked, a connection pays one look at a clock for this. Everything that is not exactly an authority's
//! question goes the way that it would have gone, byte for byte.

mod http;
mod overhear;
mod tls;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use awe4lb_engine::{challenge::ACME_TLS, client_hello::ClientHello};
use rustls::ServerConfig;

use crate::control::hot::{Challenge, ChallengeKind};

pub(super) use http::answer as answer_http;
pub(super) use overhear::{before_tls, overhear};
pub(super) use tls::answer as answer_tls;

/// The challenges of this node, for all workers.
pub(super) struct Challenges {
    start: Instant,
    table: ArcSwap<Table>,
    /// Until when some of a kind are live, in milliseconds since the start.
    http_until: AtomicU64,
    tls_until: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_token: HashMap<Box<str>, Live<Arc<str>>>,
    by_name: HashMap<Box<str>, Live<Arc<ServerConfig>>>,
}

/// What is answered, and until when.
struct Live<T> {
    answer: T,
    until: u64,
}

impl Challenges {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, table: ArcSwap::default(), http_until: AtomicU64::new(0), tls_until: AtomicU64::new(0) }
    }

    /// All that are live, in place of those before. What cannot be answered is left out, and said.
    pub(super) fn set(&self, challenges: Vec<Challenge>) -> Result<(), String> {
        let (mut table, mut failures) = (Table::default(), Vec::new());
        for Challenge { kind, lasts } in challenges {
            let until = millis(self.start.elapsed() + lasts);
            match kind {
                ChallengeKind::Http01 { token, key_authorization } => {
                    let live = Live { answer: key_authorization.into(), until };
                    table.by_token.insert(token.into(), live);
                }
                ChallengeKind::TlsAlpn01 { host, chain_der, key_der } => {
                    match tls::config(chain_der, key_der) {
                        Ok(answer) => drop(table.by_name.insert(host.into(), Live { answer, until })),
                        Err(why) => failures.push(format!("{host}: {why}")),
                    }
                }
            }
        }
        let http_until = table.by_token.values().map(|live| live.until).max();
        let tls_until = table.by_name.values().map(|live| live.until).max();
        self.table.store(Arc::new(table));
        // Whoever sees these sees the table.
        self.http_until.store(http_until.unwrap_or(0), Release);
        self.tls_until.store(tls_until.unwrap_or(0), Release);
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    /// Lets go of keys that nobody asks for any more.
    pub(super) fn forget_old(&self, now: u64) {
        let (http, tls) = (self.http_until.load(Acquire), self.tls_until.load(Acquire));
        if (http, tls) != (0, 0) && now >= http.max(tls) {
            // New ones may come in this moment, and have other times.
            let _ = self.http_until.compare_exchange(http, 0, AcqRel, Acquire);
            let _ = self.tls_until.compare_exchange(tls, 0, AcqRel, Acquire);
            self.table.rcu(|table| if table.is_over(now) { Arc::default() } else { table.clone() });
        }
    }

    /// Whether anything is asked by HTTP. `now`: milliseconds since the start, as in all that follow.
    pub(super) fn is_asked_by_http(&self, now: u64) -> bool {
        now < self.http_until.load(Acquire)
    }

    /// Whether anything is asked by TLS.
    pub(super) fn is_asked_by_tls(&self, now: u64) -> bool {
        now < self.tls_until.load(Acquire)
    }

    /// What is answered to a question for a token.
    fn of_token(&self, token: &str, now: u64) -> Option<Arc<str>> {
        let table = self.table.load();
        table.by_token.get(token).filter(|live| now < live.until).map(|live| live.answer.clone())
    }

    /// How a hello is answered that is an authority's question.
    pub(super) fn of_hello(&self, hello: &ClientHello, now: u64) -> Option<Arc<ServerConfig>> {
        if !hello.alpn.is_only(ACME_TLS) || !self.is_asked_by_tls(now) {
            return None;
        }
        let name = hello.server_name.as_ref()?;
        let table = self.table.load();
        table.by_name.get(name.as_str()).filter(|live| now < live.until).map(|live| live.answer.clone())
    }
}

impl Table {
    fn is_over(&self, now: u64) -> bool {
        self.by_token.values().all(|live| now >= live.until)
            && self.by_name.values().all(|live| now >= live.until)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
