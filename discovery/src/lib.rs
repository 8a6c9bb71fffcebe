//! Discovery: sources of backends are asked, again and again, and what they say is kept.
//!
//! Three steps, each in its own module: a source gives an [`answer::Answer`] or fails ([`ask`]), a [`keeper::Keeper`]
//! decides what of it counts (no I/O, no clock), and [`follow()`] does this for ever and tells who watches.
//! Nodes ask names only; everything else is behind the feature `control-plane`.

pub mod answer;
#[cfg(feature = "control-plane")]
mod api;
pub mod ask;
#[cfg(feature = "control-plane")]
mod consul;
mod dns;
#[cfg(feature = "control-plane")]
mod docker;
#[cfg(feature = "control-plane")]
pub mod exec;
#[cfg(feature = "control-plane")]
mod file;
pub mod follow;
#[cfg(feature = "control-plane")]
pub mod format;
#[cfg(feature = "control-plane")]
mod http;
pub mod keeper;
#[cfg(feature = "control-plane")]
mod kubernetes;
#[cfg(feature = "control-plane")]
mod lxd;
pub mod members;
#[cfg(feature = "control-plane")]
pub mod outgoing;
#[cfg(feature = "control-plane")]
mod patroni;
#[cfg(feature = "control-plane")]
mod resp;
#[cfg(feature = "control-plane")]
mod sentinel;
#[cfg(feature = "control-plane")]
mod swarm;
#[cfg(feature = "control-plane")]
pub mod web;

pub use answer::{Answer, Endpoint, Failure};
pub use ask::{Allowed, Asker};
pub use dns::name_server;
pub use follow::{Report, follow};
pub use members::{discovered_number, is_discovered, members};
