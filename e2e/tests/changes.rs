//! Twenty changes of the configuration under load: no connection is lost and no stream is broken.

use std::{collections::BTreeSet, io::Read as _, io::Write as _, net::TcpStream, time::Duration};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port,
    load::Load,
    servers::{Identity, Samples},
};
use serde_json::{Value, json};

type Change = (&'static str, Box<dyn Fn(&mut Value)>);

/// The first object of this name in a list of the document.
fn object<'a>(document: &'a mut Value, list: &str, name: &str) -> &'a mut Value {
    let objects = document[list].as_array_mut().expect("a list");
    objects.iter_mut().find(|object| object["name"] == name).expect("an object of that name")
}

fn push(value: &mut Value, item: Value) {
    value.as_array_mut().expect("a list").push(item);
}

/// Where the changes take place: everything but the marker is touched by them.
struct Scene {
    main: u16,
    marker: u16,
    other: u16,
    new: u16,
    samples: Samples,
    identities: [Identity; 2],
}

impl Scene {
    fn document(&self) -> Value {
        let echo = |name: &str, index: usize| json!({"name": name, "address": self.samples.tcp_echo[index].to_string()});
        let http = |index: usize| json!([{"name": "a", "address": self.samples.http[index].to_string()}]);
        json!({
            "version": 1,
            "listeners": [
                {"name": "main", "bind": [format!("*:{}", self.main)], "rules": [{"name": "all", "pool": "main"}]},
                {"name": "other", "bind": [format!("*:{}", self.other)], "rules": [{"name": "all", "pool": "main"}]},
                {"name": "marker", "bind": [format!("*:{}", self.marker)], "rules": [{"name": "all", "pool": "marker-0"}]},
            ],
            "pools": [
                {"name": "main", "backends": [echo("a", 0)]},
                {"name": "marker-0", "backends": http(0)},
                {"name": "marker-1", "backends": http(1)},
            ],
            "certificates": [self.identities[0].object("app")],
        })
    }

    fn changes(&self) -> Vec<Change> {
        let second = self.samples.tcp_echo[1].to_string();
        let (main, new) = (format!("*:{}", self.main), format!("*:{}", self.new));
        let renewed = self.identities[1].object("app");
        let added = self.identities[1].object("extra");
        let change = |name: &'static str, change: Box<dyn Fn(&mut Value)>| (name, change);
        vec![
            change(
                "backend added",
                Box::new(move |all| {
                    push(
                        &mut object(all, "pools", "main")["backends"],
                        json!({"name": "b", "address": second}),
                    );
                }),
            ),
            change(
                "weight",
                Box::new(|all| object(all, "pools", "main")["backends"][1]["weight"] = json!(3)),
            ),
            change("balance", Box::new(|all| object(all, "pools", "main")["balance"] = json!("leastConn"))),
            change(
                "health check",
                Box::new(|all| {
                    object(all, "pools", "main")["healthCheck"] =
                        json!({"type": "tcp", "interval": "10s", "timeout": "5s"});
                }),
            ),
            change("certificate added", Box::new(move |all| push(&mut all["certificates"], added.clone()))),
            change(
                "plain to TLS",
                Box::new(|all| object(all, "listeners", "other")["tls"] = json!({"certificates": ["app"]})),
            ),
            change(
                "certificate replaced",
                Box::new(move |all| *object(all, "certificates", "app") = renewed.clone()),
            ),
            change(
                "TLS to plain",
                Box::new(|all| {
                    object(all, "listeners", "other").as_object_mut().expect("an object").remove("tls");
                }),
            ),
            change(
                "listener added",
                Box::new(move |all| {
                    push(
                        &mut all["listeners"],
                        json!({"name": "new", "bind": [new], "rules": [{"name": "all", "pool": "main"}]}),
                    );
                }),
            ),
            change(
                "rule added in front",
                Box::new(|all| {
                    let rule =
                        json!({"name": "elsewhere", "match": {"client": ["192.0.2.0/24"]}, "reject": {}});
                    object(all, "listeners", "main")["rules"].as_array_mut().expect("rules").insert(0, rule);
                }),
            ),
            change(
                "rule order",
                Box::new(|all| {
                    push(
                        &mut object(all, "listeners", "main")["rules"],
                        json!({"name": "last", "match": {"client": ["198.51.100.0/24"]}, "reject": {}}),
                    );
                    object(all, "listeners", "main")["rules"].as_array_mut().expect("rules").swap(0, 2);
                    object(all, "listeners", "main")["rules"].as_array_mut().expect("rules").swap(1, 2);
                }),
            ),
            change(
                "timeouts",
                Box::new(|all| object(all, "listeners", "main")["timeouts"] = json!({"idle": "5m"})),
            ),
            change(
                "limits",
                Box::new(|all| {
                    object(all, "listeners", "main")["limits"] = json!({"maxConnections": 50_000})
                }),
            ),
            change(
                "pool renamed",
                Box::new(|all| {
                    let text = all.to_string().replace("\"pool\":\"main\"", "\"pool\":\"apps\"");
                    *all = serde_json::from_str(&text).expect("JSON");
                    object(all, "pools", "main")["name"] = json!("apps");
                }),
            ),
            change(
                "backend renamed",
                Box::new(|all| object(all, "pools", "apps")["backends"][0]["name"] = json!("first")),
            ),
            change(
                "listener renamed",
                Box::new(|all| object(all, "listeners", "main")["name"] = json!("entrance")),
            ),
            change(
                "address added",
                Box::new(|all| {
                    let extra = format!("*:{}", free_port());
                    push(&mut object(all, "listeners", "entrance")["bind"], json!(extra));
                }),
            ),
            change(
                "split",
                Box::new(|all| {
                    let rules = object(all, "listeners", "entrance")["rules"].as_array_mut().expect("rules");
                    let all = rules.iter_mut().find(|rule| rule["name"] == "all").expect("the rule");
                    all.as_object_mut().expect("a rule").remove("pool");
                    all["split"] = json!([{"pool": "apps", "weight": 9}, {"pool": "apps-2", "weight": 1}]);
                }),
            ),
            change(
                "listener removed",
                Box::new(move |all| {
                    let listeners = all["listeners"].as_array_mut().expect("listeners");
                    listeners.retain(|listener| listener["name"] != "new");
                    assert!(
                        listeners.iter().any(|listener| listener["bind"][0] == *main),
                        "the entrance stays"
                    );
                }),
            ),
            change(
                "backend removed",
                Box::new(|all| {
                    object(all, "pools", "apps")["backends"].as_array_mut().expect("backends").remove(1);
                }),
            ),
        ]
    }
}

