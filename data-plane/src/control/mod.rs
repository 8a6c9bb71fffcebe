//! The control half of a node, on one thread: flags, enrolment and the stream, the cache on disk, `--snapshot-file`,
//! probes and resolvers, counters' reports, `/metrics`, the local socket, drain on SIGTERM.
//!
//! It sees the hot half only through [`hot`], and never stands in the way of traffic: whatever fails here, what runs
//! keeps running.

pub mod assembly;
pub mod backoff;
pub mod cache;
pub mod connect;
pub mod enrol;
pub mod file_source;
pub mod hot;
pub mod identity;
pub mod live;
pub mod logging;
pub mod options;
pub mod report;
pub mod state_dir;
pub mod token;
