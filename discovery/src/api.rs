//! The API of a manager of containers: JSON over a unix socket, or over TCP with or without TLS.

use std::sync::Arc;

use awe4lb_model::discovery::{ApiAddress, ContainerApi};
use futures_util::future::BoxFuture;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Allowed, Endpoint, Failure,
    web::{self, Web},
};

/// So much is told of an item that cannot be read.
const SHOWN: usize = 80;

/// A client, which keeps its connections.
#[derive(Default)]
pub(crate) struct Api(Option<Web>);

impl Api {
    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(
        &mut self,
        source: &ContainerApi,
        path: &str,
        allowed: &Arc<Allowed>,
    ) -> Result<T, Failure> {
        let response = self.open(source, path, allowed).await?;
        let body = web::body(response, source.max_bytes as usize).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Failure::new(format!("{path}: not what is expected: {error}")))
    }

    /// Asks for something that need not end.
    pub(crate) async fn open(
        &mut self,
        source: &ContainerApi,
        path: &str,
        allowed: &Arc<Allowed>,
    ) -> Result<Response, Failure> {
        self.opening(source, path, allowed)?.await
    }

    /// The same, to be waited for beside something else.
    pub(crate) fn opening(
        &mut self,
        source: &ContainerApi,
        path: &str,
        allowed: &Arc<Allowed>,
    ) -> Result<BoxFuture<'static, Result<Response, Failure>>, Failure> {
        let (socket, base) = match &source.address {
            ApiAddress::Unix(socket) => {
                allowed.file(socket)?;
                (Some(&**socket), "http://localhost")
            }
            ApiAddress::Url(base) => (None, &**base),
        };
        if self.0.as_ref().is_some_and(Web::is_outdated) {
            self.0 = None;
        }
        let client = match &self.0 {
            Some(web) => web.client(),
            None => self.0.insert(Web::over(socket, &source.tls, allowed)?).client(),
        };
        let url = web::url(&format!("{base}{path}"), allowed)?;
        let whom = socket.unwrap_or(base).to_owned();
        Ok(Box::pin(async move {
            let sent = client.get(url).send().await;
            let response = sent.map_err(|error| Failure::new(told(&whom, &web::chain(&error))))?;
            if response.status() != StatusCode::OK {
                return Err(web::refused(response, "certFile and keyFile").await);
            }
            Ok(response)
        }))
    }
}

/// The items of a list. One that cannot be read is told by how it begins, and does not spoil the others.
pub(crate) fn items<T: DeserializeOwned>(list: Vec<Value>, rejected: &mut Vec<String>) -> Vec<T> {
    let mut items = Vec::with_capacity(list.len());
    for item in list {
        match T::deserialize(&item) {
            Ok(item) => items.push(item),
            Err(why) => {
                let shown: String = item.to_string().chars().take(SHOWN).collect();
                rejected.push(format!("{shown}: {why}"));
            }
        }
    }
    items
}

fn told(whom: &str, error: &str) -> String {
    let hint = if error.contains("ermission denied") {
        ": the control plane's user needs the right to use this socket"
    } else {
        ""
    };
    format!("{whom}: {error}{hint}")
}

