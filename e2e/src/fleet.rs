//! A control plane and its nodes, as processes on this machine.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    at,
    process::{Program, run},
    program,
    rest::Rest,
    try_eventually,
};

/// Of the user `admin`.
pub const PASSWORD: &str = "correct horse battery";

/// A running fleet.
pub struct Fleet {
    /// Signed in as admin.
    pub rest: Rest,
    /// In the order of their numbers.
    pub nodes: Vec<Node>,
    control: Option<Program>,
    http: String,
    grpc: String,
    flags: Vec<String>,
    disk: Option<Disk>,
    dir: TempDir,
}

/// A small disk of its own, in memory.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0.display().to_string()]);
    }
}

/// A node.
pub struct Node {
    /// `node-1`, …
    pub name: String,
    /// Where it listens.
    pub ip: Ipv4Addr,
    program: Option<Program>,
    folder: PathBuf,
    control_plane: String,
}

impl Fleet {
    /// One control plane and so many nodes that have joined it.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn start(nodes: u8) -> Self {
        Self::start_with(nodes, &[])
    }

    /// The same, the control plane with more flags. `DIR` in them is the folder of the fleet.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn start_with(nodes: u8, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("a folder: {error}"));
        Self::start_in(dir, None, nodes, flags)
    }

    /// The same, with the data of the control plane on a disk of so many MiB.
    ///
    /// # Panics
    /// When nothing can be mounted here.
    #[must_use]
    pub fn start_on_a_small_disk(nodes: u8, mebibytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("a folder: {error}"));
        let data = dir.path().join("control-plane");
        std::fs::create_dir(&data).unwrap_or_else(|error| panic!("a folder: {error}"));
        let (size, at) = (format!("size={mebibytes}m,mode=0700"), data.display().to_string());
        let (ok, _, why) = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &at]);
        assert!(ok, "{why}");
        Self::start_in(dir, Some(Disk(data)), nodes, &[])
    }

    fn start_in(dir: TempDir, disk: Option<Disk>, nodes: u8, flags: &[&str]) -> Self {
        let folder = dir.path().display().to_string();
        let flags: Vec<String> = flags.iter().map(|flag| flag.replace("DIR", &folder)).collect();
        let (control, ready) = start_control_plane(dir.path(), "127.0.0.1:0", "127.0.0.1:0", &flags);
        let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
        let (http, grpc) = (text("http"), text("grpc"));
        let mut rest = Rest::new(&http);
        sign_in(&mut rest, &http, &dir.path().join("control-plane/bootstrap-code"));
        let mut fleet =
            Self { rest, nodes: Vec::new(), control: Some(control), http, grpc, flags, disk, dir };
        let token = fleet.join_token(&json!({"uses": nodes.max(1)}));
        for number in 1..=nodes {
            fleet.add_node(number, &token);
        }
        fleet.await_sync();
        fleet
    }

    /// One control plane and a node in each of these zones.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn start_in_zones(zones: &[&str], flags: &[&str]) -> Self {
        let mut fleet = Self::start_with(0, flags);
        for (number, zone) in (1..).zip(zones) {
            let token = fleet.join_token(&json!({"uses": 1, "labels": {"zone": zone}}));
            fleet.add_node(number, &token);
        }
        fleet.await_sync();
        fleet
    }

    /// A join token, as text.
    pub fn join_token(&self, wish: &Value) -> String {
        let made = self.rest.post("/api/v1/join-tokens", wish).ok();
        made["token"].as_str().unwrap_or_default().to_owned()
    }

    fn add_node(&mut self, number: u8, token: &str) {
        let folder = self.dir.path().join(format!("node-{number}"));
        std::fs::create_dir(&folder).unwrap_or_else(|error| panic!("a folder: {error}"));
        std::fs::write(folder.join("token"), token).unwrap_or_else(|error| panic!("a file: {error}"));
        let mut node = Node {
            name: format!("node-{number}"),
            ip: Ipv4Addr::new(127, 0, 1, number),
            program: None,
            folder,
            control_plane: format!("https://{}", self.grpc),
        };
        node.start();
        self.nodes.push(node);
    }

    /// Where everything is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Fills the small disk to its last byte; `false`: makes room again.
    ///
    /// # Panics
    /// When there is none.
    pub fn fill_disk(&self, is_full: bool) {
        let disk = self.disk.as_ref().unwrap_or_else(|| panic!("no disk of its own"));
        let ballast = disk.0.join("ballast");
        if is_full {
            // It ends when there is no room left.
            run("dd", &["if=/dev/zero", &format!("of={}", ballast.display()), "bs=4096"]);
        } else {
            let _ = std::fs::remove_file(ballast);
        }
    }

    /// Address of the REST API.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Address for nodes.
    #[must_use]
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// Replaces the configuration, and waits until every running node runs it.
    #[track_caller]
    pub fn apply(&self, document: &Value) -> u64 {
        let revision = self.put(document);
        self.await_revision(revision);
        revision
    }

    /// Replaces the configuration.
    #[track_caller]
    pub fn put(&self, document: &Value) -> u64 {
        let done = self.rest.put("/api/v1/config", document).ok();
        done["revision"].as_u64().unwrap_or_default()
    }

    /// Until every running node runs what is wanted.
    #[track_caller]
    pub fn await_sync(&self) {
        self.await_revision(0);
    }

    /// Until every running node runs this revision.
    #[track_caller]
    pub fn await_revision(&self, revision: u64) {
        let running: Vec<&str> =
            self.nodes.iter().filter(|node| node.program.is_some()).map(|node| node.name.as_str()).collect();
        let in_sync =
            |node: &Value| node["inSync"] == true && node["wanted"]["revision"].as_u64() >= Some(revision);
        let mut last = Vec::new();
        let done = try_eventually(|| {
            let nodes = self.rest.get("/api/v1/nodes");
            last = nodes["items"].as_array().cloned().unwrap_or_default();
            last.retain(|node| running.iter().any(|name| node["name"] == *name));
            (last.len() == running.len() && last.iter().all(in_sync)).then_some(())
        });
        assert!(done.is_some(), "the nodes do not run revision {revision}: {last:#?}");
    }

    /// The view of a node.
    #[track_caller]
    pub fn view(&self, name: &str) -> Value {
        self.rest.get(&format!("/api/v1/nodes/{name}"))
    }

    /// The addresses of a port on every node, for the load generator.
    #[must_use]
    pub fn targets(&self, port: u16) -> String {
        let all: Vec<String> = self.nodes.iter().map(|node| at(node.ip, port).to_string()).collect();
        all.join(",")
    }

    /// SIGKILL.
    pub fn kill_control_plane(&mut self) {
        if let Some(mut control) = self.control.take() {
            control.kill();
        }
    }

    /// Starts it again, at the addresses where it was.
    pub fn restart_control_plane(&mut self) {
        self.kill_control_plane();
        let http = self.http.trim_start_matches("http://").to_owned();
        let (control, _) = start_control_plane(self.dir.path(), &http, &self.grpc, &self.flags);
        self.control = Some(control);
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn control_plane(&self) -> &Program {
        self.control.as_ref().unwrap_or_else(|| panic!("the control plane does not run"))
    }
}

