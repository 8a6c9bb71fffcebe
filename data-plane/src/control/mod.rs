//! The control half of a node, on one thread: flags, enrolment and the stream, the cache on disk, `--snapshot-file`,
//! probes and resolvers, counters' reports, `/metrics`, the local socket, drain on SIGTERM.
//!
//! It sees the hot half only through [`hot`], and never stands in the way of traffic: whatever fails here, what runs
//! keeps running.

pub mod access_log;
pub mod admin;
pub mod apply;
pub mod assembly;
pub mod backoff;
pub mod boot;
pub mod cache;
pub mod capacity;
pub mod challenges;
pub mod command;
pub mod connect;
pub mod discovery;
pub mod enrol;
pub mod file_source;
pub mod fleet_source;
pub mod gauges;
pub mod hot;
pub mod identity;
pub mod live;
pub mod logging;
pub mod node;
pub mod options;
pub mod overlay;
pub mod probes;
pub mod report;
pub mod resolve;
pub mod run;
pub mod session;
pub mod state_dir;
pub mod status;
pub mod token;
pub mod uplink;

pub use command::main;
