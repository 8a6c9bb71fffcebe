//! The CLI against a real fleet: what it prints, and its exit codes.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
};

use awe4lb_e2e::{
    at, eventually,
    fleet::{Fleet, PASSWORD},
    free_port, program,
    servers::{Identity, Samples},
};
use serde_json::Value;

/// Somebody at a shell, with an own home.
struct Shell {
    home: PathBuf,
}

impl Shell {
    /// What a command prints, if this is its exit code.
    #[track_caller]
    fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = Command::new(program("awe4lb"))
            .args(arguments)
            .env_clear()
            .env("XDG_CONFIG_HOME", &self.home)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "awe4lb {}\n{out}{err}", arguments.join(" "));
        assert!(code == 0 || !(out.is_empty() && err.is_empty()), "{arguments:?} fails without a word");
        if code == 0 { out } else { out + &err }
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ends(0, &[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.join(name), text).expect("a file");
    }
}

fn document(port: u16, samples: &Samples) -> String {
    format!(
        "version: 1\nlisteners:\n  - name: web\n    bind: [\"*:{port}\"]\n    tls: {{ certificates: [app] }}\n    rules:\n      \
         - {{ name: all, pool: app, tls: passthrough }}\npools:\n  - name: app\n    backends:\n      \
         - {{ name: a, address: \"{}\" }}\ncertificates:\n  - {{ name: app, chainFile: app.crt, keyFile: app.key }}\n",
        samples.tcp_echo[0]
    )
}

#[test]
fn a_day_at_the_shell() {
    let fleet = Fleet::start(2);
    let samples = Samples::start(fleet.folder());
    let shell = Shell { home: fleet.folder().to_owned() };
    let port = free_port();
    Identity::new(&["app.test"]).files(&shell.home, "app");
    shell.write("mine.yaml", &document(port, &samples));
    shell.write("wrong.yaml", "listeners:\n  - { name: web, bind: ['*:99999'], rules: [{ pool: ap }] }\n");
    shell.write("password", PASSWORD);
    shell.write("wrong-password", "not this one");

    // Before the login.
    shell.ends(0, &["validate", "mine.yaml"]);
    let wrong = shell.ends(1, &["validate", "wrong.yaml"]);
    assert!(wrong.contains("99999") && wrong.contains("\"ap\""), "everything at once: {wrong}");
    shell.ends(2, &["validate", "--colour", "mine.yaml"]);
    shell.ends(4, &["nodes", "--server", fleet.http()]);
    let login = ["login", "--server", fleet.http(), "--password-file"];
    shell.ends(4, &[&login[..], &["wrong-password"]].concat());
    shell.ends(0, &[&login[..], &["password"]].concat());

    // The first document.
    shell.ends(1, &["diff", "mine.yaml"]);
    shell.ends(0, &["apply", "--dry-run", "mine.yaml"]);
    assert!(!shell.ends(0, &["export"]).contains("web"), "a dry run stores nothing");
    shell.ends(1, &["apply", "wrong.yaml"]);
    shell.ends(0, &["apply", "--wait", "--message", "the first", "mine.yaml"]);
    for node in &fleet.nodes {
        // It waited: no patience is needed here.
        let mut stream = TcpStream::connect(at(node.ip, port)).expect("every node listens");
        let mut answer = [0; 4];
        stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut answer)).expect("echoed");
    }
    shell.ends(0, &["diff", "mine.yaml"]);

    // What there is.
    assert!(shell.ends(0, &["get", "pools"]).contains("app"));
    assert_eq!(shell.json(&["get", "pools", "app"])["backends"][0]["name"], "a");
    shell.ends(3, &["get", "pools", "nowhere"]);
    let exported = shell.ends(0, &["export"]);
    assert!(exported.contains("web") && !exported.contains("PRIVATE KEY"), "{exported}");
    shell.write("exported.yaml", &exported);
    shell.ends(0, &["diff", "--prune", "exported.yaml"]);
    let nodes = shell.ends(0, &["nodes"]);
    assert!(nodes.contains("node-1") && nodes.contains("node-2") && nodes.contains("connected"), "{nodes}");
    let history = shell.ends(0, &["history"]);
    assert!(history.contains("the first"), "{history}");
    eventually("the bytes show", || {
        let stats = shell.json(&["stats"]);
        (stats["totals"]["bytesIn"] == 8).then_some(())
    });
    assert_eq!(shell.json(&["stats", "--node", "node-1"])["totals"]["bytesIn"], 4);

    // A node that rejects it is said, and an exit code.
    let taken = free_port();
    let _holder = TcpListener::bind(at(fleet.nodes[0].ip, taken)).expect("free a moment ago");
    shell.write("taken.yaml", &document(taken, &samples));
    let rejected = shell.ends(1, &["apply", "--wait", "taken.yaml"]);
    assert!(rejected.contains("node-1") && rejected.contains(&taken.to_string()), "{rejected}");
    let head = shell.json(&["get", "revisions"])[0]["number"].as_u64().expect("a number");
    shell.ends(0, &["restore", &(head - 1).to_string(), "--wait"]);
    shell.ends(0, &["diff", "mine.yaml"]);

    // Others.
    let token = shell.ends(0, &["token", "create", "looks", "--role", "viewer"]);
    let token = token.split_whitespace().find(|word| word.starts_with("awl_")).expect("a token").to_owned();
    let denied = shell.ends(4, &["apply", "--token", &token, "taken.yaml"]);
    assert!(denied.contains("operator"), "it names the role: {denied}");
    shell.ends(6, &["nodes", "--server", &format!("http://127.0.0.1:{}", free_port())]);
    shell.ends(0, &["version"]);
}