fn start_control_plane(folder: &Path, http: &str, grpc: &str, flags: &[String]) -> (Program, Value) {
    let data = folder.join("control-plane").display().to_string();
    let own = ["--data-dir", &data, "--http", http, "--grpc", grpc];
    let arguments: Vec<&str> = own.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let mut control = Program::start("control-plane", folder, program("awe4lb-control-plane"), arguments);
    let ready = control.ready();
    (control, ready)
}

fn sign_in(rest: &mut Rest, url: &str, code: &Path) {
    let code = std::fs::read_to_string(code).unwrap_or_else(|error| panic!("the bootstrap code: {error}"));
    let wish = json!({"code": code, "user": "admin", "password": PASSWORD});
    let session = rest.post("/api/v1/session:bootstrap", &wish);
    assert_eq!(session.status, 200, "{}", session.text);
    let cookie = session.cookie.unwrap_or_default();
    let headers = [("content-type", "application/json"), ("cookie", cookie.as_str()), ("origin", url)];
    let body = json!({"name": "test", "role": "admin"}).to_string();
    let token = rest.send(reqwest::Method::POST, "/api/v1/tokens", &headers, &body).ok();
    rest.token = token["token"].as_str().unwrap_or_default().to_owned();
}

impl Node {
    /// Starts it and waits until it is ready. Gives its ready line.
    pub fn start(&mut self) -> Value {
        self.start_with(&[])
    }

    /// The same with more flags.
    pub fn start_with(&mut self, flags: &[&str]) -> Value {
        self.begin(flags);
        self.ready()
    }

    /// Starts it and does not wait.
    pub fn begin(&mut self, flags: &[&str]) {
        let state = self.folder.join("state").display().to_string();
        let token = self.folder.join("token").display().to_string();
        let ip = self.ip.to_string();
        let mut arguments = vec!["--control-plane", &self.control_plane, "--join-token-file", &token];
        arguments.extend(["--name", &self.name, "--state-dir", &state, "--bind-address", &ip]);
        arguments.extend(["--admin", "127.0.0.1:0", "--threads", "1", "--drain-timeout", "5s"]);
        arguments.extend(flags);
        let program = Program::start(&self.name, &self.folder, program("awe4lb-data-plane"), arguments);
        self.program = Some(program);
    }

    /// Its ready line.
    ///
    /// # Panics
    /// When it is not started or does not become ready.
    pub fn ready(&mut self) -> Value {
        self.running().ready()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn running(&mut self) -> &mut Program {
        let name = &self.name;
        self.program.as_mut().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill();
        }
    }

    /// SIGTERM, and waits until it has gone; whether well.
    pub fn stop(&mut self) -> bool {
        let Some(mut program) = self.program.take() else { return true };
        program.terminate();
        program.ended()
    }

    /// Identity and cache.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }
}
