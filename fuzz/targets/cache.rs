//! What a node finds on its disk. The first byte: which file. A small letter: the fuzzer's bytes are the file itself.
//! A large one: they are its content under a seal that fits, which no fuzzer would guess; behind a `p` as a program, see
//! `shape`.
#![no_main]

#[path = "../shape.rs"]
mod shape;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use awe4lb_data_plane::control::cache::Cache;
use awe4lb_proto::{Hash, Noun, resources};
use libfuzzer_sys::{Corpus, fuzz_target};
use sha2::{Digest, Sha256};

/// In memory, where there is such a folder: every run writes a file.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("awe4lb-fuzz-").tempdir_in(root).expect("a folder").keep()
});

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((first, content)) = bytes.split_first() else { return Corpus::Reject };
    let (name, kind) = match first.to_ascii_uppercase() {
        b'S' => ("snapshot-0000000000000001", b'S'),
        b'O' => ("overlays", b'O'),
        b'R' => ("rejected", b'R'),
        b'G' => ("trial", b'G'),
        _ => return Corpus::Reject,
    };
    let file = match (first.is_ascii_uppercase(), content) {
        (false, file) => file.to_vec(),
        (true, [b'p', program @ ..]) => sealed(kind, &shape::build(program)),
        (true, content) => sealed(kind, content),
    };
    let cache = Cache::open(&FOLDER).expect("a folder");
    let path = FOLDER.join("cache").join(name);
    std::fs::write(&path, file).expect("a file");

    let found = cache.load();
    assert_eq!(found.snapshots.len() + found.damaged.len(), usize::from(kind == b'S'), "{found:?}");
    for snapshot in &found.snapshots {
        for resource in &snapshot.resources {
            if let Ok(hash) = Hash::from_wire(&resource.hash, Noun::Resource, "/hash") {
                let _ = resources::decode(&resource.data, hash);
            }
        }
    }
    let _ = (cache.overlays(), cache.rejections(), cache.trial());
    std::fs::remove_file(&path).expect("the file");
    Corpus::Keep
});

/// As `control::cache` writes its files.
fn sealed(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut head = b"awe4lb\x01".to_vec();
    head.push(kind);
    head.extend((content.len() as u64).to_le_bytes());
    let sum = Sha256::new().chain_update(&head).chain_update(content).finalize();
    [&head[..], &sum[..], content].concat()
}
