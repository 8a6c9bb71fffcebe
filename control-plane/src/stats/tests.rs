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
    stats.lock().ledger.sums(None, now_ms()).get(&number).map_or(0, |(values, _)| values.bytes_in)
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
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM boots WHERE sequence >= 0")
        .fetch_one(stats.0.file.reader())
        .await
        .unwrap();
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

/// A report at a given time, for history only: nothing is stored.
fn take_at(stats: &Stats, at: i64, report: &v1::CounterReport) {
    let mut guard = stats.lock();
    let State { ledger, history, unstored, .. } = &mut *guard;
    ledger.take("a", report, at, unstored, |growth| history.spread(&growth));
}

#[tokio::test]
async fn history_is_what_was_counted_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.db");
    let begin = now_ms() / 1_000 / 300 * 300 - 600;
    let mut bytes = 0;
    // Three starts within five minutes, and some more.
    for seconds in [0..95, 95..200, 200..330] {
        let stats = Stats::open(&path).await.unwrap();
        stats.lock().kinds.insert(1, Kind::Listener);
        for second in seconds {
            bytes += 1_000;
            let sequence = u64::try_from(second).unwrap();
            take_at(&stats, (begin + second) * 1_000 + 200, &report(1, sequence, &[(1, bytes)]));
            if let Some((at, points)) = stats.tick(begin + second) {
                stats.keep(at, &points).await.unwrap();
            }
        }
        // A report that is stored: it takes along what was not. Then the process just ends.
        stats.ingest("a", report(1, u64::MAX, &[(1, bytes)])).await.unwrap();
    }
    let stats = Stats::open(&path).await.unwrap();
    assert_eq!(sum(&stats, 1), 330_000);
    let series = Series { kind: "node".to_owned(), name: "a".to_owned(), parent: None };
    let fine = stats.history(&series, Some(begin), Some(10)).await.unwrap().unwrap();
    assert_eq!(fine["step"], 10);
    let points = fine["points"].as_array().unwrap();
    assert!(points.len() >= 27, "{}", points.len());
    assert!(points.iter().filter(|point| point["bytesInPerSecond"] == 1_000.0).count() >= 22, "{points:?}");
    let coarse = stats.history(&series, Some(begin), Some(300)).await.unwrap().unwrap();
    let points = coarse["points"].as_array().unwrap();
    assert_eq!(points.len(), 1, "{points:?}");
    assert_eq!(points[0]["t"], begin);
    let rate = points[0]["bytesInPerSecond"].as_f64().unwrap();
    assert!((900.0..=1_000.0).contains(&rate), "{rate}");
    let seconds = stats.history(&series, Some(now_ms() / 1_000 - 600), Some(1)).await.unwrap().unwrap();
    assert_eq!(seconds["step"], 1);
    let points = seconds["points"].as_array().unwrap();
    let times: Vec<i64> = points.iter().map(|point| point["t"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a < b));
    assert!(points.iter().any(|point| point["bytesInPerSecond"] == 1_000.0), "before the restart");
    let nobody = Series { kind: "node".to_owned(), name: "nobody".to_owned(), parent: None };
    assert!(stats.history(&nobody, None, None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_report_without_a_boot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stats = Stats::open(&dir.path().join("stats.db")).await.unwrap();
    let empty = v1::CounterReport { boot_id: Bytes::new(), ..report(1, 1, &[(1, 10)]) };
    assert!(stats.ingest("a", empty).await.is_err());
    assert_eq!(sum(&stats, 1), 0);
}

/// What a node does, and what happens to its reports.
#[derive(Debug, Clone)]
enum Step {
    /// Counts.
    Count(u64, u64),
    /// Reports what changed since the acknowledged.
    Report,
    /// The network gives the n-th report of those ever sent, again.
    Replay(usize),
    /// Another process.
    Boot,
    /// The control plane is killed.
    Kill,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        4 => (1..6_u64, 1..1_000_u64).prop_map(|(number, bytes)| Step::Count(number * 100, bytes)),
        4 => Just(Step::Report),
        3 => (0..1_000_usize).prop_map(Step::Replay),
        1 => Just(Step::Boot),
        1 => Just(Step::Kill),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 48, ..Default::default() })]

    /// Whatever is repeated, late or cut off: the sums are what the nodes have counted and reported.
    #[test]
    fn any_interleaving_sums_up_exactly(steps in proptest::collection::vec((0..2_usize, step()), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(steps));
    }
}

async fn check(steps: Vec<(usize, Step)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.db");
    let mut stats = Stats::open(&path).await.unwrap();
    // By node: boot, sequence, counts of this boot.
    let mut nodes = [(1_u8, 0_u64, HashMap::<u64, u64>::new()), (1, 0, HashMap::new())];
    let names = ["a", "b"];
    let mut sent: Vec<(usize, v1::CounterReport)> = Vec::new();
    // By node, boot and number: what was acknowledged.
    let mut pending = Vec::new();
    let mut exact: HashMap<(usize, u8, u64), u64> = HashMap::new();
    for (of, step) in steps {
        let (boot, sequence, counts) = &mut nodes[of];
        match step {
            Step::Count(number, bytes) => *counts.entry(number).or_default() += bytes,
            Step::Report => {
                *sequence += 1;
                let values: Vec<(u64, u64)> =
                    counts.iter().map(|(number, bytes)| (*number, *bytes)).collect();
                let report = report(*boot, *sequence, &values);
                pending.push(stats.ingest(names[of], report.clone()));
                sent.push((of, report));
                exact.extend(values.into_iter().map(|(number, bytes)| ((of, *boot, number), bytes)));
            }
            Step::Replay(at) if !sent.is_empty() => {
                let (of, report) = sent[at % sent.len()].clone();
                pending.push(stats.ingest(names[of], report));
            }
            Step::Replay(_) => {}
            Step::Boot => (*boot, *sequence, *counts) = (*boot + 1, 0, HashMap::new()),
            Step::Kill => {
                settle(&mut pending).await;
                stats = Stats::open(&path).await.unwrap();
            }
        }
    }
    settle(&mut pending).await;
    for number in (1..6).map(|number| number * 100) {
        let of_number = exact.iter().filter(|((_, _, of), _)| *of == number);
        assert_eq!(sum(&stats, number), of_number.map(|(_, bytes)| bytes).sum::<u64>(), "{number}");
    }
}

async fn settle(pending: &mut Vec<BoxFuture<'static, anyhow::Result<()>>>) {
    for stored in join_all(pending.drain(..)).await {
        stored.unwrap();
    }
}
