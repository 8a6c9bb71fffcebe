//! HTTP to addresses that others named, such as a certificate or an operator: a limited time and size, few redirects, and no
//! address that leads to the machine's own secrets.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Method, Url, header};

use crate::{Allowed, Failure, web};

/// Asks; keeps connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outgoing {
    client: Client,
    allowed: Arc<Allowed>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// `http` or `https`.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(&'static str, &'a str)],
    /// What is posted.
    pub body: Vec<u8>,
    /// For all of it, redirects included.
    pub timeout: Duration,
    /// The largest body of an answer that is taken, in bytes; `None`: it is not read.
    pub most: Option<usize>,
    /// How many redirects are followed.
    pub redirects: u8,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Of HTTP.
    pub status: u16,
    /// Whole, if it was to be read.
    pub body: Vec<u8>,
}

impl Outgoing {
    /// `allowed`: which networks may be asked although they are link-local.
    pub fn new(allowed: Arc<Allowed>) -> Result<Self, Failure> {
        let client = web::client(&allowed, |builder| builder)?;
        Ok(Self { client, allowed })
    }

    /// Posts, and takes the answer, whatever its status.
    pub async fn post(&self, question: Question<'_>) -> Result<Reply, Failure> {
        let timeout = question.timeout;
        tokio::time::timeout(timeout, self.follow(question))
            .await
            .unwrap_or_else(|_| Err(Failure::new(format!("no answer within {} s", timeout.as_secs()))))
    }

    async fn follow(&self, question: Question<'_>) -> Result<Reply, Failure> {
        let mut url = self.url(question.url)?;
        let mut left = question.redirects;
        loop {
            let mut request = self.client.request(Method::POST, url.clone()).body(question.body.clone());
            for (name, value) in question.headers {
                request = request.header(*name, *value);
            }
            let response = request.send().await.map_err(|error| Failure::new(web::chain(&error)))?;
            let status = response.status();
            let next = response.headers().get(header::LOCATION).filter(|_| status.is_redirection());
            if let Some(next) = next.and_then(|next| next.to_str().ok()) {
                left = left.checked_sub(1).ok_or_else(|| match question.redirects {
                    0 => Failure::new(format!("{status}: redirects are not followed; it leads to {next}")),
                    most => Failure::new(format!("{url} redirects more than {most} times")),
                })?;
                let next = url
                    .join(next)
                    .map_err(|error| Failure::new(format!("{url} redirects to {next:?}: {error}")))?;
                url = self.url(next.as_str())?;
                continue;
            }
            let Some(most) = question.most else {
                return Ok(Reply { status: status.as_u16(), body: Vec::new() });
            };
            let too_large = || Failure::new(format!("the answer has more than {most} bytes"));
            let body = web::read(response, most).await?.ok_or_else(too_large)?;
            return Ok(Reply { status: status.as_u16(), body });
        }
    }

    fn url(&self, text: &str) -> Result<Url, Failure> {
        let url = web::url(text, &self.allowed)?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            other => Err(Failure::new(format!("{other:?} is not asked: an address is http:// or https://"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers each connection with the next of these.
    async fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 64 * 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.replace("SELF", &address.to_string()).as_bytes()).await;
            }
        });
        format!("http://{address}/")
    }

    async fn ask(url: &str, redirects: u8) -> Result<Reply, Failure> {
        let question = Question {
            url,
            headers: &[("content-type", "text/plain")],
            body: b"question".to_vec(),
            timeout: Duration::from_secs(5),
            most: Some(100),
            redirects,
        };
        Outgoing::new(Arc::default()).unwrap().post(question).await
    }

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 307 Go\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn follows_a_few_redirects() {
        let url = server(vec![redirect("/next"), redirect("http://SELF/last"), answer("yes")]).await;
        let reply = ask(&url, 2).await.unwrap();
        assert_eq!((reply.status, &reply.body[..]), (200, &b"yes"[..]));
        let url = server(vec![redirect("/next"), redirect("/last")]).await;
        assert!(ask(&url, 1).await.unwrap_err().0.contains("more than 1 times"));
        let url = server(vec![redirect("/next")]).await;
        assert!(ask(&url, 0).await.unwrap_err().0.contains("not followed"));
    }

    #[tokio::test]
    async fn a_redirect_is_no_way_to_what_is_link_local() {
        for to in ["http://169.254.169.254/", "http://[fe80::1]/", "ftp://example.test/"] {
            let url = server(vec![redirect(to)]).await;
            let error = ask(&url, 3).await.unwrap_err().0;
            assert!(error.contains("link-local") || error.contains("is not asked"), "{error}");
        }
        assert!(ask("http://169.254.169.254/", 0).await.unwrap_err().0.contains("--allow-network"));
    }

    #[tokio::test]
    async fn a_large_answer_is_none() {
        let url = server(vec![answer(&"x".repeat(101))]).await;
        assert!(ask(&url, 0).await.unwrap_err().0.contains("more than 100 bytes"));
    }
}
