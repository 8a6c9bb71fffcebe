//! Kubernetes: what a cluster's API says is ready. Endpoints and pods are watched (LIST, then WATCH with bookmarks, a new
//! LIST after 410 Gone); services and nodes are asked again and again.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use awe4lb_model::{
    BackendAddress, BackendHost,
    discovery::{KubernetesMode, KubernetesSource},
    document::backend_address,
};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};

use crate::{Allowed, Answer, Endpoint, Failure};

/// Changes of so much time are one answer: a rollout is many of them.
const GATHER: Duration = Duration::from_millis(50);

/// One source's view of a cluster.
pub(crate) struct Kubernetes {
    client: Client,
    namespace: String,
    watched: Option<Watched>,
}

/// A watch over one kind of objects.
enum Watched {
    Slices(Watch<EndpointSlice>),
    Pods(Watch<Pod>),
}

struct Watch<K> {
    api: Api<K>,
    stream: Events<K>,
    /// What is there, by name.
    objects: HashMap<String, K>,
    /// A list that is not whole yet.
    listing: HashMap<String, K>,
    is_listed: bool,
    /// Why the stream broke, until something shows that it goes on.
    broken: Option<String>,
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>>;

impl<K> Watch<K>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    fn new(api: Api<K>, config: watcher::Config) -> Self {
        let stream = watcher(api.clone(), config).default_backoff().boxed();
        Self { api, stream, objects: HashMap::new(), listing: HashMap::new(), is_listed: false, broken: None }
    }

    /// The next event. True: something is different now.
    async fn step(&mut self) -> bool {
        let Some(event) = self.stream.next().await else { return std::future::pending().await };
        let name = |object: &K| object.meta().name.clone().unwrap_or_default();
        match event {
            Ok(watcher::Event::Init) => self.listing.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                self.listing.insert(name(&object), object);
            }
            Ok(watcher::Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listing);
                self.is_listed = true;
                self.broken = None;
                return true;
            }
            Ok(watcher::Event::Apply(object)) => {
                self.objects.insert(name(&object), object);
                self.broken = None;
                return true;
            }
            Ok(watcher::Event::Delete(object)) => {
                self.objects.remove(&name(&object));
                self.broken = None;
                return true;
            }
            Err(error) => {
                self.broken = Some(said(&error));
                return true;
            }
        }
        false
    }

    /// Until there is a whole list, or a reason why not.
    async fn ready(&mut self) -> Result<(), Failure> {
        while !self.is_listed && self.broken.is_none() {
            self.step().await;
        }
        if self.broken.is_none() {
            return Ok(());
        }
        // A watch that goes on says nothing as long as nothing changes: whether it can is asked in another way.
        match self.api.list(&ListParams::default().limit(1)).await {
            Ok(_) if self.is_listed => {
                self.broken = None;
                Ok(())
            }
            Ok(_) => Err(Failure::new(self.broken.clone().unwrap_or_default())),
            Err(error) => Err(Failure::new(said(&error))),
        }
    }

    /// Until there is something new to say. That it broke is news once.
    async fn changed(&mut self) {
        let was_broken = self.broken.is_some();
        while !self.step().await || (was_broken && self.broken.is_some()) {}
        let gathered = async {
            loop {
                self.step().await;
            }
        };
        let _ = tokio::time::timeout(GATHER, gathered).await;
    }
}

impl Kubernetes {
    pub(crate) async fn new(source: &KubernetesSource, allowed: &Arc<Allowed>) -> Result<Self, Failure> {
        let config = match &source.kubeconfig {
            Some(path) => {
                allowed.file(path)?;
                let read = Kubeconfig::read_from(&**path);
                let read = read.map_err(|error| Failure::new(format!("{path}: {}", said(&error))))?;
                let options = KubeConfigOptions {
                    context: source.context.as_deref().map(Into::into),
                    ..Default::default()
                };
                let config = Config::from_custom_kubeconfig(read, &options).await;
                config.map_err(|error| Failure::new(format!("{path}: {}", said(&error))))?
            }
            None => Config::incluster().map_err(|error| {
                Failure::new(format!("not within a cluster, and no kubeconfig: {}", said(&error)))
            })?,
        };
        let namespace =
            source.namespace.as_deref().map_or_else(|| config.default_namespace.clone(), Into::into);
        let client = Client::try_from(config).map_err(|error| Failure::new(said(&error)))?;
        Ok(Self { client, namespace, watched: None })
    }

