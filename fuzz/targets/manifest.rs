//! The stream of a node: messages one after the other, each behind two bytes of length and one of kind, into what puts
//! manifests and pieces of resources together. And the messages that the control plane reads. A large letter is a
//! message as a program, see `shape`.
#![no_main]

#[path = "../shape.rs"]
mod shape;

use std::borrow::Cow;

use awe4lb_proto::{
    Collector,
    manifest::{self, Announced, Assembler, Manifest},
    v1,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let mut manifests = Assembler::default();
    let mut pieces = Collector::default();
    let mut held = Manifest::default();
    let mut rest = bytes;
    while let [kind, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (message, after) = more.split_at(length);
        rest = after;
        let message = if kind.is_ascii_uppercase() {
            Cow::Owned(shape::build(message))
        } else {
            Cow::Borrowed(message)
        };
        let message = &message[..];
        match kind.to_ascii_lowercase() {
            b'm' => {
                if let Ok(message) = v1::Manifest::decode(message)
                    && let Ok(Some(announced)) = manifests.push(message)
                {
                    travels_as_it_is(&announced);
                    let base = if announced.base.is_some() { held.clone() } else { Manifest::default() };
                    if let Ok(next) = announced.resolve(&base) {
                        assert_eq!(next.hash(), announced.manifest_hash);
                    }
                    // The hash rarely fits; the difference itself is followed in any case.
                    if let Ok(next) = base.apply(&announced.difference) {
                        let back = base.apply(&next.difference_from(&base)).expect("made for it");
                        assert_eq!(back.hash(), next.hash());
                        held = next;
                    }
                }
            }
            b'c' => {
                if let Ok(chunk) = v1::ResourceChunk::decode(message) {
                    let _ = pieces.push(chunk);
                }
            }
            b'n' => drop(v1::FromNode::decode(message)),
            b't' => drop(v1::ToNode::decode(message)),
            _ => return,
        }
    }
});

/// What was announced is announced the same way by our own messages.
fn travels_as_it_is(announced: &Announced) {
    let messages =
        manifest::to_messages(&announced.assignment, announced.mode, announced.base, &announced.difference);
    let mut again = Assembler::default();
    let last = messages.len() - 1;
    for (index, message) in messages.into_iter().enumerate() {
        let whole = again.push(message).expect("our own message");
        if index == last {
            assert_eq!(whole.as_ref(), Some(announced));
        } else {
            assert!(whole.is_none());
        }
    }
}
