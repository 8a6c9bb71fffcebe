//! Export, statistics, history, versions.

use reqwest::Method;
use serde_json::Value;

use super::{document::write, get::REVISIONS};
use crate::{
    args::{Explain, Language, Output},
    client::{Client, encode},
    failure::Failure,
    output::{self, Column, bytes, text},
    print, talk,
};

const STATS: &[Column] = &[
    ("KIND", false, |one| text(&one["kind"])),
    ("NAME", false, |one| {
        let parent = one["listener"].as_str().or(one["pool"].as_str());
        parent.map_or_else(|| text(&one["name"]), |parent| format!("{parent}/{}", text(&one["name"])))
    }),
    ("IN", false, |one| bytes(&one["bytesIn"])),
    ("OUT", false, |one| bytes(&one["bytesOut"])),
    ("IN/S", false, |one| bytes(&one["bytesInPerSecond"])),
    ("OUT/S", false, |one| bytes(&one["bytesOutPerSecond"])),
    ("ACTIVE", false, |one| text(&one["connectionsActive"])),
    ("TOTAL", false, |one| text(&one["connectionsTotal"])),
    ("FAILED", false, |one| counts(&one["failed"])),
    ("ENDED", true, |one| counts(&one["ended"])),
    ("DIAL MS", true, |one| millis(&one["dialMillisMean"])),
    ("HANDSHAKE MS", true, |one| millis(&one["handshakeMillisMean"])),
];

fn counts(by_reason: &Value) -> String {
    let reasons = by_reason.as_object().into_iter().flatten();
    reasons.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
}

fn millis(mean: &Value) -> String {
    mean.as_f64().map(|mean| format!("{mean:.2}")).unwrap_or_default()
}

pub async fn export(client: &Client, revision: Option<u64>, format: Language) -> Result<(), Failure> {
    let path = match revision {
        Some(revision) => format!("/api/v1/revisions/{revision}/config"),
        None => "/api/v1/config".to_owned(),
    };
    print(&write(&client.get(&path).await?, format)?);
    Ok(())
}

pub async fn stats(client: &Client, node: Option<&str>, form: Output) -> Result<(), Failure> {
    let query = node.map(|node| format!("?node={}", encode(node))).unwrap_or_default();
    let stats = client.get(&format!("/api/v1/stats{query}")).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &stats);
    }
    let mut rows = vec![with_kind(&stats["totals"], "total")];
    for (list, kind) in [
        ("listeners", "listener"),
        ("rules", "rule"),
        ("pools", "pool"),
        ("backends", "backend"),
        ("nodes", "node"),
    ] {
        rows.extend(stats[list].as_array().into_iter().flatten().map(|one| with_kind(one, kind)));
    }
    output::list(form, &rows, STATS)
}

const RULES: &[Column] = &[
    ("RULE", false, |one| text(&one["name"])),
    ("OUTCOME", false, |one| text(&one["outcome"])),
    ("WHY", false, |one| text(&one["reason"])),
];

const CANDIDATES: &[Column] = &[
    ("POOL", false, |one| text(&one["pool"])),
    ("BACKEND", false, |one| text(&one["name"])),
    ("ADDRESS", false, |one| text(&one["address"])),
    ("IN", false, |one| if one["candidate"] == true { "yes".to_owned() } else { "no".to_owned() }),
    ("WHY", false, |one| text(&one["reason"])),
];

/// What would become of a connection, and why.
pub async fn explain(client: &Client, asked: &Explain, form: Output) -> Result<(), Failure> {
    let mut question = serde_json::json!({
        "listener": asked.listener, "from": asked.from, "peer": asked.peer, "port": asked.port,
        "sni": asked.sni, "alpn": asked.alpn,
    });
    if asked.tls {
        question["tls"] = true.into();
    }
    let answer = client.post("/api/v1/explain", &question).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &answer);
    }
    let rules = answer["rules"].as_array().cloned().unwrap_or_default();
    output::list(form, &rules, RULES)?;
    let mut rows = Vec::new();
    for pool in answer["pools"].as_array().into_iter().flatten() {
        for backend in pool["backends"].as_array().into_iter().flatten() {
            let mut row = backend.clone();
            row["pool"] = pool["name"].clone();
            rows.push(row);
        }
    }
    if !rows.is_empty() {
        print("\n");
        output::list(form, &rows, CANDIDATES)?;
    }
    if let Some(pool) = answer["mirror"]["pool"].as_str() {
        let sample = answer["mirror"]["sample"].as_f64().unwrap_or(1.0) * 100.0;
        print(&format!("\ncopies of {sample} % of the flows go to pool {pool}\n"));
    }
    for pool in answer["pools"].as_array().into_iter().flatten() {
        for zone in pool["locality"]["zones"].as_array().into_iter().flatten() {
            let place =
                zone["zone"].as_str().map_or("without a zone".to_owned(), |zone| format!("in zone {zone}"));
            print(&format!("\n{} on nodes {place}: {}", text(&pool["name"]), text(&zone["reason"])));
        }
        if pool["locality"].is_object() {
            print("\n");
        }
    }
    let end = answer["end"].as_str().map(|end| format!(" ({end})")).unwrap_or_default();
    print(&format!("\n{}{end}\n", text(&answer["outcome"])));
    Ok(())
}

fn with_kind(one: &Value, kind: &str) -> Value {
    let mut one = one.clone();
    one["kind"] = kind.into();
    one
}

pub async fn history(client: &Client, limit: u32, form: Output) -> Result<(), Failure> {
    let page = client.get(&format!("/api/v1/revisions?limit={limit}")).await?;
    output::list(form, page["items"].as_array().map_or(&[], Vec::as_slice), REVISIONS)
}

pub async fn revision(client: &Client, revision: u64, form: Output) -> Result<(), Failure> {
    let item = client.get(&format!("/api/v1/revisions/{revision}")).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &item);
    }
    output::list(form, std::slice::from_ref(&item), REVISIONS)?;
    let diff = client.get(&format!("/api/v1/revisions/{revision}/diff")).await?;
    print(&format!("\n{}", text(&diff["unified"])));
    Ok(())
}

pub async fn version(client: &Client) -> Result<(), Failure> {
    print(&format!("awe4lb {}", env!("CARGO_PKG_VERSION")));
    match client.send(client.anonymous(Method::GET, "/api/openapi.json"), None).await {
        Ok(answer) => {
            let description = crate::client::json(answer).await?;
            print(&format!("control plane {} at {}", text(&description["info"]["version"]), client.server));
        }
        Err(failure) => talk(failure),
    }
    Ok(())
}
