//! `/metrics`: the fleet's counters by name, and what this process is doing.

use std::{collections::BTreeMap, net::SocketAddr};

use awe4lb_telemetry::{
    exposition::{CONTENT_TYPE, Exposition, Kind},
    process,
};
use axum::{
    Extension,
    extract::{ConnectInfo, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{Method, header};
use serde_json::Value;

use super::{
    Problem,
    routes::{Doc, Route},
};
use crate::{acme::CertificateView, app::App, auth::Principal, discovery::SourceView};

type Family = (&'static str, Kind, &'static str, &'static str);

/// What objects have alike: name, kind, help, member of the answer of `/api/v1/stats`.
const FAMILIES: [Family; 6] = [
    ("bytes_in_total", Kind::Counter, "Payload from clients, delivered to backends.", "bytesIn"),
    ("bytes_out_total", Kind::Counter, "Payload from backends, delivered to clients.", "bytesOut"),
    ("connections_total", Kind::Counter, "Connections and flows, ever.", "connectionsTotal"),
    ("connections_active", Kind::Gauge, "Connections and flows, now.", "connectionsActive"),
    ("datagrams_in_total", Kind::Counter, "Datagrams from clients.", "datagramsIn"),
    ("datagrams_out_total", Kind::Counter, "Datagrams to clients.", "datagramsOut"),
];

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![Route::public(
        Method::GET,
        "/metrics",
        get(metrics),
        Doc::new("metrics", "Health", "Prometheus text; without a token only for this machine")
            .responses(&[(200, "text/plain"), (401, "Another machine needs a token")]),
    )]
}

async fn metrics(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    who: Option<Extension<Principal>>,
) -> Result<Response, Problem> {
    if who.is_none() && !peer.ip().to_canonical().is_loopback() {
        return Err(Problem::unauthorized(
            "from another machine this needs a token: Authorization: Bearer awl_…",
        ));
    }
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], write(&app)).into_response())
}

fn write(app: &App) -> String {
    let mut out = Exposition::default();
    write_process(&mut out, app);
    write_fleet(&mut out, app);
    let stats = app.stats.answer(None);
    for (kind, list, parent) in [
        ("listener", "listeners", None),
        ("rule", "rules", Some("listener")),
        ("pool", "pools", None),
        ("backend", "backends", Some("pool")),
        ("node", "nodes", None),
    ] {
        let items: &[Value] = stats[list].as_array().map_or(&[], Vec::as_slice);
        let text = |item: &'_ Value, member: &str| item[member].as_str().unwrap_or_default().to_owned();
        let labelled: Vec<(Vec<(&str, String)>, &Value)> = items
            .iter()
            .map(|item| {
                let own = (kind, text(item, "name"));
                (parent.map(|parent| (parent, text(item, parent))).into_iter().chain([own]).collect(), item)
            })
            .collect();
        for (name, of, help, member) in FAMILIES {
            out.family(&format!("awe4lb_{kind}_{name}"), of, help);
            for (labels, item) in &labelled {
                out.sample(&borrowed(labels), item[member].as_u64().unwrap_or_default());
            }
        }
        out.family(
            &format!("awe4lb_{kind}_ended_total"),
            Kind::Counter,
            "Connections and flows that ended, by reason.",
        );
        for (labels, item) in &labelled {
            for of in ["failed", "ended"] {
                for (reason, count) in item[of].as_object().into_iter().flatten() {
                    let mut labels = borrowed(labels);
                    labels.push(("reason", reason));
                    out.sample(&labels, count.as_u64().unwrap_or_default());
                }
            }
        }
    }
    out.finish()
}

fn borrowed<'a>(labels: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().map(|(label, text)| (*label, text.as_str())).collect()
}

