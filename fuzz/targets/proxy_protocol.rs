//! Headers of the PROXY protocol: reading never panics, never changes its mind when more arrives and never waits forever;
//! what was read can be written again, by both versions, and says the same.
#![no_main]

use awe4lb_engine::proxy_protocol::{
    Header, MAX_V1_BYTES, MAX_V2_BYTES, Outgoing, Parsed, Tlv, Version, parse,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let cuts = bytes.iter().rev().take(4).map(|byte| bytes.len() * usize::from(*byte) / 256);
    for cut in cuts.chain([1, 12, 16, bytes.len().saturating_sub(1)]).filter(|cut| *cut <= bytes.len()) {
        let early = parse(&bytes[..cut]);
        if early != Parsed::NeedMore {
            assert_eq!(early, whole, "at {cut} of {}", bytes.len());
        }
    }
    match whole {
        Parsed::NeedMore => assert!(bytes.len() < MAX_V2_BYTES),
        Parsed::Header { header, length } => {
            let most = if header.version == Version::V1 { MAX_V1_BYTES } else { MAX_V2_BYTES };
            assert!(length <= bytes.len().min(most));
            assert_eq!(parse(&bytes[..length]), Parsed::Header { header: header.clone(), length });
            can_be_written(&header);
        }
        Parsed::NotProxy | Parsed::Malformed(_) => {}
    }
});

fn can_be_written(header: &Header) {
    let tlvs: Vec<Tlv<'_>> = header.tlvs.iter().collect();
    let (Some(source), Some(destination)) = (header.source, header.destination) else {
        assert!(header.source.is_none() && header.destination.is_none());
        return;
    };
    assert!(!header.is_local);
    for version in [Version::V1, Version::V2] {
        let is_datagram = header.is_datagram;
        let outgoing = Outgoing { version, is_local: false, is_datagram, source, destination, tlvs: &tlvs };
        let mut bytes = Vec::new();
        outgoing.write(&mut bytes);
        let Parsed::Header { header: again, length } = parse(&bytes) else { panic!("{bytes:02x?}") };
        assert_eq!((again.version, length), (version, bytes.len()));
        if version == Version::V2 || !is_datagram {
            assert_eq!((again.source, again.destination), (header.source, header.destination));
        }
        if version == Version::V2 {
            assert_eq!(again.is_datagram, is_datagram);
            assert!(again.tlvs.iter().all(|tlv| tlvs.contains(&tlv)), "{again:?} of {header:?}");
            // In another family the header is longer; then something may have been left out.
            if bytes.len() + 64 < MAX_V2_BYTES {
                assert_eq!(again.tlvs.iter().count(), tlvs.len(), "{again:?} of {header:?}");
            }
        }
    }
}
