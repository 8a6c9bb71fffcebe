//! The node's metrics: the same counters that go to the control plane, by name.

use std::time::UNIX_EPOCH;

use awe4lb_engine::health::Health;
use awe4lb_telemetry::{Exposition, Kind};

use crate::control::{
    capacity, gauges,
    hot::{AdminState, CounterSample},
    live::{self, Named},
    node::{LinkState, Node},
};

type Value = fn(&CounterSample) -> u64;

/// Families that listeners, rules, pools and backends have alike.
const COUNTERS: [(&str, Kind, &str, Value); 8] = [
    ("bytes_in_total", Kind::Counter, "Payload from clients, delivered to backends.", |c| c.bytes_in),
    ("bytes_out_total", Kind::Counter, "Payload from backends, delivered to clients.", |c| c.bytes_out),
    ("connections_total", Kind::Counter, "Connections and flows, ever.", |c| c.connections_total),
    ("connections_active", Kind::Gauge, "Connections and flows, now.", |c| c.connections_active),
    ("datagrams_in_total", Kind::Counter, "Datagrams from clients.", |c| c.datagrams_in),
    ("datagrams_out_total", Kind::Counter, "Datagrams from backends.", |c| c.datagrams_out),
    ("dials_total", Kind::Counter, "Successful dials.", |c| c.dials_total),
    ("handshakes_total", Kind::Counter, "TLS handshakes with clients.", |c| c.handshakes_total),
];

const SECONDS: [(&str, &str, Value); 2] = [
    ("dial_seconds_total", "Time that successful dials took.", |c| c.dial_micros_total),
    ("handshake_seconds_total", "Time that TLS handshakes took.", |c| c.handshake_micros_total),
];

/// All of it.
pub fn write(node: &Node) -> String {
    let mut out = Exposition::default();
    write_node(&mut out, node);
    let running = node.live.running();
    let names = live::names(&node.live);
    let mut samples = node.live.path().counters();
    // What has not seen a connection yet is there with zeros, so that rates have a start.
    let counted: std::collections::HashSet<u64> = samples.iter().map(|sample| sample.number).collect();
    samples.extend(
        names
            .keys()
            .filter(|number| !counted.contains(number))
            .map(|number| CounterSample { number: *number, ..CounterSample::default() }),
    );
    samples.sort_by_key(|sample| sample.number);
    for kind in ["listener", "rule", "pool", "backend"] {
        let of_kind: Vec<(Vec<(&str, &str)>, &CounterSample)> = samples
            .iter()
            .filter_map(|sample| {
                let (of, labels) = labels(names.get(&sample.number)?);
                (of == kind).then_some((labels, sample))
            })
            .collect();
        write_counters(&mut out, kind, &of_kind);
    }
    out.family("awe4lb_listener_bound", Kind::Gauge, "1: accepts; 0: could not be bound.");
    let missing = running.missing_listeners();
    for placed in &running.config.listeners {
        let name = placed.listener.name.as_str();
        out.sample(&[("listener", name)], u8::from(!missing.iter().any(|missing| missing == name)));
    }
    write_backends(&mut out, node);
    write_room(&mut out, node);
    out.finish()
}

fn labels(named: &Named) -> (&'static str, Vec<(&'static str, &str)>) {
    match named {
        Named::Listener(listener) => ("listener", vec![("listener", listener)]),
        Named::Rule(listener, rule) => ("rule", vec![("listener", listener), ("rule", rule)]),
        Named::Pool(pool) => ("pool", vec![("pool", pool)]),
        Named::Backend(pool, backend) => ("backend", vec![("pool", pool), ("backend", backend)]),
    }
}

