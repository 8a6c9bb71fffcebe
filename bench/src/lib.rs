//! The benchmark that steers awe4lb, and its load generator.
//!
//! This crate starts the contenders (direct, HAProxy, nginx, ours) and the backends as processes, drives the same
//! load through each of them and compares what the *proxy* spent: nanoseconds of its threads by the scheduler's
//! account, per unit of work, pair by pair within one run. It links none of the planes.
//!
//! The generator itself is plain nonblocking sockets on epoll: it must cost less than what it measures.

pub mod backend;
pub mod bytes;
pub mod certificate;
pub mod contender;
pub mod cost;
pub mod load;
pub mod machine;
pub mod process;
pub mod report;
pub mod run;
pub mod statistics;
pub mod sys;
pub mod syscalls;
pub mod transport;
pub mod work;
