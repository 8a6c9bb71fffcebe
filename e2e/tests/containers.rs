//! Backends that are containers: of Podman behind Docker's API, of Docker Swarm, and of LXD.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use awe4lb_e2e::{
    at,
    containers::{Lxd, NETWORK, Podman, Swarm, can_be_started},
    eventually,
    fleet::Fleet,
    free_port,
};
use serde_json::{Value, json};

/// What the web server behind the listener calls itself; `None`: nobody is there.
fn name_at(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page.split("\r\n\r\n").nth(1)?.trim().to_owned())
}

/// Until exactly these serve.
#[track_caller]
fn until_these(address: SocketAddr, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    eventually(&format!("{wanted:?} serve"), || {
        let names: BTreeSet<String> = (0..8).filter_map(|_| name_at(address)).collect();
        (names == wanted).then_some(())
    });
}

fn document(port: u16, source: Value) -> Value {
    json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "rules": [{"pool": "p"}]}],
        // A container is told of before its server listens: nobody is set aside for long.
        "pools": [{"name": "p", "outlier": {"ejection": "200ms"}, "discovery": [source]}],
    })
}

fn source(fleet: &Fleet) -> Value {
    fleet.rest.get("/api/v1/discovery?pool=p")["items"][0].clone()
}

#[test]
fn containers_of_podman_come_and_go_as_its_events_say() {
    if !can_be_started(&["podman", "runc"]) {
        return;
    }
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR/podman/api"]);
    let mut podman = Podman::start(fleet.folder());
    let ports = [free_port(), free_port()];
    let publish = ports.map(|port| format!("127.0.0.1:{port}:8080"));
    podman.run("first", &["--label", "app=web", "--label", "awe4lb.weight=5", "-p", &publish[0]]);
    podman.run("stranger", &["--label", "app=other"]);
    let port = free_port();
    // A minute between questions: what is noticed sooner is noticed by events.
    let endpoint = format!("unix://{}", podman.socket().display());
    let wanted =
        json!({"id": "s", "type": "docker", "endpoint": endpoint, "select": "app=web", "interval": "1m"});
    fleet.apply(&document(port, wanted.clone()));
    let entrance = at(fleet.nodes[0].ip, port);
    until_these(entrance, &["first"]);
    let backend = fleet.rest.get("/api/v1/backends?pool=p")["items"][0].clone();
    assert_eq!(backend["address"], format!("127.0.0.1:{}", ports[0]), "{backend}");

    podman.run("second", &["--label", "app=web", "-p", &publish[1]]);
    until_these(entrance, &["first", "second"]);
    // One that publishes nothing is told of, and spoils nothing.
    podman.run("hidden", &["--label", "app=web"]);
    eventually("it is reported", || {
        let told = source(&fleet)["rejectedItems"].to_string();
        told.contains("container hidden: it publishes no port").then_some(())
    });
    until_these(entrance, &["first", "second"]);
    podman.remove("first");
    until_these(entrance, &["second"]);

    // Without the API the last answer counts.
    podman.serve(false);
    eventually("the failure is told", || (source(&fleet)["state"] == "failing").then_some(()));
    until_these(entrance, &["second"]);
    podman.serve(true);
    podman.run("third", &["--label", "app=web", "-p", &publish[0]]);
    until_these(entrance, &["second", "third"]);

    // The same containers by their addresses within the network, all of them.
    let mut by_network = wanted;
    by_network["network"] = json!(NETWORK);
    by_network["containerPort"] = json!(8080);
    fleet.apply(&document(port, by_network));
    until_these(entrance, &["second", "third", "hidden"]);
}

#[test]
fn a_socket_that_is_not_allowed_is_not_asked() {
    let fleet = Fleet::start(1);
    let port = free_port();
    fleet.apply(&document(port, json!({"id": "s", "type": "docker", "endpoint": "unix:///run/some.sock"})));
    eventually("the failure is told", || {
        let source = source(&fleet);
        let error = source["error"].as_str().unwrap_or_default();
        (source["state"] == "failing" && error.contains("/run/some.sock")).then_some(())
    });
}

