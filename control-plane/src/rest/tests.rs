//! The promises of the table: who may call what, and that both descriptions name every row.

use std::{collections::BTreeSet, path::Path};

use clap::Parser as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Access, openapi, table};
use crate::{
    auth::{PushTarget, Role},
    options::Cli,
    run::{self, Running},
};

const PASSWORD: &str = "correct horse battery";

struct Plane {
    running: Running,
    client: reqwest::Client,
    url: String,
    _dir: TempDir,
}

impl Plane {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let data_dir = data_dir.to_str().unwrap();
        let cli = Cli::parse_from([
            "awe4lb-control-plane",
            "--http=127.0.0.1:0",
            "--grpc=127.0.0.1:0",
            "--data-dir",
            data_dir,
        ]);
        let running = run::start(cli.run).await.unwrap();
        let url = format!("http://{}", running.http);
        Self { running, client: reqwest::Client::new(), url, _dir: dir }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    fn data_dir(&self) -> &Path {
        self.running.app.store.data_dir()
    }

    /// The cookie of the first admin.
    async fn bootstrap(&self) -> String {
        let code = std::fs::read_to_string(self.data_dir().join("bootstrap-code")).unwrap();
        let answer = self
            .request(Method::POST, "/api/v1/session:bootstrap")
            .json(&json!({"code": code, "user": "admin", "password": PASSWORD}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        cookie(&answer)
    }

    async fn push_token(&self, pool: &str, source: &str) -> String {
        let target = PushTarget { pool: pool.parse().unwrap(), source: source.parse().unwrap() };
        self.running.app.auth.make_push_token("pusher", &target, None, "test").await.unwrap().1
    }

    async fn token(&self, role: Role) -> String {
        self.running.app.auth.make_token(role.word(), role, None, "test").await.unwrap().1
    }
}

fn cookie(answer: &reqwest::Response) -> String {
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// Parameters filled in with something that does not exist.
fn example(path: &str) -> String {
    let mut parts = path.split(['{', '}']);
    let mut filled = parts.next().unwrap().to_owned();
    while let (Some(name), Some(rest)) = (parts.next(), parts.next()) {
        filled += if name == "number" { "4000000" } else { "nothing-of-that-name" };
        filled += rest;
    }
    filled
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_lets_in_exactly_whom_it_says() {
    let plane = Plane::start().await;
    plane.bootstrap().await;
    let mut callers = vec![(None, None), (None, Some("awl_wrong".to_owned()))];
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        callers.push((Some(role), Some(plane.token(role).await)));
    }
    // What it may tell is not among the examples: it may do nothing.
    callers.push((Some(Role::Pusher), Some(plane.push_token("p", "s").await)));
    for row in table() {
        for (role, token) in &callers {
            let mut request = plane.request(row.method.clone(), &example(row.path));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status();
            let what = format!("{} {} as {role:?}: {status}", row.method, row.path);
            let access = match row.access {
                Access::Push => Access::Role(Role::Operator),
                access => access,
            };
            match (access, role) {
                (Access::Public, _) => assert_ne!(status, StatusCode::FORBIDDEN, "{what}"),
                (Access::Role(_) | Access::Push, None) => {
                    assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}")
                }
                (Access::Role(needed), Some(role)) if *role < needed => {
                    assert_eq!(status, StatusCode::FORBIDDEN, "{what}");
                    let problem: Value = answer.json().await.unwrap();
                    assert!(problem["detail"].as_str().unwrap().contains(needed.word()), "{problem}");
                }
                (Access::Role(_) | Access::Push, Some(_)) => {
                    assert_ne!(status, StatusCode::UNAUTHORIZED, "{what}");
                    assert_ne!(status, StatusCode::FORBIDDEN, "{what}");
                    assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
                    assert!(!status.is_server_error(), "{what}");
                }
            }
        }
    }
    plane.running.stop().await;
}

#[test]
fn only_these_need_no_role() {
    let public: BTreeSet<String> = table()
        .iter()
        .filter(|row| row.access == Access::Public)
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    let expected = [
        "DELETE /api/v1/session",
        "GET /api/openapi.json",
        "GET /api/schema.json",
        "GET /api/v1/session",
        "GET /healthz",
        // Asks for a token itself when the caller is not on this machine.
        "GET /metrics",
        "GET /readyz",
        "POST /api/v1/session",
        "POST /api/v1/session:bootstrap",
    ];
    assert_eq!(public, expected.map(str::to_owned).into());
}

#[test]
fn openapi_describes_every_row_once() {
    let table = table();
    let description = openapi::describe(&table);
    let mut ids = BTreeSet::new();
    for row in &table {
        let operation = &description["paths"][row.path][row.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], row.doc.id, "{} {}", row.method, row.path);
        assert!(ids.insert(row.doc.id), "{} names two operations", row.doc.id);
    }
    let text = description.to_string();
    assert!(!text.contains("#/$defs/"));
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            description["components"]["schemas"][name].is_object(),
            "{name} is referred to and not there"
        );
    }
}

