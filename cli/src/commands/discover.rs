//! Sources of backends: how they do, and what they would yield.

use std::process::ExitCode;

use serde_json::Value;

use super::document;
use crate::{
    args::Output,
    client::{Client, encode},
    failure::Failure,
    output::{self, Column, text},
    print, talk,
};

const SOURCES: &[Column] = &[
    ("POOL", false, |one| text(&one["pool"])),
    ("SOURCE", false, |one| text(&one["id"])),
    ("TYPE", false, |one| text(&one["type"])),
    ("RUNS ON", false, |one| text(&one["runOn"])),
    ("STATE", false, |one| text(&one["state"])),
    ("BACKENDS", true, |one| text(&one["backends"])),
    ("AGE S", true, |one| text(&one["ageSeconds"])),
    ("ERROR", false, |one| text(&one["error"])),
];

const BACKENDS: &[Column] = &[
    ("POOL", false, |one| text(&one["pool"])),
    ("SOURCE", false, |one| text(&one["source"])),
    ("NAME", false, |one| text(&one["name"])),
    ("ADDRESS", false, |one| text(&one["address"])),
    ("WEIGHT", true, |one| text(&one["weight"])),
    ("PRIORITY", true, |one| text(&one["priority"])),
];

pub async fn sources(client: &Client, pool: Option<&str>, form: Output) -> Result<(), Failure> {
    let filter = pool.map(|pool| format!("?pool={}", encode(pool))).unwrap_or_default();
    let answer = client.get(&format!("/api/v1/discovery{filter}")).await?;
    output::list(form, answer["items"].as_array().map_or(&[], Vec::as_slice), SOURCES)
}

/// Exit code 1 when a source failed.
pub async fn preview(client: &Client, file: &str, form: Output) -> Result<ExitCode, Failure> {
    let node = document::load(file)?;
    let answer = client.post("/api/v1/discovery/preview", &node.to_json()).await?;
    let (mut rows, mut failed) = (Vec::new(), false);
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for pool in items(&answer["pools"]) {
        for source in items(&pool["sources"]) {
            let what = format!("{}/{}", text(&pool["pool"]), text(&source["id"]));
            if source["state"] == "failing" {
                failed = true;
                talk(format!("{what}: {}", text(&source["error"])));
            }
            for item in items(&source["rejectedItems"]) {
                talk(format!("{what}: no backend: {}", text(&item)));
            }
            for mut backend in items(&source["backends"]) {
                backend["pool"] = pool["pool"].clone();
                backend["source"] = source["id"].clone();
                rows.push(backend);
            }
        }
    }
    if matches!(form, Output::Json | Output::Yaml) {
        output::value(form, &answer)?;
    } else if !rows.is_empty() {
        output::list(form, &rows, BACKENDS)?;
    } else {
        print("no backends\n");
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