fn write_counters(out: &mut Exposition, kind: &str, samples: &[(Vec<(&str, &str)>, &CounterSample)]) {
    for (name, family, help, value) in COUNTERS {
        out.family(&format!("awe4lb_{kind}_{name}"), family, help);
        for (labels, sample) in samples {
            out.sample(labels, value(sample));
        }
    }
    for (name, help, micros) in SECONDS {
        out.family(&format!("awe4lb_{kind}_{name}"), Kind::Counter, help);
        for (labels, sample) in samples {
            out.sample(labels, micros(sample) as f64 / 1e6);
        }
    }
    out.family(
        &format!("awe4lb_{kind}_ended_total"),
        Kind::Counter,
        "Ends of connections and flows, by reason.",
    );
    for (labels, sample) in samples {
        for (reason, count) in &sample.ends {
            let mut labels = labels.clone();
            labels.push(("reason", reason.label()));
            out.sample(&labels, count);
        }
    }
}

fn write_backends(out: &mut Exposition, node: &Node) {
    let pools: Vec<_> = node.live.path().pools().iter().map(|pool| (pool.placed(), pool.members())).collect();
    let mut gauge = |name: &str, help: &str, value: fn(&crate::control::hot::MemberView) -> u8| {
        out.family(name, Kind::Gauge, help);
        for (placed, members) in &pools {
            for (backend, member) in placed.pool.backends.iter().zip(members) {
                let labels = [("pool", placed.pool.name.as_str()), ("backend", backend.name.as_str())];
                out.sample(&labels, value(member));
            }
        }
    };
    gauge("awe4lb_backend_up", "0: checks say it is down; 1: up, or not checked.", |member| {
        u8::from(member.health != Health::Down)
    });
    gauge("awe4lb_backend_ejected", "1: set aside because dials failed.", |member| u8::from(member.ejected));
    gauge("awe4lb_backend_ready", "0: drained or in maintenance by an operator.", |member| {
        u8::from(member.admin == AdminState::Ready)
    });
}

/// How many flows there can be.
fn write_room(out: &mut Exposition, node: &Node) {
    out.family(
        "awe4lb_pool_flows_limit",
        Kind::Gauge,
        "UDP flows that ports and descriptors allow, if no other pool has any.",
    );
    for (pool, limit) in capacity::flows(node) {
        out.sample(&[("pool", pool.as_str())], limit);
    }
}

fn write_node(out: &mut Exposition, node: &Node) {
    let running = node.live.running();
    let link = node.link.borrow().clone();
    let gauges = gauges::read();
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.family(name, Kind::Gauge, help);
        out.sample(&[], value);
    };
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    gauge("awe4lb_node_ready", "1: wants traffic.", flag(node.not_ready().is_empty()));
    gauge("awe4lb_node_draining", "1: wants no new traffic.", flag(node.draining.borrow().is_on()));
    gauge(
        "awe4lb_node_connected",
        "1: has a stream to a control plane.",
        flag(link.state == LinkState::Connected),
    );
    let started = node.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge("awe4lb_node_start_time_seconds", "Start of the process.", started.as_secs_f64());
    if let Some(assignment) = &running.assignment {
        gauge("awe4lb_node_revision", "The revision that runs.", assignment.revision as f64);
        gauge("awe4lb_node_assignment_sequence", "The assignment that runs.", assignment.sequence as f64);
    }
    if let Some(not_after) = link.certificate_not_after {
        gauge("awe4lb_node_certificate_expiry_seconds", "End of the node's certificate.", not_after as f64);
    }
    gauge(
        "awe4lb_node_connections",
        "Open client connections and flows.",
        node.live.path().active_connections() as f64,
    );
    gauge("awe4lb_node_resident_bytes", "Resident memory.", gauges.resident_bytes as f64);
    gauge("awe4lb_node_open_files", "Open file descriptors.", gauges.open_files as f64);
    gauge("awe4lb_node_open_files_limit", "The limit on them.", gauges.open_files_limit as f64);
    out.family("awe4lb_node_cpu_seconds_total", Kind::Counter, "Processor time of the process.");
    out.sample(&[], gauges.cpu_micros_total as f64 / 1e6);
    out.family("awe4lb_node_commits_total", Kind::Counter, "Configurations that went live in this process.");
    out.sample(&[], running.commits);
}
