//! Documents as text.

use serde_json::Value;

use super::{tree::NodeKind, yaml};

/// In bytes, and below the 1,024 characters that parsers allow.
const MAX_SIMPLE_KEY: usize = 1000;

/// As YAML, in the order of the value. Reads back as the same value.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => write_object(fields, 0, &mut out),
        Value::Array(items) if !items.is_empty() => write_list(items, 0, &mut out),
        scalar => {
            write_scalar(scalar, &mut out);
            out.push('\n');
        }
    }
    out
}

/// As TOML; `null` has no form there and is left out.
pub fn to_toml(value: &Value) -> Result<String, String> {
    ::toml::to_string_pretty(&without_nulls(value)).map_err(|error| error.to_string())
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}

fn write_object(fields: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
    for (key, value) in fields {
        pad(indent, out);
        let start = out.len();
        write_text(key, out);
        // YAML takes a longer key only with a mark of its own (YAML 1.2 section 8.2.2).
        if out.len() - start > MAX_SIMPLE_KEY {
            out.insert_str(start, "? ");
            out.push('\n');
            pad(indent, out);
        }
        out.push(':');
        write_value(value, indent, out);
    }
}

fn write_list(items: &[Value], indent: usize, out: &mut String) {
    for item in items {
        pad(indent, out);
        match item {
            // The first field stands beside the dash.
            Value::Object(fields) if !fields.is_empty() => {
                out.push_str("- ");
                let mut nested = String::new();
                write_object(fields, indent + 2, &mut nested);
                out.push_str(&nested[indent + 2..]);
            }
            Value::Array(nested) if !nested.is_empty() => {
                out.push_str("-\n");
                write_list(nested, indent + 2, out);
            }
            scalar => {
                out.push_str("- ");
                write_scalar(scalar, out);
                out.push('\n');
            }
        }
    }
}

fn write_value(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            write_object(fields, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            if items.iter().all(|item| !item.is_object() && !item.is_array()) && items.len() <= 8 {
                out.push_str(" [");
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    write_scalar(item, out);
                }
                out.push_str("]\n");
            } else {
                out.push('\n');
                write_list(items, indent + 2, out);
            }
        }
        Value::String(text) if is_block(text) => {
            out.push_str(" |\n");
            for line in text.lines() {
                pad(indent + 2, out);
                out.push_str(line);
                out.push('\n');
            }
        }
        scalar => {
            out.push(' ');
            write_scalar(scalar, out);
            out.push('\n');
        }
    }
}

fn write_scalar(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => write_text(text, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(text: &str, out: &mut String) {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-'))
        && matches!(yaml::resolve(text), NodeKind::Text(_));
    if plain {
        out.push_str(text);
        return;
    }
    // A JSON string is a YAML string, but for the characters that YAML calls line breaks or does not print.
    for c in Value::String(text.to_owned()).to_string().chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}'..='\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
}

/// Several lines that a literal block gives back unchanged: PEM, for one.
fn is_block(text: &str) -> bool {
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && text.lines().count() > 1
        && text.lines().all(|line| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(' '))
        && text.bytes().all(|b| b == b'\n' || (0x20..0x7f).contains(&b))
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}
