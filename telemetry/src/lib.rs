//! What both planes say of themselves in the same words: the Prometheus text format, and what the kernel knows of the
//! process.

pub mod exposition;
pub mod process;

pub use exposition::{Exposition, Kind};
