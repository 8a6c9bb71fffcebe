//! A Consul agent: `/v1/health/service/NAME` with blocking queries (`index`, `wait` and its extra sixteenth), `passing`,
//! `tag`, `dc`, `ns` and `partition`, `stale`, ACL tokens, 403, 429 and 500, indices that begin anew; `/v1/agent/service/register` and
//! `…/deregister`, as the tests use them with a real one, and `/v1/agent/check/update` of a check with a time to live.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kubernetes::decoded;
use crate::servers::Identity;

/// One that runs, and ends with its test.
pub struct Consul {
    state: Arc<State>,
    /// HTTP.
    pub address: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

struct State {
    store: Mutex<Store>,
    /// Blocking queries wait for it.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Store {
    /// Of the last write to anything.
    index: u64,
    /// Instances, by id: as they were registered.
    services: BTreeMap<String, Value>,
    /// Status of the check of an instance, by id.
    checks: BTreeMap<String, String>,
    /// The last write to a service, by name.
    written: BTreeMap<String, u64>,
    /// What is good; empty: everybody may.
    tokens: BTreeSet<String>,
    /// Answers of this status are given to so many requests.
    refuse: Option<(u16, u32)>,
    /// Blocking queries that were begun, and other queries.
    asked: (u64, u64),
    /// Index that is told instead of the right one.
    told_index: Option<u64>,
}

impl Consul {
    /// Starts one without services, for HTTP.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
        let state = Arc::new(State {
            store: Mutex::new(Store { index: 10, ..Store::default() }),
            changed: watch::Sender::new(0),
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap_or_else(|error| panic!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let served = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        Self { state, address, runtime }
    }

    /// Listens for HTTPS as well, with a certificate of `identity`; clients must show one that `clients` (PEM) has signed.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen_tls(&self, identity: &Identity, clients: &str) -> SocketAddr {
        let acceptor = identity.acceptor_of_clients(clients);
        let listener = self.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap_or_else(|error| panic!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let served = self.state.clone();
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), served.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    serve(stream, state).await;
                });
            }
        });
        address
    }

    /// Only this token is good from now on.
    pub fn require_token(&self, token: &str) {
        self.state.lock().tokens = BTreeSet::from([token.to_owned()]);
    }

    /// So many requests are refused with this status; those that wait are ended.
    pub fn refuse(&self, status: u16, requests: u32) {
        self.state.lock().refuse = Some((status, requests));
        self.state.changed.send_modify(|version| *version += 1);
    }

    /// Begins to count anew, as after a restore of its state: indices are lower than before.
    pub fn reset_index(&self) {
        {
            let mut store = self.state.lock();
            store.index = 3;
            store.written.values_mut().for_each(|index| *index = 3);
        }
        self.state.changed.send_modify(|version| *version += 1);
    }

    /// Tells this index whatever it is; `None`: the right one again.
    pub fn tell_index(&self, index: Option<u64>) {
        self.state.lock().told_index = index;
        self.state.changed.send_modify(|version| *version += 1);
    }

    /// Somebody writes something else: indices go up, services stay as they are.
    pub fn touch(&self, service: &str) {
        self.state.write(service, |_| {});
    }

    /// How many blocking queries there were, and how many others.
    #[must_use]
    pub fn asked(&self) -> (u64, u64) {
        self.state.lock().asked
    }
}

async fn serve<S>(stream: S, state: Arc<State>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(state.clone(), request));
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, service: &str, change: impl FnOnce(&mut Store)) {
        {
            let mut store = self.lock();
            store.index += 1;
            let index = store.index;
            store.written.insert(service.to_owned(), index);
            change(&mut store);
        }
        self.changed.send_modify(|version| *version += 1);
    }
}

