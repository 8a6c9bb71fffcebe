//! dns-01: puts records into a zone, waits until they are seen, and takes them out again.

mod seen;
mod update;
mod web;

use std::{sync::Arc, time::Duration};

use awe4lb_discovery::{Allowed, exec};
use awe4lb_model::acme::{AcmeDns, DnsHook, Secret};
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// Of one call of a hook.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Nobody reads what a hook says when all went well.
const MAX_OUTPUT: u32 = 64 * 1024;

/// A TXT record of one challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `_acme-challenge.example.com`, or where that leads to by CNAME.
    pub name: String,
    /// The key authorisation's hash, base64url.
    pub value: String,
}

/// A zone that records are put into.
pub struct Zone<'a> {
    /// How.
    pub dns: &'a AcmeDns,
    /// Of the hook.
    pub secret: Option<&'a Secret>,
    /// What hooks may use of this machine.
    pub allowed: &'a Arc<Allowed>,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Present,
    Cleanup,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

impl Zone<'_> {
    /// Where the record of a domain belongs: CNAMEs are followed, as authorities do.
    pub async fn name_of(&self, domain: &str) -> String {
        let base = domain.strip_prefix("*.").unwrap_or(domain);
        seen::target(self.dns, &format!("_acme-challenge.{base}")).await
    }

    /// Puts a record into the zone, beside those that are there.
    pub async fn present(&self, record: &Record) -> Result<(), Failure> {
        self.act(Act::Present, record).await
    }

    /// Takes it out again.
    pub async fn cleanup(&self, record: &Record) -> Result<(), Failure> {
        self.act(Act::Cleanup, record).await
    }

    async fn act(&self, act: Act, record: &Record) -> Result<(), Failure> {
        let done = async {
            match &self.dns.hook {
                DnsHook::Rfc2136 { server, zone, key } => {
                    let zone = match zone {
                        Some(zone) => zone.to_string(),
                        None => seen::zone_at(*server, &record.name).await?,
                    };
                    let key = key.as_ref().map(|(name, algorithm)| (name.as_ref(), *algorithm, self.secret));
                    update::send(*server, &zone, key, matches!(act, Act::Present), record).await
                }
                DnsHook::Exec { argv } => {
                    let more = [act.word(), &record.name, &record.value].map(Box::from);
                    let argv: Vec<Box<str>> = argv.iter().cloned().chain(more).collect();
                    exec::run(&argv, MAX_OUTPUT, self.allowed).await.map(drop).map_err(|failure| failure.0)
                }
                DnsHook::Http { url, ca_pem } => {
                    web::send(url, ca_pem.as_deref(), self.secret, act.word(), record, self.allowed).await
                }
            }
        };
        let result = tokio::time::timeout(HOOK_TIMEOUT, done).await;
        let why = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {} s", HOOK_TIMEOUT.as_secs()),
        };
        let (word, name) = (self.dns.hook.word(), &record.name);
        let detail = format!("the hook {word} could not {} {name}: {why}", act.word());
        Err(Failure::new("dns-hook", detail, "look at \"dns\" of the certificate"))
    }

    /// Waits until every server that could be asked has all records.
    pub async fn wait_until_seen(&self, records: &[Record]) -> Result<(), Failure> {
        if !self.dns.is_checked {
            return Ok(());
        }
        seen::wait(self.dns, records).await
    }
}
