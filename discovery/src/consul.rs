//! Consul: instances of services, by blocking queries: the agent answers when something has changed.

use std::{sync::Arc, time::Duration};

use awe4lb_model::{BackendAddress, discovery::ConsulSource, document::backend_address};
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use reqwest::{Client, StatusCode, Url, header::HeaderMap};
use serde::Deserialize;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    web::{self, Web},
};

/// Changes of so much time are one answer: a deployment is many of them.
const GATHER: Duration = Duration::from_millis(50);
/// An agent that answers without news, or not at all, is not asked again sooner.
const CALM: Duration = Duration::from_millis(500);
/// The longest that an agent lets somebody wait.
const LONGEST: Duration = Duration::from_secs(600);

/// What is known of one source's services.
#[derive(Default)]
pub(crate) struct Consul {
    web: Option<Web>,
    /// In the order of the source. Empty: nothing is known.
    services: Vec<Known>,
    /// Questions that are answered when something changes, one a service.
    waiting: FuturesUnordered<BoxFuture<'static, (usize, Result<Known, Failure>)>>,
    /// How long those may take, and how long any other one.
    patience: (Duration, Duration),
    /// Waiting ended in something else than an answer.
    is_troubled: bool,
}

/// The instances of one service.
#[derive(Clone, Default, PartialEq)]
struct Known {
    instances: Vec<Instance>,
    /// What to wait for a change of. `None`: the agent said nothing to wait for.
    index: Option<u64>,
}

/// One question.
#[derive(Clone)]
struct Question {
    client: Client,
    url: Url,
    token: Option<String>,
    most: usize,
}

impl Consul {
    /// What the services are now: as the answers say that were waited for, or by asking for all of them.
    pub(crate) async fn ask(
        &mut self,
        source: &ConsulSource,
        times: (Duration, Duration),
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        self.patience = times;
        // What nobody waits for is asked each time.
        if self.services.iter().any(|known| known.index.is_none()) || self.services.is_empty() {
            self.ask_all(source, allowed).await?;
        }
        Ok(answer(source, &self.services))
    }

    async fn ask_all(&mut self, source: &ConsulSource, allowed: &Arc<Allowed>) -> Result<(), Failure> {
        self.waiting.clear();
        let client = web::fresh(&mut self.web, &source.tls, allowed)?.client();
        let questions: Vec<Question> = source
            .services
            .iter()
            .map(|service| question(source, service, &client, allowed))
            .collect::<Result<_, _>>()?;
        let asked = questions.iter().map(|question| ask_once(question.clone(), None, None));
        let known: Vec<Known> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
        for (at, question) in questions.into_iter().enumerate() {
            if let Some(index) = known[at].index {
                self.wait_for(at, question, index, Duration::ZERO);
            }
        }
        self.services = known;
        self.is_troubled = false;
        Ok(())
    }

    /// Asks the agent to answer when the service is another than at `index`.
    fn wait_for(&mut self, at: usize, question: Question, index: u64, delay: Duration) {
        let (interval, timeout) = self.patience;
        let wait = interval.min(LONGEST).mul_f64(rand::random_range(0.9..1.1));
        // The agent adds up to a sixteenth, so that not all ask again at once.
        let patience = wait + wait / 16 + timeout;
        let waiting = async move {
            tokio::time::sleep(delay).await;
            let mut index = index;
            loop {
                let asked = ask_once(question.clone(), Some(index), Some(wait));
                let known = match tokio::time::timeout(patience, asked).await {
                    Ok(Ok(known)) => known,
                    Ok(Err(failure)) => return (at, Err(failure)),
                    Err(_) => return (at, Err(Failure::new("the agent does not answer in time"))),
                };
                match known.index {
                    // It was waited for in vain.
                    Some(next) if next == index => {}
                    // Forgotten or begun anew: what is waited for must not be something that never comes.
                    Some(next) if next > index => return (at, Ok(known)),
                    _ => return (at, Ok(Known { index: None, ..known })),
                }
                index = known.index.unwrap_or(index);
            }
        };
        self.waiting.push(waiting.boxed());
    }

    /// Waits until a service is another one, or an agent fails, which [`Self::ask`] then finds out about.
    pub(crate) async fn changed(&mut self, source: &ConsulSource, allowed: &Arc<Allowed>) {
        loop {
            let Some((at, result)) = self.waiting.next().await else { return std::future::pending().await };
            if !self.take(source, at, result, allowed) {
                continue;
            }
            // Not without end, where waiting fails and asking does not.
            tokio::time::sleep(if self.is_troubled { CALM } else { GATHER }).await;
            while let Some(Some((at, result))) = self.waiting.next().now_or_never() {
                self.take(source, at, result, allowed);
            }
            return;
        }
    }

