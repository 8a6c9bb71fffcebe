//! Docker Swarm: the tasks of a service, or the nodes that publish its port. They are asked every interval.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use awe4lb_model::{
    BackendAddress, BackendHost, LabelSelector, Labels, Protocol,
    discovery::{ContainerPort, SwarmSource, may_be_backend},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    api::{Api, by_labels, items},
    docker::PREFIX,
};

/// One source's manager.
#[derive(Default)]
pub(crate) struct Swarm {
    api: Api,
}

impl Swarm {
    pub(crate) async fn ask(
        &mut self,
        source: &SwarmSource,
        select: Option<&LabelSelector>,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        let mut rejected = Vec::new();
        let services: Vec<Value> =
            self.api.get(&source.api, &filtered("/services", "name", &source.service)?, allowed).await?;
        // The filter takes all names that begin so.
        let services: Vec<Service> = items(services, &mut rejected);
        let service = services.into_iter().find(|service| *service.spec.name == *source.service);
        let service =
            service.ok_or_else(|| Failure::new(format!("the swarm has no service {:?}", source.service)))?;
        let tasks: Vec<Value> =
            self.api.get(&source.api, &filtered("/tasks", "service", &source.service)?, allowed).await?;
        let nodes: Vec<Value> = self.api.get(&source.api, "/nodes", allowed).await?;
        let (tasks, nodes) = (items(tasks, &mut rejected), items(nodes, &mut rejected));
        let mut answer = answer(source, select, &State { service, tasks, nodes })?;
        answer.rejected.extend(rejected);
        Ok(answer)
    }
}

fn filtered(path: &str, key: &str, value: &str) -> Result<String, Failure> {
    let mut url =
        reqwest::Url::parse("http://localhost/").map_err(|error| Failure::new(error.to_string()))?;
    let filters = serde_json::json!({ key: [value] }).to_string();
    url.query_pairs_mut().append_pair("filters", &filters);
    Ok(format!("{path}?{}", url.query().unwrap_or_default()))
}

