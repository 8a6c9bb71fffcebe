//! The table: medians, the ratio to the better peer, and what it says of the marks.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    contender::Contender,
    machine::Machine,
    run::Scenario,
    statistics::{Estimate, Verdict, bootstrap, median},
    work::{Window, idle::Idle},
};

/// One contender in one scenario in one round.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// What was measured.
    pub scenario: Scenario,
    /// Of whom.
    pub contender: Contender,
    /// In which round.
    pub round: usize,
    /// What is compared: µs a connection, an echo, a datagram; s a GB; KiB an idle connection.
    pub cost: f64,
    /// Units a second.
    pub per_second: f64,
    /// What was offered a second, where that is fixed.
    pub offered: Option<f64>,
    /// Units lost.
    pub failed: u64,
    /// Latency.
    pub p50_micros: f64,
    /// Latency.
    pub p99_micros: f64,
    /// The whole machine.
    pub busy_percent: f64,
    /// The hypervisor.
    pub steal_percent: f64,
    /// Idle connections only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleSample>,
}

/// See [`Idle`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of `Idle`, serialised")]
pub struct IdleSample {
    pub pss_kib: f64,
    pub rss_kib: f64,
    pub slab_kib: f64,
    pub cpu_percent: f64,
}

impl Sample {
    /// From a window.
    pub fn load(
        scenario: Scenario,
        contender: Contender,
        round: usize,
        window: &Window,
        offered: Option<f64>,
    ) -> Self {
        let units = window.units.max(1) as f64;
        // Bulk: nanoseconds a byte are seconds a GB. All others: nanoseconds to µs.
        let scale = if scenario.is_bulk() { 1.0 } else { 1e-3 };
        Self {
            scenario,
            contender,
            round,
            cost: if scenario.is_rate() {
                window.seconds * 1e6 / units
            } else {
                window.cpu_nanos as f64 / units * scale
            },
            per_second: window.units as f64 / window.seconds,
            offered,
            failed: window.failed,
            p50_micros: window.p50_micros,
            p99_micros: window.p99_micros,
            busy_percent: window.busy_percent,
            steal_percent: window.steal_percent,
            idle: None,
        }
    }

    /// From idle connections.
    pub fn idle(scenario: Scenario, contender: Contender, round: usize, idle: Idle) -> Self {
        Self {
            scenario,
            contender,
            round,
            cost: idle.pss_kib,
            per_second: 0.0,
            offered: None,
            failed: 0,
            p50_micros: 0.0,
            p99_micros: 0.0,
            busy_percent: 0.0,
            steal_percent: 0.0,
            idle: Some(IdleSample {
                pss_kib: idle.pss_kib,
                rss_kib: idle.rss_kib,
                slab_kib: idle.slab_kib,
                cpu_percent: idle.cpu_percent,
            }),
        }
    }

    /// Fewer units than were offered: the machine was full, and the value is not one of a fixed rate.
    fn saturated(&self) -> bool {
        self.offered.is_some_and(|offered| self.per_second < 0.97 * offered)
    }

    /// For the eye, while the run goes on.
    pub fn line(&self) -> String {
        let name = self.scenario.name();
        let mut line = format!("{name:<11} {:<8} round {:<2} {:>9.3}", self.contender, self.round, self.cost);
        if let Some(idle) = &self.idle {
            let _ = write!(
                line,
                " KiB pss, {:.3} rss, {:.2} slab, {:.2} % cpu",
                idle.rss_kib, idle.slab_kib, idle.cpu_percent
            );
            return line;
        }
        let _ = write!(
            line,
            "  {:>12.0}/s  p50 {:>7.0} p99 {:>7.0} µs  busy {:>3.0} % steal {:.1} %",
            self.per_second, self.p50_micros, self.p99_micros, self.busy_percent, self.steal_percent
        );
        if self.failed > 0 {
            let _ = write!(line, "  {} FAILED", self.failed);
        }
        if self.saturated() {
            line.push_str("  SATURATED");
        }
        line
    }
}

/// A row of the table. Idle connections are judged by what they weigh, all else by the ratio to the better of HAProxy
/// and nginx.
struct Row {
    scenario: Scenario,
    title: &'static str,
    unit: &'static str,
    mark: f64,
    stretch: Option<f64>,
}

