//! Documents, without a control plane.

use std::{io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use awe4lb_model::document::{self, Format, Node};
use serde_json::{Value, json};

use crate::{
    args::{Convert, Fmt, Language, Output},
    failure::{Failure, violations},
    output, print, talk,
};

/// Reads a document; `-` is YAML on stdin.
pub fn read(file: &str) -> Result<(String, Format), Failure> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read stdin")?;
        return Ok((text, Format::Yaml));
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    Ok((text, Format::of_file_name(file)))
}

/// A document with the files that it names in place.
pub fn load(file: &str) -> Result<Node, Failure> {
    let (text, format) = read(file)?;
    let invalid = |found: Vec<document::Violation>| Failure::Invalid(violations(file, &found));
    let mut node = document::parse(&text, format).map_err(invalid)?;
    inline(&mut node, file)?;
    Ok(node)
}

/// Puts the files that a document names in their place; they are looked for beside it.
pub fn inline(node: &mut Node, file: &str) -> Result<(), Failure> {
    let folder =
        if file == "-" { Path::new(".") } else { Path::new(file).parent().unwrap_or(Path::new(".")) };
    document::inline_files(node, |name| std::fs::read_to_string(folder.join(name)))
        .map_err(|found| Failure::Invalid(violations(file, &found)))
}

/// The word of a language, for the API.
pub fn word(format: Format) -> &'static str {
    match format {
        Format::Yaml => "yaml",
        Format::Json => "json",
        Format::Toml => "toml",
    }
}

pub fn validate(files: &[String], form: Output) -> Result<(), Failure> {
    let (mut wrong, mut found) = (Vec::new(), Vec::new());
    for file in files {
        match load(file).and_then(|node| {
            document::compile(node).map_err(|errors| {
                let of_file = errors.iter().filter_map(|error| serde_json::to_value(error).ok());
                found.extend(of_file.map(|error| json!({"file": file, "error": error})));
                Failure::Invalid(violations(file, &errors))
            })
        }) {
            Ok(compiled) => {
                let config = &compiled.config;
                if !compiled.warnings.is_empty() {
                    talk(format!("warning: {}", violations(file, &compiled.warnings)));
                }
                talk(format!(
                    "{file}: valid ({} listeners, {} pools, {} certificates)",
                    config.listeners.len(),
                    config.pools.len(),
                    config.certificates.len()
                ));
            }
            Err(failure) => wrong.push(failure.to_string()),
        }
    }
    if matches!(form, Output::Json | Output::Yaml) {
        output::value(form, &Value::Array(found))?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Invalid(wrong.join("\n"))) }
}

pub fn format(args: &Fmt) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for file in &args.files.files {
        let (text, format) = read(file)?;
        let node =
            document::parse(&text, format).map_err(|found| Failure::Invalid(violations(file, &found)))?;
        let formatted = write(&node.to_json(), language_of(format))?;
        if args.check {
            if formatted != text {
                talk(format!("{file}: not in its usual form"));
                code = ExitCode::FAILURE;
            }
        } else if args.write && file != "-" {
            if formatted != text {
                std::fs::write(file, formatted).with_context(|| format!("write {file}"))?;
            }
        } else {
            print(&formatted);
        }
    }
    Ok(code)
}

pub fn convert(args: &Convert) -> Result<(), Failure> {
    let (text, format) = read(&args.file)?;
    let node =
        document::parse(&text, format).map_err(|found| Failure::Invalid(violations(&args.file, &found)))?;
    print(&write(&node.to_json(), args.to)?);
    Ok(())
}

fn language_of(format: Format) -> Language {
    match format {
        Format::Yaml => Language::Yaml,
        Format::Json => Language::Json,
        Format::Toml => Language::Toml,
    }
}

/// A document as text.
pub fn write(value: &Value, language: Language) -> Result<String, Failure> {
    Ok(match language {
        Language::Yaml => document::to_yaml(value),
        Language::Json => serde_json::to_string_pretty(value).map_err(anyhow::Error::from)? + "\n",
        Language::Toml => document::to_toml(value).map_err(Failure::Other)?,
    })
}

pub fn schema(defaults: bool) -> Result<(), Failure> {
    if !defaults {
        let text = serde_json::to_string_pretty(&document::schema()).map_err(anyhow::Error::from)?;
        print(&text);
        return Ok(());
    }
    let fields: Vec<Value> = document::fields()
        .iter()
        .map(|field| json!({"name": field.pointer, "type": field.kind, "default": field.default, "help": field.doc}))
        .collect();
    output::list(
        Output::Table,
        &fields,
        &[
            ("FIELD", false, |field| output::text(&field["name"])),
            ("TYPE", false, |field| output::text(&field["type"])),
            ("DEFAULT", false, |field| output::text(&field["default"])),
            ("MEANING", false, |field| output::text(&field["help"])),
        ],
    )
}
