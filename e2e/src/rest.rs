//! The REST API, as a script sees it.

use std::time::Duration;

use reqwest::{Method, header};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Somebody with a token.
pub struct Rest {
    runtime: Runtime,
    client: reqwest::Client,
    url: String,
    /// Sent with each request.
    pub token: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP.
    pub status: u16,
    /// The first cookie that it sets.
    pub cookie: Option<String>,
    /// JSON; null if it is none.
    pub json: Value,
    /// As it came.
    pub text: String,
}

impl Answer {
    /// The body, if all is well.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text);
        self.json
    }
}

impl Rest {
    /// Nobody has signed in.
    ///
    /// # Panics
    /// When this machine cannot do HTTP.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        // A fresh connection each time: the other side may have been killed meanwhile.
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(20)).pool_max_idle_per_host(0).build();
        Self {
            runtime: runtime.unwrap_or_else(|error| panic!("a runtime: {error}")),
            client: client.unwrap_or_else(|error| panic!("a client: {error}")),
            url: url.to_owned(),
            token: String::new(),
        }
    }

    /// One request; `None` when nobody answers.
    pub fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            let cookie = answer.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
            let cookie = cookie.and_then(|value| Some(value.split(';').next()?.to_owned()));
            let text = answer.text().await.ok()?;
            Some(Answer { status, cookie, json: serde_json::from_str(&text).unwrap_or_default(), text })
        })
    }

    /// One request.
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let what = format!("{method} {path}");
        self.try_send(method, path, headers, body).unwrap_or_else(|| panic!("no answer: {what}"))
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, &[], "").ok()
    }

    /// POST of JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], &body.to_string())
    }

    /// PUT of JSON.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], &body.to_string())
    }
}
