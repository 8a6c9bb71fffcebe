//! A Kubernetes API server: discovery documents, LIST in pages, GET, POST, PUT, DELETE, WATCH from a resource version with
//! bookmarks and 410 Gone, selectors of labels, bearer tokens, 401, 403 and 429. Nothing runs behind it: what a controller would
//! write, tests write.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::servers::Identity;

/// The token that is good at first.
pub const TOKEN: &str = "first";

/// Resources: path, name, kind, whether they are in namespaces.
const RESOURCES: [(&str, &str, &str, bool); 4] = [
    ("/api/v1", "pods", "Pod", true),
    ("/api/v1", "services", "Service", true),
    ("/api/v1", "nodes", "Node", false),
    ("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true),
];

/// One that runs, and ends with its test.
pub struct Kubernetes {
    state: Arc<State>,
    /// HTTPS.
    pub address: SocketAddr,
    identity: Identity,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    store: Mutex<Store>,
    /// The newest version; watches wait for it.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Store {
    version: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<Key, Value>,
    /// What happened, oldest first: version, type, key, object.
    events: Vec<(u64, &'static str, Key, Value)>,
    /// Versions up to here are forgotten.
    compacted: u64,
    tokens: BTreeSet<String>,
    /// Answers of this status are given to so many requests.
    refuse: Option<(u16, u32)>,
    /// Watches of an earlier generation end.
    generation: u64,
    lists: u64,
    watches: u64,
}

type Key = (String, String, String);
type Body = BoxBody<Bytes, Infallible>;

impl Kubernetes {
    /// Starts one without objects.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
        let store = Store { version: 1, tokens: BTreeSet::from([TOKEN.to_owned()]), ..Store::default() };
        let state = Arc::new(State { store: Mutex::new(store), version: watch::Sender::new(1) });
        let identity = Identity::new(&["localhost", "127.0.0.1"]);
        let acceptor = identity.acceptor();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap_or_else(|error| panic!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let served = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), served.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { state, address, identity, _runtime: runtime }
    }

    /// A file that says how to reach it, the token in a file of its own beside it (so that it can be changed).
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn kubeconfig(&self, folder: &Path) -> PathBuf {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{error}"));
            path
        };
        let (ca, token) =
            (write("kubernetes-ca.pem", &self.identity.chain), write("kubernetes-token", TOKEN));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://localhost:{}", self.address.port()), "certificate-authority": ca}}],
            "users": [{"name": "test", "user": {"tokenFile": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "shop"}}],
        });
        write("kubeconfig", &config.to_string())
    }

    /// Only this token is good from now on.
    pub fn rotate_token(&self, token: &str) {
        self.state.lock().tokens = BTreeSet::from([token.to_owned()]);
    }

    /// So many requests are refused with this status.
    pub fn refuse(&self, status: u16, requests: u32) {
        self.state.lock().refuse = Some((status, requests));
    }

    /// Forgets what happened: a watch that was not there has to list again.
    pub fn compact(&self) {
        let mut store = self.state.lock();
        store.events.clear();
        store.compacted = store.version;
    }

    /// Ends all watches.
    pub fn disconnect(&self) {
        self.state.lock().generation += 1;
        self.state.version.send_modify(|_| {});
    }

    /// How many lists and watches there were.
    #[must_use]
    pub fn asked(&self) -> (u64, u64) {
        let store = self.state.lock();
        (store.lists, store.watches)
    }

    /// Creates or replaces an object.
    ///
    /// # Panics
    /// When its kind is not known.
    pub fn put(&self, object: Value) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let known = RESOURCES.iter().find(|(_, _, known, _)| *known == kind);
        let (_, resource, _, namespaced) = known.unwrap_or_else(|| panic!("{kind:?} is not known"));
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let namespace = if *namespaced { text("namespace") } else { String::new() };
        self.state.write(((*resource).to_owned(), namespace, text("name")), object);
    }

    /// Deletes an object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.state.remove(&(resource.to_owned(), namespace.to_owned(), name.to_owned()));
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: Key, mut object: Value) -> Value {
        let version = {
            let mut store = self.lock();
            store.version += 1;
            let version = store.version;
            object["metadata"]["resourceVersion"] = version.to_string().into();
            object["metadata"]["uid"] = format!("{}-{}", key.0, key.2).into();
            let is_new = store.objects.insert(key.clone(), object.clone()).is_none();
            let what = if is_new { "ADDED" } else { "MODIFIED" };
            store.events.push((version, what, key, object.clone()));
            version
        };
        self.version.send_replace(version);
        object
    }

    fn remove(&self, key: &Key) -> Option<Value> {
        let (version, object) = {
            let mut store = self.lock();
            let mut object = store.objects.remove(key)?;
            store.version += 1;
            let version = store.version;
            object["metadata"]["resourceVersion"] = version.to_string().into();
            store.events.push((version, "DELETED", key.clone(), object.clone()));
            (version, object)
        };
        self.version.send_replace(version);
        Some(object)
    }
}

