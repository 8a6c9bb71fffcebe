//! The index against the rules as they are written.

use awe4lb_model::document::{Format, compile, parse};
use proptest::prelude::*;

use super::*;

static NO_ALPN: Alpn = Alpn::EMPTY;

fn listener(rules: &str) -> Listener {
    let text =
        format!("listeners: [{{ name: l, bind: ['*:1'], rules: [{rules}] }}]\npools: [{{ name: p }}]\n");
    compile(parse(&text, Format::Yaml).expect("yaml")).expect("valid").config.listeners.remove(0)
}

fn facts<'a>(client: &str, name: Option<&'a str>) -> Facts<'a> {
    let client = client.parse().expect("an address");
    Facts { client, peer: client, port: 443, is_tls: name.is_some(), server_name: name, alpn: &NO_ALPN }
}

#[test]
fn the_first_match_wins_across_kinds() {
    let table = RuleTable::compile(
        &listener(
            "{ match: { sni: '*.b.c' }, pool: p }, { match: { sni: a.b.c }, pool: p }, \
         { match: { client: 10.0.0.0/8 }, pool: p }, { match: { sni: x.y, client: 10.0.0.0/8 }, pool: p }, { pool: p }",
        ),
        &Tables::default(),
    );
    assert_eq!(table.route(&facts("1.1.1.1", Some("a.b.c"))), Some(0));
    assert_eq!(table.route(&facts("1.1.1.1", Some("z.a.b.c"))), Some(0));
    assert_eq!(table.route(&facts("1.1.1.1", Some("b.c"))), Some(4));
    assert_eq!(table.route(&facts("10.1.1.1", Some("x.y"))), Some(2));
    assert_eq!(table.route(&facts("::ffff:10.1.1.1", None)), Some(2));
    assert_eq!(table.route(&facts("1.1.1.1", None)), Some(4));
}

#[test]
fn splits_follow_their_weights() {
    let counts = (0..100).fold([0; 3], |mut counts, random| {
        counts[choose_split([95, 0, 5].into_iter(), random).expect("a side")] += 1;
        counts
    });
    assert_eq!(counts, [95, 0, 5]);
    assert_eq!(choose_split([0].into_iter(), 7), None);
}

#[test]
fn names_may_be_described() {
    let table = RuleTable::compile(
        &listener(
            "{ match: { sni: [{ prefix: 'a' }] }, pool: p }, { match: { sni: [{ suffix: '.b' }] }, pool: p }, \
         { match: { sni: [{ regex: '^c[0-9]+$' }] }, pool: p }, { match: { sni: none }, pool: p }, \
         { match: { tls: false }, pool: p }, { match: { any: [{ sni: x.y }, { port: 8000-8099 }] }, pool: p }, \
         { match: { not: { sni: '*.z' } }, reject: {} }",
        ),
        &Tables::default(),
    );
    let named = |name| table.route(&facts("1.1.1.1", Some(name)));
    assert_eq!(named("abc.de"), Some(0));
    assert_eq!(named("x.b"), Some(1));
    assert_eq!(named("c42"), Some(2));
    assert_eq!(named("xc42"), Some(6), "an expression describes the whole name");
    assert_eq!(named("c42.org"), Some(6));
    assert_eq!(named("x.y"), Some(5));
    assert_eq!(named("q.z"), None);
    let plain = facts("1.1.1.1", None);
    assert_eq!(table.route(&plain), Some(4));
    assert_eq!(table.route(&Facts { is_tls: true, ..plain }), Some(3));
    assert_eq!(table.route(&Facts { port: 8050, ..facts("1.1.1.1", Some("q.z")) }), Some(5));
}

#[test]
fn only_rules_about_the_hello_wait_for_it() {
    for (rule, waits) in [
        ("{ pool: p }", false),
        ("{ match: { client: 10.0.0.0/8, port: 1 }, pool: p }", false),
        ("{ match: { not: { client: 10.0.0.0/8 } }, pool: p }", false),
        ("{ match: { sni: none }, pool: p }", true),
        ("{ match: { tls: false }, pool: p }", true),
        ("{ match: { any: [{ client: 10.0.0.0/8 }, { all: [{ alpn: h2 }] }] }, pool: p }", true),
    ] {
        assert_eq!(
            RuleTable::compile(&listener(rule), &Tables::default()).needs_client_hello(),
            waits,
            "{rule}"
        );
    }
}