#[test]
fn instances_of_lxd_come_and_go() {
    if !can_be_started(&["lxd", "lxc"]) {
        return;
    }
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR/lxd/state"]);
    let lxd = Lxd::start(fleet.folder());
    lxd.launch("web-11", &["user.app=web", "user.awe4lb.port=8080"]);
    lxd.launch("other-12", &["user.app=other"]);
    let port = free_port();
    let endpoint = format!("unix://{}", lxd.socket().display());
    fleet.apply(&document(
        port,
        json!({"id": "s", "type": "lxd", "endpoint": endpoint, "select": "app=web", "interval": "500ms"}),
    ));
    let entrance = at(fleet.nodes[0].ip, port);
    until_these(entrance, &["web-11"]);
    lxd.launch("web-13", &["user.app=web", "user.awe4lb.port=8080", "user.awe4lb.weight=1"]);
    until_these(entrance, &["web-11", "web-13"]);
    lxd.call(&["stop", "-f", "web-11"]);
    until_these(entrance, &["web-13"]);
    lxd.call(&["start", "web-11"]);
    until_these(entrance, &["web-11", "web-13"]);
    lxd.call(&["config", "set", "web-13", "user.app", "retired"]);
    until_these(entrance, &["web-11"]);
}

/// The addresses of the pool's backends, in order.
fn addresses(fleet: &Fleet) -> Vec<String> {
    let backends = fleet.rest.get("/api/v1/backends?pool=p");
    let items = backends["items"].as_array().into_iter().flatten();
    let mut addresses: Vec<String> =
        items.filter_map(|one| Some(one["address"].as_str()?.to_owned())).collect();
    addresses.sort();
    addresses
}

#[test]
fn services_of_a_swarm_are_their_tasks_or_the_nodes_that_publish_them() {
    if !can_be_started(&["dockerd", "containerd", "docker"]) {
        return;
    }
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR/swarm/api"]);
    let swarm = Swarm::start(fleet.folder());
    swarm.service("web", &["--network", "shop", "--replicas", "2", "--label", "awe4lb.weight=4"]);
    swarm.service("webhooks", &["--network", "shop"]);
    let port = free_port();
    let endpoint = format!("unix://{}", swarm.socket().display());
    let of = |more: Value| {
        let mut source =
            json!({"id": "s", "type": "swarm", "endpoint": endpoint, "service": "web", "interval": "300ms"});
        source.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        document(port, source)
    };
    let in_network = of(json!({"network": "shop", "containerPort": 8080}));
    fleet.apply(&in_network);
    let tasks = |wanted: usize| {
        eventually(&format!("{wanted} tasks"), || {
            let found = addresses(&fleet);
            let are_tasks = found.iter().all(|one| one.starts_with("10.214.0.") && one.ends_with(":8080"));
            (found.len() == wanted && are_tasks).then_some(())
        });
    };
    tasks(2);
    let pool = in_network["pools"][0].clone();
    let preview = fleet.rest.post("/api/v1/discovery/preview", &pool).ok();
    assert_eq!(preview["pools"][0]["sources"][0]["backends"][0]["weight"], 4, "{preview}");
    swarm.call(&["service", "scale", "--detach", "web=3"]);
    tasks(3);
    swarm.call(&["service", "scale", "--detach", "web=1"]);
    tasks(1);

    // A port of the mesh is one of every node that is there.
    let published = free_port();
    swarm.call(&[
        "service",
        "update",
        "--detach",
        "--publish-add",
        &format!("published={published},target=8080"),
        "web",
    ]);
    fleet.apply(&of(json!({})));
    eventually("the node publishes it", || {
        (addresses(&fleet) == [format!("127.0.0.1:{published}")]).then_some(())
    });

    // Nobody is left on a node that is drained; the last answer counts, and it is told why.
    let node = swarm.call(&["node", "ls", "-q"]);
    swarm.call(&["node", "update", "--availability", "drain", node.trim()]);
    eventually("the failure is told", || {
        let error = source(&fleet)["error"].as_str().unwrap_or_default().to_owned();
        error.contains("minBackends").then_some(())
    });
    assert_eq!(addresses(&fleet), [format!("127.0.0.1:{published}")]);

    swarm.call(&["service", "rm", "web"]);
    eventually("that it is gone is told", || {
        source(&fleet)["error"].as_str()?.contains("no service \"web\"").then_some(())
    });
}