    /// True: there is something new to say.
    fn take(
        &mut self,
        source: &ConsulSource,
        at: usize,
        result: Result<Known, Failure>,
        allowed: &Arc<Allowed>,
    ) -> bool {
        // Everything is asked anew, which tells what is wrong, or what the indices are now.
        let begin_anew = |this: &mut Self| {
            this.services.clear();
            this.waiting.clear();
            this.is_troubled = true;
            true
        };
        let is_outdated = self.web.as_ref().is_none_or(Web::is_outdated);
        let Ok(known) = result else { return begin_anew(self) };
        let Some(index) = known.index.filter(|_| !is_outdated) else { return begin_anew(self) };
        let (Some(web), Some(service)) = (&self.web, source.services.get(at)) else {
            return begin_anew(self);
        };
        let Ok(question) = question(source, service, &web.client(), allowed) else { return begin_anew(self) };
        let is_news = self.services.get(at).is_some_and(|before| before.instances != known.instances);
        if let Some(before) = self.services.get_mut(at) {
            *before = known;
        }
        // Others write to the same index: those are no news, and must not make us ask without end.
        self.wait_for(at, question, index, if is_news { Duration::ZERO } else { CALM });
        is_news
    }

    /// Whether somebody waits for changes.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

fn question(
    source: &ConsulSource,
    service: &str,
    client: &Client,
    allowed: &Allowed,
) -> Result<Question, Failure> {
    let mut url = web::url(&source.url, allowed)?;
    url.path_segments_mut()
        .map_err(|()| Failure::new("url: it has no path"))?
        .pop_if_empty()
        .extend(["v1", "health", "service", service]);
    {
        let mut query = url.query_pairs_mut();
        // Any server may answer, not the leader alone: an answer a moment old is better than none.
        query.append_key_only("stale");
        if source.passing_only {
            query.append_key_only("passing");
        }
        for tag in &source.tags {
            query.append_pair("tag", tag);
        }
        let named = [("dc", &source.datacenter), ("ns", &source.namespace), ("partition", &source.partition)];
        for (key, value) in named {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
    }
    let token = source.token_file.as_deref().map(|file| web::secret(file, allowed)).transpose()?;
    Ok(Question { client: client.clone(), url, token, most: source.max_bytes as usize })
}

async fn ask_once(question: Question, index: Option<u64>, wait: Option<Duration>) -> Result<Known, Failure> {
    let mut url = question.url;
    if let (Some(index), Some(wait)) = (index, wait) {
        let mut query = url.query_pairs_mut();
        query.append_pair("index", &index.to_string());
        query.append_pair("wait", &format!("{}ms", wait.as_millis()));
    }
    let mut request = question.client.get(url);
    if let Some(token) = &question.token {
        request = request.header("X-Consul-Token", token);
    }
    let response = request.send().await.map_err(|error| Failure::new(web::chain(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(web::refused(response, "tokenFile").await);
    }
    let headers = response.headers().clone();
    let body = web::body(response, question.most).await?;
    let instances: Vec<Instance> = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(format!("not what Consul says: {error}")))?;
    // What a token may not see is left out, without an error.
    if instances.is_empty() && header(&headers, "x-consul-results-filtered-by-acls") == Some("true") {
        return Err(Failure::new(
            "the token may not see the service (see tokenFile): it needs service:read and node:read",
        ));
    }
    // 0 is no index: waiting for a change of it would return at once, for ever.
    let index =
        header(&headers, "x-consul-index").and_then(|index| index.parse().ok()).filter(|index| *index > 0);
    Ok(Known { instances, index })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// As `/v1/health/service/…` gives it; what is not there is empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Instance {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    node: String,
    address: String,
    datacenter: String,
    locality: Option<Locality>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    address: String,
    port: i64,
    tags: Option<Vec<String>>,
    meta: Option<std::collections::BTreeMap<String, String>>,
    weights: Option<Weights>,
    locality: Option<Locality>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weights {
    passing: i64,
    warning: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Locality {
    zone: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    status: String,
}

/// All instances of all services, in the order of the services.
fn answer(source: &ConsulSource, services: &[Known]) -> Answer {
    let mut answer = Answer::default();
    for (service, known) in source.services.iter().zip(services) {
        for instance in &known.instances {
            match endpoint(instance) {
                Ok(endpoint) => answer.endpoints.push(endpoint),
                Err(why) => answer.rejected.push(format!("{service} {}: {why}", instance.service.id)),
            }
        }
    }
    answer
}

fn endpoint(instance: &Instance) -> Result<Endpoint, String> {
    let (node, service) = (&instance.node, &instance.service);
    let host = if service.address.is_empty() { &node.address } else { &service.address };
    let host = match host.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_ipv6() => format!("[{ip}]"),
        _ => host.clone(),
    };
    let port = match service.port {
        0 => None,
        port => Some(u16::try_from(port).map_err(|_| format!("{port} is no port"))?),
    };
    let address = backend_address(&host)?;
    if address.port.is_some() {
        return Err(format!("{host:?} is no host"));
    }
    let mut endpoint = Endpoint::at(BackendAddress { port, ..address });
    endpoint.weight = weight(instance);
    for tag in service.tags.iter().flatten() {
        match tag.split_once('=') {
            Some(("weight", value)) => endpoint.weight = Some(share(tag, value)?),
            Some(("priority", value)) => endpoint.priority = Some(share(tag, value)?),
            Some((key, value)) => endpoint = endpoint.label(key, value),
            None => endpoint = endpoint.label(tag, ""),
        }
    }
    for (key, value) in service.meta.iter().flatten() {
        endpoint = endpoint.label(key, value);
    }
    let zone = service.locality.as_ref().or(node.locality.as_ref()).map(|locality| locality.zone.as_str());
    let known = [
        ("zone", zone.unwrap_or_default()),
        ("service", &service.service),
        ("node", &node.node),
        ("datacenter", &node.datacenter),
    ];
    Ok(known
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .fold(endpoint, |endpoint, (key, value)| endpoint.label(key, value)))
}

/// By its checks: an instance that warns may have a weight of its own.
fn weight(instance: &Instance) -> Option<u32> {
    let weights = instance.service.weights.as_ref()?;
    let warns = instance.checks.iter().flatten().any(|check| check.status == "warning");
    let weight = if warns { weights.warning } else { weights.passing };
    u32::try_from(weight).ok().map(|weight| weight.min(65_535))
}

fn share(tag: &str, value: &str) -> Result<u32, String> {
    let number = value.parse::<u32>().ok().filter(|number| *number <= 65_535);
    number.ok_or_else(|| format!("the tag {tag:?} has no number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Endpoint, String> {
        endpoint(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_an_instance_says_of_itself_counts() {
        let one = read(
            r#"{"Node": {"Node": "n1", "Address": "10.1.0.1", "Datacenter": "dc1", "Meta": null},
            "Service": {"ID": "web-1", "Service": "web", "Address": "10.0.0.1", "Port": 80, "Kind": "", "Tags": ["sni=a.b", "canary"],
                "Meta": {"zone": "east", "app": "shop"}, "Weights": {"Passing": 7, "Warning": 2}},
            "Checks": [{"Status": "passing"}]}"#,
        )
        .unwrap();
        assert_eq!(
            (one.address.to_string(), one.weight, one.priority),
            ("10.0.0.1:80".into(), Some(7), None)
        );
        let labels: Vec<_> = one.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let known =
            ["app=shop", "canary=", "datacenter=dc1", "node=n1", "service=web", "sni=a.b", "zone=east"];
        assert_eq!(labels, known);
    }

    #[test]
    fn the_node_s_address_and_tags_and_checks_fill_in() {
        let text = r#"{"Node": {"Address": "2001:db8::1"}, "Service": {"Address": "", "Port": 80, "Tags": TAGS,
            "Weights": {"Passing": 7, "Warning": 2}}, "Checks": [{"Status": "passing"}, {"Status": "warning"}]}"#;
        let one = read(&text.replace("TAGS", "null")).unwrap();
        assert_eq!((one.address.to_string(), one.weight), ("[2001:db8::1]:80".into(), Some(2)));
        let one = read(&text.replace("TAGS", r#"["weight=9", "priority=1"]"#)).unwrap();
        assert_eq!((one.weight, one.priority), (Some(9), Some(1)));
        assert!(read(&text.replace("TAGS", r#"["weight=many"]"#)).unwrap_err().contains("weight=many"));
        assert!(
            read(r#"{"Service": {"Address": "10.0.0.1", "Port": 70000}}"#).unwrap_err().contains("70000")
        );
        assert!(read(r#"{"Service": {"Address": "10.0.0.1:80", "Port": 1}}"#).is_err());
        assert!(
            read(r#"{"Service": {"Address": "app.internal", "Port": 0}}"#).unwrap().address.port.is_none()
        );
        assert!(read("{}").is_err());
    }
}
