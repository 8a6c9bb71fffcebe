//! What goes wrong, as exit codes: 1 failed or invalid, 3 not found, 4 not allowed, 5 conflict, 6 unavailable or timed
//! out. (2 is wrong usage, by clap.)

use std::fmt;

use awe4lb_model::document::Violation;
use serde_json::Value;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Anything without a kind of its own.
    Other(String),
    /// The document is wrong; everything was printed.
    Invalid(String),
    /// There is none.
    NotFound(String),
    /// No login, or the role is too small.
    NotAllowed(String),
    /// Somebody else was faster, or others need it.
    Conflict(String),
    /// No answer, or not in time.
    Unavailable(String),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Other(_) | Self::Invalid(_) => 1,
            Self::NotFound(_) => 3,
            Self::NotAllowed(_) => 4,
            Self::Conflict(_) => 5,
            Self::Unavailable(_) => 6,
        }
    }

    /// A problem that the control plane answered.
    #[must_use]
    pub fn of_answer(status: u16, body: &str, file: Option<&str>) -> Self {
        let problem: Value = serde_json::from_str(body).unwrap_or_default();
        let mut text = match problem["detail"].as_str() {
            Some(detail) => detail.to_owned(),
            None => format!("the control plane answers {status}"),
        };
        let errors = problem["errors"].as_array().map_or(&[][..], Vec::as_slice);
        for error in errors {
            text += &format!("\n{}", violation(file, error));
        }
        match status {
            401 => Self::NotAllowed(format!("{text} (awe4lb login)")),
            403 => Self::NotAllowed(text),
            404 => Self::NotFound(text),
            409 | 412 => Self::Conflict(text),
            400 | 413 | 415 | 422 => Self::Invalid(text),
            _ => Self::Unavailable(text),
        }
    }
}

/// `file:line:column: what (pointer)`, and what to do about it.
pub(crate) fn violation(file: Option<&str>, error: &Value) -> String {
    let mut text = String::new();
    if let Some(file) = file {
        text += file;
        text.push(':');
    }
    if let (Some(line), Some(column)) = (error["line"].as_u64(), error["column"].as_u64()) {
        text += &format!("{line}:{column}:");
    }
    if !text.is_empty() {
        text.push(' ');
    }
    text += error["detail"].as_str().unwrap_or("wrong");
    if let Some(pointer) = error["pointer"].as_str().filter(|pointer| !pointer.is_empty()) {
        text += &format!(" ({pointer})");
    }
    if let Some(hint) = error["hint"].as_str() {
        text += &format!("\n    {hint}");
    }
    text
}

/// The same for violations found here.
pub(crate) fn violations(file: &str, found: &[Violation]) -> String {
    let lines: Vec<String> = found
        .iter()
        .filter_map(|one| serde_json::to_value(one).ok())
        .map(|one| violation(Some(file), &one))
        .collect();
    lines.join("\n")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(text)
            | Self::Invalid(text)
            | Self::NotFound(text)
            | Self::NotAllowed(text)
            | Self::Conflict(text)
            | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(format!("{error:#}"))
    }
}
