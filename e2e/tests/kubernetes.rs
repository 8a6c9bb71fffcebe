//! Endpoints of a Kubernetes cluster. Against a fake of its API, which `kubectl` is shown as well; with
//! `AWE4LB_TEST_KUBECONFIG` the first test runs against a real cluster (it makes a service `awe4lb-test` without a selector in the
//! namespace `default`, and deletes it).

use std::path::Path;

use awe4lb_e2e::{eventually, fakes::kubernetes::Kubernetes, fleet::Fleet, free_port, have, process::run};
use serde_json::{Value, json};

fn slice(name: &str, endpoints: &[(&str, bool)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, ready)| {
            json!({"addresses": [address], "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// A fleet with a pool of this source.
fn fleet_with(kubeconfig: &Path, more: &Value) -> Fleet {
    let folder = kubeconfig.parent().expect("a folder").display().to_string();
    let fleet = Fleet::start_with(1, &["--allow-files", &folder]);
    let mut source = json!({"type": "kubernetes", "kubeconfig": kubeconfig.display().to_string(), "interval": "500ms", "timeout": "2s"});
    for (field, value) in more.as_object().expect("an object") {
        source[field] = value.clone();
    }
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{}", free_port())], "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "discovery": [source]}],
    }));
    fleet
}

fn source(fleet: &Fleet) -> Value {
    fleet.rest.get("/api/v1/discovery")["items"][0].clone()
}

/// Until the node has exactly these.
#[track_caller]
fn until_these(fleet: &Fleet, wanted: &[&str]) {
    let mut last = Value::Null;
    eventually(&format!("the node has {wanted:?}"), || {
        last = fleet.rest.get("/api/v1/backends?pool=p");
        let items = last["items"].as_array()?;
        let on_node: Vec<&Value> = items
            .iter()
            .filter(|one| one["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()))
            .collect();
        let found: Vec<&str> = on_node.iter().filter_map(|one| one["address"].as_str()).collect();
        (items.len() == found.len() && found == wanted).then_some(())
    });
}

#[test]
fn kubectl_finds_the_fake_to_be_a_cluster() {
    if !have("kubectl") {
        return;
    }
    let (cluster, folder) = (Kubernetes::start(), tempfile::tempdir().expect("a folder"));
    let kubeconfig = cluster.kubeconfig(folder.path()).display().to_string();
    let cache = folder.path().join("cache").display().to_string();
    let kubectl = |more: &[&str]| {
        let (ok, said, why) =
            run("kubectl", &[&["--kubeconfig", &kubeconfig, "--cache-dir", &cache], more].concat());
        assert!(ok, "{more:?}: {said}{why}");
        said
    };
    for name in ["a", "b", "c"] {
        let file = folder.path().join(name);
        std::fs::write(&file, slice(name, &[("10.0.0.1", true)]).to_string()).expect("written");
        kubectl(&["create", "--validate=false", "-f", &file.display().to_string()]);
    }
    // In pages of one, by label, one of them, and gone.
    let all = kubectl(&["get", "endpointslices", "-o", "name", "--chunk-size", "1"]);
    let names: Vec<&str> = all.split_whitespace().collect();
    assert_eq!(names, ["a", "b", "c"].map(|name| format!("endpointslice.discovery.k8s.io/{name}")));
    assert_eq!(cluster.asked().0, 3, "a list a page");
    assert_eq!(
        kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=other", "-o", "name"]),
        ""
    );
    kubectl(&["delete", "endpointslice", "b", "--wait=false"]);
    let one = kubectl(&["get", "endpointslice", "a", "-o", "jsonpath={.endpoints[0].addresses[0]}"]);
    assert_eq!(one, "10.0.0.1");
    let (ok, _, why) =
        run("kubectl", &["--kubeconfig", &kubeconfig, "--cache-dir", &cache, "get", "endpointslice", "b"]);
    assert!(!ok && why.contains("NotFound"), "{why}");
}

#[test]
fn endpoints_follow_the_cluster_through_its_moods() {
    let (cluster, folder) = (Kubernetes::start(), tempfile::tempdir().expect("a folder"));
    let kubeconfig = cluster.kubeconfig(folder.path());
    cluster.put(slice("web-1", &[("10.0.0.1", true), ("10.0.0.2", true)]));
    cluster.put(slice("web-2", &[("10.0.0.3", true)]));
    let mut other = slice("db-1", &[("10.0.9.9", true)]);
    other["metadata"]["labels"] = json!({"kubernetes.io/service-name": "db"});
    cluster.put(other);
    let fleet = fleet_with(&kubeconfig, &json!({"service": "web"}));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);

    // One terminates, a slice goes: told at once, by the watch.
    let (lists, _) = cluster.asked();
    cluster.put(slice("web-1", &[("10.0.0.1", true), ("10.0.0.2", false), ("10.0.0.4", true)]));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.3:8080", "10.0.0.4:8080"]);
    cluster.delete("endpointslices", "shop", "web-2");
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080"]);
    assert_eq!(cluster.asked().0, lists, "nothing was listed again");

    // Watches end, and what happened meanwhile is forgotten: it lists again.
    cluster.put(slice("web-3", &[("10.0.0.5", true)]));
    cluster.disconnect();
    cluster.compact();
    cluster.put(slice("web-3", &[("10.0.0.6", true)]));
    cluster.compact();
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080", "10.0.0.6:8080"]);

    // It is too busy for a while, and is asked later.
    cluster.refuse(429, 3);
    cluster.disconnect();
    cluster.put(slice("web-3", &[("10.0.0.7", true)]));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080", "10.0.0.7:8080"]);

    // It does not allow it any more: that is told, and nobody is lost.
    cluster.refuse(403, 100_000);
    cluster.disconnect();
    eventually("it is told", || source(&fleet)["error"].as_str()?.contains("forbidden").then_some(()));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080", "10.0.0.7:8080"]);
    cluster.refuse(403, 0);
    eventually("it is well again", || (source(&fleet)["state"] == "ok").then_some(()));

    // Its token is replaced.
    cluster.rotate_token("second");
    cluster.disconnect();
    eventually("the old token is refused", || {
        source(&fleet)["error"].as_str()?.contains("Unauthorized").then_some(())
    });
    std::fs::write(folder.path().join("kubernetes-token"), "second").expect("written");
    cluster.put(slice("web-3", &[]));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080"]);

    // All endpoints vanish: that is too little to be believed. The cluster vanishes: what was there stays.
    cluster.put(slice("web-1", &[]));
    eventually("it is not believed", || {
        source(&fleet)["error"].as_str()?.contains("minBackends").then_some(())
    });
    drop(cluster);
    eventually("it is missed", || source(&fleet)["error"].as_str()?.contains("onnect").then_some(()));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080"]);
}

#[test]
fn endpoints_are_chosen_named_and_placed_by_their_labels() {
    let (cluster, folder) = (Kubernetes::start(), tempfile::tempdir().expect("a folder"));
    let kubeconfig = cluster.kubeconfig(folder.path());
    let mut slice = slice("web-1", &[("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", true)]);
    slice["metadata"]["labels"]["app"] = "shop".into();
    for (at, zone) in ["eu-1", "eu-2", "us-1"].iter().enumerate() {
        slice["endpoints"][at]["zone"] = (*zone).into();
        slice["endpoints"][at]["targetRef"] =
            json!({"kind": "Pod", "name": format!("web-{at}"), "namespace": "shop"});
    }
    cluster.put(slice);
    let more =
        json!({"service": "web", "select": "zone in (eu-1, eu-2), app=shop", "nameTemplate": "${label.pod}"});
    let fleet = fleet_with(&kubeconfig, &more);
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080"]);
    let all = fleet.rest.get("/api/v1/backends?pool=p");
    let found: Vec<_> =
        (0..2).map(|at| json!([all["items"][at]["name"], all["items"][at]["zone"]])).collect();
    assert_eq!(found, [json!(["web-0", "eu-1"]), json!(["web-1", "eu-2"])]);
}

#[test]
fn node_ports_lead_to_nodes_that_are_ready_and_pods_are_found_by_their_labels() {
    let (cluster, folder) = (Kubernetes::start(), tempfile::tempdir().expect("a folder"));
    let kubeconfig = cluster.kubeconfig(folder.path());
    for (name, ip, ready) in
        [("n1", "10.1.0.1", "True"), ("n2", "10.1.0.2", "False"), ("n3", "10.1.0.3", "True")]
    {
        cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}],
            "conditions": [{"type": "Ready", "status": ready}]}}));
    }
    cluster.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "admin", "port": 81, "nodePort": 30081}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}}));
    let pod = |name: &str, tier: &str, ip: &str, ready: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", "tier": tier}},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})
    };
    cluster.put(pod("p1", "new", "10.2.0.1", "True"));
    cluster.put(pod("p2", "new", "10.2.0.2", "False"));
    cluster.put(pod("p3", "old", "10.2.0.3", "True"));
    let ports = fleet_with(&kubeconfig, &json!({"service": "web", "mode": "nodePort", "portName": "http"}));
    until_these(&ports, &["10.1.0.1:30080", "10.1.0.3:30080"]);
    drop(ports);
    let balancer =
        fleet_with(&kubeconfig, &json!({"service": "web", "mode": "loadBalancer", "portName": "81"}));
    until_these(&balancer, &["192.0.2.10:81"]);
    drop(balancer);
    let pods = fleet_with(&kubeconfig, &json!({"selector": "app=web,tier!=old", "port": 9000}));
    until_these(&pods, &["10.2.0.1:9000"]);
    cluster.put(pod("p2", "new", "10.2.0.2", "True"));
    until_these(&pods, &["10.2.0.1:9000", "10.2.0.2:9000"]);
}