fn whole(status: u16, index: Option<u64>, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header("Content-Type", "application/json");
    if let Some(index) = index {
        response = response
            .header("X-Consul-Index", index)
            .header("X-Consul-Knownleader", "true")
            .header("X-Consul-Lastcontact", "0");
    }
    response.body(Full::new(body.into())).unwrap_or_else(|error| panic!("{error}"))
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.headers().get("x-consul-token").and_then(|value| value.to_str().ok());
    if let Some(refusal) = refusal(&state, token.unwrap_or_default()) {
        return Ok(refusal);
    }
    let path = request.uri().path().to_owned();
    let query = form(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    if let (true, Some(service)) = (method == Method::GET, path.strip_prefix("/v1/health/service/")) {
        return Ok(health(&state, service, &query).await);
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(match (method, path.as_str()) {
        (Method::PUT, "/v1/agent/service/register") => register(&state, &body),
        (Method::PUT, _) if path.starts_with("/v1/agent/service/deregister/") => {
            let id = path.rsplit('/').next().unwrap_or_default().to_owned();
            let service = state.lock().services.get(&id).map(|one| text(one, "Name"));
            match service {
                Some(service) => {
                    state.write(&service, |store| drop(store.services.remove(&id)));
                    whole(200, None, "")
                }
                None => whole(404, None, format!("Unknown service ID {id:?}")),
            }
        }
        (Method::PUT, _) if path.starts_with("/v1/agent/check/update/service:") => {
            let id = path.rsplit(':').next().unwrap_or_default().to_owned();
            let status =
                serde_json::from_slice(&body).map(|body: Value| text(&body, "Status")).unwrap_or_default();
            let service = state.lock().services.get(&id).map(|one| text(one, "Name")).unwrap_or_default();
            state.write(&service, |store| drop(store.checks.insert(id, status)));
            whole(200, None, "")
        }
        _ => whole(404, None, "Invalid URL path: not a recognized HTTP API endpoint"),
    })
}

fn refusal(state: &State, token: &str) -> Option<Response<Full<Bytes>>> {
    let mut store = state.lock();
    if let Some((status, left)) = store.refuse.filter(|(_, left)| *left > 0) {
        store.refuse = Some((status, left - 1));
        let body = match status {
            429 => "Your IP is issuing too many concurrent connections, please rate limit your calls\n",
            _ => "rpc error making call: No cluster leader",
        };
        return Some(whole(status, None, body));
    }
    if store.tokens.is_empty() || store.tokens.contains(token) {
        return None;
    }
    let body = match token {
        "" => "Permission denied: anonymous token lacks permission 'service:read' on \"web\"",
        _ => "ACL not found",
    };
    Some(whole(403, None, body))
}

fn register(state: &State, body: &[u8]) -> Response<Full<Bytes>> {
    let Ok(service) = serde_json::from_slice::<Value>(body) else {
        return whole(400, None, "Request decode failed");
    };
    let name = text(&service, "Name");
    let id = service["ID"].as_str().unwrap_or(&name).to_owned();
    let status = service["Check"]["Status"].as_str().unwrap_or("critical").to_owned();
    let has_check = service["Check"].is_object();
    state.write(&name, |store| {
        if has_check {
            store.checks.entry(id.clone()).or_insert(status);
        }
        store.services.insert(id, service);
    });
    whole(200, None, "")
}

fn text(of: &Value, field: &str) -> String {
    of[field].as_str().unwrap_or_default().to_owned()
}

/// Answers at once, or when the service has changed, or when the time is over.
async fn health(state: &State, service: &str, query: &[(String, String)]) -> Response<Full<Bytes>> {
    let one = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if one("dc").is_some_and(|dc| dc != "dc1") {
        return whole(500, None, "No path to datacenter");
    }
    // As the free edition does.
    if let Some(word) = ["ns", "partition"].into_iter().find(|word| one(word).is_some()) {
        return whole(
            400,
            None,
            format!("Invalid query parameter: {word:?} - Namespaces and partitions are Enterprise features"),
        );
    }
    let index: u64 = one("index").and_then(|index| index.parse().ok()).unwrap_or(0);
    let wait =
        one("wait").and_then(duration).unwrap_or(Duration::from_secs(300)).min(Duration::from_secs(600));
    let mut changes = state.changed.subscribe();
    {
        let mut store = state.lock();
        let count = if index > 0 { &mut store.asked.0 } else { &mut store.asked.1 };
        *count += 1;
    }
    let end = tokio::time::sleep(wait + wait / 16);
    tokio::pin!(end);
    loop {
        let (current, listed) = {
            let store = state.lock();
            if index > 0 && store.refuse.is_some_and(|(_, left)| left > 0) {
                drop(store);
                return refusal(state, "").unwrap_or_else(|| whole(500, None, ""));
            }
            (store.told_index.unwrap_or_else(|| index_of(&store, service)), listed(&store, service, query))
        };
        if index == 0 || current != index {
            return whole(200, Some(current), listed.to_string());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return whole(500, None, "") },
            () = &mut end => return whole(200, Some(current), listed.to_string()),
        }
    }
}

/// Of a service that was never there it is that of the whole catalogue.
fn index_of(store: &Store, service: &str) -> u64 {
    store.written.get(service).copied().unwrap_or(store.index)
}

/// `10s`, `1500ms`, `5m`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let seconds: u64 = number.parse().ok()?;
    match unit {
        "s" => Some(Duration::from_secs(seconds)),
        "m" => Some(Duration::from_secs(seconds * 60)),
        _ => None,
    }
}

