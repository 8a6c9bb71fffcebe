//! Lists of objects, and single ones.

use serde_json::Value;

use crate::{
    args::{Kind, Output},
    client::{Client, encode},
    failure::Failure,
    output::{self, Column, text},
};

const LISTENERS: &[Column] = &[
    ("NAME", false, |one| text(&one["name"])),
    ("PROTOCOL", false, |one| one["protocol"].as_str().unwrap_or("tcp").to_owned()),
    ("BIND", false, |one| text(&one["bind"])),
    ("TLS", false, |one| text(&one["tls"]["certificates"])),
    ("RULES", false, |one| one["rules"].as_array().map_or(0, Vec::len).to_string()),
    ("REVISION", true, |one| text(&one["meta"]["revision"])),
];
const POOLS: &[Column] = &[
    ("NAME", false, |one| text(&one["name"])),
    ("BALANCE", false, |one| text(&one["balance"])),
    ("BACKENDS", false, |one| one["backends"].as_array().map_or(0, Vec::len).to_string()),
    ("HEALTH CHECK", false, |one| text(&one["healthCheck"]["type"])),
    ("REVISION", true, |one| text(&one["meta"]["revision"])),
];
const BACKENDS: &[Column] = &[
    ("POOL", false, |one| text(&one["pool"])),
    ("NAME", false, |one| text(&one["name"])),
    ("ADDRESS", false, |one| text(&one["address"])),
    ("ADMIN", false, |one| text(&one["admin"])),
    ("UP", false, |one| text(&one["health"]["up"])),
    ("DOWN", false, |one| text(&one["health"]["down"])),
    ("UNKNOWN", false, |one| text(&one["health"]["unknown"])),
    ("REASON", false, reasons),
];
/// Of how they do, not of what was written.
const CERTIFICATES: &[Column] =
    &[
        ("NAME", false, |one| text(&one["name"])),
        ("NAMES", false, |one| text(&one["names"])),
        ("STATE", false, |one| text(&one["state"])),
        ("DAYS LEFT", false, |one| {
            if one["state"] == "placeholder" { String::new() } else { text(&one["daysLeft"]) }
        }),
        ("NEXT", false, next_of_certificate),
        ("USED BY", false, |one| text(&one["usedBy"])),
        ("NODES", false, |one| {
            format!("{}/{}", text(&one["nodes"]["serving"]), text(&one["nodes"]["connected"]))
        }),
        ("NOT AFTER", true, |one| text(&one["notAfter"])),
        ("KEYS", true, |one| of_chains(one, "keyType")),
        ("ISSUER", true, |one| of_chains(one, "issuer")),
        ("ACCOUNT", true, |one| text(&one["acme"]["account"])),
    ];
const ACME_ACCOUNTS: &[Column] = &[
    ("NAME", false, |one| text(&one["name"])),
    ("DIRECTORY", false, |one| text(&one["directory"])),
    ("CONTACT", false, |one| text(&one["contact"])),
    ("REVISION", true, |one| text(&one["meta"]["revision"])),
];
const ENTRIES: &[Column] = &[
    ("NAME", false, |one| text(&one["name"])),
    ("ENTRIES", false, |one| text(&one["meta"]["entries"])),
    ("REVISION", true, |one| text(&one["meta"]["revision"])),
];
pub const NODES: &[Column] = &[
    ("NAME", false, |one| text(&one["name"])),
    ("STATE", false, |one| text(&one["state"])),
    ("PHASE", false, |one| text(&one["phase"])),
    ("IN SYNC", false, |one| if one["inSync"] == Value::Bool(true) { "yes".into() } else { "no".into() }),
    ("RUNNING", false, |one| text(&one["running"]["revision"])),
    (
        "DRAINING",
        false,
        |one| if one["draining"] == Value::Bool(true) { "yes".into() } else { String::new() },
    ),
    ("REJECTION", false, |one| text(&one["rejection"]["message"])),
    ("VERSION", true, |one| text(&one["version"])),
    ("THREADS", true, |one| text(&one["threads"])),
    ("SINCE", true, |one| text(&one["connectedSince"])),
    ("ADMIN", true, |one| text(&one["adminAddress"])),
    ("CERTIFICATE UNTIL", true, |one| text(&one["certificateNotAfter"])),
];
const TOKENS: &[Column] = &[
    ("ID", false, |one| text(&one["id"])),
    ("NAME", false, |one| text(&one["name"])),
    ("ROLE", false, |one| text(&one["role"])),
    ("EXPIRES", false, |one| text(&one["expiresAt"])),
    ("BY", true, |one| text(&one["createdBy"])),
];
const JOIN_TOKENS: &[Column] = &[
    ("ID", false, |one| text(&one["id"])),
    ("USES", false, |one| text(&one["uses"])),
    ("USED", false, |one| text(&one["used"])),
    ("EXPIRES", false, |one| text(&one["expiresAt"])),
];
pub const REVISIONS: &[Column] = &[
    ("REVISION", false, |one| text(&one["number"])),
    ("AT", false, |one| text(&one["createdAt"])),
    ("BY", false, |one| text(&one["author"])),
    ("SOURCE", false, |one| text(&one["source"])),
    ("CHANGES", false, |one| {
        let count = |field: &str| one["summary"][field].as_u64().unwrap_or(0);
        format!("+{} ~{} -{}", count("create"), count("update"), count("delete"))
    }),
    ("MESSAGE", false, |one| text(&one["message"])),
];

