//! Where a flag's value comes from: the command line, else the environment, else a TOML file with the flags as keys,
//! else the default. Both planes read their flags this way and can print where each came from.

use std::{
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{ArgMatches, Parser, parser::ValueSource};

/// Flags that say what to do once: they have no place in a file.
const NOT_IN_FILES: [&str; 5] = ["config_file", "print_config", "check", "help", "version"];

/// Parsed flags, with where each came from.
pub struct Parsed<C> {
    /// The flags.
    pub cli: C,
    matches: ArgMatches,
    from_file: Vec<String>,
}

/// Parses `argv`; `config_file` says whether a file was asked for. Without a subcommand the flags are those of `run`.
///
/// # Errors
/// Those of clap as [`clap::Error`], and what is wrong with the file.
pub fn parse<C: Parser>(
    argv: Vec<OsString>,
    config_file: impl FnOnce(&C) -> Option<PathBuf>,
) -> anyhow::Result<Parsed<C>> {
    let matches = C::command().try_get_matches_from(argv.clone())?;
    let cli = C::from_arg_matches(&matches)?;
    let Some(path) = config_file(&cli) else {
        return Ok(Parsed { cli, matches, from_file: Vec::new() });
    };
    let (extra, from_file) = file_flags::<C>(&path, run_matches(&matches))?;
    let mut argv = argv;
    argv.extend(extra);
    let matches = C::command().try_get_matches_from(argv)?;
    Ok(Parsed { cli: C::from_arg_matches(&matches)?, matches, from_file })
}

impl<C: Parser> Parsed<C> {
    /// Each value and where it comes from, one a line. Secrets are files, so only their paths show.
    #[must_use]
    pub fn print(&self) -> String {
        let matches = run_matches(&self.matches);
        let mut out = String::new();
        for argument in C::command().get_arguments() {
            let id = argument.get_id().as_str();
            if matches!(id, "help" | "version" | "check" | "print_config") {
                continue;
            }
            let raw = matches.try_get_raw(id).ok().flatten();
            let values: Vec<String> = raw
                .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
                .unwrap_or_default();
            let source = match matches.value_source(id) {
                _ if self.from_file.iter().any(|name| name == id) => "file",
                Some(ValueSource::CommandLine) => "flag",
                Some(ValueSource::EnvVariable) => "environment",
                _ => "default",
            };
            let _ = writeln!(out, "{} = {}  # {source}", id.replace('_', "-"), values.join(","));
        }
        out
    }
}

fn run_matches(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some(("run", run)) => run,
        _ => matches,
    }
}

/// The file's keys as flags, without those that the command line or the environment gave.
fn file_flags<C: Parser>(path: &Path, given: &ArgMatches) -> anyhow::Result<(Vec<OsString>, Vec<String>)> {
    let what = || format!("configuration file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    let table: toml::Table = text.parse().with_context(what)?;
    let command = C::command();
    let (mut flags, mut names) = (Vec::new(), Vec::new());
    for (key, value) in table {
        let id = key.replace('-', "_");
        let known = command.get_arguments().any(|argument| argument.get_id() == id.as_str());
        if !known || NOT_IN_FILES.contains(&id.as_str()) {
            bail!("{}: unknown key {key:?}", path.display());
        }
        if matches!(given.value_source(&id), Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let flag = format!("--{}", id.replace('_', "-"));
        flags.extend(values(path, &key, &flag, value)?.into_iter().map(OsString::from));
        names.push(id);
    }
    Ok((flags, names))
}

fn values(path: &Path, key: &str, flag: &str, value: toml::Value) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        toml::Value::Boolean(false) => Vec::new(),
        toml::Value::Boolean(true) => vec![flag.to_owned()],
        toml::Value::String(text) => vec![format!("{flag}={text}")],
        toml::Value::Integer(number) => vec![format!("{flag}={number}")],
        toml::Value::Array(items) => items
            .iter()
            .map(|item| match item {
                toml::Value::String(text) => Ok(format!("{flag}={text}")),
                _ => bail!("{}: {key:?} takes texts", path.display()),
            })
            .collect::<anyhow::Result<_>>()?,
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
            bail!("{}: {key:?} takes a text, a number or a list of texts", path.display())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[arg(long)]
        threads: Option<u16>,
        #[arg(long, default_value = "30s")]
        timeout: String,
        #[arg(long)]
        peer: Vec<String>,
        #[arg(long)]
        loud: bool,
        #[arg(long)]
        config_file: Option<PathBuf>,
    }

    fn with_file(text: &str, list: &[&str]) -> anyhow::Result<Parsed<Cli>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flags.toml");
        std::fs::write(&path, text).unwrap();
        let mut argv: Vec<OsString> = vec!["program".into(), "--config-file".into(), path.into()];
        argv.extend(list.iter().map(OsString::from));
        parse(argv, |cli: &Cli| cli.config_file.clone())
    }

    #[test]
    fn flags_win_over_the_file_and_the_source_is_shown() {
        let text = "threads = 3\ntimeout = \"7s\"\npeer = [\"a\", \"b\"]\nloud = true\n";
        let parsed = with_file(text, &["--timeout", "1s"]).unwrap();
        assert_eq!(parsed.cli.threads, Some(3));
        assert_eq!(parsed.cli.timeout, "1s");
        assert_eq!(parsed.cli.peer, ["a", "b"]);
        assert!(parsed.cli.loud);
        let text = parsed.print();
        assert!(text.contains("threads = 3  # file"), "{text}");
        assert!(text.contains("timeout = 1s  # flag"), "{text}");
        assert!(with_file("", &[]).unwrap().print().contains("timeout = 30s  # default"));
    }

    #[test]
    fn what_is_wrong_in_the_file_is_said() {
        for wrong in ["thread = 3\n", "config-file = \"x\"\n", "peer = [1]\n", "threads = 1.5\n", "threads"] {
            assert!(with_file(wrong, &[]).is_err(), "{wrong:?}");
        }
    }
}