/// What labels (or keys) of a container say about its backend, beside its port.
pub(crate) fn by_labels(mut endpoint: Endpoint, prefix: &str) -> Result<Endpoint, String> {
    let number = |key: &str| -> Result<Option<u32>, String> {
        let Some(text) = endpoint.labels.get(&format!("{prefix}{key}")) else { return Ok(None) };
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("the label {prefix}{key} is {text:?}, which is no number"))
    };
    let share = |key: &str| {
        number(key).and_then(|value| match value {
            Some(value) if value > 65_535 => Err(format!("the label {prefix}{key} is more than 65535")),
            value => Ok(value),
        })
    };
    let (weight, priority) = (share("weight")?, share("priority")?);
    let most = number("maxConnections")?.filter(|most| *most > 0);
    endpoint.weight = weight;
    endpoint.priority = priority;
    endpoint.max_connections = most;
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use awe4lb_model::{
        discovery::{DockerSource, Source, SourceKind},
        document::backend_address,
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;
    use crate::{Answer, Asker};

    /// What a source says whose engine answers everything with this, a byte at a time if it is slow.
    async fn asked(answer: String, is_slow: bool) -> Result<Answer, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let api = ContainerApi {
            address: ApiAddress::Unix(path.display().to_string().into()),
            tls: Default::default(),
            max_bytes: 1_000,
        };
        let kind = SourceKind::Docker(DockerSource { api, network: None, port: None, host: None });
        let timeout = Duration::from_secs(if is_slow { 1 } else { 20 });
        let source = Source { kind, timeout, ..Source::elsewhere("s".parse().unwrap()) };
        let allowed = Allowed { folders: vec![folder.path().into()], ..Allowed::default() };
        let mut asker = Asker::new(source, Arc::new(allowed));
        let serve = async {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                connections.spawn(async move {
                    let mut asked = [0; 4096];
                    let _ = stream.read(&mut asked).await;
                    for piece in answer.as_bytes().chunks(if is_slow { 1 } else { usize::MAX }) {
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_millis(if is_slow { 50 } else { 0 })).await;
                    }
                });
            }
        };
        tokio::select! { said = asker.ask() => said, () = serve => unreachable!("it serves for ever") }
    }

    fn with(status: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn what_is_no_good_answer_is_a_failure_with_its_reason() {
        let wrong = [
            (with("403 Forbidden", r#"{"message": "not for you"}"#), "certFile and keyFile"),
            (with("403 Forbidden", r#"{"message": "not for you"}"#), "not for you"),
            (with("500 Internal Server Error", "{}"), "500"),
            (with("301 Moved Permanently", ""), "redirects are not followed"),
            (with("200 OK", &format!("[{}]", " ".repeat(1_000))), "more than 1000 bytes (maxBytes)"),
            (with("200 OK", r#"{"not": "a list"}"#), "not what is expected"),
            (with("200 OK", "[{"), "not what is expected"),
            ("no HTTP at all\r\n\r\n".to_owned(), "engine.sock"),
        ];
        for (answer, word) in wrong {
            let why = asked(answer, false).await.unwrap_err();
            assert!(why.0.contains(word), "{word}: {why}");
        }
        assert_eq!(asked(with("200 OK", "[]"), false).await, Ok(Answer::default()));
    }

    /// Found with Podman 4.3: its stream of events begins with the first event.
    #[tokio::test]
    async fn events_that_nothing_is_heard_of_do_not_delay_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let address = ApiAddress::Unix(path.display().to_string().into());
        let api = ContainerApi { address, tls: Default::default(), max_bytes: 1_000 };
        let kind = SourceKind::Docker(DockerSource { api, network: None, port: None, host: None });
        let source =
            Source { kind, timeout: Duration::from_secs(20), ..Source::elsewhere("s".parse().unwrap()) };
        let allowed = Allowed { folders: vec![folder.path().into()], ..Allowed::default() };
        let mut asker = Asker::new(source, Arc::new(allowed));
        let serve = async {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut asked = [0; 4096];
                    let length = stream.read(&mut asked).await.unwrap_or(0);
                    if asked[..length].starts_with(b"GET /events") {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(with("200 OK", "[]").as_bytes()).await;
                });
            }
        };
        let said = tokio::select! {
            said = tokio::time::timeout(Duration::from_secs(5), asker.ask()) => said,
            () = serve => unreachable!("it serves for ever"),
        };
        assert_eq!(said.expect("at once"), Ok(Answer::default()));
    }

    #[tokio::test]
    async fn an_engine_that_answers_byte_by_byte_is_not_waited_for() {
        let why = asked(with("200 OK", &"[]".repeat(400)), true).await.unwrap_err();
        assert!(why.0.contains("timeout"), "{why}");
    }

    #[tokio::test]
    async fn a_socket_that_is_gone_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path: Box<str> = folder.path().join("none.sock").display().to_string().into();
        let api =
            ContainerApi { address: ApiAddress::Unix(path.clone()), tls: Default::default(), max_bytes: 1 };
        let allowed = Arc::new(Allowed { folders: vec![folder.path().into()], ..Allowed::default() });
        let why = Api::default().get::<Value>(&api, "/", &allowed).await.unwrap_err();
        assert!(why.0.contains(&*path) && why.0.contains("No such file"), "{why}");
    }

    #[test]
    fn labels_of_containers_say_shares() {
        let endpoint = Endpoint::at(backend_address("10.0.0.1:80").unwrap());
        let good = endpoint.clone().label("lb.weight", "7").label("lb.priority", " 1 ");
        let good = by_labels(good, "lb.").unwrap();
        assert_eq!((good.weight, good.priority, good.max_connections), (Some(7), Some(1), None));
        assert!(by_labels(endpoint.label("lb.weight", "65536"), "lb.").unwrap_err().contains("lb.weight"));
    }
}
