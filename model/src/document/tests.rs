//! What documents promise.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Balance, RuleAction, SniPattern, TlsMode};

const SAMPLE: &str = r#"
version: 1
defaults: { connect: { timeout: 2s }, timeouts: { idle: unlimited } }
listeners:
  - name: web
    bind: ["*:443"]
    tls: { certificates: [demo] }
    rules:
      - { match: { sni: "app.example.com", client: ["10.0.0.0/8"] }, pool: app }
      - { name: canary, split: [ { pool: app, weight: 95 }, { pool: blue, weight: 5 } ], tls: passthrough }
pools:
  - name: blue
    backends: [ { address: "10.0.1.1:3000" }, { address: "[::1]:3000", weight: 3 } ]
  - { name: app, balance: leastConn }
certificates:
  - name: demo
    chain: |
      -----BEGIN CERTIFICATE-----
      AAAA
      -----END CERTIFICATE-----
    key: |
      -----BEGIN PRIVATE KEY-----
      AAAA
      -----END PRIVATE KEY-----
"#;

fn compile_yaml(text: &str) -> Result<Compiled, Vec<Violation>> {
    compile(parse(text, Format::Yaml)?)
}

fn codes(text: &str) -> Vec<(String, &'static str)> {
    compile_yaml(text).map(|_| ()).expect_err("violations").into_iter().map(|v| (v.pointer, v.code)).collect()
}

#[test]
fn sample_becomes_nouns_with_defaults_and_made_names() {
    let compiled = compile_yaml(SAMPLE).expect("valid");
    let listener = &compiled.config.listeners[0];
    assert_eq!(listener.rules[0].name.as_str(), "app");
    assert_eq!(listener.rules[0].matches.sni, [SniPattern::Exact("app.example.com".into())]);
    assert_eq!(listener.rules[0].tls, TlsMode::Terminate);
    assert_eq!(listener.rules[1].tls, TlsMode::Passthrough);
    assert!(matches!(listener.rules[1].action, RuleAction::Split(_)));
    assert_eq!(listener.timeouts.idle, None);
    let [app, blue] = &compiled.config.pools[..] else { panic!("two pools, by name") };
    assert_eq!(app.balance, Balance::LeastConn);
    assert_eq!(app.connect.timeout, std::time::Duration::from_secs(2));
    assert_eq!(blue.backends[0].name.as_str(), "10-0-1-1-3000");
    assert_eq!(blue.backends[1].name.as_str(), "1-3000");
}

#[test]
fn keys_leave_the_intent() {
    let compiled = compile_yaml(SAMPLE).expect("valid");
    assert_eq!(compiled.keys.len(), 1);
    assert!(!compiled.intent.to_string().contains("PRIVATE"));
    assert!(!format!("{compiled:?}").contains("BEGIN PRIVATE"));
}

#[test]
fn every_violation_is_reported_at_once_with_its_place() {
    let text = "version: 1\nlisteners:\n  - name: Web\n    bind: [\"*:0\"]\n    protocl: tcp\n    rules:\n      - { pool: ap, match: { sni: { map: x } } }\npools:\n  - { name: app, balance: leastcon, queue: {} }\n";
    let violations = compile_yaml(text).map(|_| ()).expect_err("violations");
    let found: Vec<_> =
        violations.iter().map(|v| (v.line.unwrap_or(0), v.code, v.hint.as_deref().unwrap_or(""))).collect();
    assert_eq!(
        found,
        [
            (3, "bad-value", ""),
            (4, "bad-value", ""),
            (5, "unknown-field", "did you mean \"protocol\"?"),
            (7, "bad-action", ""),
            (9, "unknown-value", "did you mean \"leastConn\"?"),
            (9, "not-supported-yet", ""),
        ]
    );
}

