//! Databases by role: whoever is the primary gets the writes, through a failover, and never anybody else.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port, have,
    process::{Program, run},
    servers::listening,
};
use serde_json::{Value, json};

/// Two listeners before the same two servers: one for the primary, one for replicas.
fn by_role(kind: &Value, ports: [u16; 2], servers: [u16; 2]) -> Value {
    let listener = |role: &str, port: u16| json!({"name": role, "bind": [format!("*:{port}")], "rules": [{"name": "all", "pool": role}]});
    let pool = |role: &str| {
        // Down until it is known: before the first check nobody is taken for a primary.
        let mut check = json!({
            "role": role, "initial": "down", "rise": 1, "fall": 1, "interval": "200ms", "timeout": "5s",
        });
        if let (Some(check), Some(kind)) = (check.as_object_mut(), kind.as_object()) {
            check.extend(kind.clone());
        }
        let backends: Vec<Value> =
            servers.iter().map(|port| json!({"address": format!("127.0.0.1:{port}")})).collect();
        json!({"name": role, "healthCheck": check, "backends": backends})
    };
    json!({
        "version": 1,
        "listeners": [listener("primary", ports[0]), listener("replica", ports[1])],
        "pools": [pool("primary"), pool("replica")],
    })
}

fn redis(folder: &Path, name: &str, port: u16, more: &[&str]) -> Program {
    let port_text = port.to_string();
    let dir = folder.display().to_string();
    let mut arguments = vec!["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--dir", &dir];
    arguments.extend(["--repl-diskless-sync-delay", "0"]);
    arguments.extend(more);
    let program = Program::start(name, folder, "redis-server", arguments);
    listening(at(Ipv4Addr::LOCALHOST, port));
    program
}

/// What Redis answers; nothing when there is no connection.
fn ask_redis(ip: Ipv4Addr, port: u16, words: &[&str]) -> Option<String> {
    let (ip, port) = (ip.to_string(), port.to_string());
    let mut arguments = vec!["5", "redis-cli", "-h", &ip, "-p", &port];
    arguments.extend(words);
    let (ok, answer, _) = run("timeout", &arguments);
    (ok && !answer.trim().is_empty() && !answer.starts_with("Error")).then(|| answer.trim().to_owned())
}

#[test]
fn redis_writes_go_to_the_primary_and_follow_it() {
    if !["redis-server", "redis-cli"].iter().all(|tool| have(tool)) {
        return;
    }
    let fleet = Fleet::start(1);
    let (first, second) = (free_port(), free_port());
    let mut primary = redis(fleet.folder(), "redis-1", first, &[]);
    let of = format!("127.0.0.1 {first}");
    let _replica = redis(fleet.folder(), "redis-2", second, &["--replicaof", &of]);
    let (writes, reads) = (free_port(), free_port());
    fleet.apply(&by_role(&json!({"type": "redis"}), [writes, reads], [first, second]));

    let node = fleet.nodes[0].ip;
    let set = |value: &str| ask_redis(node, writes, &["SET", "key", value]);
    let never_refused = |answer: Option<String>| {
        let answer = answer?;
        assert_eq!(answer, "OK", "only a primary takes writes");
        Some(())
    };
    eventually("a write reaches the primary", || never_refused(set("before")));
    eventually("the replica has it", || (ask_redis(node, reads, &["GET", "key"])? == "before").then_some(()));
    for number in 0..10 {
        never_refused(set(&number.to_string())).expect("the primary is there");
        let role = ask_redis(node, reads, &["ROLE"]).expect("the replica is there");
        assert!(role.starts_with("slave"), "{role}");
    }

    primary.kill();
    eventually("nobody takes writes", || match set("lost") {
        None => Some(()),
        answer => never_refused(answer).and(None),
    });
    let promoted = ask_redis(Ipv4Addr::LOCALHOST, second, &["REPLICAOF", "NO", "ONE"]);
    assert_eq!(promoted.as_deref(), Some("OK"));
    eventually("writes go to the new primary", || never_refused(set("after")));
    let there = ask_redis(Ipv4Addr::LOCALHOST, second, &["GET", "key"]);
    assert_eq!(there.as_deref(), Some("after"));
    eventually("there is no replica any more", || ask_redis(node, reads, &["ROLE"]).is_none().then_some(()));
}

/// Debian keeps the server's programs out of the path.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("postgres").is_file());
    folders.sort();
    folders.pop()
}

