//! Rates over time: a second each for ten minutes in memory, coarser and longer in the file. No I/O, no clock.
//!
//! What a report counts is spread over the time that it is of; a second is closed when the reports that touch it have
//! come. So the sum over the points is what was counted, and reports that come a moment early or late make no waves.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::ledger::Growth;

/// Seconds that are kept one by one.
pub const SECONDS: usize = 600;
/// Steps in the file, and for how long, in seconds.
pub const STEPS: [(i64, i64); 2] = [(10, 4 * 3_600), (300, 30 * 86_400)];
/// A second is closed so many seconds later.
const LAG: i64 = 3;

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
    fn add(&mut self, other: &Self) {
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.connections += other.connections;
        self.active += other.active;
    }

    fn over(mut self, count: f32) -> Self {
        for value in [&mut self.bytes_in, &mut self.bytes_out, &mut self.connections, &mut self.active] {
            *value /= count;
        }
        self
    }
}

/// What a line of a chart is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Everything.
    Total,
    /// A node, by its index in the ledger.
    Node(usize),
    /// A listener, pool or backend.
    Number(u64),
}

/// The last minutes of every series that has something to show. What a series does not have is zero.
#[derive(Debug, Default)]
pub struct History {
    /// By second, then by node and number.
    open: BTreeMap<i64, HashMap<(usize, u64), Point>>,
    /// The last second that is closed.
    closed: Option<i64>,
    seconds: VecDeque<i64>,
    series: HashMap<Key, VecDeque<(i64, Point)>>,
    /// Up to where means of ten seconds were given out.
    given: Option<i64>,
}

/// Means of one interval; always with [`Key::Total`].
#[derive(Debug, PartialEq)]
pub struct Means {
    /// Its begin, Unix seconds.
    pub at: i64,
    /// Those that are not zero.
    pub points: Vec<(Key, Point)>,
}

impl History {
    /// Spreads what was counted over the seconds that are still open.
    pub fn spread(&mut self, growth: &Growth) {
        let Growth { from, to, grown, .. } = *growth;
        let Some(closed) = self.closed.filter(|_| to > from && grown != [0; 3]) else { return };
        let whole = (to - from) as f32;
        for second in from.div_euclid(1_000).max(closed + 1)..=(to - 1).div_euclid(1_000) {
            let share = (to.min((second + 1) * 1_000) - from.max(second * 1_000)) as f32 / whole;
            let point = self.open.entry(second).or_default().entry((growth.node, growth.number)).or_default();
            point.bytes_in += grown[0] as f32 * share;
            point.bytes_out += grown[1] as f32 * share;
            point.connections += grown[2] as f32 * share;
        }
    }

    /// A second begins: takes the gauges, and closes what is old enough. `kind` of a number: `None` is not charted.
    pub fn tick(
        &mut self,
        now: i64,
        active: impl Iterator<Item = (usize, u64, u64)>,
        kind: impl Fn(u64) -> Option<Chart>,
    ) {
        let until = now - LAG;
        // At the start, and when somebody has set the clock.
        let closed = match self.closed {
            Some(closed) if (0..60).contains(&(until - closed)) => closed,
            _ => {
                self.open.clear();
                self.series.clear();
                self.seconds.clear();
                self.given = None;
                until
            }
        };
        let open = self.open.entry(now).or_default();
        for (node, number, active) in active {
            open.entry((node, number)).or_default().active = active as f32;
        }
        self.closed = Some(until);
        for second in closed + 1..=until {
            let points = self.open.remove(&second).unwrap_or_default();
            self.close(second, points, &kind);
        }
    }

    fn close(
        &mut self,
        second: i64,
        points: HashMap<(usize, u64), Point>,
        kind: impl Fn(u64) -> Option<Chart>,
    ) {
        let mut sums: HashMap<Key, Point> = HashMap::new();
        for ((node, number), point) in points {
            let Some(chart) = kind(number) else { continue };
            sums.entry(Key::Number(number)).or_default().add(&point);
            // Every byte goes through one listener.
            if chart == Chart::Listener {
                sums.entry(Key::Node(node)).or_default().add(&point);
                sums.entry(Key::Total).or_default().add(&point);
            }
        }
        for (key, point) in sums {
            self.series.entry(key).or_default().push_back((second, point));
        }
        self.seconds.push_back(second);
        while self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        let oldest = self.seconds.front().copied().unwrap_or(second);
        self.series.retain(|_, ring| {
            while ring.front().is_some_and(|(at, _)| *at < oldest) {
                ring.pop_front();
            }
            !ring.is_empty()
        });
    }