/// Pinned: nodes of different versions must keep a client on the same side.
#[test]
fn sides_of_clients_are_the_same_everywhere() {
    let side = |rule, client: &str| sticky_side(rule, client.parse().expect("an address"));
    assert_eq!(side("canary", "192.0.2.1"), side("canary", "::ffff:192.0.2.1"));
    assert_eq!(side("canary", "192.0.2.1"), 1_489_584_979_816_286_861);
    assert_eq!(side("canary", "2001:db8::1"), 7_985_368_265_615_369_655);
    let clients = (0u32..10_000).map(|client| sticky_side("canary", IpAddr::from(client.to_be_bytes())));
    let left = clients.filter(|random| choose_split([9, 1].into_iter(), *random) == Some(0)).count();
    assert!((8_900..9_100).contains(&left), "{left}");
}

/// A condition as it is written, up to two levels deep.
fn any_match(levels: u32) -> BoxedStrategy<String> {
    let sni = prop_oneof![
        4 => "[ab]\\.[ab]\\.c".prop_map(|name| format!("sni: {name}")),
        4 => "[ab]\\.c".prop_map(|name| format!("sni: '*.{name}'")),
        1 => "[ab]".prop_map(|part| format!("sni: [{{ prefix: {part} }}, b.b.c]")),
        1 => "[ab]\\.c".prop_map(|part| format!("sni: {{ suffix: {part} }}")),
        1 => "[ab]".prop_map(|part| format!("sni: {{ regex: '[ab]\\.({part}|c).*' }}")),
        1 => Just("sni: none".to_owned()),
    ];
    let client = prop_oneof![Just("client: 10.0.0.0/8"), Just("client: 10.1.0.0/16")];
    let other = prop_oneof![
        client.prop_map(str::to_owned),
        Just("port: [443, 80-90]".to_owned()),
        Just("port: 444".to_owned()),
        Just("alpn: [h2, x]".to_owned()),
        any::<bool>().prop_map(|tls| format!("tls: {tls}")),
    ];
    let flat = (prop::option::of(sni), prop::option::of(other));
    let flat = flat.prop_map(|(sni, other)| [sni, other].into_iter().flatten().collect::<Vec<_>>()).boxed();
    let whole = if levels == 0 {
        flat
    } else {
        let inner = (
            prop_oneof![Just("any"), Just("all"), Just("not")],
            prop::collection::vec(any_match(levels - 1), 1..3),
        );
        let inner = inner.prop_map(|(word, parts)| format!("{word}: [{}]", parts.join(", ")));
        (flat, prop::option::of(inner))
            .prop_map(|(mut flat, inner)| {
                flat.extend(inner);
                flat
            })
            .boxed()
    };
    whole.prop_map(|fields| format!("{{ {} }}", fields.join(", "))).boxed()
}

proptest! {
    #[test]
    fn the_index_agrees_with_walking_the_rules(
        rules in prop::collection::vec(any_match(2), 1..12),
        name in prop::option::of("[ab](\\.[ab]){0,3}\\.c"),
        client in prop_oneof![Just("10.1.0.1"), Just("10.2.0.1"), Just("9.9.9.9")],
        is_tls: bool,
        port in prop_oneof![Just(443u16), Just(85), Just(1)],
        offers_h2: bool,
    ) {
        let rules: Vec<_> = rules.iter().map(|matches| format!("{{ match: {matches}, reject: {{}} }}")).collect();
        let listener = listener(&rules.join(", "));
        let alpn = if offers_h2 { Alpn::of_list(b"\x01y\x02h2") } else { Alpn::EMPTY };
        let known = facts(client, name.as_deref());
        let facts = Facts { is_tls: is_tls || name.is_some(), port, alpn: &alpn, ..known };
        let tables = Tables::default();
        let walked = listener.rules.iter().position(|rule| explain(rule, &facts, &tables).is_none());
        prop_assert_eq!(RuleTable::compile(&listener, &tables).route(&facts), walked);
    }
}