/// The page is for people: it may group rows, but every path must be on it.
#[test]
fn the_page_about_the_api_names_every_path() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rest-api.md")).unwrap();
    let page = page.to_lowercase();
    for row in table() {
        let last = row.path.rsplit('/').find(|part| !part.starts_with('{')).unwrap();
        let verb = row.path.rsplit_once("}:").map(|(_, verb)| format!(":{verb}"));
        let word = verb.as_deref().unwrap_or(last).to_lowercase();
        assert!(page.contains(&word), "docs/rest-api.md does not name {} {} ({word})", row.method, row.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_signs_in_and_out() {
    let plane = Plane::start().await;
    let session = || plane.request(Method::GET, "/api/v1/session");
    let answer: Value = session().send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"bootstrapNeeded": true}));

    let wrong = json!({"code": "AAAAA", "user": "admin", "password": PASSWORD});
    let answer = plane.request(Method::POST, "/api/v1/session:bootstrap").json(&wrong).send().await.unwrap();
    assert_eq!(answer.status(), 401);

    let cookie = plane.bootstrap().await;
    assert!(!plane.data_dir().join("bootstrap-code").exists());
    let answer: Value = session().header("cookie", &cookie).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"user": "admin", "role": "admin", "via": "cookie"}));
    assert_eq!(session().send().await.unwrap().status(), 401);

    let out = plane
        .request(Method::DELETE, "/api/v1/session")
        .header("cookie", &cookie)
        .header("origin", &plane.url)
        .send()
        .await
        .unwrap();
    assert_eq!(out.status(), 204);
    assert_eq!(session().header("cookie", &cookie).send().await.unwrap().status(), 401);

    let sign_in = |password: &str| {
        let body = json!({"user": "admin", "password": password});
        plane.request(Method::POST, "/api/v1/session").json(&body).send()
    };
    let again = self::cookie(&sign_in(PASSWORD).await.unwrap());
    assert_eq!(session().header("cookie", &again).send().await.unwrap().status(), 200);
    assert_eq!(sign_in("wrong").await.unwrap().status(), 401);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_a_password_is_slowed_down() {
    let plane = Plane::start().await;
    plane.bootstrap().await;
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let body = json!({"user": "admin", "password": "wrong password"});
        let answer = plane.request(Method::POST, "/api/v1/session").json(&body).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
        }
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10], 429);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_alone_changes_nothing_from_another_page() {
    let plane = Plane::start().await;
    let cookie = plane.bootstrap().await;
    let write = |origin: Option<&str>| {
        let mut request = plane
            .request(Method::PUT, "/api/v1/pools/app")
            .header("cookie", &cookie)
            .json(&json!({"name": "app", "backends": [{"address": "127.0.0.1:1"}]}));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.send()
    };
    assert_eq!(write(None).await.unwrap().status(), 403);
    assert_eq!(write(Some("https://evil.example")).await.unwrap().status(), 403);
    assert_eq!(write(Some(&plane.url)).await.unwrap().status(), 201);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_ends_when_deleted() {
    let plane = Plane::start().await;
    let admin = plane.token(Role::Admin).await;
    let tokens = |method: Method, path: &str| {
        plane.request(method, &format!("/api/v1/tokens{path}")).bearer_auth(&admin)
    };
    let wish = json!({"name": "ci", "role": "viewer", "expiresIn": "30d"});
    let answer = tokens(Method::POST, "").json(&wish).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let made: Value = answer.json().await.unwrap();
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("awl_"));
    assert_eq!(tokens(Method::POST, "").json(&wish).send().await.unwrap().status(), 409);
    let list: Value = tokens(Method::GET, "").send().await.unwrap().json().await.unwrap();
    assert!(!list.to_string().contains(secret));
    assert_eq!(list["total"], 2);

    let read = || plane.request(Method::GET, "/api/v1/config").bearer_auth(secret).send();
    assert_eq!(read().await.unwrap().status(), 200);
    let path = format!("/{}", made["id"].as_str().unwrap());
    assert_eq!(tokens(Method::DELETE, &path).send().await.unwrap().status(), 204);
    assert_eq!(read().await.unwrap().status(), 401);
    assert_eq!(tokens(Method::DELETE, &path).send().await.unwrap().status(), 404);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_token_tells_its_source_and_nothing_else() {
    let plane = Plane::start().await;
    let admin = plane.token(Role::Admin).await;
    let sources = json!([{"id": "one", "type": "push"}, {"id": "two", "type": "push"}]);
    let pool = plane.request(Method::PUT, "/api/v1/pools/db").bearer_auth(&admin);
    let pool = pool.json(&json!({"name": "db", "discovery": sources})).send().await.unwrap();
    assert_eq!(pool.status(), 201);
    let make =
        |wish: Value| plane.request(Method::POST, "/api/v1/tokens").bearer_auth(&admin).json(&wish).send();
    let wish = json!({"name": "deploy", "push": {"pool": "db", "source": "one"}, "expiresIn": "1h"});
    let made: Value = make(wish).await.unwrap().json().await.unwrap();
    assert_eq!((&made["role"], &made["push"]), (&json!("pusher"), &json!({"pool": "db", "source": "one"})));
    let both = json!({"name": "x", "role": "admin", "push": {"pool": "db", "source": "one"}});
    for wrong in [both, json!({"name": "x"}), json!({"name": "x", "role": "pusher"})] {
        assert_eq!(make(wrong.clone()).await.unwrap().status(), 422, "{wrong}");
    }
    let secret = made["token"].as_str().unwrap();
    let push = |path: &str| {
        plane.request(Method::PUT, path).bearer_auth(secret).json(&json!(["10.0.0.1:5432"])).send()
    };
    assert_eq!(push("/api/v1/pools/db/sources/one").await.unwrap().status(), 200);
    for elsewhere in ["/api/v1/pools/db/sources/two", "/api/v1/pools/db", "/api/v1/pools/other/sources/one"] {
        assert_eq!(push(elsewhere).await.unwrap().status(), 403, "{elsewhere}");
    }
    let read = plane.request(Method::GET, "/api/v1/pools/db").bearer_auth(secret).send().await.unwrap();
    assert_eq!(read.status(), 403);
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_events_hears_of_a_revision_and_resumes() {
    let plane = Plane::start().await;
    let admin = plane.token(Role::Admin).await;
    let listen = |last: Option<&str>| {
        let mut request = plane.request(Method::GET, "/api/v1/events?types=revision").bearer_auth(&admin);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        request.send()
    };
    let mut live = listen(None).await.unwrap();
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let put = plane.request(Method::PUT, "/api/v1/pools/app").bearer_auth(&admin);
    let put =
        put.json(&json!({"name": "app", "backends": [{"address": "127.0.0.1:1"}]})).send().await.unwrap();
    assert_eq!(put.status(), 201);
    let mut text = String::new();
    while !text.contains("\"revision\":1") {
        text += std::str::from_utf8(&live.chunk().await.unwrap().unwrap()).unwrap();
    }
    assert!(text.contains("event: revision"), "{text}");
    let id: u64 = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().parse().unwrap();

    let mut resumed = listen(Some(&(id - 1).to_string())).await.unwrap();
    let first = resumed.chunk().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&first).unwrap().contains("\"revision\":1"));
    let mut late = listen(Some("1")).await.unwrap();
    let first = late.chunk().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&first).unwrap().contains("event: reset"));
    plane.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_lets_nothing_foreign_in() {
    let plane = Plane::start().await;
    let policy = async || {
        let answer = plane.request(Method::GET, "/pools/app").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(!answer.text().await.unwrap().contains("__CSP_NONCE__"));
        policy
    };
    let first = policy().await;
    assert!(first.starts_with("default-src 'none'; script-src 'self';"));
    assert!(!first.contains("unsafe"));
    assert_ne!(first, policy().await, "a nonce is used once");
    for missing in ["/assets/none.js", "/favicon.none", "/api/v1/none", "/api"] {
        let answer = plane.request(Method::GET, missing).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{missing}");
    }
    plane.running.stop().await;
}