impl Row {
    const fn new(
        scenario: Scenario,
        title: &'static str,
        unit: &'static str,
        mark: f64,
        stretch: Option<f64>,
    ) -> Self {
        Self { scenario, title, unit, mark, stretch }
    }

    fn values(&self, samples: &[Sample]) -> Vec<f64> {
        if self.scenario.is_idle() { weights(samples, self.scenario) } else { pairs(samples, self.scenario) }
    }

    fn marks(&self) -> String {
        let unit = if self.scenario.is_idle() { " KiB" } else { "" };
        let stretch = self.stretch.map_or(String::new(), |stretch| format!(" ({stretch})"));
        format!("≤ {}{stretch}{unit}", self.mark)
    }
}

/// The marks and, in brackets, what would be better still.
const ROWS: [Row; 17] = [
    Row::new(Scenario::Conn, "short connection", "µs CPU", 1.05, Some(0.98)),
    Row::new(Scenario::Bulk1, "bulk, 1 stream", "s CPU/GB", 0.45, Some(0.35)),
    Row::new(Scenario::Bulk8, "bulk, 8 streams", "s CPU/GB", 0.45, Some(0.35)),
    Row::new(Scenario::Echo, "small echo, kept", "µs CPU", 1.05, Some(0.97)),
    Row::new(Scenario::Udp, "datagram there and back, 64 flows, 4 in flight", "µs CPU", 0.52, Some(0.42)),
    Row::new(Scenario::UdpBurst, "… 4 flows, 64 in flight, 1,200 B", "µs CPU", 0.5, Some(0.38)),
    Row::new(Scenario::UdpSingle, "… 1,000 flows, 1 in flight", "µs CPU", 0.95, Some(0.85)),
    // 1.35 and 1.5 times as many.
    Row::new(Scenario::UdpRate, "… time of one at saturation, 64 flows", "µs", 0.74, Some(0.67)),
    Row::new(Scenario::UdpNew, "… each from a new client, time of one", "µs", 1.0, Some(0.5)),
    Row::new(Scenario::Tls, "full TLS 1.3 handshake, ECDSA P-256", "µs CPU", 0.65, Some(0.58)),
    Row::new(Scenario::TlsRsa, "full TLS 1.3 handshake, RSA-2048", "µs CPU", 0.9, Some(0.8)),
    Row::new(Scenario::TlsResumed, "resumed TLS 1.3 handshake", "µs CPU", 0.75, Some(0.6)),
    Row::new(Scenario::TlsEcho, "small echo over TLS, kept", "µs CPU", 0.8, Some(0.7)),
    Row::new(Scenario::TlsBulk, "bulk through TLS termination", "s CPU/GB", 0.85, Some(0.7)),
    Row::new(Scenario::Idle, "idle connection", "KiB", 2.5, Some(1.8)),
    Row::new(Scenario::IdleTls, "idle TLS connection", "KiB", 9.0, Some(6.0)),
    Row::new(Scenario::IdleUdp, "idle flow of datagrams", "KiB", 1.0, Some(0.5)),
];

/// One ratio with its judgement.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ratio {
    scenario: Scenario,
    mark: f64,
    estimate: Estimate,
    verdict: Verdict,
}

/// All values and what they say.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    ratios: Vec<Ratio>,
    samples: Vec<Sample>,
}

impl Report {
    /// Judges.
    pub fn new(machine: Machine, samples: Vec<Sample>) -> Self {
        let ratios = ROWS
            .iter()
            .filter_map(|row| {
                let estimate = bootstrap(&row.values(&samples))?;
                let verdict = estimate.against(row.mark);
                Some(Ratio { scenario: row.scenario, mark: row.mark, estimate, verdict })
            })
            .collect();
        Self { machine, ratios, samples }
    }

