//! Servers that cannot be installed here, as faithful as what asks them needs. Each is checked with the real client of what it
//! stands for, and the tests that use it run against the real thing, too, where there is one (docs/testing.md).

pub mod consul;
pub mod front;
pub mod kubernetes;
