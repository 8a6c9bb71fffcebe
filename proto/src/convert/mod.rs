//! Total conversions between the nouns and their messages. To the wire never fails; from the wire checks every field.

mod access;
mod discovery;
mod health;
mod listener;
mod lists;
pub(crate) mod pool;
mod rule;
mod secret;

pub(crate) use secret::{certificate_from_wire, certificate_to_wire, key_from_wire, key_to_wire};

use std::{net::IpAddr, time::Duration};

use awe4lb_model::{Name, placed::Number};
use bytes::Bytes;

use crate::{Noun, Problem, WireError};

/// Where a conversion is: the noun and the pointer so far. Costs nothing until something is wrong.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    noun: Noun,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    pub(crate) fn root(noun: Noun) -> Self {
        Self { noun, parent: None, step: Step::Root }
    }

    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self { noun: self.noun, parent: Some(self), step: Step::Field(name) }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { noun: self.noun, parent: Some(self), step: Step::Index(index) }
    }

    pub(crate) fn refuse(&self, problem: Problem) -> WireError {
        problem.at(self.noun, self.pointer())
    }

    fn pointer(&self) -> String {
        let mut pointer = self.parent.map(At::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                pointer.push('/');
                pointer.push_str(name);
            }
            Step::Index(index) => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
        }
        pointer
    }
}

pub(crate) fn name(text: &str, at: At<'_>) -> Result<Name, WireError> {
    text.parse().map_err(|error| at.refuse(Problem::Name(error)))
}

fn number(value: u64, at: At<'_>) -> Result<Number, WireError> {
    if value == 0 { Err(at.refuse(Problem::Missing)) } else { Ok(Number(value)) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn optional_millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, millis)
}

/// A duration that may not be zero.
fn duration(value: u64, at: At<'_>) -> Result<Duration, WireError> {
    if value == 0 { Err(at.refuse(Problem::Missing)) } else { Ok(Duration::from_millis(value)) }
}

/// A duration whose zero means unlimited.
fn optional_duration(value: u64) -> Option<Duration> {
    (value != 0).then(|| Duration::from_millis(value))
}

fn port(value: u32, at: At<'_>) -> Result<u16, WireError> {
    at_most(value, u32::from(u16::MAX), at).map(|value| value as u16)
}

fn at_most(value: u32, most: u32, at: At<'_>) -> Result<u32, WireError> {
    if value <= most {
        Ok(value)
    } else {
        Err(at.refuse(Problem::OutOfRange { value: value.into(), most: most.into() }))
    }
}

fn positive(value: u32, at: At<'_>) -> Result<u32, WireError> {
    if value == 0 { Err(at.refuse(Problem::Missing)) } else { Ok(value) }
}

fn ip_bytes(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn ip(bytes: &[u8], at: At<'_>) -> Result<IpAddr, WireError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(octets.into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(octets.into())
    } else {
        Err(at.refuse(Problem::Address(bytes.len())))
    }
}
