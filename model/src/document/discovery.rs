//! From the object of a source of backends to the noun.

mod consul;
pub(super) mod containers;
mod databases;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    build::{Findings, boolean, duration, limit, name, number, one_or_many, text},
    scalars,
    spec::discovery::{ASKED, takers, takes},
    tree::{Node, NodeKind},
    violation::Path,
};
use crate::discovery::{
    ClientTls, DnsSource, DnsSourceRecord, ExecSource, FileSource, Format, HttpSource, KubernetesMode,
    KubernetesSource, MAX_ANSWER_BYTES, OnFailure, Pointers, PushSource, RunOn, Source, SourceKind, Template,
};

const SECOND: Duration = Duration::from_secs(1);

/// All sources of a pool.
pub(super) fn sources(node: Option<&Node>, path: &Path<'_>, found: &mut Findings) -> Vec<Source> {
    let path = Path::Field(path, "discovery");
    let mut sources: Vec<Source> = Vec::new();
    for (index, item) in node.map(Node::items).unwrap_or_default().iter().enumerate() {
        let here = Path::Index(&path, index);
        let Some(source) = source(item, &here, found) else { continue };
        if sources.iter().any(|before| before.id == source.id) {
            let detail = format!("another source of this pool is called {:?}, too", source.id.as_str());
            found.error(&here, item, "duplicate-name", detail);
        }
        sources.push(source);
    }
    sources
}

