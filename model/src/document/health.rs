//! From the object of a health check to the noun.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    build::{Findings, boolean, duration, name, number, one_or_many, text},
    scalars,
    spec::health::{TYPES, takers, takes},
    tree::{Node, NodeKind},
    violation::Path,
};
use crate::{
    BackendRole, CheckKind, DnsCheck, DnsRecord, ExecCheck, GrpcCheck, HealthCheck, HttpCheck, InitialHealth,
    MysqlCheck, Pattern, Payload, PostgresCheck, RedisCheck, ScriptCheck, ScriptStep, UdpCheck,
};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn health_check(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<HealthCheck> {
    let word = text(node, "type")?;
    if TYPES.iter().all(|(known, _)| *known != word) {
        return None;
    }
    fields_fit(node, word, path, found);
    Some(HealthCheck {
        kind: kind(node, word, path, found)?,
        interval: duration(node, "interval").unwrap_or(5 * SECOND),
        fast_interval: duration(node, "fastInterval"),
        timeout: duration(node, "timeout").unwrap_or(2 * SECOND),
        rise: number(node, "rise").unwrap_or(2),
        fall: number(node, "fall").unwrap_or(3),
        initial: match text(node, "initial") {
            Some("up") => InitialHealth::Up,
            Some("down") => InitialHealth::Down,
            _ => InitialHealth::Check,
        },
        port: number(node, "port"),
        address: text(node, "address").and_then(|text| text.parse().ok()),
        proxy_protocol: boolean(node, "proxyProtocol"),
    })
}

/// A field that the type does not use is a mistake, not something to ignore.
fn fields_fit(node: &Node, word: &str, path: &Path<'_>, found: &mut Findings) {
    let NodeKind::Object(entries) = &node.kind else { return };
    for entry in entries {
        let takers = takers(&entry.key);
        let is_datagram = matches!(word, "udp" | "dns");
        let here = Path::Field(path, &entry.key);
        if !takers.is_empty() && !takes(word, &entry.key) {
            let detail = format!("{:?} is for checks of type {takers}, not {word}", entry.key);
            found.error(&here, &entry.value, "conflict", detail);
        } else if entry.key == "proxyProtocol" && (is_datagram || word == "exec") {
            found.error(
                &here,
                &entry.value,
                "conflict",
                format!("a check of type {word} sends no PROXY header"),
            );
        } else if word == "exec" && matches!(entry.key.as_str(), "port" | "address") {
            let detail = "a program gets the backend's own address: give others as arguments";
            found.error(&here, &entry.value, "conflict", detail);
        }
    }
}

fn kind(node: &Node, word: &str, path: &Path<'_>, found: &mut Findings) -> Option<CheckKind> {
    Some(match word {
        "tcp" => CheckKind::Tcp,
        "http" => CheckKind::Http(http(node, path, found)),
        "grpc" => CheckKind::Grpc(GrpcCheck {
            tls: None,
            service: boxed(node, "service").unwrap_or_default(),
            authority: boxed(node, "authority"),
        }),
        "udp" => {
            let Some(send) = node.field("send") else {
                found.error(path, node, "missing-field", "a check of type udp needs \"send\"");
                return None;
            };
            CheckKind::Udp(UdpCheck { send: payload(send)?, expect: node.field("expect").and_then(pattern) })
        }
        "dns" => CheckKind::Dns(dns(node, path, found)),
        "script" => CheckKind::Script(ScriptCheck { tls: None, steps: steps(node, path, found)? }),
        "postgres" => {
            let default = PostgresCheck::default();
            CheckKind::Postgres(PostgresCheck {
                user: boxed(node, "user").unwrap_or(default.user),
                database: boxed(node, "database").unwrap_or(default.database),
                password: secret(node),
                role: role(node),
            })
        }
        "mysql" => {
            let check = MysqlCheck { user: boxed(node, "user"), password: secret(node), role: role(node) };
            if check.role != BackendRole::Any && check.user.is_none() {
                let detail = "a role is asked of a session: give a \"user\"";
                found.error(&Path::Field(path, "role"), node, "missing-field", detail);
            }
            CheckKind::Mysql(check)
        }
        "redis" => CheckKind::Redis(RedisCheck {
            tls: None,
            user: boxed(node, "user"),
            password: secret(node),
            role: role(node),
        }),
        "agent" => CheckKind::Agent,
        "exec" => {
            let argv: Vec<Box<str>> =
                one_or_many(node.field("command")).filter_map(|item| Some(item.as_text()?.into())).collect();
            if !argv.first().is_some_and(|program| program.starts_with('/')) {
                let detail =
                    "a check of type exec needs \"command\": the whole path of a program, and its arguments";
                found.error(path, node, "missing-field", detail);
                return None;
            }
            let max_output_bytes = number(node, "maxOutputBytes").unwrap_or(ExecCheck::MAX_OUTPUT_BYTES);
            CheckKind::Exec(ExecCheck { argv, max_output_bytes })
        }
        _ => return None,
    })
}

fn http(node: &Node, path: &Path<'_>, found: &mut Findings) -> HttpCheck {
    let default = HttpCheck::default();
    let headers = match node.field("headers").map(|node| &node.kind) {
        Some(NodeKind::Object(entries)) => entries
            .iter()
            .filter_map(|entry| Some((entry.key.as_str().into(), entry.value.as_text()?.into())))
            .collect(),
        _ => Vec::new(),
    };
    let check = HttpCheck {
        tls: None,
        method: boxed(node, "method").unwrap_or(default.method),
        path: boxed(node, "path").unwrap_or(default.path),
        host: boxed(node, "host"),
        headers,
        expected: match node.field("status") {
            Some(status) => one_or_many(Some(status)).filter_map(statuses).collect(),
            None => default.expected,
        },
        body: node.field("body").and_then(pattern),
        max_body_bytes: number(node, "maxBodyBytes").unwrap_or(HttpCheck::MAX_BODY_BYTES),
    };
    let mut refuse = |field: &str, detail: &str| {
        let node = node.field(field).unwrap_or(node);
        found.error(&Path::Field(path, field), node, "bad-value", detail.to_owned());
    };
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let is_value = |text: &str| text.bytes().all(|b| b == b'\t' || (b' '..0x7f).contains(&b));
    if !is_token(&check.method) {
        refuse("method", "this is no method of HTTP");
    }
    if !check.path.starts_with('/') && &*check.path != "*"
        || !check.path.bytes().all(|b| (b'!'..0x7f).contains(&b))
    {
        refuse("path", "a path starts with / and has no spaces");
    }
    if check.host.as_deref().is_some_and(|host| !is_value(host)) {
        refuse("host", "this is no host");
    }
    for (name, value) in &check.headers {
        if !is_token(name) || !is_value(value) {
            refuse("headers", "a header has a name of HTTP and a value in one line");
        } else if ["host", "content-length", "transfer-encoding", "connection"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            refuse("headers", "this header is the check's own");
        }
    }
    check
}

fn dns(node: &Node, path: &Path<'_>, found: &mut Findings) -> DnsCheck {
    let default = DnsCheck::default();
    let check = DnsCheck {
        name: boxed(node, "query").unwrap_or(default.name),
        record: match text(node, "record") {
            Some("a") => DnsRecord::A,
            Some("aaaa") => DnsRecord::Aaaa,
            Some("cname") => DnsRecord::Cname,
            Some("soa") => DnsRecord::Soa,
            Some("ptr") => DnsRecord::Ptr,
            Some("mx") => DnsRecord::Mx,
            Some("txt") => DnsRecord::Txt,
            Some("srv") => DnsRecord::Srv,
            _ => DnsRecord::Ns,
        },
        rcode: number(node, "rcode").unwrap_or(default.rcode),
    };
    let name = check.name.strip_suffix('.').unwrap_or(&check.name);
    let is_name = name.len() <= 253
        && name.is_ascii()
        && (name.is_empty() || name.split('.').all(|label| (1..=63).contains(&label.len())));
    if !is_name {
        found.error(&Path::Field(path, "query"), node, "bad-value", "this is no name of DNS");
    }
    check
}

fn steps(node: &Node, path: &Path<'_>, found: &mut Findings) -> Option<Vec<ScriptStep>> {
    let steps_path = Path::Field(path, "steps");
    let Some(list) = node.field("steps").filter(|list| !list.items().is_empty()) else {
        found.error(path, node, "missing-field", "a check of type script needs \"steps\"");
        return None;
    };
    let mut steps = Vec::new();
    for (index, item) in list.items().iter().enumerate() {
        let words = ["send", "expect", "end"].map(|word| item.field(word));
        let step = match words {
            [Some(send), None, None] => payload(send).map(ScriptStep::Send),
            [None, Some(expect), None] => pattern(expect).map(ScriptStep::Expect),
            [None, None, Some(_)] => Some(ScriptStep::End),
            _ => {
                let detail = "a step is one of \"send\", \"expect\" and \"end\"";
                found.error(&Path::Index(&steps_path, index), item, "bad-value", detail);
                None
            }
        };
        steps.extend(step);
    }
    Some(steps)
}

fn payload(node: &Node) -> Option<Payload> {
    if let Some(text) = node.as_text() {
        return Some(Payload::Bytes(text.into()));
    }
    if let Some(name) = name(node, "secret") {
        return Some(Payload::Secret(name));
    }
    scalars::hex(text(node, "hex")?).ok().map(Payload::Bytes)
}

fn pattern(node: &Node) -> Option<Pattern> {
    if let Some(text) = node.as_text() {
        return Some(Pattern::Bytes(text.into()));
    }
    match text(node, "hex") {
        Some(digits) => scalars::hex(digits).ok().map(Pattern::Bytes),
        None => Some(Pattern::Regex(text(node, "regex")?.into())),
    }
}

fn statuses(node: &Node) -> Option<RangeInclusive<u16>> {
    match node.kind {
        NodeKind::Integer(status) => u16::try_from(status).ok().map(|status| status..=status),
        _ => scalars::statuses(node.as_text()?).ok(),
    }
}

fn role(node: &Node) -> BackendRole {
    match text(node, "role") {
        Some("primary") => BackendRole::Primary,
        Some("replica") => BackendRole::Replica,
        _ => BackendRole::Any,
    }
}

fn secret(node: &Node) -> Option<crate::Name> {
    name(node.field("password")?, "secret")
}

fn boxed(node: &Node, field: &str) -> Option<Box<str>> {
    text(node, field).map(Into::into)
}
