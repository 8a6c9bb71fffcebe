//! What sources would yield now, for somebody who writes them.

use std::time::Instant;

use awe4lb_discovery::{Asker, keeper::Keeper};
use awe4lb_model::{
    Pool,
    discovery::{Source, SourceKind},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::Discovery;

impl Discovery {
    /// Asks every source of a pool once, from here, and keeps nothing of it.
    pub async fn preview(&self, pool: &Pool) -> Value {
        let asked = pool.discovery.iter().map(|source| self.preview_one(source));
        json!({"pool": pool.name.as_str(), "sources": join_all(asked).await})
    }

    async fn preview_one(&self, source: &Source) -> Value {
        let (id, kind) = (source.id.as_str(), source.kind.word());
        if let SourceKind::Push(_) = source.kind {
            return json!({"id": id, "type": kind, "state": "pending", "error": "", "backends": [],
                "note": "this source is told, and not asked"});
        }
        let begun = Instant::now();
        let mut keeper = Keeper::new(source.clone(), None);
        keeper.take(Asker::new(source.clone(), self.0.allowed.clone()).ask().await);
        let (rejected, total) = keeper.rejected();
        let backends: Vec<Value> = keeper
            .backends()
            .iter()
            .map(|backend| {
                json!({
                    "name": backend.name.as_str(),
                    "address": backend.address.to_string(),
                    "weight": backend.weight,
                    "priority": backend.priority,
                    "maxConnections": backend.max_connections,
                    "zone": backend.zone,
                })
            })
            .collect();
        json!({
            "id": id,
            "type": kind,
            "state": if keeper.error().is_some() { "failing" } else { "ok" },
            "error": keeper.error().unwrap_or_default(),
            "millis": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "backends": backends,
            "rejected": total,
            "rejectedItems": rejected,
        })
    }
}
