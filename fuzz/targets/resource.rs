//! Resources as a node gets them. The first byte: bytes of zstd as they come from the wire (`z`), or the encoding below
//! it, which no fuzzer would find through a compression and a hash: as bytes (`r`) or as a program (`p`, see `shape`).
#![no_main]

#[path = "../shape.rs"]
mod shape;

use awe4lb_proto::{
    Hash,
    resources::{self, Decoded, EncodedResource},
};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match bytes.split_first() {
        Some((b'z', zstd)) => {
            // Under a hash that fits nothing: everything up to the comparison runs.
            assert!(resources::decode(zstd, Hash([0; 32])).is_err());
            Corpus::Keep
        }
        Some((b'r', encoding)) => {
            read(encoding);
            Corpus::Keep
        }
        Some((b'p', program)) => {
            read(&shape::build(program));
            Corpus::Keep
        }
        _ => Corpus::Reject,
    }
});

fn read(encoding: &[u8]) {
    let zstd = zstd::bulk::compress(encoding, 1).expect("memory");
    if let Ok(decoded) = resources::decode(&zstd, Hash::of(encoding)) {
        let _ = resources::assemble([(Hash::of(encoding), decoded.clone())]);
        encodes_to_itself(&decoded);
    }
}

/// What was understood is understood the same way after it was encoded by us.
fn encodes_to_itself(decoded: &Decoded) {
    let encoded: EncodedResource = match decoded {
        Decoded::Listener(placed) => resources::encode_listener(placed),
        Decoded::Pool(placed) => resources::encode_pool(placed),
        // These are encoded as a pair, which one resource cannot be.
        Decoded::AddressList(list) => resources::encode_address_list(list),
        Decoded::Map(map) => resources::encode_map(map),
        Decoded::Certificate(..) | Decoded::Key(..) => return,
    }
    .expect("small enough");
    assert_eq!(encoded.id, decoded.id());
    assert_eq!(resources::decode(&encoded.zstd, encoded.hash).as_ref(), Ok(decoded));
}
