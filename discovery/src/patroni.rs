//! Patroni: which member of a PostgreSQL cluster leads, by its REST API (`GET /cluster`).

use std::{sync::Arc, time::Duration};

use awe4lb_model::{
    discovery::{DatabaseRole, PatroniSource},
    document::backend_address,
};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    web::{self, Web},
};

/// One source's client, and who answered last: that one is asked first.
#[derive(Default)]
pub(crate) struct Patroni {
    web: Option<Web>,
    first: usize,
}

impl Patroni {
    pub(crate) async fn ask(
        &mut self,
        source: &PatroniSource,
        timeout: Duration,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        let client = web::fresh(&mut self.web, &source.tls, allowed)?.client();
        let count = source.urls.len();
        // A member that hangs must leave the others some time.
        let patience = timeout.mul_f64(0.9) / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut failures = Vec::new();
        for step in 0..count {
            let at = (self.first + step) % count;
            let asked = cluster(&client, &source.urls[at], source.max_bytes, allowed);
            let said = match tokio::time::timeout(patience, asked).await {
                Ok(said) => said,
                Err(_) => Err(Failure::new(format!("no answer within {patience:?}"))),
            };
            match said {
                Ok(cluster) => {
                    self.first = at;
                    return answer(source, &cluster);
                }
                Err(failure) => failures.push(format!("{}: {failure}", source.urls[at])),
            }
        }
        Err(Failure::new(failures.join("; ")))
    }
}

async fn cluster(
    client: &reqwest::Client,
    base: &str,
    most: u32,
    allowed: &Allowed,
) -> Result<Cluster, Failure> {
    let url = web::url(&format!("{base}/cluster"), allowed)?;
    let response = client.get(url).send().await.map_err(|error| Failure::new(web::chain(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(web::refused(response, "certFile").await);
    }
    let body = web::body(response, most as usize).await?;
    serde_json::from_slice(&body).map_err(|error| Failure::new(format!("not what Patroni says: {error}")))
}

/// As `GET /cluster` gives it.
#[derive(Debug, Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    name: String,
    role: String,
    state: String,
    host: String,
    port: Option<Value>,
    /// Bytes, or `unknown`.
    lag: Option<Value>,
    tags: serde_json::Map<String, Value>,
}

impl Member {
    fn is_primary(&self) -> bool {
        // The leader of a standby cluster takes no writes.
        matches!(&*self.role, "leader" | "master" | "primary")
    }

    fn is_running(&self) -> bool {
        matches!(&*self.state, "running" | "streaming" | "in archive recovery")
    }

    fn is_current(&self, most: Option<u64>) -> bool {
        let lag = self.lag.as_ref().and_then(Value::as_u64);
        most.is_none_or(|most| lag.is_some_and(|lag| lag <= most))
    }

    fn is_spared(&self) -> bool {
        self.tags.get("noloadbalance").is_some_and(|value| *value == Value::Bool(true))
    }
}

fn answer(source: &PatroniSource, cluster: &Cluster) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    for member in cluster.members.iter().filter(|member| member.is_running()) {
        let is_primary = member.is_primary();
        let is_wanted = match source.role {
            DatabaseRole::Primary => is_primary,
            DatabaseRole::Replica => !is_primary,
            DatabaseRole::Any => true,
        };
        if !is_wanted || (!is_primary && (member.is_spared() || !member.is_current(source.max_lag_bytes))) {
            continue;
        }
        match endpoint(member) {
            Ok(mut endpoint) => {
                if source.role == DatabaseRole::Any && !is_primary {
                    endpoint.priority = Some(1);
                }
                answer.endpoints.push(endpoint);
            }
            Err(why) => answer.rejected.push(format!("{}: {why}", member.name)),
        }
    }
    if source.role == DatabaseRole::Primary && answer.endpoints.is_empty() && answer.rejected.is_empty() {
        return Err(Failure::new("the cluster has no leader now"));
    }
    Ok(answer)
}

fn endpoint(member: &Member) -> Result<Endpoint, String> {
    let port = match &member.port {
        Some(Value::Number(port)) => port.to_string(),
        Some(Value::String(port)) => port.clone(),
        _ => "5432".to_owned(),
    };
    let host = if member.host.contains(':') { format!("[{}]", member.host) } else { member.host.clone() };
    let mut endpoint = Endpoint::at(backend_address(&format!("{host}:{port}"))?);
    for (key, value) in &member.tags {
        endpoint = match value {
            Value::String(text) => endpoint.label(key, text),
            Value::Bool(_) | Value::Number(_) => endpoint.label(key, &value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => endpoint,
        };
    }
    Ok(endpoint.label("name", &member.name).label("role", &member.role).label("state", &member.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 4 says it.
    const SAID: &str = r#"{"members": [
        {"name": "pg1", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.1:8008/patroni", "host": "10.0.0.1", "port": 5432,
            "timeline": 3, "lag": 0, "tags": {"zone": "east"}},
        {"name": "pg2", "role": "leader", "state": "running", "api_url": "x", "host": "10.0.0.2", "port": 5432, "timeline": 3},
        {"name": "pg3", "role": "replica", "state": "streaming", "host": "10.0.0.3", "port": 5432, "lag": 20000000},
        {"name": "pg4", "role": "replica", "state": "starting", "host": "10.0.0.4", "port": 5432, "lag": "unknown"},
        {"name": "pg5", "role": "sync_standby", "state": "running", "host": "10.0.0.5", "port": 5432, "lag": 5, "tags": {"noloadbalance": true}}],
        "scope": "main"}"#;

    fn found(role: DatabaseRole, max_lag_bytes: Option<u64>, said: &str) -> Result<Vec<String>, Failure> {
        let source =
            PatroniSource { urls: Vec::new(), role, max_lag_bytes, tls: Default::default(), max_bytes: 1 };
        let answer = answer(&source, &serde_json::from_str(said).unwrap())?;
        let place = |one: &Endpoint| format!("{} {}", one.address, one.priority.unwrap_or(0));
        Ok(answer.endpoints.iter().map(place).collect())
    }

    #[test]
    fn the_leader_or_replicas_that_are_near_enough_behind() {
        use DatabaseRole::{Any, Primary, Replica};
        assert_eq!(found(Primary, None, SAID).unwrap(), ["10.0.0.2:5432 0"]);
        assert_eq!(found(Replica, None, SAID).unwrap(), ["10.0.0.1:5432 0", "10.0.0.3:5432 0"]);
        assert_eq!(found(Replica, Some(1_000_000), SAID).unwrap(), ["10.0.0.1:5432 0"]);
        assert_eq!(found(Any, Some(0), SAID).unwrap(), ["10.0.0.1:5432 1", "10.0.0.2:5432 0"]);
        let none = SAID.replace("\"leader\"", "\"replica\"");
        assert!(found(Primary, None, &none).unwrap_err().0.contains("no leader"));
        let standby = SAID.replace("\"leader\"", "\"standby_leader\"");
        assert!(found(Primary, None, &standby).is_err());
    }
}