#[test]
fn a_real_cluster_where_there_is_one() {
    let Some(kubeconfig) = std::env::var_os("AWE4LB_TEST_KUBECONFIG") else { return };
    let kubeconfig = std::path::PathBuf::from(kubeconfig);
    let folder = tempfile::tempdir().expect("a folder");
    let path = kubeconfig.display().to_string();
    let kubectl = |more: &[&str]| run("kubectl", &[&["--kubeconfig", &path, "-n", "default"], more].concat());
    let apply = |endpoints: &[(&str, bool)]| {
        let mut object = slice("awe4lb-test-1", endpoints);
        object["metadata"]["namespace"] = "default".into();
        object["metadata"]["labels"] = json!({"kubernetes.io/service-name": "awe4lb-test"});
        let file = folder.path().join("slice.json");
        std::fs::write(&file, object.to_string()).expect("written");
        let (ok, _, why) = kubectl(&["apply", "-f", &file.display().to_string()]);
        assert!(ok, "{why}");
    };
    apply(&[("10.0.0.1", true), ("10.0.0.2", true)]);
    let fleet = fleet_with(&kubeconfig, &json!({"service": "awe4lb-test", "namespace": "default"}));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080"]);
    apply(&[("10.0.0.1", true), ("10.0.0.2", false)]);
    until_these(&fleet, &["10.0.0.1:8080"]);
    kubectl(&["delete", "endpointslice", "awe4lb-test-1"]);
}