/// Which of the two HTTP servers answers on the marker's route.
fn marked(fleet: &Fleet, node: usize, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(at(fleet.nodes[node].ip, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find(|line| line.starts_with("hello from ")).map(str::to_owned)
}

fn nothing_is_lost(rate: &str, streams: &str) {
    let fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let identities = [Identity::new(&["app.test"]), Identity::new(&["app.test"])];
    let scene = Scene {
        main: free_port(),
        marker: free_port(),
        other: free_port(),
        new: free_port(),
        samples,
        identities,
    };
    let mut document = scene.document();
    fleet.apply(&document);
    let mut seen = BTreeSet::new();
    let mut last = marked(&fleet, 0, scene.marker).expect("the marker answers");

    let targets = fleet.targets(scene.main);
    let flags = [
        "--target",
        &targets,
        "--rate",
        rate,
        "--streams",
        streams,
        "--stream-rate",
        "8192",
        "--until-stdin-closes",
        "--spread-sources",
    ];
    let load = Load::start("load", fleet.folder(), &flags);
    for (number, (kind, change)) in scene.changes().iter().enumerate() {
        change(&mut document);
        if *kind == "split" {
            let mut copy = object(&mut document, "pools", "apps").clone();
            copy["name"] = json!("apps-2");
            push(&mut document["pools"], copy);
        }
        // The marker turns with each change: the other server answers when it is live.
        object(&mut document, "listeners", "marker")["rules"][0]["pool"] =
            json!(format!("marker-{}", (number + 1) % 2));
        fleet.put(&document);
        let mut now = String::new();
        for node in 0..fleet.nodes.len() {
            now = eventually(&format!("change {number} ({kind}) is live on node {node}"), || {
                marked(&fleet, node, scene.marker).filter(|answer| *answer != last)
            });
        }
        last = now;
        seen.insert(*kind);
        // A change is live within milliseconds: the load has to meet it, too.
        std::thread::sleep(Duration::from_millis(150));
    }
    fleet.await_sync();
    let result = load.finish();
    let all = &result["all"];
    // What the nodes say of it, should anything be lost.
    println!("failed at the nodes: {}", fleet.rest.get("/api/v1/stats")["totals"]["failed"]);
    println!(
        "{} connections, {} streams over {} changes: {result}",
        all["connectionsStarted"],
        all["streamsOpened"],
        seen.len()
    );
    assert_eq!(seen.len(), 20);
    assert_eq!(all["connectionsFailed"], 0, "{result}");
    assert_eq!(all["connectionsStarted"], all["connectionsCompleted"], "{result}");
    assert_eq!(all["streamsBroken"], 0, "{result}");
    assert_eq!(all["streamsIntact"], all["streamsOpened"], "{result}");
    assert_eq!(all["streamsOpened"].to_string(), streams, "{result}");
    assert!(all["connectionsCompleted"].as_u64() > Some(500), "{result}");
}

#[test]
fn twenty_changes_under_load_lose_nothing() {
    nothing_is_lost("400", "20");
}

/// With release binaries (`AWE4LB_BIN_DIR`): the debug ones cannot carry this.
#[test]
#[ignore = "the deep lane"]
fn twenty_changes_at_five_thousand_connections_a_second_lose_nothing() {
    nothing_is_lost("5000", "200");
}