fn source(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<Source> {
    let word = text(node, "type")?;
    fields_fit(node, word, path, found);
    let interval = duration(node, "interval").unwrap_or(10 * SECOND);
    if interval < SECOND / 10 {
        let at = node.field("interval").unwrap_or(node);
        found.error(&Path::Field(path, "interval"), at, "out-of-range", "at least 100ms");
    }
    let run_on = match text(node, "runOn") {
        Some("node") => RunOn::Node,
        Some(_) => RunOn::ControlPlane,
        None if word == "dns" => RunOn::Node,
        None => RunOn::ControlPlane,
    };
    if run_on == RunOn::Node && word != "dns" {
        let at = node.field("runOn").unwrap_or(node);
        let detail = format!("a source of type {word} runs in the control plane; nodes ask \"dns\" alone");
        found.error(&Path::Field(path, "runOn"), at, "conflict", detail);
    }
    let default = Template::default();
    Some(Source {
        id: name(node, "id")?,
        kind: kind(node, word, interval, path, found)?,
        run_on,
        interval,
        timeout: duration(node, "timeout").unwrap_or(5 * SECOND),
        on_failure: match text(node, "onFailure") {
            Some("clear") => OnFailure::Clear,
            _ => OnFailure::Keep,
        },
        min_backends: number(node, "minBackends").unwrap_or(1),
        max_vanish_percent: number(node, "maxVanishPercent").unwrap_or(100),
        select: text(node, "select").and_then(|text| text.parse().ok()),
        template: Template {
            port: number(node, "port"),
            weight: number(node, "weight").unwrap_or(default.weight),
            priority: number(node, "priority").unwrap_or(default.priority),
            max_connections: limit(node, "maxConnections").unwrap_or_default(),
            zone: text(node, "zone").map(Into::into),
            name: text(node, "nameTemplate").and_then(|text| text.parse().ok()),
        },
    })
}

/// A field that the type does not use is a mistake, not something to ignore.
fn fields_fit(node: &Node, word: &str, path: &Path<'_>, found: &mut Findings) {
    let NodeKind::Object(entries) = &node.kind else { return };
    for entry in entries.iter().filter(|entry| !takes(word, &entry.key)) {
        let detail = if ASKED.contains(&entry.key.as_str()) {
            format!("{:?} is for sources that are asked; this one is told", entry.key)
        } else {
            format!("{:?} is for sources of type {}, not {word}", entry.key, takers(&entry.key).join(", "))
        };
        found.error(&Path::Field(path, &entry.key), &entry.value, "conflict", detail);
    }
}

fn kind(
    node: &Node,
    word: &str,
    interval: Duration,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<SourceKind> {
    let max_bytes = number(node, "maxBytes").unwrap_or(MAX_ANSWER_BYTES);
    Some(match word {
        "dns" => SourceKind::Dns(dns(node, interval, path, found)?),
        "http" => {
            let url = wanted(node, "url", "where it is asked", path, found)?;
            check_url(url, node, path, found)?;
            SourceKind::Http(HttpSource {
                url: url.into(),
                headers: headers(node),
                token_file: absolute(node, "tokenFile", path, found).map(Into::into),
                tls: client_tls(node, path, found),
                format: format(node, path, found),
                max_bytes,
            })
        }
        "file" => {
            wanted(node, "path", "the whole path of the file", path, found)?;
            let file = absolute(node, "path", path, found)?;
            SourceKind::File(FileSource { path: file.into(), format: format(node, path, found), max_bytes })
        }
        "exec" => {
            let argv: Vec<Box<str>> =
                one_or_many(node.field("command")).filter_map(|item| Some(item.as_text()?.into())).collect();
            if !argv.first().is_some_and(|program| program.starts_with('/')) {
                let detail =
                    "a source of type exec needs \"command\": the whole path of a program, and its arguments";
                found.error(path, node, "missing-field", detail);
                return None;
            }
            SourceKind::Exec(ExecSource { argv, format: format(node, path, found), max_bytes })
        }
        "kubernetes" => SourceKind::Kubernetes(kubernetes(node, path, found)?),
        "consul" => SourceKind::Consul(consul::consul(node, max_bytes, path, found)?),
        "sentinel" => SourceKind::Sentinel(databases::sentinel(node, path, found)?),
        "patroni" => SourceKind::Patroni(databases::patroni(node, max_bytes, path, found)?),
        "docker" => SourceKind::Docker(containers::docker(node, max_bytes, path, found)?),
        "swarm" => SourceKind::Swarm(containers::swarm(node, max_bytes, path, found)?),
        "lxd" => SourceKind::Lxd(containers::lxd(node, max_bytes, path, found)?),
        "push" => SourceKind::Push(PushSource { ttl: duration(node, "ttl") }),
        _ => return None,
    })
}

fn wanted<'a>(
    node: &'a Node,
    field: &str,
    what: &str,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<&'a str> {
    let value = text(node, field).filter(|text| !text.is_empty());
    if value.is_none() {
        let word = text(node, "type").unwrap_or_default();
        let detail = format!("a source of type {word} needs {field:?}: {what}");
        found.error(path, node, "missing-field", detail);
    }
    value
}

fn absolute<'a>(node: &'a Node, field: &str, path: &Path<'_>, found: &mut Findings) -> Option<&'a str> {
    let value = text(node, field)?;
    if !value.starts_with('/') {
        let at = node.field(field).unwrap_or(node);
        found.error(&Path::Field(path, field), at, "bad-value", "a whole path is wanted, from / on");
        return None;
    }
    Some(value)
}

fn dns(node: &Node, interval: Duration, path: &Path<'_>, found: &mut Findings) -> Option<DnsSource> {
    let asked = wanted(node, "name", "the name that is asked for", path, found)?;
    let Some(name) = scalars::host_name(asked) else {
        let at = node.field("name").unwrap_or(node);
        found.error(&Path::Field(path, "name"), at, "bad-value", format!("{asked:?} is no name"));
        return None;
    };
    let here = Path::Field(path, "servers");
    let mut servers = Vec::new();
    for (index, item) in node.field("servers").map(Node::items).unwrap_or_default().iter().enumerate() {
        match item.as_text().and_then(server) {
            Some(server) => servers.push(server),
            None => found.error(
                &Path::Index(&here, index),
                item,
                "bad-value",
                "the address of a name server is wanted, maybe with a port: 10.0.0.53 or [::1]:5353",
            ),
        }
    }
    let ttl_min = duration(node, "ttlMin").unwrap_or(SECOND).max(SECOND / 10);
    Some(DnsSource {
        name: name.into(),
        record: match text(node, "record") {
            Some("a") => DnsSourceRecord::A,
            Some("aaaa") => DnsSourceRecord::Aaaa,
            Some("srv") => DnsSourceRecord::Srv,
            _ => DnsSourceRecord::Both,
        },
        servers,
        ttl_min,
        ttl_max: duration(node, "ttlMax").unwrap_or(interval).max(ttl_min),
    })
}

fn kubernetes(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<KubernetesSource> {
    let mut refuse = |field: &str, detail: &str| {
        let at = node.field(field).unwrap_or(node);
        found.error(&Path::Field(path, field), at, "conflict", detail.to_owned());
    };
    let boxed = |field| text(node, field).filter(|text| !text.is_empty()).map(Box::<str>::from);
    let mode = match (boxed("service"), boxed("selector"), text(node, "mode")) {
        (Some(_), Some(_), _) => {
            refuse("selector", "pods of a \"selector\", or the endpoints of a \"service\": not both");
            return None;
        }
        (None, Some(_), Some(_)) => {
            refuse("mode", "\"mode\" is for a \"service\"");
            return None;
        }
        (None, Some(selector), None) => {
            if text(node, "portName").is_some_and(|port| port.parse::<u16>().is_err()) {
                refuse("portName", "with a \"selector\" the port is a number: see \"port\"");
            }
            KubernetesMode::Pods(selector)
        }
        (Some(service), None, Some("nodePort")) => KubernetesMode::NodePort(service),
        (Some(service), None, Some("loadBalancer")) => KubernetesMode::LoadBalancer(service),
        (Some(service), None, _) => KubernetesMode::Endpoints(service),
        (None, None, _) => {
            let detail = "a source of type kubernetes needs \"service\" or \"selector\"";
            found.error(path, node, "missing-field", detail);
            return None;
        }
    };
    let kubeconfig = absolute(node, "kubeconfig", path, found).map(Into::into);
    let (context, namespace, port) = (boxed("context"), boxed("namespace"), boxed("portName"));
    Some(KubernetesSource { kubeconfig, context, namespace, mode, port })
}

fn server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)))
}

