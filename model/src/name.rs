//! Names of objects: `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`, as in DNS labels.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a listener, rule, pool, backend, certificate or node. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between the quotes.
    #[error("a name is empty")]
    Empty,
    /// More than 63 characters.
    #[error("a name has at most 63 characters, this has {0}")]
    TooLong(usize),
    /// A character that is not allowed at its place.
    #[error("a name has lower-case letters, digits and inner hyphens, not {0:?}")]
    BadCharacter(char),
}

impl Name {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let length = text.chars().count();
        if length > Self::MAX_LEN {
            return Err(NameError::TooLong(length));
        }
        for (at, c) in text.chars().enumerate() {
            let inner = at > 0 && at + 1 < length;
            if !(c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && inner)) {
                return Err(NameError::BadCharacter(c));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
