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
