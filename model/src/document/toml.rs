//! TOML into the tree.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    tree::{Entry, MAX_DEPTH, Node, NodeKind, Position},
    violation::Violation,
};

/// Parses one TOML document.
pub(super) fn parse(text: &str) -> Result<Node, Violation> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map(|span| lines.position(text, span.start));
        Violation::new("", at, "syntax", error.message().to_owned())
    })?;
    Ok(Node { at: Some(Position { line: 1, column: 1 }), kind: object(text, &lines, table.get_ref(), 0)? })
}

fn node(text: &str, lines: &Lines, value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Violation> {
    let at = Some(lines.position(text, value.span().start));
    if depth > MAX_DEPTH {
        return Err(Violation::new("", at, "too-deep", format!("more than {MAX_DEPTH} levels")));
    }
    let kind = match value.get_ref() {
        DeValue::String(text) => NodeKind::Text(text.to_string()),
        DeValue::Boolean(flag) => NodeKind::Bool(*flag),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(NodeKind::Integer)
            .map_err(|_| Violation::new("", at, "out-of-range", "this number is too large"))?,
        DeValue::Float(float) => NodeKind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(datetime) => NodeKind::Text(datetime.to_string()),
        DeValue::Array(items) => NodeKind::List(
            items.iter().map(|item| node(text, lines, item, depth + 1)).collect::<Result<_, _>>()?,
        ),
        DeValue::Table(table) => object(text, lines, table, depth)?,
    };
    Ok(Node { at, kind })
}

fn object(text: &str, lines: &Lines, table: &DeTable<'_>, depth: usize) -> Result<NodeKind, Violation> {
    let mut entries = Vec::new();
    for (key, value) in table {
        entries.push(Entry {
            key: key.get_ref().to_string(),
            key_at: Some(lines.position(text, key.span().start)),
            value: node(text, lines, value, depth + 1)?,
        });
    }
    // The table is sorted by name; authors think in the order they wrote.
    entries.sort_by_key(|entry| entry.key_at.map(|at| (at.line, at.column)));
    Ok(NodeKind::Object(entries))
}

/// Where each line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn position(&self, text: &str, offset: usize) -> Position {
        let line = self.0.partition_point(|start| *start <= offset).max(1);
        let start = self.0.get(line - 1).copied().unwrap_or(0);
        let column = text.get(start..offset).map_or(0, |line| line.chars().count());
        Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
        }
    }
}
