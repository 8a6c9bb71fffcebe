//! Why something from the wire is refused: which noun, which field, what is wrong with it.

use std::fmt;

use awe4lb_model::NameError;

/// The message that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// `v1.Listener`.
    Listener,
    /// `v1.Pool`.
    Pool,
    /// `v1.Certificate`.
    Certificate,
    /// `v1.Key`.
    Key,
    /// `v1.AddressList`.
    AddressList,
    /// `v1.NameMap`.
    Map,
    /// `v1.Resource` itself: its envelope.
    Resource,
    /// `v1.Manifest`.
    Manifest,
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "listener",
            Self::Pool => "pool",
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::AddressList => "address list",
            Self::Map => "map",
            Self::Resource => "resource",
            Self::Manifest => "manifest",
        })
    }
}

/// A field of a noun that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{noun} {path:?}: {problem}")]
pub struct WireError {
    /// What was being read.
    pub noun: Noun,
    /// A JSON pointer inside the message, in the field names of the `.proto`; empty: the whole.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a field. [`Problem::code`] is stable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A field that must be there is not, or is empty or zero.
    #[error("missing")]
    Missing,
    /// A name that is none.
    #[error("{0}")]
    Name(#[from] NameError),
    /// An address that has neither 4 nor 16 bytes.
    #[error("an address of {0} bytes")]
    Address(usize),
    /// A number beyond what the field may hold.
    #[error("{value} is out of range (at most {most})")]
    OutOfRange {
        /// What came.
        value: u64,
        /// The greatest that is allowed.
        most: u64,
    },
    /// An enumeration has a value that this version does not know.
    #[error("unknown value {0}")]
    UnknownValue(i32),
    /// The message has fields that this version does not know.
    #[error("fields that this version does not know")]
    UnknownField,
    /// The resource needs a capability that this version does not have.
    #[error("needs {0:?}, which this version does not know")]
    UnknownRequirement(String),
    /// Not protobuf, not zstd, or cut short.
    #[error("{0}")]
    Malformed(String),
    /// More bytes than the limit.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The hash of what came is not the one that was asked for.
    #[error("the content does not have the hash it was sent under")]
    HashMismatch,
    /// A name that is there already, or out of order.
    #[error("{0:?} is there twice")]
    Duplicate(String),
    /// A reference to something that did not come along.
    #[error("refers to {0:?}, which is not there")]
    Dangling(String),
    /// Parts of a message that do not fit together.
    #[error("part {part} of {parts} does not follow")]
    Parts {
        /// Which came.
        part: u32,
        /// Of how many.
        parts: u32,
    },
}

impl Problem {
    /// The stable word for results and problem reports.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing-field",
            Self::Name(_) => "bad-name",
            Self::Address(_) => "bad-address",
            Self::OutOfRange { .. } => "out-of-range",
            Self::UnknownValue(_) => "unknown-value",
            Self::UnknownField => "unknown-field",
            Self::UnknownRequirement(_) => "unknown-requirement",
            Self::Malformed(_) => "malformed",
            Self::TooLarge(_) => "too-large",
            Self::HashMismatch => "hash-mismatch",
            Self::Duplicate(_) => "duplicate",
            Self::Dangling(_) => "dangling",
            Self::Parts { .. } => "parts",
        }
    }

    pub(crate) fn at(self, noun: Noun, path: impl Into<String>) -> WireError {
        WireError { noun, path: path.into(), problem: self }
    }
}
