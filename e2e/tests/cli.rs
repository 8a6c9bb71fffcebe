//! The command line at a real fleet: what it prints, and its exit codes.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use awe4lb_e2e::{
    at, eventually,
    fleet::Fleet,
    free_port, program,
    servers::{Identity, Samples},
};
use serde_json::Value;

struct Cli {
    folder: PathBuf,
    server: String,
}

impl Cli {
    /// Exit code, data, talk.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(program("awe4lb"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", &self.folder)
            .env("AWE4LB_SERVER", &self.server)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{out}{err}");
        out
    }

    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let (is, out, err) = self.run(arguments);
        assert_eq!(is, code, "{arguments:?}\n{out}{err}");
        out + &err
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("written");
    }
}

fn fleet_with_cli(nodes: u8) -> (Fleet, Cli) {
    let fleet = Fleet::start(nodes);
    let cli = Cli { folder: fleet.folder().join("cli"), server: fleet.http().to_owned() };
    std::fs::create_dir(&cli.folder).expect("a folder");
    cli.write("password", "correct horse battery\n");
    (fleet, cli)
}

fn document(port: u16, address: &str) -> String {
    format!(
        "version: 1\nlisteners:\n  - name: web\n    bind: [\"*:{port}\"]\n    rules: [{{ name: all, pool: web }}]\n\
         pools:\n  - name: web\n    backends: [{{ name: a, address: \"{address}\" }}]\n"
    )
}

#[test]
fn from_login_to_history() {
    let (fleet, cli) = fleet_with_cli(2);
    cli.fails(4, &["nodes"]);
    cli.ok(&["login", "--user", "admin", "--password-file", "password"]);
    let context = cli.folder.join("awe4lb/context.json");
    assert_eq!(mode(&context), 0o600);

    let port = free_port();
    cli.write("a.yaml", &document(port, "127.0.0.1:1"));
    cli.ok(&["validate", "a.yaml"]);
    let planned = cli.ok(&["apply", "--dry-run", "a.yaml"]);
    assert!(planned.contains("create listener web") && planned.contains("create pool web"), "{planned}");
    let diff = cli.fails(1, &["diff", "a.yaml"]);
    assert!(diff.contains("+name: web"), "{diff}");
    let (code, _, talk) = cli.run(&["apply", "--wait", "-m", "the first", "a.yaml"]);
    assert!(code == 0 && talk.contains("2 nodes run it"), "{talk}");
    assert_eq!(cli.ok(&["diff", "a.yaml"]), "");
    assert!(cli.run(&["apply", "--wait", "a.yaml"]).2.contains("nothing to change"));

    let nodes = cli.ok(&["nodes"]);
    assert!(nodes.contains("node-1") && nodes.contains("active"), "{nodes}");
    assert_eq!(cli.ok(&["get", "listeners", "-o", "name"]).trim(), "web");
    let pool: Value = serde_json::from_str(&cli.ok(&["get", "pool", "web", "-o", "json"])).expect("JSON");
    assert_eq!(pool["backends"][0]["address"], "127.0.0.1:1");
    assert!(cli.ok(&["get", "backends"]).contains("127.0.0.1:1"));
    assert!(cli.ok(&["stats"]).contains("listener"));
    assert!(cli.ok(&["history"]).contains("the first"));

    // What is exported is what was applied, in every language.
    cli.write("again.yaml", &cli.ok(&["export"]));
    assert_eq!(cli.ok(&["diff", "--prune", "again.yaml"]), "");
    cli.write("again.toml", &cli.ok(&["export", "--format", "toml"]));
    assert_eq!(cli.ok(&["diff", "--prune", "again.toml"]), "");
    cli.ok(&["fmt", "--check", "again.yaml"]);

    cli.write("b.yaml", &document(port, "127.0.0.1:2"));
    cli.ok(&["apply", "--wait", "b.yaml"]);
    assert!(cli.ok(&["history", "2"]).contains("127.0.0.1:2"));
    cli.ok(&["restore", "1", "--wait"]);
    assert_eq!(cli.ok(&["diff", "a.yaml"]), "");

    cli.ok(&["drain", "web/a", "--deadline", "1h", "--reason", "for a test"]);
    assert!(cli.ok(&["get", "backends"]).contains("drain"));
    cli.ok(&["ready", "web/a"]);
    cli.ok(&["nodes", "drain", "node-2"]);
    cli.ok(&["nodes", "undrain", "node-2"]);
    drop(fleet);
}