/// A request to a resource.
struct Asked {
    group: &'static str,
    resource: &'static str,
    kind: &'static str,
    namespace: String,
    name: Option<String>,
    query: BTreeMap<String, String>,
}

impl Asked {
    fn of(path: &str, query: &str) -> Option<Self> {
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        for (group, resource, kind, namespaced) in RESOURCES {
            let Some(rest) = path.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let (namespace, rest) = match rest.strip_prefix("namespaces/") {
                Some(rest) if namespaced => rest.split_once('/')?,
                _ => ("", rest),
            };
            let mut parts = rest.split('/');
            if parts.next() == Some(resource) {
                let (namespace, name) = (namespace.to_owned(), parts.next().map(str::to_owned));
                return Some(Self { group, resource, kind, namespace, name, query });
            }
        }
        None
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.query.get(name)?.parse().ok()
    }

    fn api_version(&self) -> &'static str {
        self.group.trim_start_matches("/apis/").trim_start_matches("/api/")
    }

    /// In the namespace, with the labels.
    fn fits(&self, key: &Key, object: &Value) -> bool {
        let in_namespace = self.namespace.is_empty() || self.namespace == key.1;
        key.0 == self.resource && in_namespace && self.selects(&object["metadata"]["labels"])
    }

    fn selects(&self, labels: &Value) -> bool {
        let selector = self.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once("!=") {
            Some((label, value)) => labels[label] != value,
            None => match part.split_once('=') {
                Some((label, value)) => labels[label] == value.trim_start_matches('='),
                None => labels.get(part).is_some(),
            },
        })
    }
}

/// `%2F` and the like.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn whole(status: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    let response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header(header::CONTENT_TYPE, "application/json");
    let response = if status == 429 { response.header(header::RETRY_AFTER, "1") } else { response };
    response.body(body).unwrap_or_else(|error| panic!("{error}"))
}

fn failure(status: u16, reason: &str, message: &str) -> Response<Body> {
    whole(status, &status_object(status, reason, message))
}

fn status_object(status: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": status})
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    {
        let mut store = state.lock();
        if !store.tokens.contains(&token) {
            return Ok(failure(401, "Unauthorized", "Unauthorized"));
        }
        if let Some((status, left)) = store.refuse.filter(|(_, left)| *left > 0) {
            store.refuse = Some((status, left - 1));
            let (reason, message) = match status {
                403 => ("Forbidden", "endpointslices is forbidden: User \"test\" cannot list resource"),
                429 => ("TooManyRequests", "Too many requests, please try again later."),
                _ => ("InternalError", "Internal error occurred"),
            };
            return Ok(failure(status, reason, message));
        }
    }
    let (path, query) =
        (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let Some(asked) = Asked::of(&path, &query) else {
        return Ok(documents(&path));
    };
    let method = request.method().clone();
    Ok(match (method, &asked.name) {
        (Method::GET, None) if matches!(asked.query.get("watch").map(String::as_str), Some("true" | "1")) => {
            watched(state, asked)
        }
        (Method::GET, None) => list(&state, &asked),
        (Method::GET, Some(name)) => {
            let key = (asked.resource.to_owned(), asked.namespace.clone(), name.clone());
            match state.lock().objects.get(&key) {
                Some(object) => whole(200, object),
                None => missing(&asked, name),
            }
        }
        (Method::POST | Method::PUT, _) => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let Ok(object) = serde_json::from_slice::<Value>(&body) else {
                return Ok(failure(400, "BadRequest", "no JSON"));
            };
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut object = object;
            object["metadata"]["namespace"] = asked.namespace.clone().into();
            whole(201, &state.write((asked.resource.to_owned(), asked.namespace, name), object))
        }
        (Method::DELETE, Some(name)) => {
            let key = (asked.resource.to_owned(), asked.namespace.clone(), name.clone());
            match state.remove(&key) {
                Some(object) => whole(200, &object),
                None => missing(&asked, name),
            }
        }
        _ => failure(405, "MethodNotAllowed", "the server does not allow this method"),
    })
}

fn missing(asked: &Asked, name: &str) -> Response<Body> {
    failure(404, "NotFound", &format!("{} {name:?} not found", asked.resource))
}

