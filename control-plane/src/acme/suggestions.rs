//! Asks authorities when they want certificates renewed (RFC 9773): one question after another, as often as they say.

use std::time::Duration;

use awe4lb_engine::renewal::Window;
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
            let mut asked: Vec<(Key, String)> = Vec::new();
            for (name, issued) in issued(&head) {
                for key_type in &issued.wanted.key_types {
                    let key = (name.to_owned(), *key_type);
                    let is_due = self.all().get(&key).is_none_or(|live| live.ask_at <= now);
                    if let Some(chain) = self.current(&head, issued, *key_type).filter(|_| is_due) {
                        asked.push((key, chain.chain_pem.clone()));
                    }
                }
            }
            for (key, chain) in asked {
                let wait = self.ask_for_suggestion(&key, &chain).await;
                self.live(&key, |live| live.ask_at = now + wait);
            }
        }
    }

    /// One question; in how many seconds it is put again.
    async fn ask_for_suggestion(&self, key: &Key, chain_pem: &str) -> i64 {
        let Some(id) = identifier_of(chain_pem) else { return LATEST };
        let head = self.0.clerk.catalog.head();
        let account = head.model.get(Kind::Certificate, &key.0).and_then(|entry| {
            let wanted = &entry.issued()?.wanted;
            head.model.get(Kind::AcmeAccount, wanted.account.as_str())?.acme_account()
        });
        let Some((account, secret)) = account else { return AGAIN };
        let Ok(open) = self.0.clerk.accounts.open(account, secret).await else { return AGAIN };
        let (info, wait) = match open.account.renewal_info(&id).await {
            Ok(answer) => answer,
            Err(instant_acme::Error::Unsupported(_)) => return LATEST,
            Err(error) => {
                tracing::debug!(certificate = key.0, "no renewal information: {error}");
                return AGAIN;
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
        i64::try_from(wait.as_secs()).unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }
}
