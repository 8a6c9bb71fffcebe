//! The roles.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Tells one source of backends what it has, and nothing else. For tokens alone.
    Pusher,
    /// Reads.
    Viewer,
    /// Also changes the configuration and admin states.
    Operator,
    /// Also users, tokens, nodes and join tokens.
    Admin,
}

impl Role {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        [Self::Pusher, Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| anyhow::anyhow!("{word:?} is no role: viewer, operator or admin"))
    }
}