/// What is explained beforehand is what happens, and afterwards the node says so too.
#[test]
fn what_is_explained_is_what_happens() {
    let (fleet, cli) = fleet_with_cli(1);
    cli.ok(&["login", "--user", "admin", "--password-file", "password"]);
    let samples = Samples::start(fleet.folder());
    let port = free_port();
    cli.write("a.yaml", &document(port, &samples.tcp_echo[0].to_string()));
    cli.ok(&["apply", "--wait", "a.yaml"]);
    let node = &fleet.nodes[0];
    let state_dir = node.state_dir();
    let connections = |flags: &[&str]| -> Value {
        let mut command = Command::new(program("awe4lb-data-plane"));
        let command = command.arg("connections").arg("--state-dir").arg(&state_dir).args(flags);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let question = ["explain", "--listener", "web", "--from", "127.0.0.1"];
    let explained = cli.ok(&question);
    assert!(explained.contains("taken") && explained.contains("forwarded"), "{explained}");

    let mut stream = TcpStream::connect(at(node.ip, port)).expect("accepted");
    stream.write_all(b"hello").expect("sent");
    stream.read_exact(&mut [0; 5]).expect("echoed");
    let open = connections(&["--listener", "web"]);
    assert_eq!(open["connections"][0]["backend"], "a");
    assert_eq!(open["connections"][0]["bytesIn"], 5);
    let id = open["connections"][0]["id"].to_string();
    assert_eq!(connections(&["--id", &id, "--close"])["closing"], 1);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);

    cli.ok(&["drain", "web/a", "--reason", "for a test"]);
    let explained = cli.ok(&question);
    assert!(explained.contains("no-backend") && explained.contains("drained"), "{explained}");
    eventually("the node was told", || {
        let mut stream = TcpStream::connect(at(node.ip, port)).ok()?;
        stream.write_all(b"hello").ok()?;
        (stream.read(&mut [0; 5]).unwrap_or(0) == 0).then_some(())
    });
    let ended = eventually("it says why", || {
        let ended = connections(&["--ended", "--client", "127.0.0.0/8", "--reason", "no-backend"]);
        (ended["connections"].as_array().is_some_and(|list| !list.is_empty())).then_some(ended)
    });
    assert_eq!(ended["connections"][0]["pool"], "web");
    let by_hand = connections(&["--ended", "--reason", "admin-closed"]);
    assert_eq!(by_hand["connections"][0]["side"], "awe4lb");
}

#[test]
fn what_was_applied_carries_traffic_and_gives_no_key_away() {
    let (fleet, cli) = fleet_with_cli(2);
    cli.ok(&["login", "--user", "admin", "--password-file", "password"]);
    let samples = Samples::start(fleet.folder());
    Identity::new(&["app.test"]).files(&cli.folder, "app");
    let port = free_port();
    let certificate = "certificates:\n  - { name: app, chainFile: app.crt, keyFile: app.key }\n";
    cli.write("a.yaml", &(document(port, &samples.tcp_echo[0].to_string()) + certificate));
    cli.ok(&["apply", "--wait", "a.yaml"]);
    for node in &fleet.nodes {
        // It waited: no patience is needed here.
        let mut stream = TcpStream::connect(at(node.ip, port)).expect("every node listens");
        let mut answer = [0; 4];
        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut answer)).expect("echoed");
    }
    let stats = |more: &[&str]| -> Value {
        let arguments = [&["stats", "-o", "json"], more].concat();
        serde_json::from_str(&cli.ok(&arguments)).expect("JSON")
    };
    eventually("the bytes show", || (stats(&[])["totals"]["bytesIn"] == 8).then_some(()));
    assert_eq!(stats(&["--node", "node-1"])["totals"]["bytesIn"], 4);

    let exported = cli.ok(&["export"]);
    assert!(exported.contains("web") && !exported.contains("PRIVATE KEY"), "{exported}");
    cli.write("exported.yaml", &exported);
    assert_eq!(cli.ok(&["diff", "--prune", "exported.yaml"]), "");

    let viewer = cli.ok(&["token", "create", "looks", "--role", "viewer"]);
    let denied = cli.fails(4, &["--token", viewer.trim(), "apply", "a.yaml"]);
    assert!(denied.contains("operator"), "it names the role: {denied}");
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let (mut fleet, cli) = fleet_with_cli(1);
    cli.ok(&["login", "--user", "admin", "--password-file", "password"]);
    cli.write("wrong.yaml", "version: 1\npools:\n  - name: p\n    backend: []\n");
    let said = cli.fails(1, &["validate", "wrong.yaml"]);
    assert!(said.contains("wrong.yaml:4:5:") && said.contains("backends"), "{said}");
    let said = cli.fails(1, &["apply", "wrong.yaml"]);
    assert!(said.contains("wrong.yaml:4:5:"), "{said}");
    cli.fails(2, &["apply"]);
    cli.fails(3, &["get", "pool", "nothing"]);

    let viewer = cli.ok(&["token", "create", "ci", "--role", "viewer"]);
    cli.fails(4, &["--token", viewer.trim(), "token", "list"]);
    cli.fails(4, &["--token", "awl_wrong", "nodes"]);
    cli.fails(5, &["token", "create", "ci"]);

    // A rejection by a node is the failure of the apply that waits for it.
    let port = free_port();
    let _holder = std::net::TcpListener::bind((fleet.nodes[0].ip, port)).expect("free a moment ago");
    cli.write("held.yaml", &document(port, "127.0.0.1:1"));
    let said = cli.fails(1, &["apply", "--wait", "held.yaml"]);
    assert!(said.contains("node-1 rejects it") && said.contains(&port.to_string()), "{said}");

    // A node that does not answer is a matter of time.
    fleet.nodes[0].running().pause(true);
    cli.write("late.yaml", &document(free_port(), "127.0.0.1:1"));
    let said = cli.fails(6, &["apply", "--wait", "--timeout", "1s", "late.yaml"]);
    assert!(said.contains("waiting for node-1"), "{said}");
    fleet.nodes[0].running().pause(false);
    fleet.kill_control_plane();
    cli.fails(6, &["nodes"]);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}
