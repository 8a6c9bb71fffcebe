//! The HTTP hook: `POST URL/present` and `POST URL/cleanup` with `{"fqdn", "value"}`, as other clients have it.

use std::sync::Arc;

use awe4lb_discovery::{
    Allowed,
    web::{self, Web},
};
use awe4lb_model::{acme::Secret, discovery::ClientTls};
use serde_json::json;

use super::Record;

pub(super) async fn send(
    url: &str,
    ca_pem: Option<&str>,
    secret: Option<&Secret>,
    act: &str,
    record: &Record,
    allowed: &Arc<Allowed>,
) -> Result<(), String> {
    let url = web::url(&format!("{url}/{act}"), allowed).map_err(|failure| failure.0)?;
    let tls = ClientTls { ca_pem: ca_pem.map(Into::into), identity: None };
    let client = Web::new(&tls, allowed).map_err(|failure| failure.0)?.client();
    let mut request =
        client.post(url).json(&json!({"fqdn": format!("{}.", record.name), "value": record.value}));
    if let Some(secret) = secret {
        request = request.bearer_auth(&secret.0);
    }
    let answer = request.send().await.map_err(|error| web::chain(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(web::refused(answer, "\"secret\" of the hook").await.0)
}