#[test]
fn dangling_references_name_the_nearest_word() {
    let violations = compile_yaml(
        "listeners: [{ name: web, bind: ['*:80'], rules: [{ pool: ap }] }]\npools: [{ name: app }]\n",
    )
    .map(|_| ())
    .expect_err("violations");
    assert_eq!(violations[0].code, "dangling-reference");
    assert_eq!(violations[0].pointer, "/listeners/0/rules/0");
    assert_eq!(violations[0].hint.as_deref(), Some("did you mean \"app\"?"));
}

#[test]
fn a_broken_object_makes_no_second_mistake_of_its_references() {
    assert_eq!(
        codes(
            "listeners: [{ name: web, bind: ['*:80'], rules: [{ pool: app }] }]\npools: [{ name: app, x: 1 }]\n"
        ),
        [("/pools/0/x".to_owned(), "unknown-field")]
    );
}

#[test]
fn binds_collide_by_port_address_and_protocol() {
    let two = |a: &str, b: &str, protocol: &str| {
        compile_yaml(&format!(
            "listeners:\n- {{ name: a, bind: ['{a}'], rules: [{{ reject: {{}} }}] }}\n- {{ name: b, bind: ['{b}'], protocol: {protocol}, rules: [{{ reject: {{}} }}] }}\n"
        ))
        .is_ok()
    };
    assert!(!two("*:80", "10.0.0.1:80", "tcp"));
    assert!(!two("0.0.0.0:80", "10.0.0.1:80", "tcp"));
    assert!(two("0.0.0.0:80", "[::1]:80", "tcp"));
    assert!(two("10.0.0.2:80", "10.0.0.1:80", "tcp"));
    assert!(two("*:80", "*:80", "udp"));
}

#[test]
fn contradictions_are_errors() {
    let listener = |rest: &str| {
        codes(&format!("listeners: [{{ name: a, bind: ['*:1'], {rest} }}]\npools: [{{ name: p }}]\n"))[0].1
    };
    assert_eq!(listener("rules: []"), "empty");
    assert_eq!(listener("rules: [{}]"), "bad-action");
    assert_eq!(listener("rules: [{ pool: p, reject: {} }]"), "bad-action");
    assert_eq!(listener("rules: [{ pool: p, tls: terminate }]"), "conflict");
    assert_eq!(listener("protocol: udp, limits: { maxConnections: 1 }, rules: [{ pool: p }]"), "conflict");
    assert_eq!(listener("limits: { packetsPerSecond: 1 }, rules: [{ pool: p }]"), "conflict");
    assert_eq!(
        listener("protocol: udp, udp: { perPacket: true, maxRequests: 2 }, rules: [{ pool: p }]"),
        "conflict"
    );
    assert_eq!(listener("udp: {}, rules: [{ pool: p }]"), "conflict");
    assert_eq!(listener("rules: [{ split: [{ pool: p, weight: 0 }] }]"), "bad-value");
    assert_eq!(
        listener("rules: [{ name: x, pool: p, match: { client: 1.1.1.1 } }, { name: x, pool: p }]"),
        "duplicate-name"
    );
}

#[test]
fn unreachable_rules_warn() {
    let compiled = compile_yaml(
        "listeners: [{ name: a, bind: ['*:1'], rules: [{ pool: p }, { name: late, reject: {} }] }]\npools: [{ name: p }]\n",
    )
    .expect("valid");
    assert_eq!(compiled.warnings[0].code, "unreachable");
}

#[test]
fn duplicate_fields_are_errors_in_every_language() {
    for (text, format) in [
        ("a: 1\na: 2\n", Format::Yaml),
        ("{\"a\": 1, \"a\": 2}", Format::Json),
        ("a = 1\na = 2\n", Format::Toml),
    ] {
        let violations = parse(text, format).expect_err("a duplicate");
        assert!(violations[0].line.is_some(), "{format:?}");
    }
}

