//! The tree that YAML, JSON and TOML become: values with the place they stand at.

use serde_json::Value;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// A value and where it stands; without a place when it came from a JSON value rather than from text.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it starts.
    pub at: Option<Position>,
    /// What it is.
    pub kind: NodeKind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Nothing: `null`, `~`, an empty YAML value.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in order. Duplicate keys are refused by the parsers.
    Object(Vec<Entry>),
}

/// One field of an object.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The field's name.
    pub key: String,
    /// Where the name stands.
    pub key_at: Option<Position>,
    /// Its value.
    pub value: Node,
}

/// Deeper documents are refused: no configuration needs it, and recursion must end.
pub(super) const MAX_DEPTH: usize = 32;
/// Larger documents are refused.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

impl Node {
    /// A node without a place.
    pub fn new(kind: NodeKind) -> Self {
        Self { at: None, kind }
    }

    /// Text without a place.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(NodeKind::Text(text.into()))
    }

    /// The value of a field, when this is an object that has it.
    pub fn field(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            NodeKind::Object(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// Like [`Self::field`], to change it.
    pub fn field_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.kind {
            NodeKind::Object(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
            }
            _ => None,
        }
    }

    /// The items, when this is a list.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            NodeKind::List(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// From a JSON value. Numbers that are neither `i64` nor `f64` do not exist in JSON values here.
    pub fn from_json(value: &Value) -> Self {
        Self::new(match value {
            Value::Null => NodeKind::Null,
            Value::Bool(flag) => NodeKind::Bool(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => NodeKind::Integer(integer),
                None => NodeKind::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => NodeKind::Text(text.clone()),
            Value::Array(items) => NodeKind::List(items.iter().map(Self::from_json).collect()),
            Value::Object(fields) => NodeKind::Object(
                fields
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_at: None,
                        value: Self::from_json(value),
                    })
                    .collect(),
            ),
        })
    }

    /// As a JSON value.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(flag) => Value::Bool(*flag),
            NodeKind::Integer(integer) => Value::from(*integer),
            NodeKind::Float(float) => Value::from(*float),
            NodeKind::Text(text) => Value::String(text.clone()),
            NodeKind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            NodeKind::Object(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// The word for people.
    pub(super) fn kind_word(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Integer(_) | NodeKind::Float(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Object(_) => "an object",
        }
    }
}
