//! Statistics.

use axum::{Json, extract::State, routing::get};
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Problem,
    body::Query,
    routes::{Doc, Route},
};
use crate::{app::App, auth::Role, stats::Series};

const TAG: &str = "Statistics";

/// The rows of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/api/v1/stats",
            Role::Viewer,
            get(stats),
            Doc::new("getStats", TAG, "Counters and rates of everything; sums never go back")
                .query(&[("node", "Only the share of this node")]),
        ),
        Route::new(
            Method::GET,
            "/api/v1/stats/history",
            Role::Viewer,
            get(history),
            Doc::new("getStatsHistory", TAG, "Rates over time")
                .query(&[
                    ("kind", "total, listener, pool, backend or node"),
                    ("name", "Of the object or node"),
                    ("pool", "Of a backend"),
                    ("from", "Unix seconds; default: ten minutes ago"),
                    ("step", "Seconds, at least: 1, 10 or 300"),
                ])
                .responses(&[(200, "Points"), (404, "There is no such object")]),
        ),
    ]
}

#[derive(Deserialize)]
struct StatsQuery {
    node: Option<String>,
}

async fn stats(State(app): State<App>, Query(query): Query<StatsQuery>) -> Json<Value> {
    Json(app.stats.answer(query.node.as_deref()))
}

#[derive(Deserialize)]
struct HistoryQuery {
    #[serde(default = "total")]
    kind: String,
    #[serde(default)]
    name: String,
    pool: Option<String>,
    from: Option<i64>,
    step: Option<i64>,
}

fn total() -> String {
    "total".to_owned()
}

async fn history(State(app): State<App>, Query(query): Query<HistoryQuery>) -> Result<Json<Value>, Problem> {
    let is_known = ["total", "listener", "pool", "backend", "node"].contains(&query.kind.as_str());
    if !is_known {
        return Err(Problem::bad_request("kind is total, listener, pool, backend or node"));
    }
    let what = format!("there is no {} {:?}", query.kind, query.name);
    let series = Series { kind: query.kind, name: query.name, parent: query.pool };
    let answer = app.stats.history(&series, query.from, query.step).await.map_err(Problem::internal)?;
    answer.map(Json).ok_or_else(|| Problem::not_found(what))
}
