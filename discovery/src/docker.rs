//! Docker and Podman: running containers by their labels, asked again when the engine tells of a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use awe4lb_model::{
    BackendAddress, BackendHost, LabelSelector, Labels, Protocol,
    discovery::{ApiAddress, ContainerPort, DockerSource, may_be_backend},
    document::{backend_address, container_port},
};
use futures_util::future::BoxFuture;
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    api::{Api, by_labels, items},
};

/// Changes of so much time are one answer: a deployment is many of them.
const GATHER: Duration = Duration::from_millis(100);
/// A stream of events that ended is not opened again sooner.
const CALM: Duration = Duration::from_secs(1);
/// An engine (or a proxy before it) that refuses its events so often in a row is asked by the interval alone.
const MOST_REFUSALS: u32 = 3;
/// `GET /containers/json`, those that run.
const LIST: &str = "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%5D%7D";
/// The same, those of them whose own health check does not pass, or has not yet.
const ILL: &str = "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%5D%2C%22health%22%3A%5B%22starting%22%2C%22unhealthy%22%5D%7D";
/// `GET /events`, those of containers and of networks that they join or leave.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";
/// Labels that say something about a container's backend begin so.
pub(crate) const PREFIX: &str = "awe4lb.";

/// One source's engine.
#[derive(Default)]
pub(crate) struct Docker {
    api: Api,
    events: Option<Events>,
    /// In a row.
    refusals: u32,
}

/// The engine's stream of events.
enum Events {
    /// Podman says nothing at all, not even that it is listening, before the first event.
    Opening(BoxFuture<'static, Result<Response, Failure>>),
    Open(Response),
}

impl Docker {
    /// Which containers there are. `select`: others are not even looked at, so that nothing is said of them.
    pub(crate) async fn ask(
        &mut self,
        source: &DockerSource,
        select: Option<&LabelSelector>,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        if self.events.is_none() {
            // Before the list, so that little happens in between. Without it the interval has to do.
            self.events =
                self.api.opening(&source.api, &events_of(source), allowed).ok().map(Events::Opening);
        }
        let (api, of) = (&mut self.api, &source.api);
        let lists = async move {
            let listed: Vec<Value> = api.get(of, LIST, allowed).await?;
            // Docker's list says in words how healthy they are, Podman's not at all.
            let ill: Vec<Value> = api.get(of, ILL, allowed).await?;
            Ok::<_, Failure>((listed, ill))
        };
        let (listed, ill) = match &mut self.events {
            Some(Events::Opening(opening)) => {
                let mut lists = pin!(lists);
                tokio::select! {
                    biased;
                    opened = opening => {
                        self.events = opened.ok().map(Events::Open);
                        self.refusals = if self.events.is_some() { 0 } else { self.refusals + 1 };
                        lists.await?
                    }
                    lists = &mut lists => lists?,
                }
            }
            Some(Events::Open(_)) | None => lists.await?,
        };
        if self.events.is_none() && (1..=MOST_REFUSALS).contains(&self.refusals) {
            // A connection of before a restart is worth nothing, and the engine is there: once more, at once.
            self.events = self.api.opening(of, &events_of(source), allowed).ok().map(Events::Opening);
        }
        let ill: BTreeSet<&str> = ill.iter().filter_map(|one| one["Id"].as_str()).collect();
        Ok(answer(source, select, listed, &ill))
    }

    /// Waits until the engine tells of a change.
    pub(crate) async fn changed(&mut self) {
        let events = match &mut self.events {
            None => return std::future::pending().await,
            Some(Events::Open(events)) => events,
            Some(Events::Opening(opening)) => match opening.await {
                Ok(events) => {
                    // It may have been opened by what is to be told: then that is the first piece.
                    self.refusals = 0;
                    self.events = Some(Events::Open(events));
                    let Some(Events::Open(events)) = &mut self.events else { return };
                    events
                }
                Err(_) => {
                    self.events = None;
                    self.refusals += 1;
                    if self.refusals > MOST_REFUSALS {
                        return std::future::pending().await;
                    }
                    return tokio::time::sleep(CALM).await;
                }
            },
        };
        match events.chunk().await {
            Ok(Some(_)) => {
                tokio::time::sleep(GATHER).await;
                while let Some(Ok(Some(_))) = futures_util::FutureExt::now_or_never(events.chunk()) {}
            }
            Ok(None) | Err(_) => {
                self.events = None;
                tokio::time::sleep(CALM).await;
            }
        }
    }
}

/// Where its events are. Nobody says when an engine begins to listen to itself, so it is told from when on: what happens in between is
/// told then. That needs one clock: an engine elsewhere may have another.
fn events_of(source: &DockerSource) -> String {
    match &source.api.address {
        ApiAddress::Unix(_) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{EVENTS}&since={}", now.as_secs())
        }
        ApiAddress::Url(_) => EVENTS.to_owned(),
    }
}

