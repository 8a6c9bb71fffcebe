//! Decisions without I/O: where a connection goes, who is alive, whom to pick, which flow a datagram belongs to.
//!
//! Time, randomness and bytes are arguments, so that everything here can be replayed by seed.

pub mod access;
pub mod affinity;
pub mod balance;
pub mod challenge;
pub mod checks;
pub mod client_hello;
pub mod flows;
pub mod health;
pub mod preamble;
pub mod proxy_protocol;
pub mod quic;
pub mod rate;
pub mod renewal;
pub mod route;
