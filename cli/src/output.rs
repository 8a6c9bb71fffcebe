//! Tables, JSON, YAML, names.

use awe4lb_model::document::to_yaml;
use serde_json::Value;

use crate::{args::Output, failure::Failure, print};

/// A column: its title, whether only `-o wide` has it, and its text.
pub type Column = (&'static str, bool, fn(&Value) -> String);

/// Prints a list in the form that was asked for.
pub fn list(form: Output, items: &[Value], columns: &[Column]) -> Result<(), Failure> {
    match form {
        Output::Json | Output::Yaml => value(form, &Value::Array(items.to_vec())),
        Output::Name => {
            for item in items {
                print(&text(&item["name"]));
            }
            Ok(())
        }
        Output::Table | Output::Wide => {
            let columns: Vec<&Column> =
                columns.iter().filter(|(_, is_wide, _)| form == Output::Wide || !is_wide).collect();
            let head: Vec<String> = columns.iter().map(|(title, ..)| (*title).to_owned()).collect();
            let rows = items.iter().map(|item| columns.iter().map(|(_, _, text)| text(item)).collect());
            print(&table(std::iter::once(head).chain(rows).collect()));
            Ok(())
        }
    }
}

/// Prints one value: JSON, else YAML.
pub fn value(form: Output, value: &Value) -> Result<(), Failure> {
    match form {
        Output::Json => {
            let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
            print(&text);
        }
        Output::Name => print(&text(&value["name"])),
        Output::Yaml | Output::Table | Output::Wide => print(&to_yaml(value)),
    }
    Ok(())
}

fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // What comes from the network must not move the cursor.
            let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            line += &format!("{cell:<width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A value as people read it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Bytes in units of 1,024.
pub fn bytes(value: &Value) -> String {
    let mut amount = value.as_f64().unwrap_or(0.0);
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 || unit == "TiB" {
            return if unit == "B" { format!("{amount:.0} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "STATE"], ["a", "up"], ["longer", "x\u{1b}[2J"]];
        let rows = rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        assert_eq!(table(rows), "NAME    STATE\na       up\nlonger  x [2J\n");
    }

    #[test]
    fn amounts() {
        assert_eq!(bytes(&json!(1023)), "1023 B");
        assert_eq!(bytes(&json!(1536)), "1.5 KiB");
        assert_eq!(bytes(&json!(5_u64 << 40)), "5.0 TiB");
    }
}