    /// Means of the ten seconds that are over, once.
    pub fn due(&mut self) -> Option<Means> {
        let (step, _) = STEPS[0];
        let next = self.closed? + 1;
        let end = next - next.rem_euclid(step);
        let given = self.given.replace(end);
        if given.is_none_or(|given| given >= end) {
            return None;
        }
        let at = end - step;
        let count = self
            .seconds
            .iter()
            .rev()
            .take_while(|second| **second >= at)
            .filter(|second| **second < end)
            .count();
        if count == 0 {
            return None;
        }
        let mean = |key: Key| {
            let mut sum = Point::default();
            let ring = self.series.get(&key).into_iter().flatten().rev();
            for (_, point) in
                ring.skip_while(|(second, _)| *second >= end).take_while(|(second, _)| *second >= at)
            {
                sum.add(point);
            }
            sum.over(count as f32)
        };
        let others = self.series.keys().filter(|key| **key != Key::Total);
        let others = others.map(|key| (*key, mean(*key))).filter(|(_, point)| *point != Point::default());
        let points = others.chain([(Key::Total, mean(Key::Total))]).collect();
        Some(Means { at, points })
    }

    /// The seconds of a series.
    pub fn points(&self, key: Key, from: i64) -> Vec<(i64, Point)> {
        let mut ring = self.series.get(&key).into_iter().flatten().peekable();
        let seconds = self.seconds.iter().filter(|second| **second >= from);
        seconds
            .map(|second| {
                while ring.next_if(|(at, _)| at < second).is_some() {}
                let point = ring.next_if(|(at, _)| at == second).map(|(_, point)| *point);
                (*second, point.unwrap_or_default())
            })
            .collect()
    }
}

/// How a number is charted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chart {
    /// It counts for its node and for everything.
    Listener,
    /// By itself.
    Alone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(_: u64) -> Option<Chart> {
        Some(Chart::Listener)
    }

    fn growth(from: i64, to: i64, bytes_in: u64) -> Growth {
        Growth { node: 0, number: 1, from, to, grown: [bytes_in, 0, 0] }
    }

    fn bytes(history: &History, key: Key) -> Vec<(i64, f32)> {
        history.points(key, 0).into_iter().map(|(at, point)| (at, point.bytes_in)).collect()
    }

    #[test]
    fn what_was_counted_is_spread_over_its_time() {
        let mut history = History::default();
        history.tick(103, std::iter::empty(), listener);
        // Reports come 0.3 s after the full second, one of them late and one early.
        for (from, to) in [(100_300, 101_300), (101_300, 102_400), (102_400, 103_200), (103_200, 104_300)] {
            history.spread(&growth(from, to, (to - from) as u64));
        }
        history.tick(104, [(0, 1, 5)].into_iter(), listener);
        for now in 105..=107 {
            history.tick(now, std::iter::empty(), listener);
        }
        let seconds = bytes(&history, Key::Total);
        assert_eq!(seconds.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [101, 102, 103, 104]);
        assert!(seconds[..3].iter().all(|(_, rate)| (rate - 1_000.0).abs() < 0.1), "{seconds:?}");
        assert!((seconds[3].1 - 300.0).abs() < 0.1);
        assert_eq!(history.points(Key::Node(0), 104)[0].1.active, 5.0);
        assert_eq!(bytes(&history, Key::Number(1)), seconds);
    }

    #[test]
    fn ten_seconds_are_one_mean_and_come_once() {
        let mut history = History::default();
        let mut means = Vec::new();
        for now in 100..130 {
            history.tick(now, std::iter::empty(), listener);
            history.spread(&growth((now - 1) * 1_000, now * 1_000, if now < 116 { 50 } else { 0 }));
            means.extend(history.due());
        }
        let total: Vec<_> =
            means.iter().map(|means| (means.at, means.points.last().unwrap().1.bytes_in)).collect();
        // Of the first ten seconds only two are known: it is their mean.
        assert_eq!(total, [(90, 25.0), (100, 50.0), (110, 25.0)]);
        assert_eq!(means[1].points.len(), 3);
    }

    #[test]
    fn silence_is_zero_and_costs_nothing() {
        let mut history = History::default();
        history.tick(3, std::iter::empty(), listener);
        history.spread(&growth(1_000, 2_000, 7));
        for now in 4..=700 {
            history.tick(now, std::iter::empty(), listener);
        }
        assert!(history.series.is_empty() && history.open.len() <= 4);
        assert_eq!(history.points(Key::Total, 0).len(), SECONDS);
        assert_eq!(history.points(Key::Total, 690).len(), 8);
    }

    #[test]
    fn a_clock_that_is_set_makes_no_mess() {
        let mut history = History::default();
        for now in [1_000, 1_001, 500_000, 500_001, 20, 21, 22] {
            history.tick(now, std::iter::empty(), listener);
            history.spread(&growth(now * 1_000 - 1_000, now * 1_000, 7));
        }
        assert!(history.open.len() < 10, "{:?}", history.open.keys());
        assert!(history.seconds.len() < 10);
    }
}
