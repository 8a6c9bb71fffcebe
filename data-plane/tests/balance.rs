//! Balancing over real sockets: what is asked for in the document decides who gets a connection.

#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::{collections::BTreeMap, net::SocketAddr};

use awe4lb_data_plane::control::hot::{AdminState, DataPath as _};
use awe4lb_engine::health::Health;
use awe4lb_model::placed::Number;
use support::*;

fn greeters() -> [SocketAddr; 3] {
    ["a", "b", "c"].map(greeter)
}

/// How often each backend answers.
fn answers(port: u16, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        *counts.entry(greeting(port)).or_default() += 1;
    }
    counts
}

#[test]
fn every_method_reaches_every_backend_or_keeps_a_client_at_one() {
    for (balance, spreads) in
        [("p2c", true), ("ewma", true), ("leastBandwidth", true), ("maglev", false), ("hash", false)]
    {
        let port = free_port();
        let _traffic = running(&simple(port, &greeters(), "", &format!(", balance: {balance}")));
        let counts = answers(port, 60);
        assert!(!counts.contains_key(""), "{balance}: {counts:?}");
        assert_eq!(counts.len(), if spreads { 3 } else { 1 }, "{balance}: {counts:?}");
    }
}

#[test]
fn ewma_goes_on_without_a_backend_that_is_down() {
    let port = free_port();
    let traffic = running(&simple(port, &greeters(), "", ", balance: ewma"));
    answers(port, 30);
    let pool = traffic.pools().remove(0);
    pool.set_health(Number(4), Health::Down, "test");
    let counts = answers(port, 30);
    // Of two the quicker one may get everything.
    assert!(!counts.contains_key("a") && !counts.contains_key(""), "{counts:?}");
}

#[test]
fn a_tier_with_too_few_backends_is_left() {
    let port = free_port();
    let [a, b, c] = greeters();
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, tiers: {{ minUsable: 2 }}, backends: [{{ address: '{a}' }}, {{ address: '{b}' }},\
           {{ address: '{c}', priority: 1 }}, {{ address: '{c}', name: again, priority: 1 }}] }}]\n"
    ));
    assert!(!answers(port, 10).contains_key("c"));
    let pool = traffic.pools().remove(0);
    let first = pool.members()[0].number;
    pool.set_health(first, Health::Down, "test");
    assert_eq!(answers(port, 10).keys().collect::<Vec<_>>(), ["c"]);
    pool.set_health(first, Health::Up, "");
    assert!(!answers(port, 10).contains_key("c"));
}

#[test]
fn a_standby_in_use_stays_until_it_fails_where_failback_is_manual() {
    let port = free_port();
    let [a, b, _] = greeters();
    let traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, tiers: {{ failback: manual }}, backends: [{{ address: '{a}' }}, {{ address: '{b}', priority: 1 }}] }}]\n"
    ));
    let pool = traffic.pools().remove(0);
    let [first, second] = [0, 1].map(|at| pool.members()[at].number);
    assert_eq!(greeting(port), "a");
    pool.set_health(first, Health::Down, "test");
    assert_eq!(greeting(port), "b");
    pool.set_health(first, Health::Up, "");
    assert_eq!(greeting(port), "b", "it works, so it stays");
    pool.set_health(second, Health::Down, "test");
    assert_eq!(greeting(port), "a");
    pool.set_health(second, Health::Up, "");
    assert_eq!(greeting(port), "a");
}

#[test]
fn a_full_tier_spills_over_where_it_may() {
    let port = free_port();
    let (keeps, c) = (echo(), greeter("c"));
    let _traffic = running(&format!(
        "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
         pools: [{{ name: p, tiers: {{ spill: whenFull }}, backends: [{{ address: '{keeps}', maxConnections: 1 }},\
           {{ address: '{c}', priority: 1 }}] }}]\n"
    ));
    let mut held = connect(port);
    std::io::Write::write_all(&mut held, b"x").expect("sent");
    std::io::Read::read_exact(&mut held, &mut [0]).expect("it has the only place");
    assert_eq!(greeting(port), "c");
}

#[test]
fn who_comes_back_warms_up() {
    let port = free_port();
    let [a, b, _] = greeters();
    let traffic = running(&simple(port, &[a, b], "", ", slowStart: 1h"));
    assert_eq!(answers(port, 20).len(), 2);
    let even = answers(port, 40);
    assert!(even.values().all(|count| (18..=22).contains(count)), "warm from the start: {even:?}");
    let pool = traffic.pools().remove(0);
    let first = pool.members()[0].number;
    pool.set_admin(first, AdminState::Drain);
    assert_eq!(answers(port, 10).len(), 1);
    pool.set_admin(first, AdminState::Ready);
    let counts = answers(port, 44);
    assert!((3..=6).contains(&counts["a"]), "a tenth of the weight of the other: {counts:?}");
}

#[test]
fn backends_of_the_node_s_zone_come_first_while_enough_of_them_work() {
    for balance in ["random", "roundRobin", "leastConn", "hash", "maglev", "p2c", "ewma", "leastBandwidth"] {
        let port = free_port();
        let [a, b, c] = greeters();
        let document = |locality: &str| {
            format!(
                "listeners: [{{ name: l, bind: ['*:{port}'], rules: [{{ pool: p }}] }}]\n\
                 pools: [{{ name: p, balance: {balance}, hashOn: clientPort{locality}, backends: [\
                 {{ address: '{a}', zone: east }}, {{ address: '{b}', zone: east, maxConnections: 1 }}, {{ address: '{c}', zone: west }}] }}]\n"
            )
        };
        let preferring = document(", locality: { prefer: zone, spillBelow: 60 }");
        let traffic = traffic();
        traffic.set_zone(Some("west"));
        apply(&traffic, &preferring).expect("applied");
        let who = || answers(port, 60).into_keys().collect::<Vec<_>>();
        // With ewma the quicker ones may get everything.
        let takes_part = |who: Vec<String>| balance == "ewma" || who.contains(&"c".to_owned());
        assert_eq!(who(), ["c"], "{balance}");
        // It moves: what is near is another.
        traffic.set_zone(Some("east"));
        let near = who();
        assert!(!near.contains(&"c".to_owned()) && !near.is_empty(), "{balance}: {near:?}");
        // One of two is less than 60 percent.
        let pool = traffic.pools().remove(0);
        let first = pool.members()[0].number;
        pool.set_health(first, Health::Down, "test");
        assert!(takes_part(who()), "{balance}");
        pool.set_health(first, Health::Up, "");
        assert!(!who().contains(&"c".to_owned()), "{balance}");
        // Nobody knows where the node is, or nobody asks: all take part.
        traffic.set_zone(None);
        assert!(takes_part(who()), "{balance}");
        traffic.set_zone(Some("east"));
        apply(&traffic, &document("")).expect("applied");
        assert!(takes_part(who()), "{balance}");
    }
}
