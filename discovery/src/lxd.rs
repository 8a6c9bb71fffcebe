//! LXD and Incus: running instances by their keys (`GET /1.0/instances?recursion=2`). They are asked every interval.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use awe4lb_model::{
    BackendAddress, BackendHost, LabelSelector, Labels,
    discovery::{LxdSource, may_be_backend},
    document::container_port,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    api::{Api, by_labels, items},
    docker::PREFIX,
};

/// Keys of users begin so; without it they are labels.
const USER: &str = "user.";

/// One source's server.
#[derive(Default)]
pub(crate) struct Lxd {
    api: Api,
}

impl Lxd {
    /// Which instances there are. `select`: others are not even looked at, so that nothing is said of them.
    pub(crate) async fn ask(
        &mut self,
        source: &LxdSource,
        select: Option<&LabelSelector>,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        let mut path = "/1.0/instances?recursion=2".to_owned();
        if let Some(project) = &source.project {
            let mut encoded =
                reqwest::Url::parse("http://localhost/").map_err(|error| Failure::new(error.to_string()))?;
            encoded.query_pairs_mut().append_pair("project", project);
            path = format!("{path}&{}", encoded.query().unwrap_or_default());
        }
        let said: Said = self.api.get(&source.api, &path, allowed).await?;
        Ok(answer(source, select, said.metadata))
    }
}

#[derive(Debug, Deserialize)]
struct Said {
    metadata: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instance {
    name: String,
    status: String,
    project: String,
    location: String,
    config: BTreeMap<String, String>,
    /// With what profiles say.
    expanded_config: BTreeMap<String, String>,
    state: Option<State>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    network: Option<BTreeMap<String, Interface>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Interface {
    addresses: Vec<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    family: String,
    address: String,
    scope: String,
}

impl Instance {
    fn labels(&self) -> Labels {
        let keys = self.expanded_config.iter().chain(&self.config);
        let mut labels: Labels = keys
            .filter_map(|(key, value)| Some((key.strip_prefix(USER)?.to_owned(), value.clone())))
            .collect();
        for (key, value) in
            [("instance", &self.name), ("project", &self.project), ("location", &self.location)]
        {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
        labels
    }
}

fn answer(source: &LxdSource, select: Option<&LabelSelector>, listed: Vec<Value>) -> Answer {
    let mut answer = Answer::default();
    let instances: Vec<Instance> = items(listed, &mut answer.rejected);
    for instance in instances.iter().filter(|instance| instance.status.eq_ignore_ascii_case("running")) {
        let labels = instance.labels();
        if select.is_some_and(|select| !select.matches(&labels)) {
            continue;
        }
        match endpoint(source, instance, &labels) {
            Ok(endpoint) => answer.endpoints.push(endpoint),
            Err(why) => answer.rejected.push(format!("instance {}: {why}", instance.name)),
        }
    }
    answer
}

fn endpoint(source: &LxdSource, instance: &Instance, labels: &Labels) -> Result<Endpoint, String> {
    let port = match labels.get("awe4lb.port") {
        Some(text) => {
            let port = container_port(text);
            Some(
                port.ok_or_else(|| format!("the key user.awe4lb.port is {text:?}, which is no port"))?.number,
            )
        }
        None => None,
    };
    let interface = labels.get("awe4lb.interface").map(String::as_str).or(source.interface.as_deref());
    let ip = address(instance, interface, source.v6)?;
    let mut endpoint = Endpoint::at(BackendAddress { host: BackendHost::Ip(ip), port });
    for (key, value) in labels {
        endpoint = endpoint.label(key, value);
    }
    by_labels(endpoint, PREFIX)
}

fn address(instance: &Instance, interface: Option<&str>, v6: bool) -> Result<IpAddr, String> {
    let family = if v6 { "inet6" } else { "inet" };
    let network = instance.state.as_ref().and_then(|state| state.network.as_ref());
    let network = network.ok_or("the server says nothing of its network")?;
    let of = |wanted: &Interface| {
        let all = wanted.addresses.iter().filter(|one| one.family == family && one.scope == "global");
        all.filter_map(|one| one.address.parse::<IpAddr>().ok()).find(|ip| may_be_backend(*ip))
    };
    match interface {
        Some(name) => {
            let found = network.get(name).ok_or_else(|| format!("it has no interface {name:?}"))?;
            of(found).ok_or_else(|| format!("its interface {name:?} has no {family} address"))
        }
        None => {
            // Others, as the bridge of a Docker within, are not what is meant as long as there is the usual one.
            let others = network.iter().filter(|(name, _)| *name != "lo").map(|(_, interface)| interface);
            network
                .get("eth0")
                .into_iter()
                .chain(others)
                .find_map(of)
                .ok_or_else(|| format!("it has no {family} address"))
        }
    }
}

#[cfg(test)]
mod tests {
    use awe4lb_model::discovery::{ApiAddress, ContainerApi};

    use super::*;

    /// Shortened from what LXD 5.0 says.
    const SAID: &str = r#"{"type": "sync", "status": "Success", "status_code": 200, "metadata": [
        {"name": "c1", "status": "Running", "status_code": 103, "type": "container", "project": "default", "location": "none",
         "config": {"user.awe4lb.enable": "true", "volatile.eth0.name": "eth0"}, "expanded_config": {"user.awe4lb.port": "8080", "user.awe4lb.enable": "true"},
         "state": {"status": "Running", "network": {
            "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}]},
            "docker0": {"addresses": [{"family": "inet", "address": "172.17.0.1", "netmask": "16", "scope": "global"}]},
            "eth0": {"addresses": [{"family": "inet", "address": "10.79.0.11", "netmask": "24", "scope": "global"},
                                   {"family": "inet6", "address": "fd42::11", "netmask": "64", "scope": "global"},
                                   {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"}]}}}},
        {"name": "c2", "status": "Stopped", "config": {"user.awe4lb.enable": "true"}, "state": {"network": null}},
        {"name": "c3", "status": "Running", "config": {"user.awe4lb.enable": "true"}, "state": {"network": {"eth0": {"addresses": []}}}},
        {"name": ["no name"], "status": "Running"},
        {"name": "c4", "status": "Running", "config": {}, "state": {"network": {"eth0": {"addresses": []}}}}]}"#;

    fn found(interface: Option<&str>, v6: bool) -> (Vec<String>, Vec<String>) {
        let api =
            ContainerApi { address: ApiAddress::Unix("/l".into()), tls: Default::default(), max_bytes: 1 };
        let source = LxdSource { api, project: None, interface: interface.map(Into::into), v6 };
        let said: Said = serde_json::from_str(SAID).unwrap();
        let answer = answer(&source, Some(&"awe4lb.enable=true".parse().unwrap()), said.metadata);
        (answer.endpoints.iter().map(|one| one.address.to_string()).collect(), answer.rejected)
    }

    #[test]
    fn running_instances_by_their_keys() {
        let (places, rejected) = found(None, false);
        assert_eq!(places, ["10.79.0.11:8080"]);
        assert!(rejected[0].contains("no name"), "{rejected:?}");
        assert_eq!(rejected[1..], ["instance c3: it has no inet address"]);
        assert_eq!(found(None, true).0, ["[fd42::11]:8080"]);
        assert!(found(Some("eth1"), false).1[1].contains("no interface \"eth1\""));
    }
}
