//! The wire format between the planes: generated types, total conversions to and from the model, and the hashes that
//! identify manifests and resources.
//!
//! Nothing here decides anything. Whatever comes from the wire is checked here and nowhere else: behind these
//! conversions stand only valid nouns.

mod built;
mod chunks;
mod convert;
mod error;
mod hash;
pub mod manifest;
pub mod resources;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tests;

pub use built::built_hash;
pub use chunks::{Chunks, Collector, MAX_MESSAGE_DATA};
pub use error::{Noun, Problem, WireError};
pub use hash::Hash;

/// The version of the protocol that [`v1`] is, as `Hello.protocol` says it.
pub const PROTOCOL: u32 = 1;

/// The name in the control plane's certificate: fixed, so that a move to another host changes nothing.
pub const SERVER_NAME: &str = "control-plane.awe4lb.internal";

/// What this version can do beyond protocol 1's base, as `Hello.capabilities` and `Resource.requires` say it.
pub const CAPABILITIES: &[&str] =
    &["tcp", "udp", "tls", "lists", "maps", "discovery", "labels", CHALLENGES, STAPLING];

/// The capability of nodes that answer the challenges of certificate authorities.
pub const CHALLENGES: &str = "challenges";

/// The capability of nodes that send the answers of OCSP responders along with certificates.
pub const STAPLING: &str = "stapling";

/// Generated from `awe4lb/v1/node.proto`.
#[allow(
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::unwrap_used,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("awe4lb.v1");

    // Written by hand, so that a key never gets into a log.
    impl std::fmt::Debug for Key {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Key").field("certificate", &self.certificate).finish_non_exhaustive()
        }
    }

    // As with the key.
    impl std::fmt::Debug for TlsAlpn01 {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("TlsAlpn01").field("host", &self.host).finish_non_exhaustive()
        }
    }

    // As with the key: a join token is a secret.
    impl std::fmt::Debug for EnrolRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
        }
    }
}

/// A backend of an overlay.
pub fn backend_from_wire(
    wire: v1::Backend,
) -> Result<(awe4lb_model::placed::Number, awe4lb_model::Backend), WireError> {
    convert::pool::backend_from_wire(wire, convert::At::root(Noun::Pool))
}

/// A backend of an overlay.
pub fn backend_to_wire(backend: &awe4lb_model::Backend, number: awe4lb_model::placed::Number) -> v1::Backend {
    convert::pool::backend_to_wire(backend, number)
}
