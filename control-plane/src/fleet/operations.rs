//! What people do with the fleet: join tokens, drain, ban, forget, admin states.

use std::time::Duration;

use super::{
    BackendView, Fleet, FleetError, Inner, JoinToken, NewToken, NodeView, acceptor::Acceptor, now, now_ms,
    overlay::Admin, tokens,
};

/// How often what has grown old is looked for.
const SWEEP: Duration = Duration::from_secs(3_600);
/// A node that was not seen for so long is gone, in seconds.
const GONE_AFTER: i64 = 90 * 86_400;
/// How often the server certificate is made anew.
const SERVER_RENEWAL: Duration = Duration::from_secs(30 * 86_400);

impl Fleet {
    /// All nodes, in order of name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let current = self.0.planner.current();
        self.0.registry.lock().values().map(|node| super::view::node_view(node, &current)).collect()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Result<NodeView, FleetError> {
        self.0.node_view(name).ok_or_else(|| missing(name))
    }

    /// Tells a node to take no new connections, or to take them again. Kept over restarts of both.
    pub async fn drain(&self, name: &str, on: bool) -> Result<NodeView, FleetError> {
        self.change(name, "UPDATE nodes SET draining = ?1 WHERE name = ?2", on).await?;
        if let Some(node) = self.0.registry.lock().get(name) {
            node.order(|orders| orders.drain = Some(on));
        }
        self.0.publish_node(name);
        self.node(name)
    }

    /// Cuts a node off, for good: its certificate is worth nothing any more.
    pub async fn ban(&self, name: &str) -> Result<NodeView, FleetError> {
        self.change(name, "UPDATE nodes SET banned = ?1 WHERE name = ?2", true).await?;
        if let Some(node) = self.0.registry.lock().get(name) {
            node.order(|orders| orders.stop = Some("banned"));
        }
        tracing::warn!(node = name, "banned");
        self.0.publish_node(name);
        self.node(name)
    }

    /// Removes a node's record. It may join again with a token, as may another of its name.
    pub async fn forget(&self, name: &str) -> Result<(), FleetError> {
        self.0.forget(name).await?;
        tracing::info!(node = name, "forgotten");
        Ok(())
    }

    async fn change(&self, name: &str, sql: &'static str, value: bool) -> Result<(), FleetError> {
        let inner = &self.0;
        let _writing = inner.planner.writing().await;
        let done = sqlx::query(sql).bind(value).bind(name).execute(inner.store.writer()).await?;
        if done.rows_affected() == 0 {
            return Err(missing(name));
        }
        inner.registry.reload(&inner.store, name).await
    }

    /// Makes a join token; the text is shown once.
    pub async fn make_join_token(&self, wish: NewToken) -> Result<(JoinToken, String), FleetError> {
        tokens::create(&self.0.store, &self.0.authority, wish).await
    }

    /// Those that still live.
    pub async fn join_tokens(&self) -> Result<Vec<JoinToken>, FleetError> {
        tokens::list(&self.0.store).await
    }

    /// Takes one back.
    pub async fn delete_join_token(&self, id: &str) -> Result<(), FleetError> {
        tokens::delete(&self.0.store, id).await
    }

    /// The backends of a pool, or of all, as the nodes see them.
    pub fn backends(&self, pool: Option<&str>) -> Vec<BackendView> {
        self.0.backend_views(pool)
    }

    /// Sets the admin state of a backend, for a while or until further notice.
    pub async fn set_admin(
        &self,
        pool: &str,
        backend: &str,
        admin: Admin,
        lasts: Option<Duration>,
        reason: &str,
    ) -> Result<BackendView, FleetError> {
        let inner = &self.0;
        let find = || inner.backend_views(Some(pool)).into_iter().find(|view| view.name == backend);
        let none = || FleetError::NotFound(format!("backend {backend:?} in the pool {pool:?}"));
        let number = find().ok_or_else(none)?.number;
        let until_ms = lasts
            .map_or(0, |lasts| now_ms().saturating_add(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX)));
        let reason: String = reason.chars().take(500).collect();
        inner.overlays.set(&inner.store, pool, &[number], admin, until_ms, &reason).await?;
        let view = find().ok_or_else(none)?;
        inner.events.publish("backend", &inner.backend_event(&view));
        Ok(view)
    }
}

impl Inner {
    async fn forget(&self, name: &str) -> Result<(), FleetError> {
        let _writing = self.planner.writing().await;
        let mut tx = self.store.writer().begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM join_token_uses WHERE node = ?").bind(name).execute(&mut *tx).await?;
        let done = sqlx::query("DELETE FROM nodes WHERE name = ?").bind(name).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Err(missing(name));
        }
        tx.commit().await?;
        self.registry.reload(&self.store, name).await?;
        self.events.publish("node", &serde_json::json!({"name": name, "state": "forgotten"}));
        Ok(())
    }

    fn backend_event(&self, view: &BackendView) -> serde_json::Value {
        serde_json::json!({"pool": view.pool, "backend": view.name, "admin": view.admin, "reason": view.admin_reason})
    }
}

/// Sets backends back to ready at their deadlines.
pub(super) async fn end_admin_states(inner: &Inner) {
    let mut changes = inner.overlays.subscribe();
    loop {
        let next = inner.overlays.next_deadline().unwrap_or(Duration::from_secs(3_600));
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
        match inner.overlays.expire(&inner.store).await {
            Ok(over) if over.is_empty() => {}
            Ok(over) => {
                for view in inner.backend_views(None) {
                    if over.iter().any(|(_, number)| *number == view.number) {
                        inner.events.publish("backend", &inner.backend_event(&view));
                    }
                }
            }
            Err(error) => {
                tracing::warn!("admin states were not ended at their deadline: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Keeps the house clean: the server certificate, admin states of backends that are gone, nodes that never came back.
pub(super) async fn sweep(inner: &Inner, acceptor: &Acceptor) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut renewed = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        if renewed.elapsed() >= SERVER_RENEWAL {
            match acceptor.renew(&inner.authority) {
                Ok(()) => renewed = tokio::time::Instant::now(),
                Err(error) => tracing::error!("the certificate for nodes was not renewed: {error}"),
            }
        }
        let config = inner.head.borrow().placed.clone();
        if let Err(error) = inner.overlays.prune(&inner.store, &config).await {
            tracing::warn!("admin states were not swept: {error}");
        }
        let gone: Vec<String> = {
            let nodes = inner.registry.lock();
            let is_gone = |seen: Option<i64>, not_after: i64| {
                seen.unwrap_or(not_after).max(not_after) + GONE_AFTER < now()
            };
            let silent =
                nodes.values().filter(|node| node.live.connected_since.is_none() && !node.record.banned);
            silent
                .filter(|node| is_gone(node.record.last_seen, node.record.not_after))
                .map(|node| node.record.name.clone())
                .collect()
        };
        for name in gone {
            match inner.forget(&name).await {
                Ok(()) => tracing::info!(node = name, "not seen for months: forgotten"),
                Err(error) => tracing::warn!(node = name, "was not forgotten: {error}"),
            }
        }
    }
}

fn missing(name: &str) -> FleetError {
    FleetError::NotFound(format!("node {name:?}"))
}