fn of_chains(certificate: &Value, field: &str) -> String {
    let chains = certificate["chains"].as_array().into_iter().flatten();
    chains.map(|chain| text(&chain[field])).collect::<Vec<_>>().join(", ")
}

/// What happens next to a certificate, in one line.
pub fn next_of_certificate(certificate: &Value) -> String {
    let acme = &certificate["acme"];
    let next = &acme["next"];
    let when = || format!("{} at {}", text(&next["what"]), text(&next["at"]));
    match acme["state"].as_str() {
        Some("ordering") => format!("ordering: {}", text(&acme["step"])),
        Some("failing") => format!("failed: {}; {}", text(&acme["lastError"]["detail"]), when()),
        Some(_) if !next.is_null() => when(),
        _ => String::new(),
    }
}

/// Why nodes see a backend down.
fn reasons(backend: &Value) -> String {
    let mut reasons: Vec<String> = Vec::new();
    for node in backend["nodes"].as_array().into_iter().flatten().filter(|node| node["health"] == "down") {
        let reason = text(&node["reason"]);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.join(", ")
}

pub async fn get(client: &Client, kind: Kind, name: Option<&str>, form: Output) -> Result<(), Failure> {
    let (path, columns) = match kind {
        Kind::Listeners => ("listeners", LISTENERS),
        Kind::Pools => ("pools", POOLS),
        Kind::Backends => ("backends", BACKENDS),
        Kind::Certificates => ("certificates", CERTIFICATES),
        Kind::AcmeAccounts => ("acme-accounts", ACME_ACCOUNTS),
        Kind::AddressLists => ("address-lists", ENTRIES),
        Kind::Maps => ("maps", ENTRIES),
        Kind::Nodes => ("nodes", NODES),
        Kind::Tokens => ("tokens", TOKENS),
        Kind::JoinTokens => ("join-tokens", JOIN_TOKENS),
        Kind::Revisions => ("revisions", REVISIONS),
    };
    let path = format!("/api/v1/{path}");
    match (kind, name) {
        (Kind::Backends, Some(name)) => {
            let (pool, name) = name.split_once('/').unwrap_or(("", name));
            let mut items = client.list(&path).await?;
            items.retain(|one| one["name"] == name && (pool.is_empty() || one["pool"] == pool));
            if items.is_empty() {
                return Err(Failure::NotFound(format!("there is no backend {name:?}")));
            }
            output::list(form, &items, columns)
        }
        (Kind::Tokens | Kind::JoinTokens, Some(id)) => {
            let items = client.list(&path).await?;
            let one = items.iter().find(|one| one["id"] == id || one["name"] == id);
            let one = one.ok_or_else(|| Failure::NotFound(format!("there is no token {id:?}")))?;
            output::value(form, one)
        }
        (Kind::Certificates, None) if matches!(form, Output::Table | Output::Wide) => {
            output::list(form, &client.list("/api/v1/certificate-status").await?, columns)
        }
        (_, Some(name)) => output::value(form, &client.get(&format!("{path}/{}", encode(name))).await?),
        (_, None) => output::list(form, &client.list(&path).await?, columns),
    }
}