    pub(crate) async fn ask(&mut self, source: &KubernetesSource) -> Result<Answer, Failure> {
        let port = source.port.as_deref();
        match &source.mode {
            KubernetesMode::Endpoints(service) => {
                let (client, namespace) = (self.client.clone(), &self.namespace);
                let watched = self.watched.get_or_insert_with(|| {
                    let labels = format!("kubernetes.io/service-name={service}");
                    let api = Api::namespaced(client, namespace);
                    Watched::Slices(Watch::new(api, watcher::Config::default().labels(&labels)))
                });
                let Watched::Slices(watch) = watched else { return Ok(Answer::default()) };
                watch.ready().await?;
                endpoints(watch.objects.values(), port)
            }
            KubernetesMode::Pods(selector) => {
                let (client, namespace) = (self.client.clone(), &self.namespace);
                let watched = self.watched.get_or_insert_with(|| {
                    let api = Api::namespaced(client, namespace);
                    Watched::Pods(Watch::new(api, watcher::Config::default().labels(selector)))
                });
                let Watched::Pods(watch) = watched else { return Ok(Answer::default()) };
                watch.ready().await?;
                Ok(pods(watch.objects.values(), port.and_then(|port| port.parse().ok())))
            }
            KubernetesMode::NodePort(service) => {
                let port = service_port(&service_of(&self.client, &self.namespace, service).await?, port)?;
                let at = port.node_port.and_then(|port| u16::try_from(port).ok());
                let at = at.ok_or_else(|| Failure::new(format!("the service {service} has no node port")))?;
                let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
                let nodes = nodes.map_err(|error| Failure::new(said(&error)))?;
                Ok(Answer {
                    endpoints: nodes.iter().flat_map(|node| of_node(node, at)).collect(),
                    ..Answer::default()
                })
            }
            KubernetesMode::LoadBalancer(service) => {
                let service = service_of(&self.client, &self.namespace, service).await?;
                let port = service_port(&service, port)?;
                Ok(load_balancer(&service, u16::try_from(port.port).ok()))
            }
        }
    }

    /// Waits for a change of what is watched.
    pub(crate) async fn changed(&mut self) {
        match &mut self.watched {
            Some(Watched::Slices(watch)) => watch.changed().await,
            Some(Watched::Pods(watch)) => watch.changed().await,
            None => std::future::pending().await,
        }
    }
}

async fn service_of(client: &Client, namespace: &str, name: &str) -> Result<Service, Failure> {
    let found = Api::<Service>::namespaced(client.clone(), namespace).get(name).await;
    found.map_err(|error| Failure::new(said(&error)))
}

/// The causes of an error, outermost first.
fn said(error: &dyn std::error::Error) -> String {
    crate::web::chain(error)
}

fn at(address: &str, port: Option<u16>) -> Result<Endpoint, String> {
    let ip: std::net::IpAddr = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    Ok(Endpoint::at(BackendAddress { host: BackendHost::Ip(ip), port }))
}

/// The endpoints that are ready. One that terminates is not: it gets nothing new, and what is open there drains.
fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: Option<&str>,
) -> Result<Answer, Failure> {
    let mut answer = Answer::default();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let fits = |number: Option<i32>, name: Option<&str>| match port {
            None => true,
            Some(wanted) => name == Some(wanted) || number.is_some_and(|number| number.to_string() == wanted),
        };
        let fitting: Vec<_> = ports.iter().filter(|one| fits(one.port, one.name.as_deref())).collect();
        let number = match (fitting[..].first(), fitting.len()) {
            (Some(one), 1) => one.port.and_then(|port| u16::try_from(port).ok()),
            // A slice without endpoints says nothing of ports.
            (None, _) if slice.endpoints.is_empty() => continue,
            (None, _) if ports.is_empty() && port.is_none() => None,
            (None, _) => {
                return Err(Failure::new(no_port(port, ports.iter().map(|one| one.name.as_deref()))));
            }
            (Some(_), _) => {
                let names: Vec<_> = fitting.iter().filter_map(|one| one.name.as_deref()).collect();
                let detail =
                    format!("the service has several ports, say which by portName: {}", names.join(", "));
                return Err(Failure::new(detail));
            }
        };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // Absent means ready.
            if conditions.and_then(|conditions| conditions.ready) == Some(false) {
                continue;
            }
            // All addresses of one endpoint are the same; the first counts, as with kube-proxy.
            let Some(first) = endpoint.addresses.first() else { continue };
            let read = if slice.address_type == "FQDN" {
                backend_address(first).map(|address| Endpoint::at(BackendAddress { port: number, ..address }))
            } else {
                at(first, number)
            };
            match read {
                Ok(read) => {
                    let pod =
                        endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
                    let known = [
                        ("zone", endpoint.zone.as_deref()),
                        ("node", endpoint.node_name.as_deref()),
                        ("pod", pod.and_then(|pod| pod.name.as_deref())),
                    ];
                    answer.endpoints.push(labelled(read, &known, slice.metadata.labels.as_ref()));
                }
                Err(why) => answer.rejected.push(why),
            }
        }
    }
    Ok(answer)
}

