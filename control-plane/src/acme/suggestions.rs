//! Asks authorities when they want certificates renewed (RFC 9773): one question after another, as often as they say.

use std::{collections::BTreeSet, time::Duration};

use awe4lb_engine::renewal::Window;
use awe4lb_model::Name;
use serde_json::json;
use tokio::time::sleep;

use super::{Acme, Key, issued, placing::identifier_of};
use crate::catalog::Kind;

/// Between two questions about one certificate, whatever the authority says, in seconds.
const SOONEST: i64 = 60;
const LATEST: i64 = 24 * 3_600;
/// After a question that failed, or to an authority that gives no such information.
const AGAIN: i64 = 6 * 3_600;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

impl Acme {
    pub(super) async fn ask_for_suggestions(&self) {
        loop {
            sleep(LOOK).await;
            let now = jiff::Timestamp::now().as_second();
            let head = self.0.clerk.catalog.head();
            let mut asked: Vec<(Key, Name, String)> = Vec::new();
            for (name, issued) in issued(&head) {
                for key_type in &issued.wanted.key_types {
                    let key = (name.to_owned(), *key_type);
                    let is_due = self.all().get(&key).is_none_or(|live| live.ask_at <= now);
                    if let Some(chain) = self.current(&head, issued, *key_type).filter(|_| is_due) {
                        asked.push((key, issued.wanted.account.clone(), chain.chain_pem.clone()));
                    }
                }
            }
            // An authority that hangs is asked once, not for each of its certificates.
            let mut silent: BTreeSet<Name> = BTreeSet::new();
            for (key, account, chain) in asked {
                let wait = match silent.contains(&account) {
                    true => None,
                    false => self.ask_for_suggestion(&key, &chain).await,
                };
                if wait.is_none() {
                    silent.insert(account);
                }
                self.live(&key, |live| live.ask_at = now + wait.unwrap_or(AGAIN));
            }
        }
    }

    /// One question; in how many seconds it is put again. None: nobody answers.
    async fn ask_for_suggestion(&self, key: &Key, chain_pem: &str) -> Option<i64> {
        let Some(id) = identifier_of(chain_pem) else { return Some(LATEST) };
        let head = self.0.clerk.catalog.head();
        let account = head.model.get(Kind::Certificate, &key.0).and_then(|entry| {
            let wanted = &entry.issued()?.wanted;
            head.model.get(Kind::AcmeAccount, wanted.account.as_str())?.acme_account()
        });
        let (account, secret) = account?;
        let open = self.0.clerk.accounts.open(account, secret).await.ok()?;
        let (info, wait) = match open.account.renewal_info(&id).await {
            Ok(answer) => answer,
            Err(instant_acme::Error::Unsupported(_)) => return Some(LATEST),
            Err(error) => {
                tracing::debug!(certificate = key.0, "no renewal information: {error}");
                return None;
            }
        };
        let window = Window {
            start: info.suggested_window.start.unix_timestamp(),
            end: info.suggested_window.end.unix_timestamp(),
        };
        let is_new = self.live(key, |live| live.window.replace(window)) != Some(window);
        if is_new {
            tracing::info!(
                certificate = key.0,
                start = %info.suggested_window.start,
                end = %info.suggested_window.end,
                why = info.explanation_url,
                "the authority suggests when to renew"
            );
            self.0.events.publish("certificate", &json!({"name": key.0, "what": "changed"}));
            self.0.moved.notify_one();
        }
        Some(i64::try_from(wait.as_secs()).unwrap_or(LATEST).clamp(SOONEST, LATEST))
    }
}