    fn median(&self, scenario: Scenario, contender: Contender, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let values: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| sample.scenario == scenario && sample.contender == contender)
            .map(of)
            .collect();
        (!values.is_empty()).then(|| median(&values))
    }

    fn has(&self, scenario: Scenario) -> bool {
        self.samples.iter().any(|sample| sample.scenario == scenario)
    }

    /// The table in Markdown, with the lines that say how far it can be trusted.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "{} CPUs, {}, Linux {}, load before: {}\n\nCost of the proxy (median of the rounds); the ratio is taken \
             pair by pair to the better of HAProxy and nginx, with its bootstrap interval of 95 %.\n",
            machine.cpus, machine.model, machine.kernel, machine.load
        );
        let _ = writeln!(
            text,
            "| work | unit | haproxy | nginx | ours | ours / better peer; idle: ours | mark (stretch) | verdict |"
        );
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
        for row in ROWS.iter().filter(|row| self.has(row.scenario)) {
            self.cost_row(&mut text, row);
        }
        self.latency_table(&mut text);
        self.idle_table(&mut text);
        self.caveats(&mut text);
        text
    }

    fn cost_row(&self, text: &mut String, row: &Row) {
        let cell = |contender| {
            self.median(row.scenario, contender, |sample| sample.cost).map_or("–".to_owned(), digits)
        };
        let ratio = self.ratios.iter().find(|ratio| ratio.scenario == row.scenario);
        let (estimate, verdict) = ratio.map_or(("–".to_owned(), "not measured"), |ratio| {
            let Estimate { median, low, high, rounds } = ratio.estimate;
            let verdict = match ratio.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "**missed**",
                Verdict::Undecided => "undecided",
            };
            (format!("{median:.2} ({low:.2}–{high:.2}, n={rounds})"), verdict)
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {estimate} | {} | {verdict} |",
            row.title,
            row.unit,
            cell(Contender::Haproxy),
            cell(Contender::Nginx),
            cell(Contender::Ours),
            row.marks()
        );
    }

    fn latency_table(&self, text: &mut String) {
        let _ = writeln!(text, "\n| latency p50 / p99, µs; rate | direct | haproxy | nginx | ours |");
        let _ = writeln!(text, "|---|---|---|---|---|");
        for row in ROWS.iter().filter(|row| !row.scenario.is_idle() && self.has(row.scenario)) {
            let _ = write!(text, "| {} |", row.title);
            for contender in Contender::ALL {
                let of = |value: fn(&Sample) -> f64| self.median(row.scenario, contender, value);
                match (of(|s| s.p50_micros), of(|s| s.p99_micros), of(|s| s.per_second)) {
                    (Some(_), Some(_), Some(rate)) if row.unit == "s CPU/GB" => {
                        let _ = write!(text, " {:.2} GB/s |", rate / 1e9);
                    }
                    (Some(p50), Some(p99), Some(rate)) => {
                        let _ = write!(text, " {p50:.0} / {p99:.0}; {rate:.0}/s |");
                    }
                    _ => text.push_str(" – |"),
                }
            }
            text.push('\n');
        }
    }

    fn idle_table(&self, text: &mut String) {
        for (scenario, kind) in
            [(Scenario::Idle, "idle"), (Scenario::IdleTls, "idle TLS"), (Scenario::IdleUdp, "idle flow")]
        {
            if self.has(scenario) {
                self.idle_table_of(text, scenario, kind);
            }
        }
    }

    fn idle_table_of(&self, text: &mut String, scenario: Scenario, kind: &str) {
        let _ = writeln!(
            text,
            "\n| {kind}, each connection | direct | haproxy | nginx | ours |\n|---|---|---|---|---|"
        );
        type Weight = fn(&IdleSample) -> f64;
        let rows: [(&str, Weight); 4] = [
            ("user memory, Pss KiB", |idle| idle.pss_kib),
            ("user memory, Rss KiB", |idle| idle.rss_kib),
            ("slab of the machine (both ends and the proxy), KiB", |idle| idle.slab_kib),
            ("CPU of the proxy in all, % of a core", |idle| idle.cpu_percent),
        ];
        for (title, value) in rows {
            let _ = write!(text, "| {title} |");
            for contender in Contender::ALL {
                let found =
                    self.median(scenario, contender, |sample| sample.idle.as_ref().map_or(0.0, value));
                let _ = write!(text, " {} |", found.map_or("–".to_owned(), digits));
            }
            text.push('\n');
        }
    }

    fn caveats(&self, text: &mut String) {
        text.push('\n');
        if !self.samples.iter().any(|sample| sample.contender == Contender::Ours) {
            let _ = writeln!(text, "**Ours was not measured in this run.**");
        }
        let count = |test: fn(&Sample) -> bool| self.samples.iter().filter(|sample| test(sample)).count();
        let (saturated, stolen) = (count(Sample::saturated), count(|sample| sample.steal_percent > 2.0));
        if saturated > 0 {
            let _ =
                writeln!(text, "- {saturated} windows did not reach the offered rate: the machine was full.");
        }
        if stolen > 0 {
            let _ =
                writeln!(text, "- in {stolen} windows the hypervisor took more than 2 %: repeat the run.");
        }
        for contender in Contender::ALL {
            let failed: u64 = self
                .samples
                .iter()
                .filter(|sample| sample.contender == contender && !sample.scenario.is_udp())
                .map(|sample| sample.failed)
                .sum();
            let lost: u64 = self
                .samples
                .iter()
                .filter(|sample| sample.contender == contender && sample.scenario.is_udp())
                .map(|sample| sample.failed)
                .sum();
            if failed + lost > 0 {
                let _ = writeln!(
                    text,
                    "- {contender}: {failed} connections or echoes failed, {lost} datagrams lost."
                );
            }
        }
    }
}

