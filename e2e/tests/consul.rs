//! Services of a Consul agent. Against a fake of its API; with `AWE4LB_TEST_CONSUL` (a URL) the first test runs against a real
//! agent (it registers instances `awe4lb-test-…` and takes them away).

use awe4lb_e2e::{eventually, fakes::consul::Consul, fleet::Fleet, free_port, rest::Rest, servers::Identity};
use serde_json::{Value, json};

/// A fleet with a pool of this source.
fn fleet_with(source: Value) -> Fleet {
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR"]);
    apply(&fleet, source);
    fleet
}

fn apply(fleet: &Fleet, mut source: Value) {
    source["type"] = "consul".into();
    // Long: what is quicker was told.
    source["interval"] = source.get("interval").cloned().unwrap_or_else(|| "60s".into());
    source["timeout"] = "2s".into();
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{}", free_port())], "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "discovery": [source]}],
    }));
}

fn source(fleet: &Fleet) -> Value {
    fleet.rest.get("/api/v1/discovery")["items"][0].clone()
}

/// Until the node has exactly these.
#[track_caller]
fn until_these(fleet: &Fleet, wanted: &[&str]) {
    let mut last = Value::Null;
    eventually(&format!("the node has {wanted:?}"), || {
        last = json!([fleet.rest.get("/api/v1/backends?pool=p"), source(fleet)]);
        let items = last[0]["items"].as_array()?;
        let is_on_node = |one: &&Value| one["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty());
        let mut found: Vec<&str> =
            items.iter().filter(is_on_node).filter_map(|one| one["address"].as_str()).collect();
        found.sort_unstable();
        (items.len() == found.len() && found == wanted).then_some(())
    });
}

#[track_caller]
fn until_said(fleet: &Fleet, word: &str) {
    eventually(&format!("the source says {word:?}"), || {
        source(fleet)["error"].as_str()?.contains(word).then_some(())
    });
}

/// An agent, real or not, as who registers services sees it.
struct Agent(Rest);

impl Agent {
    #[track_caller]
    fn register(&self, service: &str, id: &str, address: &str, more: &Value) {
        let mut wish = json!({"Name": service, "ID": id, "Address": address, "Port": 8080,
            "Check": {"TTL": "10m", "Status": "passing"}});
        for (field, value) in more.as_object().into_iter().flatten() {
            wish[field] = value.clone();
        }
        let done = self.0.put("/v1/agent/service/register", &wish);
        assert_eq!(done.status, 200, "{}", done.text);
    }

    fn deregister(&self, id: &str) {
        let _ = self.0.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null);
    }

    #[track_caller]
    fn check(&self, id: &str, status: &str) {
        let done = self.0.put(&format!("/v1/agent/check/update/service:{id}"), &json!({"Status": status}));
        assert_eq!(done.status, 200, "{}", done.text);
    }
}

/// What a pool sees of an agent. The same with a fake and a real one.
fn story(url: &str) {
    let agent = Agent(Rest::new(url));
    let ids = ["awe4lb-test-1", "awe4lb-test-2", "awe4lb-test-3", "awe4lb-test-4"];
    ids.iter().for_each(|id| agent.deregister(id));
    agent.register("awe4lb-test", ids[0], "10.0.0.1", &json!({"Weights": {"Passing": 7, "Warning": 2}}));
    agent.register(
        "awe4lb-test",
        ids[1],
        "10.0.0.2",
        &json!({"Tags": ["priority=1", "canary"], "Meta": {"zone": "east"}}),
    );
    agent.register("awe4lb-test-other", ids[2], "10.0.0.3", &json!({}));
    let service = json!({"url": url, "services": ["awe4lb-test"]});
    let fleet = fleet_with(service.clone());
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080"]);

    // What an instance says of itself counts.
    let mut pool = json!({"name": "new", "discovery": [service.clone()]});
    pool["discovery"][0]["type"] = "consul".into();
    let preview = fleet.rest.post("/api/v1/discovery/preview", &pool).ok();
    let found = &preview["pools"][0]["sources"][0]["backends"];
    let facts: Vec<_> =
        (0..2).map(|at| json!([found[at]["weight"], found[at]["priority"], found[at]["zone"]])).collect();
    assert_eq!(facts, [json!([7, 0, null]), json!([1, 1, "east"])], "{preview}");

    // A check fails, an instance comes, one goes: the agent tells, long before anybody asks again.
    agent.check(ids[1], "critical");
    until_these(&fleet, &["10.0.0.1:8080"]);
    agent.register("awe4lb-test", ids[3], "10.0.0.4", &json!({}));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.4:8080"]);
    agent.deregister(ids[0]);
    until_these(&fleet, &["10.0.0.4:8080"]);
    agent.check(ids[1], "passing");
    until_these(&fleet, &["10.0.0.2:8080", "10.0.0.4:8080"]);

    // Several services are one answer; tags, and expressions over labels, choose.
    let both = json!({"url": url, "services": ["awe4lb-test", "awe4lb-test-other"]});
    apply(&fleet, both.clone());
    until_these(&fleet, &["10.0.0.2:8080", "10.0.0.3:8080", "10.0.0.4:8080"]);
    agent.deregister(ids[2]);
    until_these(&fleet, &["10.0.0.2:8080", "10.0.0.4:8080"]);
    let mut tagged = both.clone();
    tagged["tags"] = json!(["canary"]);
    apply(&fleet, tagged);
    until_these(&fleet, &["10.0.0.2:8080"]);
    let mut selected = both;
    selected["select"] = "!canary, service in (awe4lb-test)".into();
    selected["nameTemplate"] = "${label.service}-${host}".into();
    apply(&fleet, selected);
    until_these(&fleet, &["10.0.0.4:8080"]);
    assert_eq!(fleet.rest.get("/api/v1/backends?pool=p")["items"][0]["name"], "awe4lb-test-10-0-0-4");

    // Whatever the checks say.
    agent.check(ids[1], "critical");
    let mut any = service;
    any["passingOnly"] = false.into();
    apply(&fleet, any);
    until_these(&fleet, &["10.0.0.2:8080", "10.0.0.4:8080"]);

    // The last ones go: that is too little to be believed.
    ids.iter().for_each(|id| agent.deregister(id));
    until_said(&fleet, "minBackends");
    until_these(&fleet, &["10.0.0.2:8080", "10.0.0.4:8080"]);
}