/// Whom we trust, and who we are; a certificate and its key belong together.
fn client_tls(node: &Node, path: &Path<'_>, found: &mut Findings) -> ClientTls {
    let cert = absolute(node, "certFile", path, found);
    let key = absolute(node, "keyFile", path, found);
    if node.field("certFile").is_some() != node.field("keyFile").is_some() {
        found.error(path, node, "missing-field", "\"certFile\" and \"keyFile\" go together");
    }
    let identity = cert.zip(key).map(|(cert, key)| (cert.into(), key.into()));
    ClientTls { ca_pem: text(node, "ca").map(Into::into), identity }
}

/// The texts of a field that is one or a list, at least one of them.
fn some_texts(
    node: &Node,
    field: &str,
    what: &str,
    path: &Path<'_>,
    found: &mut Findings,
) -> Option<Vec<Box<str>>> {
    let texts = texts(node, field);
    if texts.is_empty() {
        let word = text(node, "type").unwrap_or_default();
        let detail = format!("a source of type {word} needs {field:?}: {what}");
        found.error(path, node, "missing-field", detail);
        return None;
    }
    Some(texts)
}

fn texts(node: &Node, field: &str) -> Vec<Box<str>> {
    one_or_many(node.field(field)).filter_map(|item| Some(item.as_text()?.into())).collect()
}

fn check_url(url: &str, node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<()> {
    check_url_at(url, node.field("url").unwrap_or(node), &Path::Field(path, "url"), found)
}

fn check_url_at(url: &str, at: &Node, path: &Path<'_>, found: &mut Findings) -> Option<()> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let detail = if rest.is_none() || authority.is_empty() || url.contains(char::is_whitespace) {
        "a URL is wanted that begins with http:// or https://"
    } else if authority.contains('@') {
        "a URL with a password is seen by everybody who reads the configuration: use \"tokenFile\""
    } else {
        return Some(());
    };
    found.error(path, at, "bad-value", detail);
    None
}

fn headers(node: &Node) -> Vec<(Box<str>, Box<str>)> {
    let Some(NodeKind::Object(entries)) = node.field("headers").map(|node| &node.kind) else {
        return Vec::new();
    };
    entries
        .iter()
        .filter_map(|entry| Some((entry.key.as_str().into(), entry.value.as_text()?.into())))
        .collect()
}

fn format(node: &Node, path: &Path<'_>, found: &mut Findings) -> Format {
    let given: Vec<&str> =
        ["format", "pattern", "pointers"].into_iter().filter(|field| node.field(field).is_some()).collect();
    if given.len() > 1 {
        let detail = format!("{} exclude each other", given.join(" and "));
        found.error(path, node, "conflict", detail);
    }
    if let Some(pattern) = text(node, "pattern") {
        let names = |group: &str| {
            pattern.contains(&format!("(?<{group}>")) || pattern.contains(&format!("(?P<{group}>"))
        };
        if !names("host") {
            let at = node.field("pattern").unwrap_or(node);
            let detail = "the expression needs a group called host: (?<host>[^ ]+)";
            found.error(&Path::Field(path, "pattern"), at, "bad-value", detail);
        }
        return Format::Pattern(pattern.into());
    }
    if let Some(pointers) = node.field("pointers") {
        let here = Path::Field(path, "pointers");
        let mut pointer = |field: &str| -> Option<Box<str>> {
            let value = text(pointers, field)?;
            if !value.is_empty() && !value.starts_with('/') {
                let at = pointers.field(field).unwrap_or(pointers);
                let detail = "a JSON pointer begins with a slash: /addr/host";
                found.error(&Path::Field(&here, field), at, "bad-value", detail);
            }
            Some(value.into())
        };
        return Format::Pointers(Pointers {
            items: pointer("items").unwrap_or_default(),
            host: pointer("host").unwrap_or_default(),
            port: pointer("port"),
            weight: pointer("weight"),
            priority: pointer("priority"),
            labels: pointer("labels").unwrap_or_else(|| "/labels".into()),
        });
    }
    match text(node, "format") {
        Some("lines") => Format::Lines,
        Some("json") => Format::Json,
        _ => Format::Auto,
    }
}
