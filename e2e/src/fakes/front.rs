//! Stands before a real Pebble and passes everything on, but for what Pebble has not: renewal information (RFC 9773: `renewalInfo` in
//! the directory, `GET …/CERTID` with `Retry-After`, `replaces` mirrored in orders), profiles, rate limits (429 with `Retry-After`), pages
//! of proxies, and answers that never come. Counts what is asked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};

use crate::{authority::Pebble, servers::Identity};

/// One that runs, and ends with its test.
pub struct Front {
    /// Where ACME is.
    pub address: SocketAddr,
    identity: Identity,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    /// The real one, and a client that trusts it.
    behind: Mutex<(SocketAddr, reqwest::Client)>,
    own: SocketAddr,
    inner: Mutex<Inner>,
}

fn way_to(pebble: &Pebble) -> (SocketAddr, reqwest::Client) {
    let root =
        reqwest::Certificate::from_pem(pebble.ca().as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    let client = reqwest::Client::builder().tls_certs_only([root]).http1_only().build();
    (pebble.address, client.unwrap_or_else(|error| panic!("{error}")))
}

#[derive(Default)]
struct Inner {
    /// Method and path, with the status of the answer.
    asked: Vec<(String, u16)>,
    /// The answer to this request (counted from 1) is kept back, and somebody is told.
    halt: Option<(usize, mpsc::Sender<()>)>,
    /// Orders are answered with this instead: status, type, `Retry-After`.
    refuse: Option<(u16, &'static str, String)>,
    /// Everything is answered with a page of a proxy.
    is_broken: bool,
    /// When certificates are to be renewed: RFC 3339, and `Retry-After` in seconds.
    window: Option<(String, String, u64)>,
    /// What was ordered: payloads of their JWS.
    ordered: Vec<Value>,
    /// Profiles that it says it has.
    profiles: Vec<String>,
    /// What the clock of the authority says, as a date of HTTP.
    date: Option<String>,
}

impl Front {
    /// Before this one.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(pebble: &Pebble) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
        let identity = Identity::new(&["127.0.0.1"]);
        let acceptor = identity.acceptor();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap_or_else(|error| panic!("{error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let state =
            Arc::new(State { behind: Mutex::new(way_to(pebble)), own: address, inner: Mutex::default() });
        let served = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), served.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, identity, state, _runtime: runtime }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on another one is behind it, which knows nothing of what was.
    ///
    /// # Panics
    /// When this machine cannot do HTTP.
    pub fn stand_before(&self, pebble: &Pebble) {
        *self.state.behind.lock().unwrap_or_else(PoisonError::into_inner) = way_to(pebble);
    }

    /// As an object of the configuration.
    #[must_use]
    pub fn account(&self, name: &str) -> Value {
        json!({"name": name, "directory": format!("https://{}/dir", self.address), "termsAgreed": true,
            "ca": self.identity.chain, "contact": ["ops@example.com"], "ordersPerHour": 10_000})
    }

    /// Forgets what was asked, and keeps back the answer to the `nth` request from now on. The receiver is told then.
    #[must_use]
    pub fn halt_at(&self, nth: usize) -> mpsc::Receiver<()> {
        let (told, halted) = mpsc::channel();
        let mut inner = self.inner();
        inner.asked.clear();
        inner.halt = Some((nth, told));
        halted
    }

    /// Answers everything again. How many requests there were.
    pub fn go_on(&self) -> usize {
        let mut inner = self.inner();
        inner.halt = None;
        inner.asked.len()
    }

    /// What was asked: method and path, and the status of the answer.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, u16)> {
        self.inner().asked.clone()
    }

    /// Orders that were taken.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.inner().asked.iter().filter(|(what, status)| what == "POST /order-plz" && *status == 201).count()
    }

    /// Refuses orders like this; `None`: takes them.
    pub fn refuse(&self, how: Option<(u16, &'static str, String)>) {
        self.inner().refuse = how;
    }

    /// Answers with a page of a proxy that finds nobody.
    pub fn break_down(&self, is_broken: bool) {
        self.inner().is_broken = is_broken;
    }

    /// Wants certificates renewed between these times, and to be asked again after so many seconds.
    pub fn suggest(&self, start: &str, end: &str, again: u64) {
        self.inner().window = Some((start.to_owned(), end.to_owned(), again));
    }

    /// What was ordered: `identifiers`, `replaces`, `profile`.
    #[must_use]
    pub fn ordered(&self) -> Vec<Value> {
        self.inner().ordered.clone()
    }

    /// Says that it has these profiles.
    pub fn offer_profiles(&self, names: &[&str]) {
        self.inner().profiles = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Says that it is this time.
    pub fn date(&self, date: Option<&str>) {
        self.inner().date = date.map(str::to_owned);
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("Content-Type", kind);
    response.body(Full::new(body.into())).unwrap_or_else(|error| panic!("{error}"))
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let mut response = respond(&state, request, &what).await;
    let halted = {
        let mut inner = state.lock();
        inner.asked.push((what, response.status().as_u16()));
        let count = inner.asked.len();
        if let Some(date) = inner.date.as_ref().and_then(|date| date.parse().ok()) {
            response.headers_mut().insert("date", date);
        }
        inner.halt.as_ref().is_some_and(|(nth, told)| count == *nth && told.send(()).is_ok())
    };
    if halted {
        // Whoever asked is gone before this is over.
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    Ok(response)
}

async fn respond(state: &State, request: Request<Incoming>, what: &str) -> Response<Full<Bytes>> {
    let (is_broken, window, refuse) = {
        let inner = state.lock();
        (inner.is_broken, inner.window.clone(), inner.refuse.clone())
    };
    if is_broken {
        return whole(502, "text/html", "<html>nobody is there</html>");
    }
    if let (Some((start, end, again)), true) = (&window, what.starts_with("GET /renewal-info/")) {
        let body =
            json!({"suggestedWindow": {"start": start, "end": end}, "explanationURL": "https://ca.test/why"});
        let mut response = whole(200, "application/json", body.to_string());
        response.headers_mut().insert("Retry-After", (*again).into());
        return response;
    }
    if let (Some((status, kind, again)), "POST /order-plz") = (refuse, what) {
        let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "not now", "status": status});
        let mut response = whole(status, "application/problem+json", body.to_string());
        if let Ok(again) = again.parse() {
            response.headers_mut().insert("Retry-After", again);
        }
        return response;
    }
    pass_on(state, request, what, window.is_some()).await
}

/// What the real one says.
async fn pass_on(
    state: &State,
    request: Request<Incoming>,
    what: &str,
    suggests: bool,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let ordered = payload(&body).filter(|_| what == "POST /order-plz");
    let (pebble, client) = state.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut asked = client
        .request(parts.method.clone(), format!("https://{pebble}{}", parts.uri.path()))
        // Its URLs, and those that are signed, are those of the front.
        .header("host", state.own.to_string())
        .body(body);
    for name in ["content-type", "user-agent", "accept"] {
        if let Some(value) = parts.headers.get(name) {
            asked = asked.header(name, value);
        }
    }
    let answer = match asked.send().await {
        Ok(answer) => answer,
        Err(error) => return whole(502, "text/plain", error.to_string()),
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut body = answer.bytes().await.unwrap_or_default();
    let profiles = state.lock().profiles.clone();
    if !profiles.is_empty() && what == "GET /dir" {
        let profiles: serde_json::Map<String, Value> =
            profiles.into_iter().map(|name| (name, "".into())).collect();
        body = with(&body, "meta", json!({"profiles": profiles, "termsOfService": "https://ca.test/terms"}));
    }
    if suggests && what == "GET /dir" {
        let url = format!("https://{}/renewal-info", state.own);
        body = with(&body, "renewalInfo", url.into());
    }
    if let Some(ordered) = ordered.filter(|_| status.is_success()) {
        for field in ["replaces", "profile"] {
            if !ordered[field].is_null() {
                body = with(&body, field, ordered[field].clone());
            }
        }
        state.lock().ordered.push(ordered);
    }
    let mut response = whole(status.as_u16(), "", body);
    for (name, value) in &headers {
        let is_of_transport = ["content-length", "transfer-encoding", "connection"].contains(&name.as_str());
        if !is_of_transport && parts.method != Method::HEAD || name == "replay-nonce" {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

fn with(body: &Bytes, field: &str, value: Value) -> Bytes {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else { return body.clone() };
    object.insert(field.to_owned(), value);
    Value::Object(object).to_string().into()
}

/// What a JWS says.
fn payload(jws: &[u8]) -> Option<Value> {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let jws: Value = serde_json::from_slice(jws).ok()?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str()?).ok()?;
    serde_json::from_slice(&payload).ok()
}
