//! Documents behind a URL. No redirects, a limited size, and no address that leads to the machine's own secrets.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use awe4lb_model::discovery::HttpSource;
use reqwest::{
    Certificate, Client, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ETAG, IF_NONE_MATCH},
    redirect::Policy,
};

use crate::{Allowed, Answer, Failure, format};

/// One source's client, which keeps its connection.
pub(crate) struct Http {
    client: Client,
    /// Of the last answer, where the server gives one.
    last: Option<(String, Answer)>,
}

/// Refuses addresses that are not allowed, whatever name leads to them.
struct Guarded(Arc<Allowed>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                allowed.address(address.ip()).map_err(|failure| failure.0)?;
                addresses.push(address);
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl Http {
    pub(crate) fn new(source: &HttpSource, allowed: &Arc<Allowed>) -> Result<Self, Failure> {
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Guarded(allowed.clone())))
            .pool_idle_timeout(Duration::from_secs(60))
            .user_agent(concat!("awe4lb/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &source.ca_pem {
            let roots = Certificate::from_pem_bundle(pem.as_bytes());
            let roots = roots.map_err(|error| Failure::new(format!("ca: {error}")))?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| Failure::new(chain(&error)))?;
        Ok(Self { client, last: None })
    }

    pub(crate) async fn ask(&mut self, source: &HttpSource, allowed: &Allowed) -> Result<Answer, Failure> {
        let url: Url = source.url.parse().map_err(|error| Failure::new(format!("url: {error}")))?;
        // An address in the URL is looked up by nobody.
        let literal =
            url.host_str().map(|host| host.trim_matches(['[', ']'])).and_then(|host| host.parse().ok());
        if let Some(ip) = literal {
            allowed.address(ip)?;
        }
        let mut request = self.client.get(url);
        for (name, value) in &source.headers {
            request = request.header(&**name, &**value);
        }
        if let Some(file) = &source.token_file {
            request = request.bearer_auth(token(file, allowed)?);
        }
        if let Some((etag, _)) = &self.last {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = request.send().await.map_err(|error| Failure::new(chain(&error)))?;
        let status = response.status();
        if let (StatusCode::NOT_MODIFIED, Some((_, last))) = (status, &self.last) {
            return Ok(last.clone());
        }
        if status.is_redirection() {
            return Err(Failure::new(format!(
                "{status}: redirects are not followed; give the address it leads to"
            )));
        }
        if status != StatusCode::OK {
            let hint = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": see tokenFile and headers",
                _ => "",
            };
            return Err(Failure::new(format!("{status}{hint}")));
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let most = source.max_bytes as usize;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| Failure::new(chain(&error)))? {
            if body.len() + piece.len() > most {
                return Err(Failure::new(format!("the answer has more than {most} bytes (maxBytes)")));
            }
            body.extend_from_slice(&piece);
        }
        let answer = format::read(&body, &source.format)?;
        self.last = etag.map(|etag| (etag, answer.clone()));
        Ok(answer)
    }
}

fn token(file: &str, allowed: &Allowed) -> Result<String, Failure> {
    allowed.file(file)?;
    let text = std::fs::read_to_string(file).map_err(|error| Failure::new(format!("{file}: {error}")))?;
    Ok(text.trim().to_owned())
}

/// The causes of an error, outermost first: the outermost alone says nothing.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Where clouds keep the credentials of their machines, beside the link-local addresses.
pub(crate) fn is_delicate(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets() == [100, 100, 100, 200],
        IpAddr::V6(ip) => {
            let is_link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            is_link_local || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}
