//! What statistics cost: `cargo test -p awe4lb-control-plane stats::load -- --ignored --nocapture`.

use bytes::Bytes;
use futures_util::future::join_all;

use super::*;

const NODES: u64 = 20;
const NUMBERS: u64 = 1_000;
/// As a node sends them.
const A_MESSAGE: u64 = 100;
const SECONDS: u64 = 20;

fn counters(number: u64, second: u64) -> v1::Counters {
    let count = second * 100 + number;
    let end = |reason: &str| v1::ReasonCount { reason: reason.to_owned(), count };
    v1::Counters {
        number,
        bytes_in: count * 10_000,
        bytes_out: count * 1_000_000,
        connections_total: count,
        connections_active: number % 50,
        ends: vec![end("finished"), end("idle-timeout"), end("dial-failed")],
        datagrams_in: 0,
        datagrams_out: 0,
        dial_micros_total: count * 300,
        dials_total: count,
        handshake_micros_total: count * 900,
        handshakes_total: count,
    }
}

/// 20 nodes report 1,000 numbers each second, somebody watches: less than a tenth of a core.
#[tokio::test]
#[ignore = "a measurement"]
async fn twenty_nodes_with_a_thousand_numbers_each_second() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Stats::open(&dir.path().join("stats.db")).await.unwrap();
    for number in 1..=NUMBERS {
        stats.lock().kinds.insert(number, if number <= 100 { Kind::Listener } else { Kind::Backend });
    }
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    let before = awe4lb_telemetry::process::read();
    let (mut making, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for second in 1..=SECONDS {
        let mut stored = Vec::new();
        for node in 0..NODES {
            let begin = std::time::Instant::now();
            let reports: Vec<_> = (0..NUMBERS / A_MESSAGE)
                .map(|part| v1::CounterReport {
                    boot_id: Bytes::copy_from_slice(&[node as u8; 16]),
                    sequence: second * 100 + part,
                    counters: (1..=A_MESSAGE).map(|at| counters(part * A_MESSAGE + at, second)).collect(),
                    ..v1::CounterReport::default()
                })
                .collect();
            making += begin.elapsed();
            stored.extend(reports.into_iter().map(|report| stats.ingest(&format!("node-{node}"), report)));
            // Nodes do not know of each other.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        let begin = std::time::Instant::now();
        assert!(join_all(stored).await.into_iter().all(|stored| stored.is_ok()));
        slowest = slowest.max(begin.elapsed());
        if let Some((at, points)) = stats.tick(now_ms() / 1_000) {
            stats.keep(at, &points).await.unwrap();
        }
        stats.event();
        seconds.tick().await;
    }
    let used = awe4lb_telemetry::process::read();
    let micros = used.cpu_micros_total - before.cpu_micros_total;
    let share = (micros as f64 - making.as_micros() as f64) / (SECONDS as f64 * 1e6);
    println!(
        "{:.1} % of a core, {} MiB, the last acknowledgement after at most {} ms, file {} KiB",
        share * 100.0,
        used.resident_bytes / 1024 / 1024,
        slowest.as_millis(),
        std::fs::metadata(dir.path().join("stats.db")).unwrap().len() / 1024,
    );
    let total = stats.answer(None)["totals"]["connectionsTotal"].as_u64().unwrap();
    let each: u64 = (1..=100).map(|number| SECONDS * 100 + number).sum();
    assert_eq!(total, each * NODES);
}
