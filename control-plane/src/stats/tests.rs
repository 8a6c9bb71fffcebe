//! Over the file: nothing acknowledged is lost, and nothing counts twice.

use bytes::Bytes;
use futures_util::future::join_all;

use super::*;

fn report(boot: u8, sequence: u64, values: &[(u64, u64)]) -> v1::CounterReport {
    let counter = |(number, bytes): &(u64, u64)| v1::Counters {
        number: *number,
        bytes_in: *bytes,
        ..v1::Counters::default()
    };
    v1::CounterReport {
        boot_id: Bytes::copy_from_slice(&[boot; 16]),
        sequence,
        counters: values.iter().map(counter).collect(),
        ..v1::CounterReport::default()
    }
}

fn sum(stats: &Stats, number: u64) -> u64 {
    stats.lock().ledger.sums(None, Instant::now()).get(&number).map_or(0, |values| values.bytes_in)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_process_that_just_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.db");
    let first = Stats::open(&path).await.unwrap();
    let reports = [
        first.ingest("a", report(1, 1, &[(1, 10), (700, 5)])),
        first.ingest("b", report(9, 1, &[(1, 3)])),
        first.ingest("a", report(1, 2, &[(1, 25)])),
    ];
    for stored in join_all(reports).await {
        stored.unwrap();
    }
    // Not closed: as if the process had been killed.
    let second = Stats::open(&path).await.unwrap();
    assert_eq!((sum(&second, 1), sum(&second, 700)), (28, 5));
    // The node did not hear of the acknowledgement, and repeats itself.
    second.ingest("a", report(1, 2, &[(1, 25)])).await.unwrap();
    assert_eq!(sum(&second, 1), 28);
}

#[tokio::test]
async fn boots_that_are_over_are_folded_and_stay_so_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.db");
    for round in 0..3 {
        let stats = Stats::open(&path).await.unwrap();
        for boot in 0..10 {
            stats.ingest("a", report(round * 10 + boot, 1, &[(1, 100), (300, 1)])).await.unwrap();
        }
        assert_eq!(sum(&stats, 1), u64::from(round + 1) * 1_000);
        stats.close().await;
    }
    let stats = Stats::open(&path).await.unwrap();
    assert_eq!((sum(&stats, 1), sum(&stats, 300)), (3_000, 30));
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM boots").fetch_one(stats.0.file.reader()).await.unwrap();
    assert_eq!(kept, 4);
}

/// A fold that could not be written once counted twice after a restart, as its boot was still in the file.
#[tokio::test]
async fn a_failed_write_is_made_up_for_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.db");
    let stats = Stats::open(&path).await.unwrap();
    for boot in 1..=4 {
        stats.ingest("a", report(boot, 1, &[(1, 100)])).await.unwrap();
    }
    sqlx::query("ALTER TABLE boots RENAME TO away").execute(stats.0.file.writer()).await.unwrap();
    assert!(stats.ingest("a", report(5, 1, &[(1, 100)])).await.is_err());
    sqlx::query("ALTER TABLE away RENAME TO boots").execute(stats.0.file.writer()).await.unwrap();
    stats.ingest("a", report(6, 1, &[(1, 100)])).await.unwrap();
    assert_eq!(sum(&stats, 1), 600);
    let again = Stats::open(&path).await.unwrap();
    assert_eq!(sum(&again, 1), 600);
}

#[tokio::test]
async fn rates_are_differences_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Stats::open(&dir.path().join("stats.db")).await.unwrap();
    stats.lock().kinds.insert(1, "listener".to_owned());
    let start = Instant::now();
    stats.ingest("a", report(1, 1, &[(1, 1_000)])).await.unwrap();
    stats.tick(1_000, start);
    stats.ingest("a", report(1, 2, &[(1, 4_000)])).await.unwrap();
    stats.tick(1_002, start + Duration::from_secs(2));
    let answer = stats.answer(None);
    assert_eq!(answer["totals"]["bytesInPerSecond"], 1_500.0);
    assert_eq!(answer["totals"]["bytesIn"], 4_000);
    assert_eq!(answer["nodes"][0]["bytesInPerSecond"], 1_500.0);
    let points = stats.lock().history.points("node a", 0);
    assert_eq!(points.last().map(|(at, point)| (*at, point.bytes_in)), Some((1_002, 1_500.0)));
}
