//! Counters by name, as the API shows them.

use std::collections::{BTreeMap, HashMap};

use awe4lb_model::placed::NodeConfig;
use serde_json::{Map, Value, json};

use super::{
    Stats,
    history::{Point, STEPS},
    now,
    values::Values,
};

/// What the numbers of the running configuration are called.
#[derive(Debug, Default)]
pub struct Names {
    /// In the order of the configuration.
    all: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    kind: &'static str,
    number: u64,
    name: String,
    parent: Option<String>,
}

impl Names {
    /// Of a configuration.
    pub fn of(config: &NodeConfig) -> Self {
        let mut all = Vec::new();
        for placed in &config.listeners {
            let name = placed.listener.name.to_string();
            for (rule, number) in placed.listener.rules.iter().zip(&placed.rule_numbers) {
                let parent = Some(name.clone());
                all.push(Named { kind: "rule", number: number.0, name: rule.name.to_string(), parent });
            }
            all.push(Named { kind: "listener", number: placed.number.0, name, parent: None });
        }
        for placed in &config.pools {
            let name = placed.pool.name.to_string();
            for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
                let parent = Some(name.clone());
                all.push(Named { kind: "backend", number: number.0, name: backend.name.to_string(), parent });
            }
            all.push(Named { kind: "pool", number: placed.number.0, name, parent: None });
        }
        Self { all }
    }

    /// (number, kind).
    pub fn kinds(&self) -> impl Iterator<Item = (u64, &'static str)> {
        self.all.iter().map(|named| (named.number, named.kind))
    }

    fn number(&self, kind: &str, name: &str, parent: Option<&str>) -> Option<u64> {
        let is_it = |named: &&Named| {
            named.kind == kind
                && named.name == name
                && (parent.is_none() || named.parent.as_deref() == parent)
        };
        self.all.iter().find(is_it).map(|named| named.number)
    }
}

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// `total`, `listener`, `pool`, `backend`, `node`.
    pub kind: String,
    /// Of the object or node.
    pub name: String,
    /// The pool of a backend.
    pub parent: Option<String>,
}

/// Differences of a second.
pub(super) fn rate(before: Option<&Values>, now: &Values, elapsed: f32) -> Point {
    // What appears for the first time was there before: after a restart of this process everything does.
    let Some(before) = before else {
        return Point { active: now.connections_active as f32, ..Point::default() };
    };
    let a_second = |before: u64, now: u64| now.saturating_sub(before) as f32 / elapsed;
    Point {
        bytes_in: a_second(before.bytes_in, now.bytes_in),
        bytes_out: a_second(before.bytes_out, now.bytes_out),
        connections: a_second(before.connections_total, now.connections_total),
        active: now.connections_active as f32,
    }
}

fn plus(sum: Point, other: &Point) -> Point {
    Point {
        bytes_in: sum.bytes_in + other.bytes_in,
        bytes_out: sum.bytes_out + other.bytes_out,
        connections: sum.connections + other.connections,
        active: sum.active + other.active,
    }
}

type Points = HashMap<(Option<String>, u64), Point>;

/// The series that history keeps: everything but rules, of which there are too many.
pub(super) fn series<'a>(
    points: &'a Points,
    kinds: &'a HashMap<u64, String>,
) -> impl Iterator<Item = (String, Point)> + use<'a> {
    let kind = |number: &u64| kinds.get(number).map(String::as_str);
    // Every byte goes through one listener.
    let mut nodes: HashMap<&str, Point> = HashMap::new();
    let mut total = Point::default();
    let mut objects = Vec::new();
    for ((node, number), point) in points {
        match (node, kind(number)) {
            (Some(node), Some("listener")) => {
                let sum = nodes.entry(node).or_default();
                *sum = plus(*sum, point);
            }
            (None, Some(kind @ ("listener" | "pool" | "backend"))) => {
                if kind == "listener" {
                    total = plus(total, point);
                }
                objects.push((format!("#{number}"), *point));
            }
            _ => {}
        }
    }
    let nodes: Vec<(String, Point)> =
        nodes.into_iter().map(|(node, point)| (format!("node {node}"), point)).collect();
    objects.into_iter().chain(nodes).chain([("total".to_owned(), total)])
}

fn stats(name: &str, number: Option<u64>, values: &Values, rate: &Point) -> Map<String, Value> {
    let mean =
        |sum: u64, count: u64| if count == 0 { Value::Null } else { json!(sum as f64 / count as f64 / 1e3) };
    let ends = |failed: bool| -> BTreeMap<&str, u64> {
        let of = values.ends.iter().filter(|(reason, _)| Values::is_failure(reason) == failed);
        of.map(|(reason, count)| (reason.as_str(), *count)).collect()
    };
    let mut all = Map::new();
    all.insert("name".into(), name.into());
    all.insert("number".into(), json!(number));
    all.insert("bytesIn".into(), values.bytes_in.into());
    all.insert("bytesOut".into(), values.bytes_out.into());
    all.insert("bytesInPerSecond".into(), round(rate.bytes_in));
    all.insert("bytesOutPerSecond".into(), round(rate.bytes_out));
    all.insert("connectionsActive".into(), values.connections_active.into());
    all.insert("connectionsTotal".into(), values.connections_total.into());
    all.insert("connectionsPerSecond".into(), round(rate.connections));
    all.insert("datagramsIn".into(), values.datagrams_in.into());
    all.insert("datagramsOut".into(), values.datagrams_out.into());
    all.insert("failed".into(), json!(ends(true)));
    all.insert("ended".into(), json!(ends(false)));
    all.insert("dialMillisMean".into(), mean(values.dial_micros, values.dials));
    all.insert("handshakeMillisMean".into(), mean(values.handshake_micros, values.handshakes));
    all
}

