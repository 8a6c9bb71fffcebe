//! The API of a manager of containers: JSON over a unix socket, or over TCP with or without TLS.

use std::sync::Arc;

use awe4lb_model::discovery::{ApiAddress, ContainerApi};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::{
    Allowed, Endpoint, Failure,
    web::{self, Web},
};

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
        let sent = client.get(url).send().await;
        let response =
            sent.map_err(|error| Failure::new(told(socket.unwrap_or(base), &web::chain(&error))))?;
        if response.status() != StatusCode::OK {
            return Err(web::refused(response, "certFile and keyFile").await);
        }
        Ok(response)
    }
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
