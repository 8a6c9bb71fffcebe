//! What becomes of an order: stored, told, counted.

use std::sync::PoisonError;

use serde_json::json;

use super::{Acme, Failure, Key, live::Live, order::Job, placing::BUDGET};
use crate::catalog::Chain;

impl Acme {
    /// One order; what became of it is stored, told and counted.
    pub(super) async fn order(&self, key: Key, job: Job) {
        tracing::info!(certificate = key.0, key_type = key.1.word(), "ordering");
        let is_renewal = job.current.is_some();
        let outcome = self.0.clerk.run(&job).await;
        let word = match &outcome {
            Ok(_) => "issued",
            Err(failure) if *failure.r#type == *format!("awe4lb:{BUDGET}") => "postponed",
            Err(_) => "failed",
        };
        let counted = (job.account.name.to_string(), word);
        *self.0.orders.lock().unwrap_or_else(PoisonError::into_inner).entry(counted).or_default() += 1;
        match outcome {
            Ok(chain) => self.went_well(&key, &job, &chain, is_renewal).await,
            Err(failure) => self.went_wrong(&key, &job, failure, word == "failed").await,
        }
    }

    async fn went_well(&self, key: &Key, job: &Job, chain: &Chain, is_renewal: bool) {
        self.live(key, |live| *live = Live { wish: live.wish.take(), ..Live::default() });
        self.trouble(job.account.name.as_str(), None);
        if let Err(error) = self.0.clerk.store.forget_acme_attempt(&key.0, key.1).await {
            tracing::warn!(certificate = key.0, "the end of failures is not stored: {error:#}");
        }
        let what = if is_renewal { "renewed" } else { "issued" };
        tracing::info!(
            certificate = key.0,
            key_type = key.1.word(),
            not_after = chain.facts.not_after,
            "{what}"
        );
        let event =
            json!({"name": key.0, "what": what, "keyType": key.1.word(), "notAfter": chain.facts.not_after});
        self.0.events.publish("certificate", &event);
    }

    async fn went_wrong(&self, key: &Key, job: &Job, failure: Failure, counts: bool) {
        let is_ours = failure.domain.is_none() && failure.challenge.is_none();
        self.trouble(job.account.name.as_str(), is_ours.then(|| failure.clone()));
        let attempt = self.live(key, |live| {
            live.end();
            live.attempt.not_sooner = failure.not_sooner;
            if counts {
                live.attempt.failures = live.attempt.failures.saturating_add(1);
                live.attempt.failed_at = jiff::Timestamp::now().as_second();
            }
            live.error = Some(failure.clone());
            live.attempt.last_error = serde_json::to_string(&failure).unwrap_or_default();
            live.attempt.clone()
        });
        if let Err(error) = self.0.clerk.store.put_acme_attempt(&key.0, key.1, &attempt).await {
            tracing::warn!(certificate = key.0, "a failure is not stored: {error:#}");
        }
        tracing::warn!(
            certificate = key.0,
            key_type = key.1.word(),
            r#type = failure.r#type,
            domain = failure.domain,
            hint = failure.hint,
            "not issued: {}",
            failure.detail
        );
        let what = if counts { "failed" } else { "postponed" };
        let event = json!({"name": key.0, "what": what, "keyType": key.1.word(), "error": failure});
        self.0.events.publish("certificate", &event);
    }

    /// What is being done.
    pub(super) fn step(&self, key: &Key, step: &str) {
        self.live(key, |live| live.step = Some(step.to_owned()));
        tracing::debug!(certificate = key.0, "{step}");
        let event = json!({"name": key.0, "keyType": key.1.word(), "step": step});
        self.0.events.publish("order", &event);
    }
}
