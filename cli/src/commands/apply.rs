//! Changing the configuration, and waiting for the fleet to run it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use awe4lb_model::document;
use reqwest::{Method, header};
use serde_json::{Value, json};

use super::document::{inline, load, read, word};
use crate::{
    args::{Apply, Diff, Output, Write},
    client::{Client, encode, json as body_of},
    failure::{Failure, violation, violations},
    output, print, talk,
};

/// How often the nodes are asked for.
const LOOK: Duration = Duration::from_millis(100);

pub async fn apply(client: &Client, args: &Apply, form: Output) -> Result<(), Failure> {
    let (text, format) = read(&args.file)?;
    let invalid = |found: Vec<document::Violation>| Failure::Invalid(violations(&args.file, &found));
    let mut node = document::parse(&text, format).map_err(invalid)?;
    let written = node.to_json();
    inline(&mut node, &args.file)?;
    let mut wish = json!({"document": node.to_json(), "prune": args.prune, "message": args.write.message});
    // As text, so that errors come with line and column. Files that it names can only be sent in their place.
    if wish["document"] == written {
        wish["document"] = text.into();
        wish["format"] = word(format).into();
    }
    let path = format!("/api/v1/config:apply{}", query(&args.write));
    let request = client.request(Method::POST, &path).header(header::CONTENT_TYPE, "application/json");
    let answer = client.send(request.body(wish.to_string()), Some(&args.file)).await?;
    finish(client, body_of(answer).await?, &args.write, form).await
}

pub async fn restore(client: &Client, revision: u64, write: &Write, form: Output) -> Result<(), Failure> {
    let path = format!("/api/v1/revisions/{revision}:restore{}", query(write));
    let answer = client.post(&path, &Value::Null).await?;
    finish(client, answer, write, form).await
}

fn query(write: &Write) -> String {
    format!("?dryRun={}&message={}", write.dry_run, encode(&write.message))
}

async fn finish(client: &Client, answer: Value, write: &Write, form: Output) -> Result<(), Failure> {
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        talk(format!("warning: {}", violation(None, warning)));
    }
    if form == Output::Table || form == Output::Wide {
        for change in answer["changes"].as_array().into_iter().flatten() {
            let word = |field: &str| change[field].as_str().unwrap_or_default().to_owned();
            // There is one object `defaults`, and its name says no more than its kind.
            let name = if word("kind") == "defaults" { String::new() } else { format!(" {}", word("name")) };
            print(&format!("{} {}{name}", word("op"), word("kind")));
        }
    } else {
        output::value(form, &answer)?;
    }
    let revision = answer["revision"].as_u64().unwrap_or(0);
    match (write.dry_run, answer["changed"] == Value::Bool(true)) {
        (true, true) => talk("nothing was stored (--dry-run)"),
        (_, false) => talk("nothing to change"),
        (false, true) => talk(format!("revision {revision}")),
    }
    if write.wait && !write.dry_run { wait(client, revision, write.timeout).await } else { Ok(()) }
}

/// Until every connected node runs what is wanted since `revision`.
async fn wait(client: &Client, revision: u64, timeout: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let nodes = client.list("/api/v1/nodes").await?;
        let connected: Vec<&Value> = nodes.iter().filter(|node| node["state"] == "connected").collect();
        let mut waiting = Vec::new();
        for node in &connected {
            let name = node["name"].as_str().unwrap_or_default();
            // The manifest of this revision may be the one before: then the node need not be told anything.
            let is_wanted = node["wanted"]["revision"].as_u64().is_some_and(|wanted| wanted >= revision);
            match node["phase"].as_str() {
                Some("rejected") if is_wanted => return Err(Failure::Other(rejection(name, node))),
                Some("degraded") if is_wanted => {
                    return Err(Failure::Other(format!(
                        "{name} runs it with faults:{}",
                        faults(&node["problems"])
                    )));
                }
                _ if is_wanted && node["inSync"] == Value::Bool(true) => {}
                _ => waiting.push(name),
            }
        }
        if waiting.is_empty() {
            let away = nodes.iter().filter(|node| node["state"] == "disconnected").count();
            let note = if away > 0 { format!("; {away} not connected") } else { String::new() };
            match connected.len() {
                0 => talk(format!("no node is connected{note}: nodes run it when they come")),
                count => {
                    talk(format!("{count} nodes run it after {} ms{note}", started.elapsed().as_millis()))
                }
            }
            return Ok(());
        }
        let waits = format!("waiting for {}", waiting.join(", "));
        if started.elapsed() >= timeout {
            let detail = format!("not all nodes run it after {}: {waits}", document::print_duration(timeout));
            return Err(Failure::Unavailable(detail));
        }
        if waits != told && started.elapsed() > Duration::from_secs(1) {
            talk(&waits);
            told = waits;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn rejection(name: &str, node: &Value) -> String {
    let rejection = &node["rejection"];
    format!("{name} rejects it: {}{}", output::text(&rejection["message"]), faults(&rejection["resources"]))
}

fn faults(list: &Value) -> String {
    let fault = |fault: &Value| {
        let word = |field: &str| output::text(&fault[field]);
        format!("\n    {} {}: {}", word("kind"), word("name"), word("message"))
    };
    list.as_array().into_iter().flatten().map(fault).collect()
}

pub async fn diff(client: &Client, args: &Diff) -> Result<ExitCode, Failure> {
    let compiled = load(&args.file)?;
    let mut wanted = compiled.to_json();
    let current = client.get("/api/v1/config").await?;
    if !args.prune {
        wanted = merged(&current, &wanted);
    }
    let node = document::Node::from_json(&wanted);
    let compiled =
        document::compile(node).map_err(|found| Failure::Invalid(violations(&args.file, &found)))?;
    let changes = document::diff(&current, &compiled.intent);
    if changes.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print(&document::unified(&changes));
    Ok(ExitCode::from(1))
}

/// What `apply` without `--prune` would make of it: objects that the document names, and the rest as it is.
fn merged(current: &Value, wanted: &Value) -> Value {
    let mut all = current.clone();
    if let Some(defaults) = wanted.get("defaults") {
        all["defaults"] = defaults.clone();
    }
    for (_, list) in document::KINDS {
        let new = wanted[list].as_array().map_or(&[][..], Vec::as_slice);
        let mut objects = all[list].as_array().cloned().unwrap_or_default();
        for object in new {
            match objects.iter_mut().find(|known| known["name"] == object["name"]) {
                Some(known) => *known = object.clone(),
                None => objects.push(object.clone()),
            }
        }
        if !objects.is_empty() {
            all[list] = Value::Array(objects);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_does_not_name_stays() {
        let current = json!({"version": 1, "pools": [{"name": "a", "x": 1}, {"name": "b"}]});
        let wanted = json!({"version": 1, "pools": [{"name": "a", "x": 2}, {"name": "c"}], "listeners": [{"name": "l"}]});
        let all = merged(&current, &wanted);
        assert_eq!(all["pools"], json!([{"name": "a", "x": 2}, {"name": "b"}, {"name": "c"}]));
        assert_eq!(all["listeners"], json!([{"name": "l"}]));
    }
}
