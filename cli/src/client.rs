//! The REST API, called.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, Response, header};
use serde_json::Value;

use crate::{args::Global, context::Context, failure::Failure};

/// Where the control plane is when nobody says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// A control plane.
pub struct Client {
    http: reqwest::Client,
    /// Without a slash at its end.
    pub server: String,
    token: Option<String>,
    /// Of the certificate that is trusted besides those of the system.
    pub ca_certificate: Option<String>,
}

impl Client {
    /// By flags, environment and login.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let login = Context::load()?.unwrap_or_default();
        let server = global.server.clone().unwrap_or_else(|| {
            if login.server.is_empty() { DEFAULT_SERVER.to_owned() } else { login.server.clone() }
        });
        let server = server.trim_end_matches('/').to_owned();
        let ca_certificate = match &global.cacert {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(text.with_context(|| format!("--cacert {}", path.display()))?)
            }
            // What was trusted for one control plane is not for another.
            None => login.ca_certificate.filter(|_| login.server == server),
        };
        let token = match (&global.token, &global.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                Some(text.with_context(|| format!("--token-file {}", path.display()))?.trim().to_owned())
            }
            (None, None) => Some(login.token).filter(|token| !token.is_empty() && login.server == server),
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("awe4lb/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &ca_certificate {
            let certificate =
                reqwest::Certificate::from_pem(pem.as_bytes()).context("the certificate to trust")?;
            builder = builder.add_root_certificate(certificate);
        }
        let http = builder.build().context("set up HTTP")?;
        Ok(Self { http, server, token, ca_certificate })
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request =
            self.http.request(method, format!("{}{path}", self.server)).header("awe4lb-client", "cli");
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A request without it: signing in.
    pub fn anonymous(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server))
    }

    /// Sends; what is no success is a failure. `file`: whose places errors name.
    pub async fn send(
        &self,
        request: reqwest::RequestBuilder,
        file: Option<&str>,
    ) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.text().await.unwrap_or_default();
        Err(Failure::of_answer(status.as_u16(), &body, file))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        // The last cause says it: connection refused, unknown issuer.
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let mut text = format!("no answer from {}: {cause}", self.server);
        if cause.to_string().contains("UnknownIssuer") {
            text += " (--cacert DATA/http-cert.pem of the control plane)";
        }
        Failure::Unavailable(text)
    }

    /// GET, JSON.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.send(self.request(Method::GET, path), None).await?;
        json(answer).await
    }

    /// All pages of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{separator}limit=1000{cursor}")).await?;
            if let Value::Array(of_page) = &page["items"] {
                items.extend(of_page.iter().cloned());
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={}", encode(next)),
                None => return Ok(items),
            }
        }
    }

    /// POST, JSON to JSON; an empty answer is null.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(body.to_string()), None).await?;
        json(answer).await
    }
}

/// A body as JSON.
pub async fn json(answer: Response) -> Result<Value, Failure> {
    let text = answer
        .text()
        .await
        .map_err(|error| Failure::Unavailable(format!("the answer broke off: {error}")))?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let value =
        serde_json::from_str(&text).context("the answer is no JSON: is this a control plane of awe4lb?")?;
    Ok(value)
}

/// For paths and queries.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}
