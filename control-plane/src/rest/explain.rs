//! What would become of a connection, and why: the engine's answer over the configuration as it is, with what is known of
//! the backends now.

mod locality;

use std::{net::IpAddr, sync::Arc};

use awe4lb_engine::{
    access::{AccessTable, Judgement},
    client_hello::Alpn,
    route::{Facts, NameTable, Tables, choose_split, explain, sticky_side},
};
use awe4lb_model::{
    Listener, MIRROR_ALL, Name, Protocol, Rule, RuleAction, TlsMode, document,
    placed::{NodeConfig, PlacedListener},
};
use axum::{Json, extract::State, routing::post};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Problem,
    body::Text,
    routes::{Doc, Route},
};
use crate::{app::App, auth::Role, fleet::BackendView};

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![Route::new(
        Method::POST,
        "/api/v1/explain",
        Role::Viewer,
        post(answer),
        Doc::new("explain", "Configuration", "What would become of a connection, and why")
            .request(asked_schema)
            .responses(&[(200, "Every rule, the pool, every backend"), (404, "There is no such listener")]),
    )]
}

fn asked_schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["listener", "from"], "properties": {
        "listener": {"type": "string"}, "from": {"type": "string", "examples": ["10.0.0.5"]},
        "peer": {"type": "string"}, "port": {"type": "integer"}, "sni": {"type": "string"},
        "alpn": {"type": "array", "items": {"type": "string"}}, "tls": {"type": "boolean"}}})
}

/// A connection that somebody imagines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    listener: String,
    from: IpAddr,
    /// The socket's other end; without it the client itself.
    peer: Option<IpAddr>,
    /// Without it the first that the listener binds.
    port: Option<u16>,
    sni: Option<String>,
    #[serde(default)]
    alpn: Vec<String>,
    /// Without it: whether there is a server name or a protocol.
    tls: Option<bool>,
}

async fn answer(State(app): State<App>, body: Text) -> Result<Json<Value>, Problem> {
    let asked: Asked = body.json()?;
    let config = app.catalog.head().placed.clone();
    let placed = config.listeners.iter().find(|placed| placed.listener.name.as_str() == asked.listener);
    let placed =
        placed.ok_or_else(|| Problem::not_found(format!("there is no listener {:?}", asked.listener)))?;
    let server_name = match &asked.sni {
        Some(name) => Some(plain_name(name)?),
        None => None,
    };
    let known = Known { backends: &|pool| app.fleet.backends(Some(pool)), nodes: &places(&app) };
    Ok(Json(explained(&config, placed, &asked, server_name.as_deref(), &known)))
}

/// What is known of the fleet now.
struct Known<'a> {
    /// Of a pool.
    backends: &'a dyn Fn(&str) -> Vec<BackendView>,
    /// Connected nodes and their zones.
    nodes: &'a [(String, Option<String>)],
}

fn places(app: &App) -> Vec<(String, Option<String>)> {
    let nodes = app.fleet.nodes().into_iter().filter(|node| node.state == "connected");
    nodes.map(|node| (node.name, awe4lb_model::labels::zone(&node.labels).map(str::to_owned))).collect()
}

/// As a ClientHello is understood: lower case, without a trailing dot.
fn plain_name(name: &str) -> Result<String, Problem> {
    match document::sni(name) {
        Ok(awe4lb_model::SniPattern::Exact(name)) => Ok(name.into()),
        _ => Err(Problem::bad_request(format!("sni: {name:?} is no server name"))),
    }
}