struct State {
    service: Service,
    tasks: Vec<Task>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    spec: ServiceSpec,
    endpoint: ServiceEndpoint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceSpec {
    name: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceEndpoint {
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Port {
    protocol: String,
    target_port: u16,
    published_port: u16,
    publish_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "NodeID")]
    node: String,
    status: TaskStatus,
    desired_state: String,
    networks_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TaskStatus {
    state: String,
    port_status: Option<ServiceEndpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attachment {
    network: Network,
    addresses: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Network {
    spec: NetworkSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSpec {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    spec: NodeSpec,
    description: Description,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeSpec {
    labels: Option<BTreeMap<String, String>>,
    availability: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Description {
    hostname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeStatus {
    state: String,
    addr: String,
}

impl Task {
    fn is_running(&self) -> bool {
        self.status.state == "running" && self.desired_state == "running"
    }
}

impl Node {
    /// Ready, and neither drained nor paused away: tasks of a paused node go on.
    fn is_there(&self) -> bool {
        self.status.state == "ready" && self.spec.availability != "drain"
    }
}

fn answer(source: &SwarmSource, select: Option<&LabelSelector>, state: &State) -> Result<Answer, Failure> {
    let ports: Vec<&Port> = state.service.endpoint.ports.iter().flatten().collect();
    let mut places: Vec<(String, Labels, Result<BackendAddress, String>)> = Vec::new();
    let node_of = |task: &Task| state.nodes.iter().find(|node| node.id == task.node);
    // A node that is down keeps its tasks in the list for a while, as if they ran.
    let is_up = |task: &&Task| task.is_running() && node_of(task).is_some_and(Node::is_there);
    let running = || state.tasks.iter().filter(is_up);
    if let Some(network) = &source.network {
        let port = match source.port {
            Some(port) => Some(port.number),
            None => only(ports.iter().map(|port| port.target_port))?,
        };
        for task in running() {
            let place =
                in_network(task, network).map(|ip| BackendAddress { host: BackendHost::Ip(ip), port });
            places.push((format!("task {}", task.id), labels(state, node_of(task), Some(task)), place));
        }
    } else {
        let wanted = published(&ports, source.port)?;
        if wanted.publish_mode == "host" {
            for task in running() {
                let Some(node) = node_of(task) else { continue };
                let of_task: Vec<&Port> =
                    task.status.port_status.iter().flat_map(|status| status.ports.iter().flatten()).collect();
                let port = of_task
                    .iter()
                    .find(|port| port.target_port == wanted.target_port && port.protocol == wanted.protocol);
                let place = match port {
                    Some(port) => at_node(node, port.published_port),
                    None => Err(format!("its port {} is not published yet", wanted.target_port)),
                };
                places.push((format!("task {}", task.id), labels(state, Some(node), Some(task)), place));
            }
        } else {
            // The mesh: every node takes it, wherever the tasks are.
            for node in state.nodes.iter().filter(|node| node.is_there()) {
                let place = at_node(node, wanted.published_port);
                places.push((
                    format!("node {}", node.description.hostname),
                    labels(state, Some(node), None),
                    place,
                ));
            }
            if running().next().is_none() {
                places.clear();
            }
        }
    }
    let mut answer = Answer::default();
    for (what, labels, place) in places {
        if select.is_some_and(|select| !select.matches(&labels)) {
            continue;
        }
        let made = place.and_then(|address| {
            let endpoint = labels
                .iter()
                .fold(Endpoint::at(address), |endpoint, (key, value)| endpoint.label(key, value));
            by_labels(endpoint, PREFIX)
        });
        match made {
            Ok(endpoint) => answer.endpoints.push(endpoint),
            Err(why) => answer.rejected.push(format!("{what}: {why}")),
        }
    }
    answer.endpoints.sort_by_key(|endpoint| endpoint.address.to_string());
    Ok(answer)
}

/// Of the service, and of the node beside them.
fn labels(state: &State, node: Option<&Node>, task: Option<&Task>) -> Labels {
    let mut labels: Labels = state.service.spec.labels.clone().unwrap_or_default();
    if let Some(node) = node {
        for (key, value) in node.spec.labels.iter().flatten() {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        labels.entry("node".to_owned()).or_insert_with(|| node.description.hostname.clone());
    }
    if let Some(task) = task {
        labels.entry("task".to_owned()).or_insert_with(|| task.id.clone());
    }
    labels
}

fn in_network(task: &Task, network: &str) -> Result<IpAddr, String> {
    let attached = task.networks_attachments.iter().flatten().find(|one| one.network.spec.name == network);
    let attached = attached.ok_or_else(|| format!("it is not in the network {network:?}"))?;
    let ip =
        attached.addresses.iter().flatten().find_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
    ip.filter(|ip| may_be_backend(*ip)).ok_or_else(|| format!("it has no address in {network:?}"))
}

/// The service's port that is published.
fn published<'a>(ports: &[&'a Port], wanted: Option<ContainerPort>) -> Result<&'a Port, Failure> {
    let is_wanted = |port: &&&Port| {
        wanted.is_none_or(|wanted| {
            let is_transport = match wanted.transport {
                None => true,
                Some(Protocol::Tcp) => port.protocol == "tcp",
                Some(Protocol::Udp) => port.protocol == "udp",
            };
            port.target_port == wanted.number && is_transport
        })
    };
    let found: Vec<&&Port> = ports.iter().filter(|port| port.published_port != 0).filter(is_wanted).collect();
    match found.as_slice() {
        [port] => Ok(port),
        [] => Err(Failure::new("the service publishes no such port: publish one, or name a \"network\"")),
        _ => Err(Failure::new(
            "the service has several ports: say which by \"containerPort\" and \"transport\"",
        )),
    }
}

fn only(ports: impl Iterator<Item = u16>) -> Result<Option<u16>, Failure> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    match ports.as_slice() {
        [] => Ok(None),
        [port] => Ok(Some(*port)),
        several => Err(Failure::new(format!(
            "the service has the ports {several:?}: say which by \"containerPort\""
        ))),
    }
}

fn at_node(node: &Node, port: u16) -> Result<BackendAddress, String> {
    let ip = node.status.addr.parse::<IpAddr>().ok().filter(|ip| may_be_backend(*ip));
    let ip = ip.ok_or_else(|| format!("the node's address {:?} is none", node.status.addr))?;
    Ok(BackendAddress { host: BackendHost::Ip(ip), port: Some(port) })
}

#[cfg(test)]
mod tests {
    use awe4lb_model::discovery::{ApiAddress, ContainerApi};

    use super::*;

    const SERVICE: &str = r#"{"ID": "s1", "Spec": {"Name": "web", "Labels": {"app": "web", "awe4lb.weight": "2"}},
        "Endpoint": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "MODE"}]}}"#;
    const TASKS: &str = r#"[
        {"ID": "t1", "NodeID": "n1", "DesiredState": "running", "Status": {"State": "running", "PortStatus":
            {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30001, "PublishMode": "host"}]}},
         "NetworksAttachments": [{"Network": {"Spec": {"Name": "ingress"}}, "Addresses": ["10.0.0.9/24"]},
                                 {"Network": {"Spec": {"Name": "shop"}}, "Addresses": ["10.0.1.5/24"]}]},
        {"ID": "t2", "NodeID": "n2", "DesiredState": "shutdown", "Status": {"State": "running"}},
        {"ID": "t3", "NodeID": "n2", "DesiredState": "running", "Status": {"State": "starting", "PortStatus": {}}},
        {"ID": "t4", "NodeID": "n2", "DesiredState": "running", "Status": {"State": "running", "PortStatus": {}}, "NetworksAttachments": []},
        {"ID": "t5", "NodeID": "n4", "DesiredState": "running", "Status": {"State": "running", "PortStatus":
            {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30005, "PublishMode": "host"}]}},
         "NetworksAttachments": [{"Network": {"Spec": {"Name": "shop"}}, "Addresses": ["10.0.1.9/24"]}]}]"#;
    const NODES: &str = r#"[
        {"ID": "n1", "Spec": {"Availability": "active", "Labels": {"zone": "east"}}, "Description": {"Hostname": "one"}, "Status": {"State": "ready", "Addr": "10.9.0.1"}},
        {"ID": "n2", "Spec": {"Availability": "active"}, "Description": {"Hostname": "two"}, "Status": {"State": "ready", "Addr": "10.9.0.2"}},
        {"ID": "n3", "Spec": {"Availability": "drain"}, "Description": {"Hostname": "three"}, "Status": {"State": "ready", "Addr": "10.9.0.3"}},
        {"ID": "n4", "Spec": {"Availability": "active"}, "Description": {"Hostname": "four"}, "Status": {"State": "down", "Addr": "10.9.0.4"}}]"#;

    fn found(network: Option<&str>, mode: &str, select: &str) -> Result<(Vec<String>, Vec<String>), Failure> {
        let address = ApiAddress::Unix("/d".into());
        let api = ContainerApi { address, tls: Default::default(), max_bytes: 1 };
        let source = SwarmSource { api, service: "web".into(), network: network.map(Into::into), port: None };
        let state = State {
            service: serde_json::from_str(&SERVICE.replace("MODE", mode)).unwrap(),
            tasks: serde_json::from_str(TASKS).unwrap(),
            nodes: serde_json::from_str(NODES).unwrap(),
        };
        let select = Some(select).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
        let answer = answer(&source, select.as_ref(), &state)?;
        let place = |one: &Endpoint| format!("{} {}", one.address, one.weight.unwrap_or(1));
        Ok((answer.endpoints.iter().map(place).collect(), answer.rejected))
    }

    #[test]
    fn tasks_in_a_network_and_ports_of_nodes() {
        let (places, rejected) = found(Some("shop"), "ingress", "").unwrap();
        assert_eq!(places, ["10.0.1.5:80 2"], "not the task of the dead node");
        assert_eq!(rejected, ["task t4: it is not in the network \"shop\""]);
        let (places, _) = found(None, "ingress", "").unwrap();
        assert_eq!(places, ["10.9.0.1:8080 2", "10.9.0.2:8080 2"], "neither the drained nor the dead node");
        assert_eq!(found(None, "ingress", "zone=east").unwrap().0, ["10.9.0.1:8080 2"]);
        let (places, rejected) = found(None, "host", "").unwrap();
        assert_eq!(places, ["10.9.0.1:30001 2"]);
        assert_eq!(rejected, ["task t4: its port 80 is not published yet"]);
    }
}
