//! Databases whose own watchers know the primary: Redis with real sentinels, PostgreSQL with a real Patroni.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Instant,
};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port, have,
    process::{Program, run},
    rest::Rest,
    servers::listening,
};
use serde_json::{Value, json};

fn document(port: u16, source: &Value) -> Value {
    json!({
        "version": 1,
        "listeners": [{"name": "l", "bind": [format!("*:{port}")], "rules": [{"pool": "p"}]}],
        "pools": [{"name": "p", "discovery": [source], "onRemoved": {"drain": "1s"}}],
    })
}

fn source(fleet: &Fleet) -> Value {
    fleet.rest.get("/api/v1/discovery")["items"][0].clone()
}

/// Until the node has exactly these ports of this machine.
#[track_caller]
fn until_these(fleet: &Fleet, wanted: &[u16]) {
    let mut wanted: Vec<String> = wanted.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    wanted.sort();
    eventually(&format!("the node has {wanted:?}"), || {
        let all = fleet.rest.get("/api/v1/backends?pool=p");
        let items = all["items"].as_array()?;
        let is_on_node = |one: &&Value| one["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty());
        let mut found: Vec<&str> =
            items.iter().filter(is_on_node).filter_map(|one| one["address"].as_str()).collect();
        found.sort_unstable();
        (items.len() == found.len() && found == wanted).then_some(())
    });
}

fn redis(folder: &Path, name: &str, port: u16, more: &[&str]) -> Program {
    let (port_text, dir) = (port.to_string(), folder.display().to_string());
    let mut arguments = vec!["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--dir", &dir];
    arguments.extend(["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
    arguments.extend(more);
    let program = Program::start(name, folder, "redis-server", arguments);
    listening(at(Ipv4Addr::LOCALHOST, port));
    program
}

/// A sentinel of the master `main`, with a password.
fn sentinel(folder: &Path, number: usize, port: u16, master: u16) -> Program {
    let file = folder.join(format!("sentinel-{number}.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nrequirepass watch\nsentinel sentinel-pass watch\n\
         sentinel monitor main 127.0.0.1 {master} 2\nsentinel down-after-milliseconds main 1000\n\
         sentinel failover-timeout main 5000\n",
        folder.display()
    );
    std::fs::write(&file, text).expect("written");
    let arguments = [file.display().to_string(), "--sentinel".to_owned()];
    let program = Program::start(&format!("sentinel-{number}"), folder, "redis-server", arguments);
    listening(at(Ipv4Addr::LOCALHOST, port));
    program
}

fn ask_redis(ip: Ipv4Addr, port: u16, words: &[&str]) -> Option<String> {
    let (ip, port) = (ip.to_string(), port.to_string());
    let mut arguments = vec!["5", "redis-cli", "-h", &ip, "-p", &port];
    arguments.extend(words);
    let (ok, answer, _) = run("timeout", &arguments);
    (ok && !answer.trim().is_empty() && !answer.starts_with("Error")).then(|| answer.trim().to_owned())
}

#[test]
fn writes_follow_the_master_that_sentinels_agree_on() {
    if !["redis-server", "redis-cli"].iter().all(|tool| have(tool)) {
        return;
    }
    let fleet = Fleet::start_with(1, &["--allow-files", "DIR"]);
    let folder = fleet.folder().to_owned();
    let ports = [free_port(), free_port(), free_port()];
    let of = format!("127.0.0.1 {}", ports[0]);
    let mut first = redis(&folder, "redis-1", ports[0], &[]);
    let _second = redis(&folder, "redis-2", ports[1], &["--replicaof", &of]);
    let _third = redis(&folder, "redis-3", ports[2], &["--replicaof", &of]);
    let watching = [free_port(), free_port(), free_port()];
    let mut sentinels: Vec<Program> =
        (0..3).map(|number| sentinel(&folder, number, watching[number], ports[0])).collect();
    eventually("the sentinels know each other and the replicas", || {
        let known = ["-a", "watch", "--no-auth-warning", "SENTINEL", "MASTER", "main"];
        let said = ask_redis(Ipv4Addr::LOCALHOST, watching[0], &known)?;
        (said.contains("num-slaves\n2") && said.contains("num-other-sentinels\n2")).then_some(())
    });

    // Asked seldom: what comes in time was told.
    let entrance = free_port();
    let password = folder.join("sentinel-password");
    let who: Vec<String> = watching.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut wish =
        json!({"type": "sentinel", "sentinels": who, "master": "main", "interval": "5m", "timeout": "2s"});
    fleet.apply(&document(entrance, &wish));
    eventually("a password is wanted", || source(&fleet)["error"].as_str()?.contains("NOAUTH").then_some(()));
    std::fs::write(&password, "watch\n").expect("written");
    wish["passwordFile"] = password.display().to_string().into();
    fleet.apply(&document(entrance, &wish));
    until_these(&fleet, &[ports[0]]);
    let node = fleet.nodes[0].ip;
    let set = |value: &str| ask_redis(node, entrance, &["SET", "key", value]);
    eventually("a write reaches the master", || (set("before")? == "OK").then_some(()));

    // One sentinel is dead, another one says nothing: the two others are believed in time, and those are told of.
    sentinels[2].kill();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    wish["sentinels"] =
        who.iter().cloned().chain(silent.local_addr().map(|at| at.to_string())).collect::<Vec<_>>().into();
    wish["master"] = "none".into();
    fleet.apply(&document(entrance, &wish));
    eventually("another name", || {
        source(&fleet)["error"]
            .as_str()?
            .contains("No such master")
            .then_some(())
            .or_else(|| source(&fleet)["error"].as_str()?.contains("knows no master").then_some(()))
    });
    until_these(&fleet, &[ports[0]]);
    wish["master"] = "main".into();
    fleet.apply(&document(entrance, &wish));
    eventually("two of four are told of", || {
        let source = source(&fleet);
        (source["rejected"] == 2 && source["state"] == "ok").then_some(())
    });
    wish["sentinels"] = who.into();
    fleet.apply(&document(entrance, &wish));
    sentinels[2] = sentinel(&folder, 2, watching[2], ports[0]);

    // The master dies: sentinels agree on another one, and tell.
    first.kill();
    let promoted = eventually("the sentinels agree on another master", || {
        let asked = ["-a", "watch", "--no-auth-warning", "SENTINEL", "get-master-addr-by-name", "main"];
        let said = ask_redis(Ipv4Addr::LOCALHOST, watching[0], &asked)?;
        let port: u16 = said.lines().nth(1)?.trim().parse().ok()?;
        (port != ports[0]).then_some(port)
    });
    let began = Instant::now();
    until_these(&fleet, &[promoted]);
    println!("the pool had the new master {} ms after it was seen", began.elapsed().as_millis());
    eventually("writes go to the new master", || (set("after")? == "OK").then_some(()));
    assert_eq!(ask_redis(Ipv4Addr::LOCALHOST, promoted, &["GET", "key"]).as_deref(), Some("after"));

    // Replicas: the one that is left, and the old master when it comes back as one.
    // That one has caught up sentinels do not tell: they are asked.
    wish["role"] = "replica".into();
    wish["interval"] = "1s".into();
    fleet.apply(&document(entrance, &wish));
    let other = ports[1..].iter().copied().find(|port| *port != promoted).expect("one is left");
    until_these(&fleet, &[other]);
    let _first = redis(&folder, "redis-1-again", ports[0], &[]);
    until_these(&fleet, &[other, ports[0]]);
    wish["role"] = "any".into();
    fleet.apply(&document(entrance, &wish));
    until_these(&fleet, &ports);
    eventually("the primary leads", || {
        let role = ask_redis(node, entrance, &["ROLE"])?;
        role.starts_with("master").then_some(())
    });
}

/// Debian keeps the server's programs out of the path.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("postgres").is_file());
    folders.sort();
    folders.pop()
}

/// etcd and members of a Patroni cluster that keep their state in it.
struct Patroni {
    folder: tempfile::TempDir,
    programs: PathBuf,
    etcd: [u16; 2],
    /// REST API and PostgreSQL of each member.
    ports: [[u16; 2]; 3],
}

impl Patroni {
    fn new(programs: PathBuf) -> (Self, Program) {
        // Not within the fleet's folder, which only its owner may enter.
        let folder = tempfile::tempdir().expect("a folder");
        if rustix::process::getuid().is_root() {
            let (ok, _, why) = run("chown", &["postgres", &folder.path().display().to_string()]);
            assert!(ok, "{why}");
        }
        let etcd = [free_port(), free_port()];
        let [clients, peers] = etcd.map(|port| format!("http://127.0.0.1:{port}"));
        let (data, cluster) = (folder.path().join("etcd").display().to_string(), format!("default={peers}"));
        let arguments = [
            ["--data-dir", &data],
            ["--listen-client-urls", &clients],
            ["--advertise-client-urls", &clients],
            ["--listen-peer-urls", &peers],
            ["--initial-advertise-peer-urls", &peers],
            ["--initial-cluster", &cluster],
        ];
        let program = Program::start("etcd", folder.path(), "etcd", arguments.as_flattened());
        listening(at(Ipv4Addr::LOCALHOST, etcd[0]));
        let ports = [0; 3].map(|_| [free_port(), free_port()]);
        (Self { folder, programs, etcd, ports }, program)
    }

    fn member(&self, number: usize) -> Program {
        let [api, port] = self.ports[number];
        let (dir, programs) = (self.folder.path().display(), self.programs.display());
        // JSON is YAML.
        let text = json!({
            "scope": "main",
            "name": format!("pg{number}"),
            "restapi": {"listen": format!("127.0.0.1:{api}"), "connect_address": format!("127.0.0.1:{api}")},
            "etcd3": {"host": format!("127.0.0.1:{}", self.etcd[0])},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3},
                "initdb": [{"auth": "trust"}, {"encoding": "UTF8"}, "no-sync"],
            },
            "postgresql": {
                "listen": format!("127.0.0.1:{port}"),
                "connect_address": format!("127.0.0.1:{port}"),
                "data_dir": format!("{dir}/data-{number}"),
                "bin_dir": programs.to_string(),
                "pgpass": format!("{dir}/pgpass-{number}"),
                "authentication": {"superuser": {"username": "postgres", "password": "x"},
                    "replication": {"username": "replicator", "password": "x"}},
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust", "local all all trust"],
                "parameters": {"unix_socket_directories": dir.to_string(), "fsync": "off"},
            },
            "tags": {"zone": format!("z{number}")},
        });
        let file = self.folder.path().join(format!("{number}.yml"));
        std::fs::write(&file, text.to_string()).expect("written");
        let mut command = vec!["patroni".to_owned(), file.display().to_string()];
        if rustix::process::getuid().is_root() {
            // PostgreSQL leaves the process group: in a process namespace of its own it ends with Patroni all the same.
            let drop = [
                ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--"].as_slice(),
                &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"],
            ]
            .concat();
            command = drop.iter().map(|text| (*text).to_owned()).chain(command).collect();
        }
        Program::start(&format!("patroni-{number}"), self.folder.path(), &command[0], &command[1..])
    }

    /// The members' names and roles, as one of them tells.
    fn cluster(&self, number: usize) -> Option<Vec<(usize, String)>> {
        let api = Rest::new(&format!("http://127.0.0.1:{}", self.ports[number][0]));
        let said = api.try_send(reqwest::Method::GET, "/cluster", &[], "")?;
        let member = |one: &Value| {
            let number = one["name"].as_str()?.strip_prefix("pg")?.parse().ok()?;
            let runs = matches!(one["state"].as_str()?, "running" | "streaming");
            runs.then(|| (number, one["role"].as_str().unwrap_or_default().to_owned()))
        };
        said.json["members"].as_array().map(|all| all.iter().filter_map(member).collect())
    }
}

fn which(ip: Ipv4Addr, port: u16) -> Option<(bool, u16)> {
    let to = format!("host={ip} port={port} user=postgres dbname=postgres connect_timeout=5");
    let statement = "select pg_is_in_recovery(), inet_server_port()";
    let (ok, answer, _) = run("psql", &["-X", "-A", "-t", "-q", "-c", statement, &to]);
    let (recovering, server) = answer.trim().split_once('|').filter(|_| ok)?;
    Some((recovering == "t", server.parse().ok()?))
}

#[test]
fn writes_follow_the_leader_that_patroni_knows() {
    let programs = postgres_programs();
    if programs.is_none() {
        let _ = have("postgres");
    }
    let Some(programs) = programs else { return };
    if !["patroni", "etcd", "psql"].iter().all(|tool| have(tool)) {
        return;
    }
    let (patroni, _etcd) = Patroni::new(programs);
    let mut members: Vec<Option<Program>> = (0..3).map(|number| Some(patroni.member(number))).collect();
    let leader = eventually("a leader and two replicas", || {
        let all = patroni.cluster(0)?;
        let leader = all.iter().find(|(_, role)| role == "leader")?.0;
        (all.len() == 3).then_some(leader)
    });
    let fleet = Fleet::start(1);
    let entrance = free_port();
    let urls: Vec<String> = patroni.ports.iter().map(|[api, _]| format!("http://127.0.0.1:{api}")).collect();
    let mut wish = json!({"type": "patroni", "urls": urls, "interval": "500ms", "timeout": "3s"});
    fleet.apply(&document(entrance, &wish));
    let port = |member: usize| patroni.ports[member][1];
    until_these(&fleet, &[port(leader)]);
    let node = fleet.nodes[0].ip;
    eventually("the leader answers", || (which(node, entrance)? == (false, port(leader))).then_some(()));
    let zone = fleet.rest.get("/api/v1/backends?pool=p")["items"][0]["zone"].clone();
    assert_eq!(zone, format!("z{leader}"));

    // Somebody wants another leader.
    let next = (leader + 1) % 3;
    let api = Rest::new(&urls[leader]);
    let wanted = json!({"leader": format!("pg{leader}"), "candidate": format!("pg{next}")});
    // Refused until the candidate has caught up, as far as Patroni knows.
    eventually("Patroni switches over", || (api.post("/switchover", &wanted).status == 200).then_some(()));
    until_these(&fleet, &[port(next)]);
    eventually("the new leader answers", || (which(node, entrance)? == (false, port(next))).then_some(()));

    // The leader is lost, with its REST API, which was asked.
    members[next] = None;
    let others: Vec<usize> = (0..3).filter(|member| *member != next).collect();
    let last = eventually("one of the others leads", || {
        let all = patroni.cluster(others[0])?;
        all.iter().find(|(member, role)| role == "leader" && *member != next).map(|(member, _)| *member)
    });
    until_these(&fleet, &[port(last)]);
    eventually("it answers", || (which(node, entrance)? == (false, port(last))).then_some(()));

    // Replicas.
    wish["role"] = "replica".into();
    wish["maxLagBytes"] = 1_000_000.into();
    fleet.apply(&document(entrance, &wish));
    let replica = others.into_iter().find(|member| *member != last).expect("one is left");
    until_these(&fleet, &[port(replica)]);
    eventually("a replica answers", || (which(node, entrance)? == (true, port(replica))).then_some(()));

    // Nobody is left to ask: whoever was there stays.
    members.clear();
    eventually("they are missed", || source(&fleet)["error"].as_str()?.contains("onnect").then_some(()));
    until_these(&fleet, &[port(replica)]);
}
