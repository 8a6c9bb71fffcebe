//! The Prometheus text format, written.

use std::{
    collections::HashSet,
    fmt::{Display, Write as _},
};

/// Of version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
}

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Exposition {
    /// Starts a family. Its samples follow at once.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.name.clear();
        self.name.push_str(name);
        // Writing into a String cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        );
    }

    /// One sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// Complains as `promtool check metrics` does: form, order, duplicates, names by kind. For tests; gives the number of
/// samples.
///
/// # Errors
/// The first line that is wrong, and why.
pub fn check(text: &str) -> Result<usize, String> {
    let name_ok = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let (mut helped, mut current) = (String::new(), (String::new(), String::new()));
    let mut samples = 0;
    if !text.ends_with('\n') {
        return Err("does not end with a line feed".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(format!("no help: {line}"))?;
            if help.is_empty() || !families.insert(name.to_owned()) {
                return Err(format!("family twice or without help: {line}"));
            }
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            if name != helped || !name_ok(name) || !["counter", "gauge"].contains(&kind) {
                return Err(format!("type without its help: {line}"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("a counter ends in _total, nothing else does: {line}"));
            }
            current = (name.to_owned(), kind.to_owned());
        } else {
            let (key, value) = line.rsplit_once(' ').ok_or(format!("no value: {line}"))?;
            value.parse::<f64>().map_err(|_| format!("no number: {line}"))?;
            let name = key.split('{').next().unwrap_or_default();
            if name != current.0 {
                return Err(format!("sample outside of its family: {line}"));
            }
            if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).ok_or(line)?;
                for pair in inner.split("\",") {
                    let (label, value) = pair.split_once("=\"").ok_or(format!("label: {line}"))?;
                    let allowed = [
                        "node", "listener", "rule", "pool", "backend", "reason", "state", "class", "version",
                        "file",
                    ];
                    if !allowed.contains(&label) || value.contains('\n') {
                        return Err(format!("label {label}: {line}"));
                    }
                }
            }
            if !series.insert(key.to_owned()) {
                return Err(format!("series twice: {line}"));
            }
            samples += 1;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_holds() {
        let mut text = Exposition::default();
        text.family("awe4lb_a_total", Kind::Counter, "A.");
        text.sample(&[("listener", "we\"b\\\n"), ("rule", "r")], 3);
        text.sample(&[], 0.5);
        text.family("awe4lb_b", Kind::Gauge, "B.");
        let text = text.finish();
        assert_eq!(check(&text), Ok(2), "{text}");
        assert!(text.contains(r#"awe4lb_a_total{listener="we\"b\\\n",rule="r"} 3"#), "{text}");
    }

    #[test]
    fn the_check_complains() {
        for bad in [
            "a 1\n",
            "# HELP a x\n# TYPE a counter\na 1\n",
            "# HELP a x\n# TYPE a gauge\na 1\na 1\n",
            "# HELP a x\n# TYPE a gauge\na{port=\"1\"} 1\n",
            "# HELP a x\n# TYPE a gauge\na x\n",
            "# HELP a x\n# TYPE a gauge\na 1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