fn write_process(out: &mut Exposition, app: &App) {
    out.family("awe4lb_build_info", Kind::Gauge, "1, with the version.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let process = process::read();
    out.family("process_cpu_seconds_total", Kind::Counter, "User and system time.");
    out.sample(&[], process.cpu_micros_total as f64 / 1e6);
    out.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory.");
    out.sample(&[], process.resident_bytes);
    out.family("process_open_fds", Kind::Gauge, "Open descriptors.");
    out.sample(&[], process.open_files);
    out.family("process_max_fds", Kind::Gauge, "How many there may be.");
    out.sample(&[], process.open_files_limit);
    out.family(
        "awe4lb_http_answers_total",
        Kind::Counter,
        "Answers of REST and console, by class of status.",
    );
    for (class, count) in app.answers.by_class() {
        out.sample(&[("class", class)], count);
    }
    out.family("awe4lb_database_bytes", Kind::Gauge, "Size of a database file.");
    for file in ["awe4lb.db", "stats.db"] {
        // What was written last is in the log beside it.
        let size = |name: String| {
            std::fs::metadata(app.store.data_dir().join(name)).map_or(0, |metadata| metadata.len())
        };
        let size = size(file.to_owned()) + size(format!("{file}-wal"));
        out.sample(&[("file", file)], size);
    }
}

fn write_fleet(out: &mut Exposition, app: &App) {
    out.family("awe4lb_revision", Kind::Gauge, "The newest revision.");
    out.sample(&[], app.catalog.head().revision);
    let nodes = app.fleet.nodes();
    let mut states = BTreeMap::from([("connected", 0), ("disconnected", 0), ("never", 0), ("banned", 0)]);
    for node in &nodes {
        *states.entry(node.state).or_default() += 1;
    }
    out.family("awe4lb_nodes", Kind::Gauge, "Nodes, by state.");
    for (state, count) in states {
        out.sample(&[("state", state)], count);
    }
    out.family("awe4lb_node_in_sync", Kind::Gauge, "1: runs what it is to run.");
    for node in &nodes {
        out.sample(&[("node", &node.name)], u8::from(node.in_sync));
    }
    write_sources(out, app);
    write_certificates(out, app);
    write_ocsp(out, app);
    out.family(
        "awe4lb_webhook_deliveries_total",
        Kind::Counter,
        "Events for webhooks, by what became of them; retried: tries that failed.",
    );
    for (outcome, count) in app.webhooks.counts() {
        out.sample(&[("outcome", outcome)], count);
    }
}

fn write_certificates(out: &mut Exposition, app: &App) {
    let head = app.catalog.head();
    let views: Vec<CertificateView> = app.acme.views(&head).map(|(_, view)| view).collect();
    let seconds = |text: &str| text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    out.family(
        "awe4lb_certificate_not_after_seconds",
        Kind::Gauge,
        "When a chain that serves ends, in seconds since 1970.",
    );
    for view in &views {
        for chain in &view.chains {
            let labels = [("certificate", view.name.as_str()), ("key", &chain.facts.key_type)];
            out.sample(&labels, seconds(&chain.facts.not_after));
        }
    }
    out.family("awe4lb_certificate_state", Kind::Gauge, "1: the certificate is in this state.");
    for view in &views {
        out.sample(&[("certificate", &view.name), ("state", view.state.word())], 1);
    }
    let of_acme = |view: &CertificateView| {
        view.acme.as_ref().map(|acme| (acme.failures, acme.next.as_ref().map(|next| seconds(&next.at))))
    };
    out.family("awe4lb_certificate_failures", Kind::Gauge, "Orders of a certificate that failed in a row.");
    for view in &views {
        if let Some((failures, _)) = of_acme(view) {
            out.sample(&[("certificate", &view.name)], failures);
        }
    }
    out.family(
        "awe4lb_certificate_next_order_seconds",
        Kind::Gauge,
        "When a certificate is ordered next, in seconds since 1970.",
    );
    for view in &views {
        if let Some((_, Some(at))) = of_acme(view) {
            out.sample(&[("certificate", &view.name)], at);
        }
    }
    out.family("awe4lb_acme_orders_total", Kind::Counter, "Orders, by account and outcome.");
    for ((account, outcome), count) in app.acme.orders() {
        out.sample(&[("account", &account), ("outcome", outcome)], count);
    }
}

fn write_ocsp(out: &mut Exposition, app: &App) {
    let all = app.ocsp.metrics();
    out.family(
        "awe4lb_certificate_ocsp_next_update_seconds",
        Kind::Gauge,
        "Unix time until when the OCSP answer counts that is sent along with a certificate; absent: none is.",
    );
    for (next_update, of) in all.iter().filter_map(|of| Some((of.next_update?, of))) {
        out.sample(&[("certificate", &of.certificate)], next_update);
    }
    out.family(
        "awe4lb_certificate_ocsp_failures_total",
        Kind::Counter,
        "Questions to the OCSP responder of a certificate that brought nothing.",
    );
    for of in &all {
        out.sample(&[("certificate", &of.certificate)], of.failures);
    }
}

fn write_sources(out: &mut Exposition, app: &App) {
    let sources = app.discovery.sources(&app.catalog.head().placed, None);
    let mut family = |name: &str, help: &str, value: &dyn Fn(&SourceView) -> Option<i64>| {
        out.family(name, Kind::Gauge, help);
        for source in &sources {
            if let Some(value) = value(source) {
                out.sample(&[("pool", &source.pool), ("source", &source.id)], value);
            }
        }
    };
    family("awe4lb_source_up", "1: the last try of a source of backends succeeded.", &|source| {
        Some(i64::from(source.state == "ok"))
    });
    family("awe4lb_source_backends", "In its last good answer.", &|source| {
        i64::try_from(source.backends).ok()
    });
    family("awe4lb_source_rejected", "Items of its last answer that are no backends.", &|source| {
        i64::try_from(source.rejected).ok()
    });
    family("awe4lb_source_age_seconds", "Since its last good answer.", &|source| source.age_seconds);
}
