//! Tells, once, of certificates that end soon or have ended, however they came here.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::{Acme, view::State};
use crate::catalog::Kind;

const LOOK: Duration = Duration::from_secs(2);

impl Acme {
    pub(super) async fn watch_ends(&self) {
        let mut told: BTreeMap<String, (String, State)> = BTreeMap::new();
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            let now = jiff::Timestamp::now().as_second();
            let head = self.0.clerk.catalog.head();
            told.retain(|name, _| head.model.get(Kind::Certificate, name).is_some());
            for (name, entry) in head.model.all(Kind::Certificate) {
                let Some(facts) = entry.certificate() else { continue };
                let state = State::of(facts, entry, now);
                let is = (facts.fingerprint.clone(), state);
                if told.get(name) == Some(&is) {
                    continue;
                }
                if matches!(state, State::Expiring | State::Expired) {
                    let word = state.word();
                    tracing::warn!(
                        certificate = name,
                        not_after = facts.not_after,
                        "the certificate is {word}"
                    );
                    let event = json!({"name": name, "what": word, "notAfter": facts.not_after});
                    self.0.events.publish("certificate", &event);
                }
                told.insert(name.to_owned(), is);
            }
        }
    }
}
