//! What the documentation shows must hold: configuration in it is decoded as users' is, links lead somewhere.
//!
//! A block of YAML or TOML is a whole document. `fragment=pool` (listener, rule, pool, backend, certificate, acmeAccount, defaults)
//! after the language makes it one object, `invalid` one that must be refused, with exactly the errors of the next block
//! if that is `text violations`.

use std::path::{Path, PathBuf};

use awe4lb_model::{
    Defaults, EndReason, Side,
    document::{self, Format, Node, Violation},
};
use serde_json::{Value, json};

const CHAIN: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All pages: those at the root, beside crates, and in `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("docs")];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root()).expect("the root").flatten() {
        let path = entry.path();
        files.push(path.join("README.md"));
        files.push(path);
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.extension().is_some_and(|ending| ending == "md") && path.is_file());
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a page");
            (path, text)
        })
        .collect()
}

struct Block {
    line: usize,
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (index, line) in page.lines().enumerate() {
        match line.trim_start().strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(info) => {
                is_open = true;
                blocks.push(Block { line: index + 1, info: info.trim().to_owned(), text: String::new() });
            }
            None if is_open => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
            None => {}
        }
    }
    assert!(!is_open, "a block does not end");
    blocks
}

fn whole(mut node: Node) -> Result<(), Vec<Violation>> {
    document::inline_files(
        &mut node,
        |name| Ok(if name.ends_with(".key") { KEY } else { CHAIN }.to_owned()),
    )?;
    document::compile(node).map(drop)
}

/// One object, in a document that has what it may refer to.
fn fragment(kind: &str, mut node: Node) -> Result<(), Vec<Violation>> {
    let wrapped = |field: &str, parent: Value| {
        let mut parent = Node::from_json(&parent);
        if let Some(place) = parent.field_mut(field) {
            *place = document::parse("[]", Format::Json).expect("JSON");
            if let document::NodeKind::List(items) = &mut place.kind {
                items.push(node.clone());
            }
        }
        parent
    };
    match kind {
        "pool" => {
            document::fill_names("pool", &mut node);
            document::decode_pool(&node, &Defaults::default()).map(drop)
        }
        "listener" => {
            document::fill_names("listener", &mut node);
            document::decode_listener(&node, &Defaults::default()).map(drop)
        }
        "defaults" => document::decode_defaults(&node).map(drop),
        "certificate" => {
            let account = json!({ "name": "le", "directory": "https://ca.internal/", "termsAgreed": true });
            whole(wrapped("certificates", json!({ "acmeAccounts": [account], "certificates": [] })))
        }
        "acmeAccount" => whole(wrapped("acmeAccounts", json!({ "acmeAccounts": [] }))),
        "backend" => fragment("pool", wrapped("backends", json!({ "name": "p", "backends": [] }))),
        "rule" => {
            let tls = json!({ "certificates": ["c"] });
            let parent = json!({ "name": "l", "bind": ["*:443"], "tls": tls, "rules": [] });
            fragment("listener", wrapped("rules", parent))
        }
        other => panic!("a fragment of {other:?} is not known here"),
    }
}

/// `after` is the block behind it.
fn check(block: &Block, after: Option<&Block>) -> Result<(), String> {
    let mut words = block.info.split_whitespace();
    let Some(format) = words.next().and_then(Format::of_word).filter(|format| *format != Format::Json) else {
        return Ok(());
    };
    let words: Vec<&str> = words.collect();
    let kind = words.iter().find_map(|word| word.strip_prefix("fragment="));
    let result = document::parse(&block.text, format).and_then(|node| match kind {
        Some(kind) => fragment(kind, node),
        None => whole(node),
    });
    let violations = result.err().unwrap_or_default();
    let found: String = violations.iter().map(|violation| format!("{violation}\n")).collect();
    let shown = after.filter(|after| after.info == "text violations").map(|after| after.text.as_str());
    match (words.contains(&"invalid"), found.is_empty(), shown) {
        (true, true, _) => Err("is marked as invalid, but holds".to_owned()),
        (true, false, Some(shown)) if found != shown => {
            Err(format!("is refused with\n{found}not with\n{shown}"))
        }
        (false, false, _) => Err(found),
        (true, false, _) | (false, true, _) => Ok(()),
    }
}

#[test]
fn configuration_in_the_documentation_holds() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (path, text) in pages() {
        let blocks = blocks(&text);
        for (index, block) in blocks.iter().enumerate() {
            checked += usize::from(block.info.starts_with("yaml") || block.info.starts_with("toml"));
            if let Err(why) = check(block, blocks.get(index + 1)) {
                wrong.push(format!("{}:{}: {why}", path.display(), block.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 8, "only {checked} blocks");
}

#[test]
fn the_sample_of_script_run_holds() {
    let text = std::fs::read_to_string(root().join("deploy/sample.yaml")).expect("the sample");
    whole(document::parse(&text, Format::Yaml).expect("YAML")).expect("a valid sample");
}

#[test]
fn every_reason_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    for reason in EndReason::ALL {
        let side = match reason.side() {
            Side::Client => "client",
            Side::Backend => "backend",
            Side::Us => "awe4lb",
        };
        let failure = if reason.is_failure() { "yes" } else { "" };
        let row = format!("| `{}` | {side} | {failure} |", reason.label());
        assert!(text.contains(&row), "docs/operations.md has no row {row}");
    }
}

/// Targets of `[text](target)` outside of code.
fn links(page: &str) -> Vec<String> {
    let mut is_code = false;
    let prose = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    let targets = |line: &str| -> Vec<String> {
        line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
    };
    prose.flat_map(targets).collect()
}

/// As the forges make it from a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn leads_somewhere(page: &Path, target: &str) -> bool {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return true;
    }
    let (file, place) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => page.to_owned(),
        file => page.parent().expect("a folder").join(file),
    };
    if place.is_empty() || file.extension().is_none_or(|ending| ending != "md") {
        return file.exists();
    }
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor(line.trim_start_matches('#')) == place)
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for target in links(&text).iter().filter(|target| !leads_somewhere(&path, target)) {
            broken.push(format!("{}: {target}", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