#[test]
fn alias_bombs_and_depth_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..8 {
        let row = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    assert_eq!(parse(&bomb, Format::Yaml).expect_err("a bomb")[0].code, "too-large");
    assert_eq!(parse(&"[".repeat(100), Format::Json).expect_err("deep")[0].code, "too-deep");
}

#[test]
fn files_are_inlined_and_refused_without() {
    let text = "certificates: [{ name: a, chainFile: a.pem, keyFile: missing.pem }]\n";
    assert_eq!(codes(text).iter().filter(|(_, code)| *code == "file-not-allowed").count(), 2);
    let mut document = parse(text, Format::Yaml).expect("syntax");
    let violations = inline_files(&mut document, |file| match file {
        "a.pem" => Ok("x".to_owned()),
        _ => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
    })
    .expect_err("a missing file");
    assert_eq!(violations[0].pointer, "/certificates/0/keyFile");
}

#[test]
fn the_same_document_in_three_languages() {
    let intent = compile_yaml(SAMPLE).expect("valid").intent;
    let yaml = parse(&to_yaml(&intent), Format::Yaml).expect("yaml").to_json();
    let toml = parse(&to_toml(&intent).expect("toml"), Format::Toml).expect("toml").to_json();
    let json =
        parse(&serde_json::to_string_pretty(&intent).expect("json"), Format::Json).expect("json").to_json();
    assert_eq!(yaml, intent);
    assert_eq!(json, intent);
    assert!(diff(&toml, &intent).is_empty());
}

#[test]
fn compiling_the_intent_again_changes_nothing() {
    let once = compile_yaml(SAMPLE).expect("valid");
    let again = compile(Node::from_json(&once.intent)).expect("valid");
    assert_eq!(once.config, again.config);
    assert_eq!(once.intent, again.intent);
}

#[test]
fn differences_are_by_object() {
    let old = json!({ "pools": [{ "name": "a" }, { "name": "b" }] });
    let new = json!({ "pools": [{ "name": "b", "balance": "hash" }, { "name": "c" }] });
    let changes = diff(&old, &new);
    let ops: Vec<_> = changes.iter().map(|change| (change.op, change.name.as_str())).collect();
    assert_eq!(ops, [(Operation::Delete, "a"), (Operation::Update, "b"), (Operation::Create, "c")]);
    assert!(unified(&changes).contains("+balance: hash"));
}

#[test]
fn ten_thousand_rules_compile_quickly() {
    let mut text = String::from("listeners:\n");
    for listener in 0..100 {
        text.push_str(&format!("- name: l{listener}\n  bind: ['*:{}']\n  rules:\n", 10_000 + listener));
        for rule in 0..100 {
            text.push_str(&format!("  - {{ match: {{ sni: r{rule}.l{listener}.example.com }}, pool: p }}\n"));
        }
    }
    text.push_str("pools: [{ name: p }]\n");
    let compiled = compile_yaml(&text).expect("valid");
    assert_eq!(compiled.config.listeners.iter().map(|l| l.rules.len()).sum::<usize>(), 10_000);
}

#[test]
fn schema_and_table_know_every_field() {
    let schema = schema();
    assert_eq!(schema["$defs"]["pool"]["properties"]["balance"]["default"], "roundRobin");
    assert!(fields().iter().any(|field| field.pointer == "/listeners/*/rules/*/match/sni"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        "[ -~\n\t]{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(("[a-z~/ ]{0,8}", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn yaml_reads_back_what_it_printed(value in any_json()) {
        let text = to_yaml(&value);
        let read = parse(&text, Format::Yaml).map(|node| node.to_json());
        prop_assert_eq!(read, Ok(value), "{}", text);
    }

    #[test]
    fn json_reads_what_serde_prints(value in any_json()) {
        let read = parse(&value.to_string(), Format::Json).map(|node| node.to_json());
        prop_assert_eq!(read, Ok(value));
    }

    #[test]
    fn no_text_makes_the_decoder_panic(text in "\\PC{0,200}|[-\\[\\]{}:,\"'&*! \n a-z0-9|>%@`#]{0,200}") {
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            if let Ok(node) = parse(&text, format) {
                let _ = compile(node);
            }
        }
    }

    #[test]
    fn no_value_makes_the_decoder_panic(listeners in any_json(), pools in any_json()) {
        let _ = compile(Node::from_json(&json!({ "listeners": [listeners], "pools": [pools] })));
    }
}