fn explained(
    config: &NodeConfig,
    placed: &PlacedListener,
    asked: &Asked,
    server_name: Option<&str>,
    known: &Known<'_>,
) -> Value {
    let listener = &placed.listener;
    let tables = tables(config);
    let alpn = Alpn::of_list(&offered(&asked.alpn));
    let is_tls = asked.tls.unwrap_or(server_name.is_some() || !asked.alpn.is_empty());
    let facts = Facts {
        client: asked.from,
        peer: asked.peer.unwrap_or(asked.from),
        port: asked.port.or_else(|| listener.bind.first().map(|bind| bind.port)).unwrap_or(0),
        is_tls,
        server_name,
        alpn: &alpn,
    };
    let access = access(listener, asked.from, &tables);
    let reasons: Vec<_> = listener.rules.iter().map(|rule| explain(rule, &facts, &tables)).collect();
    let taken = reasons.iter().position(Option::is_none);
    let rules: Vec<Value> = listener
        .rules
        .iter()
        .zip(&reasons)
        .enumerate()
        .map(|(at, (rule, why))| {
            let (outcome, reason) = match (why, taken) {
                (Some(why), _) => ("no match", why.text()),
                (None, Some(first)) if first == at => ("taken", "everything it asks for holds"),
                (None, _) => ("not reached", "it would match, but a rule before it does"),
            };
            json!({"name": rule.name.as_str(), "outcome": outcome, "reason": reason})
        })
        .collect();
    let rule = taken.and_then(|at| listener.rules.get(at));
    let mut answer = json!({
        "listener": asked.listener,
        "access": access,
        "rules": rules,
        "rule": rule.map(|rule| rule.name.as_str()),
        "tls": rule.map(|rule| match (rule.tls, is_tls) {
            (TlsMode::Terminate, _) => "terminated",
            (TlsMode::Passthrough, true) => "passed through",
            (TlsMode::Passthrough, false) => "none",
        }),
        "mirror": rule.and_then(|rule| rule.mirror.as_ref()).map(|mirror| {
            json!({"pool": mirror.pool.as_str(), "sample": f64::from(mirror.share) / f64::from(MIRROR_ALL)})
        }),
    });
    let outcome = match rule {
        _ if access == "denied" => json!({"outcome": "refused", "end": "access-denied"}),
        None => json!({"outcome": "refused", "end": "no-rule"}),
        Some(rule) => to_pool(listener, rule, &facts, &tables, config, known),
    };
    if let (Some(answer), Value::Object(outcome)) = (answer.as_object_mut(), outcome) {
        answer.extend(outcome);
    }
    answer
}

fn access(listener: &Listener, client: IpAddr, tables: &Tables) -> &'static str {
    match listener.access.as_ref().map(|access| AccessTable::compile(access, tables).judge(client)) {
        None | Some(Judgement::Allowed) => "allowed",
        Some(Judgement::AllowedButForShadow) => "allowed, and denied by a rule in shadow",
        Some(Judgement::Denied { .. }) => "denied",
    }
}

/// Where the rule leads, and who may be chosen there.
fn to_pool(
    listener: &Listener,
    rule: &Rule,
    facts: &Facts<'_>,
    tables: &Tables,
    config: &NodeConfig,
    known: &Known<'_>,
) -> Value {
    let (pools, why): (Vec<Name>, String) = match &rule.action {
        RuleAction::Reject => return json!({"outcome": "refused", "end": "rule-reject"}),
        RuleAction::Pool(pool) => (vec![pool.clone()], "the rule names it".to_owned()),
        RuleAction::Map(map) => {
            let table = tables.map(map);
            let pool = facts.server_name.and_then(|name| table.pools().get(table.find(name)?).cloned());
            (pool.into_iter().collect(), format!("the map {map} names it"))
        }
        RuleAction::Split(targets) if rule.sticky && listener.protocol == Protocol::Tcp => {
            let random = sticky_side(rule.name.as_str(), facts.client);
            let side = choose_split(targets.iter().map(|target| target.weight), random);
            let pool = side.and_then(|side| targets.get(side)).map(|target| target.pool.clone());
            (pool.into_iter().collect(), "the client's side of the split".to_owned())
        }
        RuleAction::Split(targets) => {
            let parts = targets.iter().filter(|target| target.weight > 0);
            (parts.map(|target| target.pool.clone()).collect(), "one of the split, at random".to_owned())
        }
    };
    let described: Vec<Value> = pools
        .iter()
        .map(|name| {
            let placed = config.pools.iter().find(|placed| placed.pool.name == *name);
            let views = (known.backends)(name.as_str());
            let list: Vec<Value> = views.iter().map(backend).collect();
            let candidates = list.iter().filter(|backend| backend["candidate"] == true).count();
            let mut pool = json!({"name": name.as_str(), "balance": placed.map(|placed| balance(placed.pool.balance)),
                "candidates": candidates, "backends": list});
            if let Some(placed) = placed
                && let Some(by_zone) = locality::explain(&placed.pool, &views, &candidate, known.nodes)
            {
                pool["locality"] = by_zone;
            }
            pool
        })
        .collect();
    let anybody = described.iter().any(|pool| pool["candidates"].as_u64() > Some(0));
    json!({
        "outcome": if anybody { "forwarded" } else { "refused, where no node sees a backend that works" },
        "end": if anybody { Value::Null } else { "no-backend".into() },
        "because": why,
        "pools": described,
    })
}

