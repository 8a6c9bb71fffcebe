//! YAML 1.2 (core schema) into the tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{
    tree::{Entry, MAX_DEPTH, Node, NodeKind, Position},
    violation::Violation,
};

/// Nodes that aliases may add: a bomb of nested aliases ends here.
const MAX_ALIASED_NODES: usize = 100_000;

/// Parses one YAML document.
pub(super) fn parse(text: &str) -> Result<Node, Violation> {
    let mut builder =
        Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0, pending: None };
    builder.document()
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    pending: Option<(Event<'a>, Span)>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Violation> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        return Err(syntax(position(&span), "there is more than one document in the file"));
                    }
                    root = Some(self.node(0)?);
                }
                _ => return Err(syntax(position(&span), "this does not belong here")),
            }
        }
        Ok(root.unwrap_or(Node { at: Some(Position { line: 1, column: 1 }), kind: NodeKind::Null }))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Violation> {
        if let Some(pending) = self.pending.take() {
            return Ok(pending);
        }
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                Err(syntax(place(marker.line(), marker.col()), error.info().to_owned()))
            }
            None => Err(syntax(None, "the document ends in the middle")),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, Violation> {
        let (event, span) = self.next()?;
        let at = position(&span);
        if depth > MAX_DEPTH {
            return Err(Violation::new("", at, "too-deep", format!("more than {MAX_DEPTH} levels")));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = match (style, tag) {
                    (ScalarStyle::Plain, None) => resolve(&text),
                    _ => NodeKind::Text(text.into_owned()),
                };
                (kind, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.object(depth)?, anchor),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| syntax(at, "this alias names no anchor before it"))?;
                self.aliased += count(&node);
                if self.aliased > MAX_ALIASED_NODES {
                    return Err(Violation::new("", at, "too-large", "aliases make this document too large"));
                }
                return Ok(node);
            }
            _ => return Err(syntax(at, "a value is missing")),
        };
        let node = Node { at, kind };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, Violation> {
        let mut items = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd) {
                return Ok(NodeKind::List(items));
            }
            self.pending = Some(next);
            items.push(self.node(depth + 1)?);
        }
    }

    fn object(&mut self, depth: usize) -> Result<NodeKind, Violation> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            let key_at = position(&span);
            let key = match event {
                Event::MappingEnd => return Ok(NodeKind::Object(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(syntax(key_at, "a field's name must be text")),
            };
            if !seen.insert(key.clone()) {
                return Err(Violation::new(
                    "",
                    key_at,
                    "duplicate-field",
                    format!("field {key:?} is here twice"),
                ));
            }
            let value = self.node(depth + 1)?;
            entries.push(Entry { key, key_at, value });
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        NodeKind::List(items) => items.iter().map(count).sum(),
        NodeKind::Object(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        _ => 0,
    }
}

fn position(span: &Span) -> Option<Position> {
    place(span.start.line(), span.start.col())
}

/// The parser counts lines from 1 and columns from 0.
fn place(line: usize, column: usize) -> Option<Position> {
    Some(Position { line: u32::try_from(line).ok()?, column: u32::try_from(column + 1).ok()? })
}

fn syntax(at: Option<Position>, detail: impl Into<String>) -> Violation {
    Violation::new("", at, "syntax", detail)
}

/// What an unquoted scalar means in the YAML 1.2 core schema. `no`, `on` and `12:30` are text.
pub(super) fn resolve(text: &str) -> NodeKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return NodeKind::Null,
        "true" | "True" | "TRUE" => return NodeKind::Bool(true),
        "false" | "False" | "FALSE" => return NodeKind::Bool(false),
        ".inf" | "-.inf" | "+.inf" | ".nan" => return NodeKind::Text(text.to_owned()),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if numeric {
        if let Ok(integer) = text.parse() {
            return NodeKind::Integer(integer);
        }
        if let Ok(float) = text.parse::<f64>() {
            return NodeKind::Float(float);
        }
    }
    let radix =
        |prefix, radix| text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok());
    match radix("0x", 16).or_else(|| radix("0o", 8)) {
        Some(integer) => NodeKind::Integer(integer),
        None => NodeKind::Text(text.to_owned()),
    }
}
