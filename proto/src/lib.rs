//! The wire format between the planes: generated types, total conversions to and from the model, and the hashes that
//! identify manifests and resources.

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
}