/// As both engines list it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Container {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    labels: Option<BTreeMap<String, String>>,
    state: String,
    status: String,
    ports: Option<Vec<Port>>,
    network_settings: Option<Networks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Port {
    #[serde(rename = "IP")]
    ip: String,
    private_port: u16,
    public_port: u16,
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Networks {
    networks: Option<BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

impl Container {
    fn name(&self) -> &str {
        let first = self.names.iter().flatten().next().map(|name| name.trim_start_matches('/'));
        first.unwrap_or_else(|| self.id.get(..12).unwrap_or(&self.id))
    }

    /// Runs, and is not known to be ill or not ready yet.
    fn is_ready(&self) -> bool {
        let is_ill =
            ["(unhealthy)", "(health: starting)", "(starting)"].iter().any(|word| self.status.contains(word));
        self.state.eq_ignore_ascii_case("running") && !is_ill
    }

    fn labels(&self) -> Labels {
        let mut labels: Labels = self.labels.clone().unwrap_or_default();
        labels.entry("container".to_owned()).or_insert_with(|| self.name().to_owned());
        labels.entry("image".to_owned()).or_insert_with(|| self.image.clone());
        labels
    }
}

fn answer(
    source: &DockerSource,
    select: Option<&LabelSelector>,
    listed: Vec<Value>,
    ill: &BTreeSet<&str>,
) -> Answer {
    let mut answer = Answer::default();
    let containers: Vec<Container> = items(listed, &mut answer.rejected);
    for container in containers.iter().filter(|one| one.is_ready() && !ill.contains(&*one.id)) {
        let labels = container.labels();
        if select.is_some_and(|select| !select.matches(&labels)) {
            continue;
        }
        match endpoint(source, container, &labels) {
            Ok(endpoint) => answer.endpoints.push(endpoint),
            Err(why) => answer.rejected.push(format!("container {}: {why}", container.name())),
        }
    }
    // The engine lists the newest first, and another order is no other answer.
    answer.endpoints.sort_by_key(|endpoint| endpoint.address.to_string());
    answer
}

fn endpoint(source: &DockerSource, container: &Container, labels: &Labels) -> Result<Endpoint, String> {
    let labelled = match labels.get("awe4lb.port") {
        Some(text) => {
            let port = container_port(text);
            Some(port.ok_or_else(|| format!("the label awe4lb.port is {text:?}, which is no port"))?)
        }
        None => None,
    };
    let wanted = labelled.or(source.port);
    let address = match source.network.as_deref() {
        Some("host") => BackendAddress { port: wanted.map(|port| port.number), ..host_of(source)? },
        Some(network) => in_network(container, network, wanted)?,
        None => published(source, container, wanted)?,
    };
    let mut endpoint = Endpoint::at(address);
    for (key, value) in labels {
        endpoint = endpoint.label(key, value);
    }
    by_labels(endpoint, PREFIX)
}

/// Its address within a network, which the nodes have to reach.
fn in_network(
    container: &Container,
    network: &str,
    wanted: Option<ContainerPort>,
) -> Result<BackendAddress, String> {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let found = networks.and_then(|networks| networks.get(network)).and_then(Option::as_ref);
    let found = found.ok_or_else(|| format!("it is not in the network {network:?}"))?;
    let ip = [&found.v4, &found.v6].into_iter().find_map(|text| text.parse::<IpAddr>().ok());
    let ip =
        ip.filter(|ip| may_be_backend(*ip)).ok_or_else(|| format!("it has no address in {network:?}"))?;
    let port = match wanted {
        Some(port) => Some(port.number),
        None => only(container.ports.iter().flatten().map(|port| port.private_port))?,
    };
    Ok(BackendAddress { host: BackendHost::Ip(ip), port })
}

/// Where the engine has published its port.
fn published(
    source: &DockerSource,
    container: &Container,
    wanted: Option<ContainerPort>,
) -> Result<BackendAddress, String> {
    let is_wanted = |port: &&Port| wanted.is_none_or(|wanted| is_of(port, wanted));
    let all: Vec<&Port> =
        container.ports.iter().flatten().filter(|port| port.public_port != 0).filter(is_wanted).collect();
    if all.is_empty() {
        return Err(match wanted {
            Some(port) => {
                format!("its port {} is not published: publish it, or name a \"network\"", port.number)
            }
            None => "it publishes no port: publish one, or name a \"network\"".to_owned(),
        });
    }
    only(all.iter().map(|port| port.private_port))?;
    // By IPv4 and by IPv6 it is the same port: one of them will do.
    let port =
        all.iter().find(|port| !port.ip.contains(':')).or(all.first()).ok_or("it publishes no port")?;
    let host = match port.ip.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => BackendAddress { host: BackendHost::Ip(ip), port: None },
        _ => host_of(source)?,
    };
    Ok(BackendAddress { port: Some(port.public_port), ..host })
}

fn is_of(port: &Port, wanted: ContainerPort) -> bool {
    let is_transport = match wanted.transport {
        None => true,
        Some(Protocol::Tcp) => port.r#type == "tcp",
        Some(Protocol::Udp) => port.r#type == "udp",
    };
    port.private_port == wanted.number && is_transport
}

/// The one port there is; none is none.
fn only(ports: impl Iterator<Item = u16>) -> Result<Option<u16>, String> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    match ports.as_slice() {
        [] => Ok(None),
        [port] => Ok(Some(*port)),
        several => Err(format!(
            "it has the ports {several:?}: say which by \"containerPort\" or its label awe4lb.port"
        )),
    }
}

/// Where the engine's ports are.
fn host_of(source: &DockerSource) -> Result<BackendAddress, String> {
    let host = match (&source.host, &source.api.address) {
        (Some(host), _) => host,
        (None, ApiAddress::Unix(_)) => "127.0.0.1",
        (None, ApiAddress::Url(url)) => {
            let rest = url.split("://").nth(1).unwrap_or_default();
            match rest.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                _ => rest,
            }
        }
    };
    let text = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_owned(),
    };
    backend_address(&text).map_err(|why| format!("host: {why}"))
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