fn round(value: f32) -> Value {
    json!((f64::from(value) * 10.0).round() / 10.0)
}

impl Stats {
    /// `GET /api/v1/stats`: of everything, or of one node's share.
    pub fn answer(&self, node: Option<&str>) -> Value {
        let state = self.lock();
        let now_at = std::time::Instant::now();
        let sums = state.ledger.sums(node, now_at);
        let point = |number: u64| {
            state.rates.points.get(&(node.map(str::to_owned), number)).copied().unwrap_or_default()
        };
        let empty = Values::default();
        let mut kinds: HashMap<&str, Vec<Value>> = HashMap::new();
        for named in &state.names.all {
            let values = sums.get(&named.number).unwrap_or(&empty);
            let mut one = stats(&named.name, Some(named.number), values, &point(named.number));
            match (named.kind, &named.parent) {
                ("rule", Some(parent)) => drop(one.insert("listener".into(), parent.as_str().into())),
                (_, Some(parent)) => drop(one.insert("pool".into(), parent.as_str().into())),
                _ => {}
            }
            kinds.entry(named.kind).or_default().push(Value::Object(one));
        }
        // Listeners that are gone still count: what was forwarded was forwarded.
        let is_listener = |number: &u64| state.kinds.get(number).is_some_and(|kind| kind == "listener");
        let total = |sums: &HashMap<u64, Values>, of: Option<&str>| {
            let (mut values, mut rate) = (Values::default(), Point::default());
            for (number, of_number) in sums.iter().filter(|(number, _)| is_listener(number)) {
                values.add(of_number, true);
                if let Some(point) = state.rates.points.get(&(of.map(str::to_owned), *number)) {
                    rate = plus(rate, point);
                }
            }
            (values, rate)
        };
        let mut names: Vec<&str> =
            state.ledger.nodes().filter(|name| node.is_none_or(|node| node == *name)).collect();
        names.sort_unstable();
        let nodes: Vec<Value> = names
            .into_iter()
            .map(|name| {
                let (values, rate) = total(&state.ledger.sums(Some(name), now_at), Some(name));
                Value::Object(stats(name, None, &values, &rate))
            })
            .collect();
        let (values, rate) = total(&sums, node);
        let mut take = |kind: &str| kinds.remove(kind).unwrap_or_default();
        json!({
            "at": jiff::Timestamp::now().to_string(),
            "totals": stats("total", None, &values, &rate),
            "listeners": take("listener"),
            "rules": take("rule"),
            "pools": take("pool"),
            "backends": take("backend"),
            "nodes": nodes,
        })
    }

    /// The event of each second.
    pub(super) fn event(&self) -> Value {
        let mut answer = self.answer(None);
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("rules");
            answer.remove("backends");
        }
        answer
    }

    /// `GET /api/v1/stats/history`. `None`: there is no such object.
    pub async fn history(
        &self,
        of: &Series,
        from: Option<i64>,
        step: Option<i64>,
    ) -> anyhow::Result<Option<Value>> {
        let now = now();
        let series = {
            let state = self.lock();
            match of.kind.as_str() {
                "total" => "total".to_owned(),
                "node" => format!("node {}", of.name),
                kind => match state.names.number(kind, &of.name, of.parent.as_deref()) {
                    Some(number) => format!("#{number}"),
                    None => return Ok(None),
                },
            }
        };
        let from = from.unwrap_or(now - 600);
        // The finest step that reaches back far enough, unless a coarser one is asked for.
        let age = now - from;
        let finest = if age <= 600 {
            1
        } else {
            STEPS.iter().find(|(_, keep)| age <= *keep).map_or(300, |(step, _)| *step)
        };
        let wanted = step.unwrap_or(finest).max(finest);
        let step = [1, 10, 300].into_iter().find(|step| *step >= wanted).unwrap_or(300);
        let points = match step {
            1 => self.lock().history.points(&series, from),
            step => self.0.file.points(step, &series, from).await?,
        };
        let points: Vec<Value> = points
            .into_iter()
            .map(|(at, point)| {
                json!({
                    "t": at,
                    "bytesInPerSecond": round(point.bytes_in),
                    "bytesOutPerSecond": round(point.bytes_out),
                    "connectionsPerSecond": round(point.connections),
                    "connectionsActive": round(point.active),
                })
            })
            .collect();
        Ok(Some(json!({"step": step, "points": points})))
    }
}
