//! A node of awe4lb: sockets and workers (`traffic`) run what the control half (`control`) was told.

pub mod control;
#[allow(unsafe_code, reason = "system calls that no safe crate offers; each with its SAFETY note")]
mod sys;
pub mod traffic;
