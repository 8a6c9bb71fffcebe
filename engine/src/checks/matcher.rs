//! A [`Pattern`] that is ready to be looked for.

use awe4lb_model::{Pattern, pattern_regex};
use regex::bytes::Regex;

use super::Refusal;

pub(super) enum Matcher {
    Bytes(Vec<u8>),
    Regex(Regex),
}

impl Matcher {
    pub(super) fn new(pattern: &Pattern) -> Result<Self, Refusal> {
        match pattern {
            Pattern::Bytes(bytes) => Ok(Self::Bytes(bytes.clone())),
            Pattern::Regex(regex) => {
                let compiled = pattern_regex(regex);
                compiled.map(Self::Regex).map_err(|_| "the expression does not compile".to_owned())
            }
        }
    }

    /// Whether it is in all of this.
    pub(super) fn is_in(&self, whole: &[u8]) -> bool {
        match self {
            Self::Bytes(needle) => find(whole, needle, 0).is_some(),
            Self::Regex(regex) => regex.is_match(whole),
        }
    }
}

/// Where the first `needle` ends, when none ends at `searched` or before. Nothing at all is found in nothing.
pub(super) fn find(haystack: &[u8], needle: &[u8], searched: usize) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    let from = (searched + 1).saturating_sub(needle.len()).min(haystack.len());
    let at = haystack[from..].windows(needle.len()).position(|window| window == needle)?;
    Some(from + at + needle.len())
}