#[test]
fn services_are_followed_as_the_agent_tells() {
    let consul = Consul::start();
    story(&format!("http://{}", consul.address));
}

#[test]
fn a_real_agent_where_there_is_one() {
    let Ok(url) = std::env::var("AWE4LB_TEST_CONSUL") else { return };
    story(url.trim_end_matches('/'));
}

#[test]
fn an_agent_in_a_bad_mood_takes_nobody_away_and_is_not_asked_without_end() {
    let consul = Consul::start();
    let agent = Agent(Rest::new(&format!("http://{}", consul.address)));
    agent.register("web", "a", "10.0.0.1", &json!({}));
    let fleet =
        fleet_with(json!({"url": format!("http://{}", consul.address), "services": "web", "interval": "2s"}));
    until_these(&fleet, &["10.0.0.1:8080"]);

    // Writes that change nothing wake whoever waits: that is no reason to ask without end.
    let (before, _) = consul.asked();
    let began = std::time::Instant::now();
    eventually("a second of writes", || {
        consul.touch("web");
        (began.elapsed().as_millis() > 1_000).then_some(())
    });
    let asked = consul.asked().0 - before;
    assert!(asked <= 6, "{asked} questions in a second");

    // Its state is restored from a copy: indices are lower than before.
    consul.reset_index();
    agent.register("web", "b", "10.0.0.2", &json!({}));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080"]);
    // An index of 0 is none: it is asked by the interval.
    consul.tell_index(Some(0));
    agent.register("web", "c", "10.0.0.3", &json!({}));
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
    consul.tell_index(None);

    for (status, word) in [(500, "No cluster leader"), (429, "rate limit")] {
        consul.refuse(status, 100_000);
        until_said(&fleet, word);
        consul.refuse(status, 0);
        eventually("it is well again", || (source(&fleet)["state"] == "ok").then_some(()));
    }

    // A token is wanted, then another one.
    consul.require_token("first");
    consul.touch("web");
    until_said(&fleet, "see tokenFile");
    let file = fleet.folder().join("consul-token");
    std::fs::write(&file, "first\n").expect("written");
    let url = format!("http://{}", consul.address);
    let with_token =
        json!({"url": url, "services": "web", "interval": "2s", "tokenFile": file.display().to_string()});
    apply(&fleet, with_token);
    eventually("the token is good", || (source(&fleet)["state"] == "ok").then_some(()));
    consul.require_token("second");
    consul.touch("web");
    until_said(&fleet, "ACL not found");
    std::fs::write(&file, "second\n").expect("written");
    eventually("the token is read anew", || (source(&fleet)["state"] == "ok").then_some(()));

    // Another datacentre; what the free edition does not have; gone.
    apply(
        &fleet,
        json!({"url": url, "services": "web", "datacenter": "dc9", "tokenFile": file.display().to_string()}),
    );
    until_said(&fleet, "No path to datacenter");
    apply(
        &fleet,
        json!({"url": url, "services": "web", "namespace": "team", "tokenFile": file.display().to_string()}),
    );
    until_said(&fleet, "Enterprise");
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
    drop(consul);
    until_said(&fleet, "onnect");
    until_these(&fleet, &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
}

#[test]
fn an_agent_is_reached_by_tls_with_a_certificate_that_is_replaced() {
    let (consul, server) = (Consul::start(), Identity::new(&["localhost"]));
    let (client, stranger) = (Identity::new(&["client"]), Identity::new(&["stranger"]));
    Agent(Rest::new(&format!("http://{}", consul.address))).register("web", "a", "10.0.0.1", &json!({}));
    let tls = consul.listen_tls(&server, &client.chain);
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR"]);
    let (cert, key, _) = stranger.files(fleet.folder(), "consul");
    let source = json!({"url": format!("https://localhost:{}", tls.port()), "services": "web", "interval": "1s",
        "ca": server.chain, "certFile": cert.display().to_string(), "keyFile": key.display().to_string()});
    apply(&fleet, source);
    eventually("it is not let in", || {
        let error = self::source(&fleet)["error"].as_str()?.to_owned();
        (!error.is_empty() && !error.contains("BEGIN")).then_some(())
    });
    client.files(fleet.folder(), "consul");
    until_these(&fleet, &["10.0.0.1:8080"]);
}
