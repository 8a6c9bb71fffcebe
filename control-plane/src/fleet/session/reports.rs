//! What a node says about what it runs: results, health, counters; and its wish for a new certificate.

use awe4lb_proto::v1::{self, to_node};
use bytes::Bytes;

use super::{
    super::{
        FleetError,
        authority::Csr,
        now_ms,
        registry::{Rejection, fault_of, limited},
        view::{health_word, time_ms},
    },
    Session, hash_of,
};

impl Session<'_> {
    pub(super) async fn result(&mut self, result: v1::Result) -> bool {
        let Ok(phase) = v1::Phase::try_from(result.phase) else { return true };
        let Some(assignment) = result.assignment else { return true };
        let Some(hash) = hash_of(&assignment.manifest_hash) else { return false };
        let expected = self.offered.as_ref().filter(|offered| offered.hash == hash);
        let expected = expected.map(|offered| offered.built_hash);
        let is_ours = self.inner.registry.update(self.name, self.id, |node| {
            let record = &node.record;
            let is_wanted = (record.epoch, record.sequence) == (assignment.epoch, assignment.sequence);
            // A rejection is shown once it is stored, with its reason.
            if is_wanted && phase != v1::Phase::Rejected {
                node.live.phase = Some(phase);
            }
            if matches!(phase, v1::Phase::Active | v1::Phase::Degraded) {
                node.live.running = Some(assignment.clone());
                node.live.diverged = expected.is_some_and(|expected| expected.0[..] != result.built_hash[..]);
                node.live.faults = result.resources.iter().map(fault_of).collect();
            }
        });
        if is_ours.is_none() {
            return false;
        }
        match phase {
            v1::Phase::Active | v1::Phase::Degraded => {
                self.held = Some(hash);
                tracing::info!(
                    node = self.name,
                    revision = assignment.revision,
                    sequence = assignment.sequence,
                    apply_ms = result.apply_micros as f64 / 1e3,
                    faults = result.resources.len(),
                    "active"
                );
            }
            v1::Phase::Rejected => {
                self.rejected.insert(hash);
                let rejection = Rejection {
                    message: limited(&result.message),
                    at: time_ms(now_ms()).unwrap_or_default(),
                    revision: assignment.revision,
                    resources: result.resources.iter().take(100).map(fault_of).collect(),
                };
                tracing::warn!(
                    node = self.name,
                    revision = assignment.revision,
                    "rejected: {}",
                    rejection.message
                );
                if let Err(error) = self.inner.planner.rejected(self.name, hash, &rejection).await {
                    tracing::error!(node = self.name, "its rejection is not stored: {error}");
                }
            }
            _ => {}
        }
        if !matches!(phase, v1::Phase::Received | v1::Phase::Validated | v1::Phase::Superseded) {
            self.inner.publish_node(self.name);
        }
        true
    }

    pub(super) fn status(&mut self, status: v1::Status) -> bool {
        let mut changed = Vec::new();
        let mut is_other = false;
        let updated = self.inner.registry.update(self.name, self.id, |node| {
            let live = &mut node.live;
            let is_news =
                live.draining != status.draining || live.missing_listeners != status.missing_listeners;
            live.draining = status.draining;
            live.missing_listeners = status.missing_listeners.iter().map(|name| limited(name)).collect();
            for number in &status.gone {
                is_other |= live.health.remove(number).is_some();
            }
            for mut source in status.sources {
                source.error = limited(&source.error);
                live.sources.insert((source.pool, limited(&source.source)), source);
            }
            for mut backend in status.backends {
                backend.reason = limited(&backend.reason);
                if let Some(discovered) = &mut backend.discovered {
                    discovered.name = limited(&discovered.name);
                    discovered.address = limited(&discovered.address);
                }
                is_other |= backend.discovered.is_some() && !live.health.contains_key(&backend.number);
                let before = live.health.get(&backend.number).map(|before| (before.health, before.ejected));
                if before != Some((backend.health, backend.ejected)) {
                    changed.push(backend.clone());
                }
                live.health.insert(backend.number, backend);
            }
            is_news
        });
        let Some(is_news) = updated else { return false };
        if is_other {
            self.inner.discovered.changed();
        }
        if !changed.is_empty() {
            self.publish_health(&changed);
        }
        if is_news {
            self.inner.publish_node(self.name);
        }
        true
    }

    fn publish_health(&self, changed: &[v1::BackendHealth]) {
        let head = self.inner.head.borrow().clone();
        let mut known = std::collections::HashSet::new();
        let pools: std::collections::HashSet<u64> =
            head.placed.pools.iter().map(|placed| placed.number.0).collect();
        for placed in &head.placed.pools {
            for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
                known.insert(number.0);
                let Some(said) = changed.iter().find(|said| said.number == number.0) else { continue };
                self.inner.events.publish(
                    "backend",
                    &serde_json::json!({
                        "pool": placed.pool.name.as_str(),
                        "backend": backend.name.as_str(),
                        "node": self.name,
                        "health": health_word(said.health),
                        "ejected": said.ejected,
                        "reason": said.reason,
                        "since": time_ms(said.since_unix_ms),
                    }),
                );
            }
        }
        // Backends that are gone from the configuration leave the view, too.
        self.inner.registry.update(self.name, self.id, |node| {
            node.live.health.retain(|number, said| {
                let pool = said.discovered.as_ref().map(|discovered| discovered.pool);
                known.contains(number) || pool.is_some_and(|pool| pools.contains(&pool))
            });
        });
    }

    pub(super) fn counters(&mut self, report: v1::CounterReport) {
        self.inner.registry.update(self.name, self.id, |node| {
            node.live.is_gone = report.r#final;
            if report.node.is_some() {
                node.live.gauges = report.node;
            }
        });
        let ack = v1::CounterAck { boot_id: report.boot_id.clone(), sequence: report.sequence };
        let stored = self.inner.counters.ingest(self.name, report);
        self.unstored.push_back(Box::pin(async move { stored.await.map(|()| ack) }));
    }

    /// A new certificate for a key that the node has made. The old key stays good until the new one is used, as the
    /// answer may be lost.
    pub(super) async fn renew(&mut self, csr: &[u8]) -> Result<(), FleetError> {
        let csr = Csr::parse(csr)?;
        let issued = self.inner.authority.issue_node(self.name, &csr)?;
        let _writing = self.inner.planner.writing().await;
        sqlx::query(
            "UPDATE nodes SET previous_key_hash = CASE WHEN key_hash = ?1 THEN previous_key_hash ELSE key_hash END, \
             key_hash = ?1, not_after = ?2 WHERE name = ?3 AND banned = 0",
        )
        .bind(&issued.key_hash.0[..])
        .bind(issued.not_after)
        .bind(self.name)
        .execute(self.inner.store.writer())
        .await?;
        self.inner.registry.reload(&self.inner.store, self.name).await?;
        tracing::info!(node = self.name, "its certificate is renewed");
        self.outgoing.say(to_node::Message::Renewed(v1::RenewReply {
            certificate_der: issued.certificate_der,
            ca_der: Bytes::copy_from_slice(self.inner.authority.certificate()),
            not_after_unix: issued.not_after,
        }));
        Ok(())
    }
}