/// Bugs that script/fuzz found: trees that were not the same after they were printed.
mod printed {
    use super::*;

    fn is_the_same(value: &serde_json::Value) {
        let yaml = to_yaml(value);
        assert_eq!(parse(&yaml, Format::Yaml).map(|node| node.to_json()).as_ref(), Ok(value), "{yaml}");
        let text = value.to_string();
        assert_eq!(parse(&text, Format::Json).map(|node| node.to_json()).as_ref(), Ok(value), "{text}");
    }

    #[test]
    fn a_key_longer_than_a_simple_key() {
        let key = "k".repeat(2000);
        is_the_same(&json!({ &key: 1, "b": [{ &key: { "x": [{ "y": 1 }] } }], "c": { &key: [1, 2] } }));
    }

    #[test]
    fn the_last_bit_of_a_fraction() {
        is_the_same(&json!({ "a": 2.222_222_222_222_222e81, "b": -0.0, "c": u64::MAX as f64 }));
    }
}

#[test]
fn a_pool_that_sends_proxy_v1_is_refused_behind_udp() {
    let violations = compile_yaml(
        "listeners: [{ name: dns, protocol: udp, bind: ['*:53'], rules: [{ pool: p }] }]\n\
         pools: [{ name: p, proxyProtocol: { send: v1 } }]\n",
    )
    .map(|_| ())
    .expect_err("it has no words for UDP");
    assert_eq!(violations[0].code, "conflict");
}

#[test]
fn conditions_are_limited_and_checked_inside_each_other() {
    let rule = |matches: &str| {
        let text = format!(
            "listeners: [{{ name: l, bind: ['*:1'], rules: [{{ match: {matches}, reject: {{}} }}] }}]\n"
        );
        compile_yaml(&text).map(|_| ()).map_err(|violations| violations[0].code)
    };
    let nested = |levels: usize| format!("{}{{}}{}", "{ not: ".repeat(levels), " }".repeat(levels));
    assert_eq!(rule(&nested(7)), Ok(()));
    assert_eq!(rule(&nested(8)), Err("too-deep"));
    assert_eq!(rule("{ any: [{ sni: { regex: '(' } }] }"), Err("bad-value"));
    assert_eq!(rule("{ sni: { regex: 'a)|(b' } }"), Err("bad-value"));
    assert_eq!(rule("{ sni: { regex: '((a{99}){99}){99}' } }"), Err("bad-value"));
    assert_eq!(rule("{ sni: { prefix: a, suffix: b } }"), Err("bad-value"));
    assert_eq!(rule("{ all: [{ port: 0 }] }"), Err("bad-value"));
    assert_eq!(rule("{ not: { port: 9-8 } }"), Err("bad-value"));
}

/// The column of each value was once counted from the start of its line: a minute for a list as long as it may be.
#[test]
fn a_large_document_on_one_line_is_read_in_one_go() {
    let many = vec!["\"é\""; 500_000].join(", ");
    let started = std::time::Instant::now();
    let document = parse(&format!("[{many}, 1]"), Format::Json).expect("JSON");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    let last = document.items().last().and_then(|item| item.at).expect("a place");
    assert_eq!((last.line, last.column), (1, 500_000 * 5 + 2));
    let wrong = parse("[\"é\",\n \"é\", \"\\x\"]", Format::Json).expect_err("a bad escape");
    assert_eq!((wrong[0].line, wrong[0].column), (Some(2), Some(7)));
}
