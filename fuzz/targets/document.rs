//! Documents: the first byte says in which language. What is accepted must survive being printed in any of them.
#![no_main]

use awe4lb_model::document::{self, Compiled, Format, Node};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((first, text)) = bytes.split_first() else { return Corpus::Reject };
    let format = match first {
        b'y' => Format::Yaml,
        b'j' => Format::Json,
        b't' => Format::Toml,
        _ => return Corpus::Reject,
    };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    let node = match document::parse(text, format) {
        Ok(node) => node,
        Err(violations) => {
            assert!(!violations.is_empty());
            return Corpus::Keep;
        }
    };
    let json = node.to_json();
    prints_as_it_is(&json);
    match document::compile(node) {
        Err(violations) => assert!(!violations.is_empty()),
        Ok(compiled) => compiles_to_the_same(&compiled),
    }
    Corpus::Keep
});

/// Any tree, valid or not, is the same after YAML and after JSON.
fn prints_as_it_is(json: &Value) {
    let yaml = document::to_yaml(json);
    let again = document::parse(&yaml, Format::Yaml).unwrap_or_else(|v| panic!("{v:?} in\n{yaml}"));
    assert_eq!(again.to_json(), *json, "through YAML:\n{yaml}");
    let text = json.to_string();
    let again = document::parse(&text, Format::Json).unwrap_or_else(|v| panic!("{v:?} in\n{text}"));
    assert_eq!(again.to_json(), *json, "through JSON:\n{text}");
}

/// A stored document gives the same nouns again, in whatever language it was shown.
fn compiles_to_the_same(compiled: &Compiled) {
    let again = document::compile(Node::from_json(&compiled.intent));
    let again = again.unwrap_or_else(|v| panic!("the stored form is refused: {v:?}"));
    assert_eq!(again.config, compiled.config);
    assert_eq!(again.intent, compiled.intent);
    assert!(document::diff(&compiled.intent, &again.intent).is_empty());
    let toml = document::to_toml(&compiled.intent).unwrap_or_else(|error| panic!("no TOML: {error}"));
    let node = document::parse(&toml, Format::Toml).unwrap_or_else(|v| panic!("{v:?} in\n{toml}"));
    let again = document::compile(node).unwrap_or_else(|v| panic!("{v:?} in\n{toml}"));
    assert_eq!(again.config, compiled.config, "through TOML:\n{toml}");
}
