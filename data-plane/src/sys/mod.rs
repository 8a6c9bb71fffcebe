//! System calls that no safe crate offers, each behind a safe face.

pub(crate) mod mmsg;
pub(crate) mod options;
pub(crate) mod scheduler;