/// A command as a user that PostgreSQL accepts: it refuses to run as root.
fn unprivileged(program: PathBuf, arguments: &[&str]) -> Vec<String> {
    let root = rustix::process::getuid().is_root();
    let drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
    let prefix: &[&str] = if root { &drop } else { &[] };
    let own = std::iter::once(program.display().to_string());
    prefix
        .iter()
        .map(|text| (*text).to_owned())
        .chain(own)
        .chain(arguments.iter().map(|text| (*text).to_owned()))
        .collect()
}

fn must_run(command: &[String]) {
    let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    let (ok, out, err) = run(&command[0], &arguments);
    assert!(ok, "{command:?}: {out}{err}");
}

/// What one statement answers, without decoration; nothing when there is no session.
fn ask_postgres(ip: Ipv4Addr, port: u16, statement: &str) -> Option<String> {
    let to = format!("host={ip} port={port} user=postgres dbname=postgres connect_timeout=5");
    let (ok, answer, _) = run("psql", &["-X", "-A", "-t", "-q", "-c", statement, &to]);
    ok.then(|| answer.trim().to_owned())
}

#[test]
fn postgres_writes_go_to_the_primary_and_follow_it() {
    let Some(programs) = postgres_programs().filter(|_| have("psql")) else {
        let _ = have("postgres");
        return;
    };
    let fleet = Fleet::start(1);
    // Not within the fleet's folder, which only its owner may enter.
    let folder = tempfile::tempdir().expect("a folder");
    let dir = |name: &str| folder.path().join(name).display().to_string();
    if rustix::process::getuid().is_root() {
        must_run(&["chown".to_owned(), "postgres".to_owned(), folder.path().display().to_string()]);
    }
    let (first, second) = (free_port(), free_port());
    let start = |name: &str, port: u16| {
        let (dir, port_text) = (dir(name), port.to_string());
        let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
        let mut arguments = vec!["-D", &dir, "-p", &port_text];
        arguments.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let command = unprivileged(programs.join("postgres"), &arguments);
        let program = Program::start(name, fleet.folder(), &command[0], &command[1..]);
        eventually(&format!("{name} serves"), || ask_postgres(Ipv4Addr::LOCALHOST, port, "select 1"));
        program
    };
    let initdb = ["-D", &dir("first"), "-U", "postgres", "-A", "trust", "-N", "--no-locale"];
    must_run(&unprivileged(programs.join("initdb"), &initdb));
    let primary = start("first", first);
    let (from, to) = (first.to_string(), dir("second"));
    let copy = ["-h", "127.0.0.1", "-p", &from, "-U", "postgres", "-D", &to, "-R", "-N", "-c", "fast"];
    must_run(&unprivileged(programs.join("pg_basebackup"), &copy));
    let _replica = start("second", second);

    let (writes, reads) = (free_port(), free_port());
    fleet.apply(&by_role(&json!({"type": "postgres", "user": "postgres"}), [writes, reads], [first, second]));
    let node = fleet.nodes[0].ip;
    // Which server answers, and that it is what the listener promises.
    let server = |port: u16, replica: bool| {
        let answer = ask_postgres(node, port, "select pg_is_in_recovery(), inet_server_port()")?;
        let (recovering, server) = answer.split_once('|').expect("two columns");
        assert_eq!(recovering, if replica { "t" } else { "f" }, "{answer}");
        server.parse::<u16>().ok()
    };
    eventually("the primary is known", || server(writes, false));
    eventually("the replica is known", || server(reads, true));
    for _ in 0..5 {
        assert_eq!(server(writes, false), Some(first));
        assert_eq!(server(reads, true), Some(second));
    }
    ask_postgres(node, writes, "create table kept (value int); insert into kept values (7)")
        .expect("a write");
    eventually("the replica has it", || {
        (ask_postgres(node, reads, "select value from kept")? == "7").then_some(())
    });

    drop(primary);
    eventually("nobody takes writes", || server(writes, false).is_none().then_some(()));
    ask_postgres(Ipv4Addr::LOCALHOST, second, "select pg_promote()").expect("a promotion");
    eventually("writes go to the new primary", || (server(writes, false)? == second).then_some(()));
    ask_postgres(node, writes, "insert into kept values (8)").expect("a write");
    assert_eq!(ask_postgres(node, writes, "select sum(value) from kept").as_deref(), Some("15"));
    eventually("there is no replica any more", || {
        ask_postgres(node, reads, "select 1").is_none().then_some(())
    });
}