/// What the server can do, for clients that ask before they do anything.
fn documents(path: &str) -> Response<Body> {
    let group = json!({"name": "discovery.k8s.io",
        "versions": [{"groupVersion": "discovery.k8s.io/v1", "version": "v1"}],
        "preferredVersion": {"groupVersion": "discovery.k8s.io/v1", "version": "v1"}});
    match path {
        "/version" => whole(200, &json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})),
        "/api" => whole(200, &json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => whole(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})),
        "/api/v1" | "/apis/discovery.k8s.io/v1" => {
            let resources: Vec<Value> = RESOURCES
                .iter()
                .filter(|(of, ..)| *of == path)
                .map(|(_, name, kind, namespaced)| {
                    let singular = kind.to_lowercase();
                    json!({"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind,
                        "verbs": ["create", "delete", "get", "list", "update", "watch"]})
                })
                .collect();
            let version = path.trim_start_matches("/apis/").trim_start_matches("/api/");
            whole(
                200,
                &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
            )
        }
        _ => failure(404, "NotFound", "the server could not find the requested resource"),
    }
}

fn list(state: &State, asked: &Asked) -> Response<Body> {
    let mut store = state.lock();
    store.lists += 1;
    // A page goes on where the one before ended, in the state of the first: that must not be forgotten.
    let (version, after) = match asked.query.get("continue").map(|token| token.split_once(':')) {
        None => (store.version, String::new()),
        Some(Some((version, after))) => (version.parse().unwrap_or(0), after.to_owned()),
        Some(None) => return failure(400, "BadRequest", "continue key is not valid"),
    };
    if version < store.compacted {
        return failure(410, "Expired", "The provided continue parameter is too old");
    }
    let fitting: Vec<(&Key, &Value)> =
        store.objects.iter().filter(|(key, object)| asked.fits(key, object) && key.2 > after).collect();
    let limit = asked.number("limit").filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
    let page: Vec<&Value> = fitting.iter().take(limit).map(|(_, object)| *object).collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (true, Some((key, _))) = (fitting.len() > limit, fitting.get(limit.wrapping_sub(1))) {
        metadata["continue"] = format!("{version}:{}", key.2).into();
        metadata["remainingItemCount"] = (fitting.len() - limit).into();
    }
    let answer = json!({"kind": format!("{}List", asked.kind), "apiVersion": asked.api_version(),
        "metadata": metadata, "items": page});
    drop(fitting);
    whole(200, &answer)
}

/// Events as they come, a line each, until the time is over or the test ends it.
fn watched(state: Arc<State>, asked: Asked) -> Response<Body> {
    let (lines, body) = mpsc::channel::<Bytes>(64);
    let mut from = asked.number("resourceVersion").unwrap_or(0);
    let seconds = asked.number("timeoutSeconds").unwrap_or(300);
    let generation = {
        let mut store = state.lock();
        store.watches += 1;
        store.generation
    };
    tokio::spawn(async move {
        let line = |what: &str, object: &Value| {
            Bytes::from(format!("{}\n", json!({"type": what, "object": object})))
        };
        let mut versions = state.version.subscribe();
        let end = tokio::time::sleep(Duration::from_secs(seconds));
        tokio::pin!(end);
        let mut bookmark = tokio::time::interval(Duration::from_millis(500));
        loop {
            let (events, is_over, is_gone) = {
                let store = state.lock();
                let events: Vec<Bytes> = store
                    .events
                    .iter()
                    .filter(|(version, _, key, object)| *version > from && asked.fits(key, object))
                    .map(|(_, what, _, object)| line(what, object))
                    .collect();
                let is_gone = from < store.compacted;
                if !is_gone {
                    from = store.version;
                }
                (events, store.generation != generation, is_gone)
            };
            if is_gone {
                let gone = status_object(410, "Expired", "too old resource version");
                let _ = lines.send(line("ERROR", &gone)).await;
                return;
            }
            if is_over {
                return;
            }
            for event in events {
                if lines.send(event).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return },
                () = &mut end => return,
                () = lines.closed() => return,
                _ = bookmark.tick(), if asked.query.get("allowWatchBookmarks").is_some_and(|wish| wish == "true") => {
                    let object = json!({"kind": asked.kind, "apiVersion": asked.api_version(),
                        "metadata": {"resourceVersion": from.to_string()}});
                    if lines.send(line("BOOKMARK", &object)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let stream = futures_util::stream::unfold(body, async |mut body| {
        let line = body.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), body))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(http_body_util::StreamBody::new(stream).boxed())
        .unwrap_or_else(|error| panic!("{error}"))
}
