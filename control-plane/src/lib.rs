//! The control plane: keeps the configuration, offers REST and the console, and streams to nodes what they run.

pub mod acme;
pub mod app;
pub mod auth;
pub mod catalog;
pub mod console;
pub mod discovery;
pub mod events;
pub mod fleet;
pub mod folders;
pub mod import;
pub mod internal_ca;
pub mod ocsp;
pub mod options;
pub mod rest;
pub mod run;
pub mod stats;
pub mod store;
pub mod webhooks;
