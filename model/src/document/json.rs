//! Strict JSON (RFC 8259) into the tree, with places and without duplicate keys.

use std::cell::Cell;

use super::{
    tree::{Entry, MAX_DEPTH, Node, NodeKind, Position},
    violation::Violation,
};

/// Parses one JSON value and nothing after it.
pub(super) fn parse(text: &str) -> Result<Node, Violation> {
    let mut reader = Reader { text, at: 0, line: 1, line_start: 0, counted: Cell::default() };
    reader.space();
    let node = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.wrong("there is something after the end of the document"));
    }
    Ok(node)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    /// A place of this line and its column: what is on one line is counted once, not again from its start for each value.
    counted: Cell<(usize, usize)>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn position(&self) -> Position {
        let (mut from, mut column) = self.counted.get();
        if from < self.line_start || from > self.at {
            (from, column) = (self.line_start, 0);
        }
        column += self.text.get(from..self.at).map_or(0, |part| part.chars().count());
        self.counted.set((self.at, column));
        Position { line: self.line, column: u32::try_from(column + 1).unwrap_or(u32::MAX) }
    }

    fn wrong(&self, detail: impl Into<String>) -> Violation {
        Violation::new("", Some(self.position()), "syntax", detail)
    }

    fn space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    self.line_start = self.at + 1;
                }
                b' ' | b'\t' | b'\r' => {}
                _ => break,
            }
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Violation> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.wrong(format!("expected {:?}", char::from(byte))))
    }

    fn value(&mut self, depth: usize) -> Result<Node, Violation> {
        let at = Some(self.position());
        if depth > MAX_DEPTH {
            return Err(Violation::new("", at, "too-deep", format!("more than {MAX_DEPTH} levels")));
        }
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => NodeKind::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node { at, kind })
    }

    fn word(&mut self) -> Result<NodeKind, Violation> {
        let rest = &self.text[self.at..];
        for (word, kind) in
            [("true", NodeKind::Bool(true)), ("false", NodeKind::Bool(false)), ("null", NodeKind::Null)]
        {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        Err(self.wrong("a value is missing"))
    }

    fn number(&mut self) -> Result<NodeKind, Violation> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        // The grammar of numbers is serde_json's.
        let text = &self.text[start..self.at];
        match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Ok(match number.as_i64() {
                Some(integer) => NodeKind::Integer(integer),
                // Its own reading of fractions may be off by the last bit.
                None => NodeKind::Float(text.parse().unwrap_or(f64::NAN)),
            }),
            Err(_) => {
                self.at = start;
                Err(self.wrong("this is no number"))
            }
        }
    }

    fn string(&mut self) -> Result<String, Violation> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(byte) if byte >= 0x20 => self.at += 1,
                _ => return Err(self.wrong("this text does not end on its line")),
            }
        }
        self.at += 1;
        let literal = self.text.get(start..self.at).unwrap_or_default();
        // Escapes and surrogates are serde_json's.
        serde_json::from_str(literal).map_err(|_| {
            self.at = start;
            self.wrong("this text has a bad escape")
        })
    }

    fn list(&mut self, depth: usize) -> Result<NodeKind, Violation> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(NodeKind::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => {
                    self.expect(b']')?;
                    return Ok(NodeKind::List(items));
                }
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<NodeKind, Violation> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(NodeKind::Object(entries));
        }
        loop {
            self.space();
            let key_at = Some(self.position());
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a field's name in double quotes"));
            }
            let key = self.string()?;
            if !seen.insert(key.clone()) {
                return Err(Violation::new(
                    "",
                    key_at,
                    "duplicate-field",
                    format!("field {key:?} is here twice"),
                ));
            }
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.value(depth + 1)?;
            entries.push(Entry { key, key_at, value });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => {
                    self.expect(b'}')?;
                    return Ok(NodeKind::Object(entries));
                }
            }
        }
    }
}
