//! The control plane: keeps the configuration, offers REST and the console, and streams to nodes what they run.

pub mod catalog;
pub mod events;
pub mod store;
