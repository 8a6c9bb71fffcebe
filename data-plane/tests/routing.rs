//! Rules over real sockets: what a client says first, where it comes from and where it comes to decide its pool.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    io::Write,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use support::*;

/// What a TLS client says first; without a name it is the one that an old client sends.
fn hello(name: Option<&str>, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = name.is_some();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = name.unwrap_or("ignored.test").to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// Who answers to these first bytes; empty: nobody.
fn answers(port: u16, first: &[u8]) -> String {
    let mut stream: TcpStream = connect(port);
    stream.write_all(first).expect("sent");
    String::from_utf8_lossy(&read_to_end(&mut stream).unwrap_or_default()).into_owned()
}

/// Says its name, and reads what is sent: an end with unread bytes would be a reset, which may overtake the name.
fn polite(name: &'static str) -> SocketAddr {
    backend(move |mut stream| {
        let _ = stream.write_all(name.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
        let _ = read_to_end(&mut stream);
    })
}

fn pools(names: &[&'static str]) -> String {
    let pool = |name: &&'static str| {
        format!("{{ name: {name}, backends: [{{ name: a, address: '{}' }}] }}", polite(name))
    };
    format!("pools: [{}]\n", names.iter().map(pool).collect::<Vec<_>>().join(", "))
}

#[test]
fn a_rule_may_ask_for_anything_that_a_client_says_first() {
    let port = free_port();
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [\
           {{ match: {{ alpn: [acme-tls/1] }}, pool: acme }},\
           {{ match: {{ sni: [{{ prefix: 'blue-' }}, {{ suffix: '.blue.test' }}] }}, pool: blue }},\
           {{ match: {{ sni: {{ regex: 'shard[0-9]+\\.test' }} }}, pool: shard }},\
           {{ match: {{ sni: none }}, pool: nameless }},\
           {{ match: {{ tls: false }}, pool: plain }},\
           {{ match: {{ all: [{{ any: [{{ sni: a.test }}, {{ sni: b.test }}] }}, {{ not: {{ alpn: h2 }} }}] }}, pool: old }},\
           {{ match: {{ alpn: h2 }}, pool: h2 }}] }}]\n{}",
        pools(&["acme", "blue", "shard", "nameless", "plain", "old", "h2"])
    ));
    for (first, pool) in [
        (hello(Some("a.test"), &["acme-tls/1"]), "acme"),
        (hello(Some("blue-7.test"), &[]), "blue"),
        (hello(Some("X.Blue.Test"), &[]), "blue"),
        (hello(Some("shard12.test"), &[]), "shard"),
        (hello(Some("my-shard12.test"), &["h2"]), "h2"),
        (hello(None, &["h2"]), "nameless"),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "plain"),
        (hello(Some("b.test"), &["http/1.1"]), "old"),
        (hello(Some("b.test"), &["http/1.1", "h2"]), "h2"),
    ] {
        assert_eq!(answers(port, &first), pool);
    }
    assert!(!answers(port, &hello(Some("c.test"), &[])).contains("test"), "no rule: an alert and the end");
}

#[test]
fn one_listener_tells_its_ports_apart() {
    let (first, second) = (free_port(), free_port());
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{first}', '*:{second}'], rules: [\
           {{ match: {{ port: '{first}-{first}' }}, pool: one }}, {{ match: {{ port: {second} }}, pool: two }}] }}]\n{}",
        pools(&["one", "two"])
    ));
    assert_eq!(answers(first, b""), "one");
    assert_eq!(answers(second, b""), "two");
}

#[test]
fn a_client_stays_on_its_side_of_a_sticky_split() {
    let port = free_port();
    let document = |sticky: &str| {
        format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ name: r, {sticky} \
               split: [{{ pool: blue, weight: 1 }}, {{ pool: green, weight: 1 }}] }}] }}]\n{}",
            pools(&["blue", "green"])
        )
    };
    let traffic = running(&document("sticky: client,"));
    let side = answers(port, b"");
    assert!((0..30).all(|_| answers(port, b"") == side), "the same client, another side");
    apply(&traffic, &document("")).expect("applied");
    assert!((0..60).any(|_| answers(port, b"") != side), "sixty draws and only one side");
}

#[test]
fn a_map_names_the_pool_of_each_name() {
    let (port, count) = (free_port(), 20_000);
    let many: Vec<String> = (0..count).map(|n| format!("t{n}.many.test: one")).collect();
    let yaml = |of_one: &str| {
        format!(
            "listeners: [{{ name: l, bind: ['*:{port}'], rules: [\
               {{ match: {{ sni: {{ map: tenants }}, client: 127.0.0.0/8 }} }}, {{ pool: none }}] }}]\n{}\
             maps: [{{ name: tenants, entries: {{ One.test: {of_one}, '*.two.test': two, '*.a.two.test': one, {} }} }}]\n",
            pools(&["one", "two", "none"]),
            many.join(", ")
        )
    };
    let traffic = running(&yaml("one"));
    for (name, wanted) in [
        ("one.test", "one"),
        ("x.two.test", "two"),
        ("x.y.two.test", "two"),
        ("x.a.two.test", "one"),
        ("two.test", "none"),
        ("t19999.many.test", "one"),
        ("t20000.many.test", "none"),
    ] {
        assert_eq!(answers(port, &hello(Some(name), &[])), wanted, "{name}");
    }
    assert_eq!(answers(port, &hello(None, &[])), "none");
    apply(&traffic, &yaml("two")).expect("applied");
    assert_eq!(answers(port, &hello(Some("one.test"), &[])), "two");
}
