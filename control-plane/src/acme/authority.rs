//! How we speak to a certificate authority: one client that trusts what the account says, gives up in time, and remembers
//! what the authority said about time.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use awe4lb_discovery::{
    Allowed,
    web::{self, Web},
};
use awe4lb_model::{acme::AcmeAccount, discovery::ClientTls};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde_json::json;

use super::failure::Failure;

/// Of one request, with its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer: a chain of certificates is some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// A pause that an authority asks for is believed up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 86_400);
/// So is one between two looks at an order.
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// The longest part of an answer that is told when it is no problem document.
const TOLD: usize = 200;

/// What was learnt from the headers of an authority's answers.
#[derive(Debug, Default)]
pub struct Heard {
    /// The last `Retry-After` that came with an error.
    retry_after: Option<SystemTime>,
    /// The last `Retry-After` of an answer that was none yet.
    poll_after: Option<Duration>,
    /// Its clock minus ours, in seconds, at the last answer.
    skew: i64,
    /// Where its terms of service are.
    terms: Option<String>,
}

/// A client for one authority. Cheap to clone.
#[derive(Clone)]
pub struct AuthorityClient {
    client: reqwest::Client,
    directory: Arc<str>,
    heard: Arc<Mutex<Heard>>,
}

impl AuthorityClient {
    /// Trusts what the account trusts, and asks no address where machines keep their secrets.
    pub fn new(account: &AcmeAccount, allowed: &Arc<Allowed>) -> Result<Self, Failure> {
        let wrong = |failure: awe4lb_discovery::Failure| {
            Failure::new("account", failure.0, "look at \"directory\" and \"ca\" of the account")
        };
        web::url(&account.directory, allowed).map_err(wrong)?;
        let tls = ClientTls { ca_pem: account.ca_pem.clone(), identity: None };
        let client = Web::new(&tls, allowed).map_err(wrong)?.client();
        Ok(Self { client, directory: (*account.directory).into(), heard: Arc::default() })
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the authority asked for patience since this was last asked.
    pub fn take_retry_after(&self) -> Option<SystemTime> {
        self.heard().retry_after.take()
    }

    /// How long the authority wants to be left alone with an order.
    pub fn take_poll_after(&self) -> Option<Duration> {
        self.heard().poll_after.take()
    }

    /// The authority's clock minus ours, in seconds.
    pub fn skew(&self) -> i64 {
        self.heard().skew
    }

    /// The terms of service that the directory names.
    pub fn terms(&self) -> Option<String> {
        self.heard().terms.clone()
    }

    fn listen(&self, status: http::StatusCode, headers: &HeaderMap) {
        let now = SystemTime::now();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut heard = self.heard();
        if let Some(date) = text(header::DATE).and_then(http_date) {
            heard.skew = seconds(date) - seconds(now);
        }
        let after = text(header::RETRY_AFTER).and_then(|text| match text.trim().parse::<u64>() {
            Ok(wait) => now.checked_add(Duration::from_secs(wait)),
            Err(_) => http_date(text),
        });
        if status.is_client_error() || status.is_server_error() {
            heard.retry_after = after.map(|after| after.min(now + LONGEST_PAUSE));
        } else {
            let wait = after.and_then(|after| after.duration_since(now).ok());
            heard.poll_after = wait.map(|wait| wait.min(LONGEST_POLL));
        }
    }

    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (mut parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        let is_read = parts.method.is_safe();
        // Who we are, and not which library we use.
        parts.headers.remove(header::USER_AGENT);
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let request =
            self.client.request(parts.method, &url).headers(parts.headers).body(body).timeout(TIMEOUT);
        let answer = request.send().await.map_err(other)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        self.listen(status, &headers);
        let body = web::body(answer, MAX_ANSWER).await.map_err(|failure| Error::Other(failure.0.into()))?;
        let is_error = !(status.is_success() || status.is_redirection());
        let body = if is_error { problem(status, body) } else { body };
        // The library would read the directory in it, or say nothing of why there is no nonce.
        if is_error && is_read {
            return Err(Error::Api(serde_json::from_slice(&body)?));
        }
        if *url == *self.directory {
            let directory: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            self.heard().terms = directory["meta"]["termsOfService"].as_str().map(str::to_owned);
        }
        let mut response = Response::new(Full::new(Bytes::from(body)));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for AuthorityClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move { this.ask(request).await })
    }
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}

/// An error that is no problem document (a proxy's page, say) is made one, so that its status is told.
fn problem(status: http::StatusCode, body: Vec<u8>) -> Vec<u8> {
    let is_problem = serde_json::from_slice::<serde_json::Value>(&body)
        .is_ok_and(|value| value.get("type").is_some() || value.get("detail").is_some());
    if is_problem {
        return body;
    }
    let said: String =
        String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(TOLD).collect();
    json!({"type": "about:blank", "status": status.as_u16(), "detail": format!("HTTP {status}: {said}")})
        .to_string()
        .into_bytes()
}

fn http_date(text: &str) -> Option<SystemTime> {
    let date = jiff::fmt::rfc2822::parse(&text.replace("GMT", "+0000")).ok()?;
    SystemTime::try_from(date.timestamp()).ok()
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        let at = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(seconds(at), 784_111_777);
        assert_eq!(http_date("soon"), None);
    }

    #[test]
    fn a_page_of_a_proxy_becomes_a_problem() {
        let made = problem(http::StatusCode::BAD_GATEWAY, b"<html>bad\ngateway</html>".to_vec());
        let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(made["detail"], "HTTP 502 Bad Gateway: <html>badgateway</html>");
        let real = br#"{"type":"urn:ietf:params:acme:error:dns","detail":"no"}"#.to_vec();
        assert_eq!(problem(http::StatusCode::BAD_REQUEST, real.clone()), real);
    }
}
