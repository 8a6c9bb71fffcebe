//! What the documentation says of the programs: every command in it can be typed, every flag, variable and metric is
//! described.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use awe4lb_e2e::program;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).expect("docs").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    names.into_iter().map(|name| (name.clone(), page(&name))).collect()
}

/// Commands of blocks of `sh`, and those that stand in a line of prose as code.
fn commands(page: &str) -> Vec<String> {
    let (mut commands, mut is_shell, mut is_other) = (Vec::new(), false, false);
    let mut continued = String::new();
    for line in page.lines() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            (is_shell, is_other) = match (is_shell || is_other, info.trim()) {
                (true, _) => (false, false),
                (false, "sh") => (true, false),
                (false, _) => (false, true),
            };
        } else if is_shell {
            continued.push_str(line.trim_end_matches('\\'));
            if !line.ends_with('\\') {
                commands.push(std::mem::take(&mut continued));
            }
        } else if !is_other {
            commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    commands
}

/// The words of a command up to a comment, a pipe or a redirection, without variables before it. `None`: not ours.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for c in command.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    let is_end = |word: &String| matches!(word.chars().next(), Some('#' | '|' | '>' | '<' | '&'));
    let end = words.iter().position(is_end).unwrap_or(words.len());
    words.truncate(end);
    let first = words.iter().position(|word| !word.contains('='))?;
    let words = words.split_off(first);
    let is_ours = matches!(words[0].as_str(), "awe4lb" | "awe4lb-data-plane" | "awe4lb-control-plane");
    (is_ours && words.len() > 1).then_some(words)
}

/// `--help` behind a command shows help if everything before it is known.
#[test]
fn every_documented_command_can_be_typed() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (name, text) in pages() {
        for words in commands(&text).iter().filter_map(|command| words(command)) {
            checked += 1;
            let output = Command::new(program(&words[0]))
                .args(&words[1..])
                .arg("--help")
                .env_clear()
                .output()
                .expect("the program runs");
            let has_help = String::from_utf8_lossy(&output.stdout).contains("Usage:");
            if !output.status.success() || !has_help {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                wrong.push(format!(
                    "{name}: {}\n    {}",
                    words.join(" "),
                    why.trim().replace('\n', "\n    ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 15, "only {checked} commands");
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(program(arguments[0])).args(&arguments[1..]).arg("--help").output();
    String::from_utf8(output.expect("the program runs").stdout).expect("text")
}

/// Flags (`--admin`), variables (`AWE4LB_ADMIN`) and subcommands in a help text.
fn described(help: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut found = BTreeSet::new();
    let mut is_commands = false;
    for line in help.lines() {
        is_commands = line == "Commands:" || (is_commands && line.starts_with(' '));
        let line = line.trim_start();
        if is_commands && line != "Commands:" && !line.starts_with("help ") {
            found.extend(line.split_whitespace().next().map(str::to_owned));
        }
        let long = line.split_once("--").filter(|(before, _)| before.len() <= 4 && line.starts_with('-'));
        if let Some((_, rest)) = long {
            let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
            found.extend((!matches!(name.as_str(), "help" | "version")).then(|| format!("--{name}")));
        }
        if let Some((_, rest)) = line.split_once("[env: ") {
            found.insert(rest.chars().take_while(|c| is_name(*c)).collect());
        }
    }
    found
}

#[test]
fn every_flag_of_the_planes_is_described() {
    let text = page("docs/operations.md");
    let mut missing = Vec::new();
    for name in ["awe4lb-control-plane", "awe4lb-data-plane"] {
        let (_, section) = text.split_once(&format!("### {name}\n")).expect("a section of its own");
        let section = section.split("\n## ").next().unwrap_or_default();
        let section = section.split("\n### ").next().unwrap_or_default();
        for command in [vec![name], vec![name, "healthcheck"]] {
            let described = described(&help(&command));
            assert!(described.len() > 1, "{command:?}: {described:?}");
            // The default subcommand is named once for both, above.
            for word in described.iter().filter(|word| *word != "run") {
                let is_there =
                    [format!("`{word}`"), format!("{name} {word}")].iter().any(|w| section.contains(w));
                if !is_there {
                    missing.push(format!("{name}: {word}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/operations.md does not describe {missing:#?}");
}

/// Each subcommand of the CLI, however deep, with its flags.
fn check_commands(command: &[&str], page: &str, missing: &mut Vec<String>) {
    for word in described(&help(command)) {
        let is_there = match word.strip_prefix('-') {
            Some(_) => page.contains(&word),
            None if word.starts_with("AWE4LB_") => page.contains(&format!("`{word}`")),
            None => {
                page.contains(&format!("{} {word}", command.join(" "))) || page.contains(&format!("`{word}`"))
            }
        };
        if !is_there {
            missing.push(format!("{} {word}", command.join(" ")));
        }
        if !word.starts_with('-') && !word.starts_with("AWE4LB_") {
            check_commands(&[command, &[word.as_str()]].concat(), page, missing);
        }
    }
}

#[test]
fn every_command_and_flag_of_the_cli_is_described() {
    let mut missing = Vec::new();
    check_commands(&["awe4lb"], &page("docs/cli.md"), &mut missing);
    assert!(missing.is_empty(), "docs/cli.md does not describe {missing:#?}");
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program; its ready line.
fn start(command: &mut Command) -> (Running, serde_json::Value) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let stdout = child.stdout.take().expect("a pipe");
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    (running, serde_json::from_str(&line).expect("a ready line"))
}

fn metrics(address: &str) -> BTreeSet<String> {
    let mut stream = TcpStream::connect(address).expect("the program listens");
    write!(stream, "GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let names = answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let shown = names.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    // What all kinds have is described once.
    let common = |name: &String| {
        let (_, rest) = name.strip_prefix("awe4lb_")?.split_once('_')?;
        let of_kind = |kind: &&str| shown.contains(&format!("awe4lb_{kind}_{rest}"));
        let is_common = ["listener", "rule", "pool", "backend"].iter().all(of_kind);
        is_common.then(|| format!("awe4lb_KIND_{rest}"))
    };
    shown.iter().map(|name| common(name).unwrap_or_else(|| name.clone())).collect()
}

fn check_metrics(names: &BTreeSet<String>) {
    assert!(names.len() > 10, "{names:?}");
    let text = page("docs/operations.md");
    let missing: Vec<_> = names.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not describe {missing:#?}");
}

#[test]
fn every_metric_of_a_node_is_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let document = format!(
        "listeners: [{{ name: web, bind: ['127.0.0.1:{port}'], rules: [{{ pool: app }}] }}]\n\
         pools: [{{ name: app, backends: [{{ address: '127.0.0.1:9' }}] }}]\n"
    );
    let file = folder.path().join("awe4lb.yaml");
    std::fs::write(&file, document).expect("a file");
    let mut command = Command::new(program("awe4lb-data-plane"));
    command.args(["--admin", "127.0.0.1:0", "--threads", "1", "--snapshot-file"]).arg(file);
    let (_node, ready) = start(&mut command);
    check_metrics(&metrics(ready["admin"].as_str().expect("an address")));
}

#[test]
fn every_metric_of_the_control_plane_is_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program("awe4lb-control-plane"));
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
    let (_control_plane, ready) = start(&mut command);
    let url = ready["http"].as_str().expect("an address");
    check_metrics(&metrics(url.strip_prefix("http://").expect("plain HTTP on loopback")));
}
