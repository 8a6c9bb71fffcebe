//! Counters by name, as the API shows them.

use std::collections::{BTreeMap, HashMap};

use awe4lb_model::placed::{NodeConfig, Number};
use serde_json::{Map, Value, json};

use super::{
    Kind, Stats,
    history::{Key, Point, SECONDS, STEPS},
    ledger::Rate,
    now_ms,
    values::Values,
};

/// What the numbers of the running configuration are called.
#[derive(Debug, Default)]
pub struct Names {
    /// In the order of the configuration.
    all: Vec<Named>,
}

#[derive(Debug, Clone)]
struct Named {
    kind: Kind,
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
                all.push(Named { kind: Kind::Rule, number: number.0, name: rule.name.to_string(), parent });
            }
            all.push(Named { kind: Kind::Listener, number: placed.number.0, name, parent: None });
        }
        for placed in &config.pools {
            let name = placed.pool.name.to_string();
            for (backend, number) in placed.pool.backends.iter().zip(&placed.backend_numbers) {
                let parent = Some(name.clone());
                all.push(Named {
                    kind: Kind::Backend,
                    number: number.0,
                    name: backend.name.to_string(),
                    parent,
                });
            }
            all.push(Named { kind: Kind::Pool, number: placed.number.0, name, parent: None });
        }
        Self { all }
    }

    /// Without what was discovered.
    pub fn configured(&self) -> Self {
        let is_configured = |named: &&Named| !awe4lb_discovery::is_discovered(Number(named.number));
        Self { all: self.all.iter().filter(is_configured).cloned().collect() }
    }

    /// Adds backends: pool, number, name.
    pub fn add_discovered(&mut self, discovered: &[(String, u64, String)]) {
        self.all.extend(discovered.iter().map(|(pool, number, name)| Named {
            kind: Kind::Backend,
            number: *number,
            name: name.clone(),
            parent: Some(pool.clone()),
        }));
    }

    /// (number, kind).
    pub fn kinds(&self) -> impl Iterator<Item = (u64, Kind)> {
        self.all.iter().map(|named| (named.number, named.kind))
    }

    fn number(&self, kind: &str, name: &str, parent: Option<&str>) -> Option<u64> {
        let is_it = |named: &&Named| {
            named.kind.word() == kind
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

fn stats(name: &str, number: Option<u64>, values: &Values, rate: &Rate) -> Map<String, Value> {
    let mean =
        |sum: u64, count: u64| if count == 0 { Value::Null } else { json!(sum as f64 / count as f64 / 1e3) };
    let ends = |failed: bool| -> BTreeMap<&str, u64> {
        values.ends().filter(|(reason, _)| Values::is_failure(reason) == failed).collect()
    };
    let mut all = Map::new();
    all.insert("name".into(), name.into());
    all.insert("number".into(), json!(number));
    all.insert("bytesIn".into(), values.bytes_in.into());
    all.insert("bytesOut".into(), values.bytes_out.into());
    all.insert("bytesInPerSecond".into(), round(rate[0]));
    all.insert("bytesOutPerSecond".into(), round(rate[1]));
    all.insert("connectionsActive".into(), values.connections_active.into());
    all.insert("connectionsTotal".into(), values.connections_total.into());
    all.insert("connectionsPerSecond".into(), round(rate[2]));
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
        let now = now_ms();
        let sums = state.ledger.sums(node, now);
        let none = Default::default();
        let mut lists: HashMap<Kind, Vec<Value>> = HashMap::new();
        for named in &state.names.all {
            let (values, rate) = sums.get(&named.number).unwrap_or(&none);
            let mut one = stats(&named.name, Some(named.number), values, rate);
            if let Some(parent) = &named.parent {
                let member = if named.kind == Kind::Rule { "listener" } else { "pool" };
                one.insert(member.to_owned(), parent.as_str().into());
            }
            lists.entry(named.kind).or_default().push(Value::Object(one));
        }
        // Listeners that are gone still count: what was forwarded was forwarded.
        let total = |of: Option<&str>| {
            let (mut all, mut all_rate) = (Values::default(), Rate::default());
            for (number, values, rate) in state.ledger.each(of, now) {
                match state.kinds.get(&number) {
                    Some(Kind::Listener) => {
                        all.add(&values);
                        all.connections_active += values.connections_active;
                        all_rate.iter_mut().zip(rate).for_each(|(all, rate)| *all += rate);
                    }
                    // Dials are counted where they go to.
                    Some(Kind::Pool) => all.add_dials(&values),
                    _ => {}
                }
            }
            (all, all_rate)
        };
        let mut names: Vec<&str> =
            state.ledger.nodes().filter(|name| node.is_none_or(|node| node == *name)).collect();
        names.sort_unstable();
        let nodes: Vec<Value> = names
            .into_iter()
            .map(|name| {
                let (values, rate) = total(Some(name));
                Value::Object(stats(name, None, &values, &rate))
            })
            .collect();
        let (values, rate) = total(node);
        let mut take = |kind| lists.remove(&kind).unwrap_or_default();
        json!({
            "at": jiff::Timestamp::now().to_string(),
            "totals": stats("total", None, &values, &rate),
            "listeners": take(Kind::Listener),
            "rules": take(Kind::Rule),
            "pools": take(Kind::Pool),
            "backends": take(Kind::Backend),
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
        let now = now_ms() / 1_000;
        let seconds = SECONDS as i64;
        let from = from.unwrap_or(now - seconds).clamp(0, now);
        // The finest step that reaches back far enough, unless a coarser one is asked for.
        let age = now - from;
        let fits = STEPS.iter().find(|(_, keep)| age <= *keep).map_or(300, |(step, _)| *step);
        let finest = if age <= seconds { 1 } else { fits };
        let wanted = step.unwrap_or(finest).max(finest);
        let step = [1, 10, 300].into_iter().find(|step| *step >= wanted).unwrap_or(300);
        let (name, points) = {
            let state = self.lock();
            let key = match of.kind.as_str() {
                "total" => Some(Key::Total),
                "node" => state.ledger.nodes().position(|name| name == of.name).map(Key::Node),
                kind => state.names.number(kind, &of.name, of.parent.as_deref()).map(Key::Number),
            };
            let Some(key) = key else { return Ok(None) };
            (state.series_name(key), (step == 1).then(|| state.history.points(key, from)))
        };
        let points = match points {
            Some(points) => self.with_earlier(&name, from, points).await?,
            None => self.0.file.points(step, &name, from).await?,
        };
        let points: Vec<Value> = points.into_iter().map(|(at, point)| point_value(at, &point)).collect();
        Ok(Some(json!({"step": step, "points": points})))
    }
}

impl Stats {
    /// Seconds before the start of this process are as coarse as the file has them.
    async fn with_earlier(
        &self,
        name: &str,
        from: i64,
        points: Vec<(i64, Point)>,
    ) -> anyhow::Result<Vec<(i64, Point)>> {
        let known = points.first().map_or(i64::MAX, |(at, _)| *at);
        if known <= from {
            return Ok(points);
        }
        let (step, _) = STEPS[0];
        let means = self.0.file.points(step, name, from).await?;
        let seconds =
            means.into_iter().flat_map(|(at, mean)| (at..at + step).map(move |second| (second, mean)));
        let earlier = seconds.filter(|(at, _)| (from..known).contains(at));
        Ok(earlier.chain(points).collect())
    }
}

fn point_value(at: i64, point: &Point) -> Value {
    json!({
        "t": at,
        "bytesInPerSecond": round(point.bytes_in),
        "bytesOutPerSecond": round(point.bytes_out),
        "connectionsPerSecond": round(point.connections),
        "connectionsActive": round(point.active),
    })
}