/// Whether a backend is in, and why not. Nodes see for themselves: one that sees it up is enough to be a candidate there.
fn backend(view: &BackendView) -> Value {
    let (candidate, reason) = candidate(view);
    json!({"name": view.name, "address": view.address, "zone": view.zone, "candidate": candidate, "reason": reason,
        "admin": view.admin})
}

fn candidate(view: &BackendView) -> (bool, String) {
    let health = view.health;
    match view.admin {
        "drain" => (false, "drained: it gets nothing new".to_owned()),
        "maintenance" => (false, "in maintenance".to_owned()),
        _ if health.down > 0 && health.up == 0 && health.unknown == 0 => {
            let said = view.nodes.iter().find(|node| !node.reason.is_empty()).map(|node| node.reason.clone());
            (false, format!("down on every node: {}", said.unwrap_or_default()))
        }
        _ if health.down > 0 => (true, format!("up for some nodes, down for {}", health.down)),
        _ if health.up > 0 => (true, "up".to_owned()),
        _ => (true, "not checked".to_owned()),
    }
}

fn balance(balance: awe4lb_model::Balance) -> &'static str {
    use awe4lb_model::Balance;
    match balance {
        Balance::Random => "random",
        Balance::RoundRobin => "roundRobin",
        Balance::LeastConn => "leastConn",
        Balance::Hash => "hash",
        Balance::Maglev => "maglev",
        Balance::P2c => "p2c",
        Balance::Ewma => "ewma",
        Balance::LeastBandwidth => "leastBandwidth",
    }
}

fn tables(config: &NodeConfig) -> Tables {
    let mut tables = Tables::default();
    for list in &config.address_lists {
        tables.lists.insert(list.name.clone(), Arc::new(list.entries.iter().collect()));
    }
    for map in &config.maps {
        tables.maps.insert(map.name.clone(), Arc::new(NameTable::compile(map)));
    }
    tables
}

/// As a ClientHello lists them.
fn offered(protocols: &[String]) -> Vec<u8> {
    let fits = |protocol: &&String| (1..=255).contains(&protocol.len());
    let length = |protocol: &String| u8::try_from(protocol.len()).unwrap_or(u8::MAX);
    protocols.iter().filter(fits).flat_map(|one| std::iter::once(length(one)).chain(one.bytes())).collect()
}

#[cfg(test)]
mod tests {
    use awe4lb_model::{
        document::{Format, compile, parse},
        placed::number_locally,
    };

    use super::*;
    use crate::fleet::HealthCounts;

    const DOCUMENT: &str = r#"
listeners:
  - name: web
    bind: ["*:443"]
    access: { rules: [{ deny: [198.51.100.0/24] }] }
    rules:
      - { name: app, match: { sni: app.example.com }, pool: app }
      - { name: tenants, match: { sni: { map: tenants } } }
      - { name: office, match: { client: [{ list: offices }] }, reject: {} }
      - { name: rest, match: { alpn: h2 }, split: [{ pool: app, weight: 1 }, { pool: blue, weight: 1 }] }
pools:
  - { name: app, locality: { prefer: zone }, backends: [{ name: a, address: "10.0.0.1:80" }, { name: b, address: "10.0.0.2:80" }] }
  - { name: blue, balance: maglev, backends: [{ name: c, address: "10.0.0.3:80" }] }
addressLists: [{ name: offices, entries: [192.0.2.0/24] }]
maps: [{ name: tenants, entries: { "*.t.example.com": blue } }]
"#;

