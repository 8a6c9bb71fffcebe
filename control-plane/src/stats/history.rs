//! Rates over time: a second each for ten minutes in memory, coarser and longer in the file.

use std::collections::{HashMap, VecDeque};

/// Seconds that are kept one by one.
const SECONDS: usize = 600;
/// Steps in the file, and for how long, in seconds.
pub const STEPS: [(i64, i64); 2] = [(10, 4 * 3_600), (300, 30 * 86_400)];

/// Rates in one interval, and a gauge.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// A second.
    pub bytes_in: f32,
    /// A second.
    pub bytes_out: f32,
    /// That began, a second.
    pub connections: f32,
    /// That are open.
    pub active: f32,
}

impl Point {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// The last minutes of every series that had something to show.
#[derive(Debug, Default)]
pub struct History {
    series: HashMap<String, VecDeque<(i64, Point)>>,
    /// Up to which second each step has been written.
    written: HashMap<i64, i64>,
}

impl History {
    /// The points of one second.
    pub fn add(&mut self, at: i64, points: impl Iterator<Item = (String, Point)>) {
        for (name, point) in points {
            // A series begins with its first sign of life, and ends when nothing has been seen of it for long.
            if point.is_zero() && !self.series.contains_key(&name) {
                continue;
            }
            let ring = self.series.entry(name).or_default();
            if ring.len() == SECONDS {
                ring.pop_front();
            }
            ring.push_back((at, point));
        }
        let oldest = at - SECONDS as i64;
        self.series.retain(|_, ring| {
            ring.back().is_some_and(|(last, _)| *last > oldest)
                && ring.iter().any(|(_, point)| !point.is_zero())
        });
    }

    /// Means of the interval of `step` that is over at `now`, once.
    pub fn due(&mut self, step: i64, now: i64) -> Option<(i64, Vec<(String, Point)>)> {
        let end = now - now.rem_euclid(step);
        let written = self.written.entry(step).or_insert(end);
        if *written >= end {
            return None;
        }
        *written = end;
        let begin = end - step;
        let mut means = Vec::new();
        for (name, ring) in &self.series {
            let within = || ring.iter().filter(|(at, _)| (begin..end).contains(at)).map(|(_, point)| point);
            // A second without a point was one of silence.
            let mean = |field: fn(&Point) -> f32| within().map(field).sum::<f32>() / step as f32;
            let point = Point {
                bytes_in: mean(|point| point.bytes_in),
                bytes_out: mean(|point| point.bytes_out),
                connections: mean(|point| point.connections),
                active: mean(|point| point.active),
            };
            if !point.is_zero() {
                means.push((name.clone(), point));
            }
        }
        Some((begin, means))
    }

    /// The seconds of a series.
    pub fn points(&self, series: &str, from: i64) -> Vec<(i64, Point)> {
        let ring = self.series.get(series).into_iter().flatten();
        ring.filter(|(at, _)| *at >= from).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bytes_in: f32) -> Point {
        Point { bytes_in, ..Point::default() }
    }

    #[test]
    fn ten_seconds_are_one_mean_and_come_once() {
        let mut history = History::default();
        assert!(history.due(10, 100).is_none());
        for at in 100..110 {
            history.add(at, [("total".to_owned(), point((at - 100) as f32))].into_iter());
            assert!(history.due(10, at).is_none(), "{at}");
        }
        let (begin, means) = history.due(10, 110).unwrap();
        assert_eq!((begin, &means[..]), (100, &[("total".to_owned(), point(4.5))][..]));
        assert!(history.due(10, 111).is_none());
    }

    #[test]
    fn silence_costs_nothing_and_old_seconds_go() {
        let mut history = History::default();
        history.add(0, [("a".to_owned(), point(0.0)), ("b".to_owned(), point(1.0))].into_iter());
        assert!(history.points("a", 0).is_empty());
        for at in 1..=700 {
            history.add(at, [("b".to_owned(), point(0.0))].into_iter());
        }
        assert!(history.series.is_empty());
    }
}