/// The ratio of ours to the better peer in every round that has both.
fn pairs(samples: &[Sample], scenario: Scenario) -> Vec<f64> {
    let of = |contender: Contender, round: usize| {
        samples
            .iter()
            .find(|sample| {
                sample.scenario == scenario && sample.contender == contender && sample.round == round
            })
            .map(|sample| sample.cost)
    };
    let rounds = samples.iter().map(|sample| sample.round + 1).max().unwrap_or(0);
    (0..rounds)
        .filter_map(|round| {
            let peers = [of(Contender::Haproxy, round), of(Contender::Nginx, round)];
            let better = peers.into_iter().flatten().min_by(f64::total_cmp)?;
            Some(of(Contender::Ours, round)? / better)
        })
        .collect()
}

/// What a connection of ours weighs, in every round.
fn weights(samples: &[Sample], scenario: Scenario) -> Vec<f64> {
    samples
        .iter()
        .filter(|sample| sample.scenario == scenario && sample.contender == Contender::Ours)
        .map(|sample| sample.cost)
        .collect()
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contender: Contender, round: usize, nanos: u64) -> Sample {
        let window = Window { units: 1000, seconds: 1.0, cpu_nanos: nanos, ..Window::default() };
        Sample::load(Scenario::Conn, contender, round, &window, Some(1000.0))
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_to_the_better_peer() {
        let samples = vec![
            sample(Contender::Haproxy, 0, 100),
            sample(Contender::Nginx, 0, 80),
            sample(Contender::Ours, 0, 80),
            sample(Contender::Haproxy, 1, 100),
            sample(Contender::Nginx, 1, 200),
            sample(Contender::Ours, 1, 110),
            // A round without ours is no pair.
            sample(Contender::Haproxy, 2, 1),
        ];
        assert_eq!(pairs(&samples, Scenario::Conn), [1.0, 1.1]);
        assert!(pairs(&samples, Scenario::Echo).is_empty());
        let text = Report::new(Machine::here(), samples).markdown();
        assert!(text.contains("| short connection | µs CPU |"), "{text}");
        assert!(text.contains("undecided"), "{text}");
    }

    #[test]
    fn idle_connections_are_judged_by_their_weight_and_not_by_that_of_the_peers() {
        let weigh = |contender, round, pss_kib| {
            Sample::idle(Scenario::IdleTls, contender, round, Idle { pss_kib, ..Idle::default() })
        };
        let samples: Vec<Sample> = (0..3)
            .flat_map(|round| [weigh(Contender::Haproxy, round, 60.0), weigh(Contender::Ours, round, 9.5)])
            .collect();
        let text = Report::new(Machine::here(), samples).markdown();
        assert!(text.contains("| 9.50 (9.50–9.50, n=3) | ≤ 9 (6) KiB | **missed** |"), "{text}");
    }

    #[test]
    fn every_scenario_has_its_row() {
        assert_eq!(ROWS.map(|row| row.scenario), Scenario::ALL);
    }
}
