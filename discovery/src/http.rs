//! Documents behind a URL.

use std::sync::Arc;

use awe4lb_model::discovery::HttpSource;
use reqwest::{
    StatusCode,
    header::{ETAG, IF_NONE_MATCH},
};

use crate::{
    Allowed, Answer, Failure, format,
    web::{self, Web},
};

/// One source's client, and what it was told last.
#[derive(Default)]
pub(crate) struct Http {
    web: Option<Web>,
    /// Of the last answer, where the server gives one.
    last: Option<(String, Answer)>,
}

impl Http {
    pub(crate) async fn ask(
        &mut self,
        source: &HttpSource,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        let url = web::url(&source.url, allowed)?;
        let mut request = web::fresh(&mut self.web, &source.tls, allowed)?.client().get(url);
        for (name, value) in &source.headers {
            request = request.header(&**name, &**value);
        }
        if let Some(file) = &source.token_file {
            request = request.bearer_auth(web::secret(file, allowed)?);
        }
        if let Some((etag, _)) = &self.last {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(|error| Failure::new(web::chain(&error)))?;
        if let (StatusCode::NOT_MODIFIED, Some((_, last))) = (response.status(), &self.last) {
            return Ok(last.clone());
        }
        if response.status() != StatusCode::OK {
            return Err(web::refused(response, "tokenFile, headers, certFile").await);
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let answer = format::read(&web::body(response, source.max_bytes as usize).await?, &source.format)?;
        self.last = etag.map(|etag| (etag, answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use awe4lb_model::discovery::{ClientTls, Format};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that gives these answers in turn, a connection each, and what it was asked.
    async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/list", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..length]).to_lowercase());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            asked
        });
        (url, asked)
    }

    fn said(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
    }

    fn source(url: &str) -> HttpSource {
        HttpSource {
            url: url.into(),
            headers: vec![("x-team".into(), "shop".into())],
            token_file: None,
            tls: ClientTls::default(),
            format: Format::Auto,
            max_bytes: 1_000,
        }
    }

    async fn ask(http: &mut Http, source: &HttpSource) -> Result<Vec<String>, String> {
        let allowed = Arc::default();
        let asked = http.ask(source, &allowed);
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("an end");
        let answer = answer.map_err(|failure| failure.0)?;
        Ok(answer.endpoints.iter().map(|one| one.address.to_string()).collect())
    }

    #[tokio::test]
    async fn an_answer_that_has_not_changed_is_the_one_before() {
        let answers =
            vec![said("200 OK", "ETag: \"v1\"\r\n", "10.0.0.1:80"), said("304 Not Modified", "", "")];
        let (url, asked) = server(answers).await;
        let (mut http, source) = (Http::default(), source(&url));
        assert_eq!(ask(&mut http, &source).await.unwrap(), ["10.0.0.1:80"]);
        assert_eq!(ask(&mut http, &source).await.unwrap(), ["10.0.0.1:80"]);
        let asked = asked.await.unwrap();
        assert!(asked[0].contains("x-team: shop") && !asked[0].contains("if-none-match"), "{}", asked[0]);
        assert!(asked[1].contains("if-none-match: \"v1\""), "{}", asked[1]);
    }

    #[tokio::test]
    async fn redirects_other_statuses_and_too_much_are_failures() {
        let endless =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "10.0.0.1:80\n".repeat(1_000));
        let answers = vec![
            said("302 Found", "Location: http://169.254.169.254/\r\n", ""),
            said("403 Forbidden", "", "no such luck\nsecond line"),
            said("500 Internal Server Error", "", "<html>much</html>"),
            said("204 No Content", "", ""),
            endless,
            said("200 OK", "", &"10.0.0.1:80\n".repeat(1_000)),
        ];
        let (url, _asked) = server(answers).await;
        let (mut http, source) = (Http::default(), source(&url));
        let mut failures = Vec::new();
        for _ in 0..6 {
            failures.push(ask(&mut http, &source).await.unwrap_err());
        }
        assert!(failures[0].contains("redirects are not followed"), "{failures:?}");
        assert_eq!(failures[1], "403 Forbidden: no such luck (see tokenFile, headers, certFile)");
        assert_eq!(failures[2], "500 Internal Server Error");
        assert_eq!(failures[3], "204 No Content");
        assert!(failures[4..].iter().all(|failure| failure.contains("maxBytes")), "{failures:?}");
    }

    #[tokio::test]
    async fn addresses_that_lead_to_secrets_are_not_asked() {
        for url in [
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://100.100.100.200/",
        ] {
            let why = ask(&mut Http::default(), &source(url)).await.unwrap_err();
            assert!(why.contains("--allow-network"), "{url}: {why}");
        }
        let allowed = Allowed { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Allowed::default() };
        assert!(allowed.address("127.0.0.1".parse().unwrap()).is_ok());
        assert!(allowed.address("169.254.0.1".parse().unwrap()).is_err());
    }

    #[tokio::test]
    async fn a_certificate_must_be_allowed_and_be_one_and_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Box::<str>::from(path.display().to_string())
        };
        let files = (write("cert", "not a certificate"), write("key", "very secret"));
        let mut source = source("https://127.0.0.1:1/");
        source.tls.identity = Some(files);
        let why = ask(&mut Http::default(), &source).await.unwrap_err();
        assert!(why.contains("--allow-files"), "{why}");
        let allowed = Arc::new(Allowed { folders: vec![folder.path().into()], ..Allowed::default() });
        let why = Http::default().ask(&source, &allowed).await.unwrap_err().0;
        assert!(why.contains("no certificate and its key") && !why.contains("secret"), "{why}");
    }
}