fn listed(store: &Store, service: &str, query: &[(String, String)]) -> Value {
    let has = |name: &str| query.iter().any(|(key, _)| key == name);
    let tags: Vec<&str> = query.iter().filter(|(key, _)| key == "tag").map(|(_, tag)| tag.as_str()).collect();
    let instances: Vec<Value> = store
        .services
        .iter()
        .filter(|(_, one)| text(one, "Name") == service)
        .filter(|(_, one)| {
            let own: Vec<&str> =
                one["Tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            tags.iter().all(|tag| own.contains(tag))
        })
        .filter(|(id, _)| !has("passing") || store.checks.get(*id).is_none_or(|status| status == "passing"))
        .map(|(id, one)| instance(id, one, store.checks.get(id)))
        .collect();
    instances.into()
}

/// Names and values of a query; a name alone has none.
fn form(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// As Consul 1.21 tells of an instance.
fn instance(id: &str, one: &Value, status: Option<&String>) -> Value {
    let name = text(one, "Name");
    let or = |value: &Value, default: Value| if value.is_null() { default } else { value.clone() };
    let check = |check_id: &str, name: &str, status: &str, service: &str| {
        json!({"Node": "node-1", "CheckID": check_id, "Name": name, "Status": status, "Notes": "", "Output": "",
            "ServiceID": service, "ServiceName": "", "ServiceTags": [], "Type": "", "Interval": "", "Timeout": "",
            "ExposedPort": 0, "Definition": {}, "CreateIndex": 11, "ModifyIndex": 11})
    };
    let mut checks = vec![check("serfHealth", "Serf Health Status", "passing", "")];
    if let Some(status) = status {
        checks.push(check(&format!("service:{id}"), &format!("Service '{name}' check"), status, id));
    }
    json!({
        "Node": {"ID": "a1b2", "Node": "node-1", "Address": "127.0.9.100", "Datacenter": "dc1",
            "TaggedAddresses": {"lan": "127.0.9.100", "wan": "127.0.9.100"}, "Meta": {"consul-network-segment": ""},
            "CreateIndex": 9, "ModifyIndex": 10},
        "Service": {"ID": id, "Service": name, "Tags": or(&one["Tags"], json!([])),
            "Address": text(one, "Address"), "Meta": one["Meta"].clone(), "Port": or(&one["Port"], json!(0)),
            "Weights": or(&one["Weights"], json!({"Passing": 1, "Warning": 1})), "EnableTagOverride": false,
            "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}}, "Connect": {}, "PeerName": "",
            "CreateIndex": 11, "ModifyIndex": 12},
        "Checks": checks,
    })
}