    fn view(pool: &str, name: &str, admin: &'static str, up: u32, down: u32) -> BackendView {
        BackendView {
            pool: pool.to_owned(),
            name: name.to_owned(),
            number: 1,
            address: "10.0.0.1:80".to_owned(),
            zone: Some(if name == "b" { "east" } else { "west" }.to_owned()),
            priority: 0,
            admin,
            admin_until: None,
            admin_reason: String::new(),
            presence: "configured",
            health: HealthCounts { up, down, unknown: 0 },
            nodes: Vec::new(),
        }
    }

    fn ask(question: Value) -> Value {
        let compiled = compile(parse(DOCUMENT, Format::Yaml).expect("yaml")).expect("valid");
        let config = number_locally(compiled.config, &compiled.keys);
        let asked: Asked = serde_json::from_value(question).expect("a question");
        let backends = |pool: &str| match pool {
            "app" => vec![view("app", "a", "ready", 2, 0), view("app", "b", "drain", 2, 0)],
            _ => vec![view("blue", "c", "ready", 0, 2)],
        };
        let place = |node: &str, zone: Option<&str>| (node.to_owned(), zone.map(str::to_owned));
        let nodes = [place("n1", Some("west")), place("n2", Some("east")), place("n3", None)];
        let known = Known { backends: &backends, nodes: &nodes };
        explained(&config, &config.listeners[0], &asked, asked.sni.as_deref(), &known)
    }

    #[test]
    fn each_zone_says_whether_its_backends_come_first() {
        let answer = ask(json!({"listener": "web", "from": "10.9.9.9", "sni": "app.example.com"}));
        let locality = &answer["pools"][0]["locality"];
        assert_eq!((&locality["prefer"], &locality["spillBelow"]), (&json!("zone"), &json!(70)));
        let zones: Vec<_> = locality["zones"].as_array().expect("zones").iter().collect();
        assert_eq!(zones.len(), 3, "{locality}");
        let find = |zone: Value| *zones.iter().find(|one| one["zone"] == zone).expect("the zone");
        assert_eq!(
            (&find(json!("west"))["first"], &find(json!("west"))["nodes"]),
            (&json!(true), &json!(["n1"]))
        );
        // Its only backend is drained.
        let east = find(json!("east"));
        assert_eq!(
            (&east["first"], &east["reason"]),
            (&json!(false), &json!("0 of 1 usable, spillBelow is 70 %: all zones take part"))
        );
        assert_eq!(find(Value::Null)["first"], false);
    }

    #[test]
    fn every_rule_and_every_backend_says_why() {
        let answer =
            ask(json!({"listener": "web", "from": "10.9.9.9", "sni": "app.example.com", "alpn": ["h2"]}));
        assert_eq!((&answer["rule"], &answer["outcome"]), (&json!("app"), &json!("forwarded")));
        let outcomes: Vec<_> =
            answer["rules"].as_array().expect("rules").iter().map(|rule| rule["outcome"].clone()).collect();
        assert_eq!(outcomes, ["taken", "no match", "no match", "not reached"]);
        let backends = &answer["pools"][0]["backends"];
        assert_eq!((&backends[0]["candidate"], &backends[1]["candidate"]), (&json!(true), &json!(false)));
        assert_eq!(backends[1]["reason"], "drained: it gets nothing new");
    }

    #[test]
    fn maps_lists_and_access_count() {
        let tenant = ask(json!({"listener": "web", "from": "10.9.9.9", "sni": "x.t.example.com"}));
        assert_eq!((&tenant["rule"], &tenant["pools"][0]["name"]), (&json!("tenants"), &json!("blue")));
        assert_eq!(tenant["end"], "no-backend", "its only backend is down everywhere");
        let office = ask(json!({"listener": "web", "from": "192.0.2.7"}));
        assert_eq!((&office["rule"], &office["end"]), (&json!("office"), &json!("rule-reject")));
        let denied = ask(json!({"listener": "web", "from": "198.51.100.9", "sni": "app.example.com"}));
        assert_eq!((&denied["access"], &denied["end"]), (&json!("denied"), &json!("access-denied")));
        let nothing = ask(json!({"listener": "web", "from": "10.9.9.9"}));
        assert_eq!((&nothing["rule"], &nothing["end"]), (&Value::Null, &json!("no-rule")));
    }
}
