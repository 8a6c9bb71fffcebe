use super::*;

fn snapshot(sequence: u64) -> Snapshot {
    let hash = Bytes::from(vec![sequence as u8; 32]);
    Snapshot {
        generation: 0,
        assignment: Some(v1::Assignment {
            lineage: "l".into(),
            epoch: 1,
            sequence,
            manifest_hash: hash.clone(),
            revision: sequence,
        }),
        manifest: vec![v1::ResourceRef { kind: 1, name: "web".into(), hash: hash.clone() }],
        resources: vec![StoredResource { hash, data: Bytes::from(vec![7; 100]) }],
        built_hash: vec![9; 32].into(),
    }
}

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

fn sequences(cache: &Cache) -> Vec<u64> {
    cache.load().snapshots.iter().map(|snapshot| snapshot.assignment.as_ref().unwrap().sequence).collect()
}

#[test]
fn keeps_the_newest_and_the_one_before() {
    let (_dir, cache) = cache();
    assert!(cache.load().snapshots.is_empty());
    let mut before = None;
    for sequence in 1..=5 {
        let mut next = snapshot(sequence);
        cache.save(&mut next, before.as_ref()).unwrap();
        before = Some(next);
    }
    assert_eq!(sequences(&cache), [5, 4]);
}

#[test]
fn the_same_manifest_under_a_higher_assignment_keeps_the_spare() {
    let (_dir, cache) = cache();
    let (mut one, mut two) = (snapshot(1), snapshot(2));
    cache.save(&mut one, None).unwrap();
    cache.save(&mut two, Some(&one)).unwrap();
    let mut again = two.clone();
    again.assignment.as_mut().unwrap().sequence = 9;
    cache.save(&mut again, Some(&two)).unwrap();
    assert_eq!(sequences(&cache), [9, 1]);
}

#[test]
fn after_a_fall_back_the_one_that_ran_is_the_spare() {
    let (_dir, cache) = cache();
    let (mut one, mut two, mut three) = (snapshot(1), snapshot(2), snapshot(3));
    cache.save(&mut one, None).unwrap();
    cache.save(&mut two, Some(&one)).unwrap();
    cache.save(&mut three, Some(&one)).unwrap();
    assert_eq!(sequences(&cache), [3, 1]);
}

#[test]
fn any_damaged_byte_falls_back_to_the_generation_before() {
    let (_dir, cache) = cache();
    let (mut one, mut two) = (snapshot(1), snapshot(2));
    cache.save(&mut one, None).unwrap();
    cache.save(&mut two, Some(&one)).unwrap();
    let path = cache.snapshot_path(two.generation);
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(sequences(&cache), [1], "byte {at} of {}", good.len());
    }
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).unwrap();
        assert_eq!(sequences(&cache), [1], "cut at {cut}");
    }
    std::fs::write(&path, [&good[..], b"more"].concat()).unwrap();
    assert_eq!(sequences(&cache), [1]);
    std::fs::write(&path, &good).unwrap();
    assert_eq!(sequences(&cache), [2, 1]);
}

#[test]
fn both_damaged_is_an_empty_hand_and_says_so() {
    let (_dir, cache) = cache();
    let mut one = snapshot(1);
    cache.save(&mut one, None).unwrap();
    std::fs::write(cache.snapshot_path(one.generation), b"awe4lb\x01S").unwrap();
    std::fs::write(cache.snapshot_path(77), b"").unwrap();
    let found = cache.load();
    assert!(found.snapshots.is_empty());
    assert_eq!(found.damaged.len(), 2);
    // And the next one is written above both.
    let mut next = snapshot(3);
    cache.save(&mut next, None).unwrap();
    assert_eq!(sequences(&cache), [3]);
}

#[test]
fn a_file_under_anothers_name_is_not_taken() {
    let (_dir, cache) = cache();
    let mut one = snapshot(1);
    cache.save(&mut one, None).unwrap();
    std::fs::copy(cache.snapshot_path(one.generation), cache.snapshot_path(50)).unwrap();
    assert_eq!(sequences(&cache), [1]);
    std::fs::copy(cache.snapshot_path(one.generation), cache.folder.join("overlays")).unwrap();
    assert!(cache.overlays().is_empty());
}

#[test]
fn small_files_round_trip_and_a_damaged_one_is_empty() {
    let (_dir, cache) = cache();
    assert!(cache.trial().is_none());
    let trial = Trial { assignment: snapshot(1).assignment, crashes: 1 };
    cache.save_trial(&trial).unwrap();
    assert_eq!(cache.trial(), Some(trial));
    cache.end_trial().unwrap();
    assert!(cache.trial().is_none());

    let overlay = v1::Overlay { pool: "app".into(), version: 4, admin_states: vec![], answers: vec![] };
    cache.save_overlays(vec![overlay.clone()]).unwrap();
    assert_eq!(cache.overlays(), [overlay]);
    let path = cache.folder.join("overlays");
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(cache.overlays().is_empty(), "byte {at}");
    }
}