/// With what is known of it, and the labels of an object: what is known comes first.
fn labelled(
    endpoint: Endpoint,
    known: &[(&str, Option<&str>)],
    labels: Option<&BTreeMap<String, String>>,
) -> Endpoint {
    let known = known.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    let labels = labels.into_iter().flatten().map(|(key, value)| (&**key, &**value));
    known.chain(labels).fold(endpoint, |endpoint, (key, value)| endpoint.label(key, value))
}

fn no_port<'a>(wanted: Option<&str>, names: impl Iterator<Item = Option<&'a str>>) -> String {
    let names: Vec<&str> = names.flatten().collect();
    format!("the service has no port {:?}; it has {}", wanted.unwrap_or_default(), names.join(", "))
}

/// Pods that are ready and not on their way out.
fn pods<'a>(pods: impl Iterator<Item = &'a Pod>, port: Option<u16>) -> Answer {
    let mut answer = Answer::default();
    for pod in pods.filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(status) = &pod.status else { continue };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let is_ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        if let (true, Some(ip)) = (is_ready, &status.pod_ip) {
            match at(ip, port) {
                Ok(endpoint) => {
                    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                    let known = [("node", node), ("pod", pod.metadata.name.as_deref())];
                    answer.endpoints.push(labelled(endpoint, &known, pod.metadata.labels.as_ref()));
                }
                Err(why) => answer.rejected.push(why),
            }
        }
    }
    answer
}

fn service_port(service: &Service, wanted: Option<&str>) -> Result<ServicePort, Failure> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let fits = |port: &&ServicePort| {
        wanted.is_none_or(|wanted| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted)
    };
    let mut fitting = ports.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(port), None) => Ok(port.clone()),
        (None, _) => Err(Failure::new(no_port(wanted, ports.iter().map(|port| port.name.as_deref())))),
        (Some(_), Some(_)) => Err(Failure::new("the service has several ports, say which by portName")),
    }
}

/// Internal addresses of a node that is ready and takes pods.
fn of_node(node: &Node, port: u16) -> Vec<Endpoint> {
    let Some(status) = &node.status else { return Vec::new() };
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if !conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True") {
        return Vec::new();
    }
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP");
    let known = [("node", node.metadata.name.as_deref())];
    let found = internal.and_then(|address| at(&address.address, Some(port)).ok());
    found.into_iter().map(|one| labelled(one, &known, node.metadata.labels.as_ref())).collect()
}

fn load_balancer(service: &Service, port: Option<u16>) -> Answer {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut answer = Answer::default();
    for one in ingress {
        let read = match (&one.ip, &one.hostname) {
            (Some(ip), _) => at(ip, port),
            (None, Some(name)) => {
                backend_address(name).map(|address| Endpoint::at(BackendAddress { port, ..address }))
            }
            (None, None) => continue,
        };
        match read {
            Ok(endpoint) => answer.endpoints.push(endpoint),
            Err(why) => answer.rejected.push(why),
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"app": "web"}}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
        }))
        .unwrap()
    }

    #[test]
    fn ready_endpoints_count_and_those_that_terminate_do_not() {
        let slice = slice(json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "zone": "east", "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "p1"}},
            {"addresses": ["nonsense"]},
        ]));
        let answer = endpoints([&slice].into_iter(), Some("http")).unwrap();
        let found: Vec<String> = answer.endpoints.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(found, ["10.0.0.1:8080", "10.0.0.3:8080"]);
        assert_eq!(answer.rejected.len(), 1);
        let labels: Vec<_> =
            answer.endpoints[1].labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["app=web", "node=n1", "pod=p1", "zone=east"]);
        assert_eq!(endpoints([&slice].into_iter(), Some("9090")).unwrap().endpoints.len(), 2);
        assert!(endpoints([&slice].into_iter(), None).unwrap_err().0.contains("http, admin"));
        assert!(endpoints([&slice].into_iter(), Some("grpc")).unwrap_err().0.contains("no port"));
    }
}
