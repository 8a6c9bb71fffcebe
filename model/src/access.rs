//! Who may connect to a listener, and how much each may use.

use crate::Addresses;

/// Who may connect: the rules in order, the first that names the client decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What becomes of clients that no rule names.
    pub default: Verdict,
    /// In order.
    pub rules: Vec<AccessRule>,
}

/// One entry of an access list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// What becomes of the clients it names.
    pub verdict: Verdict,
    /// Whom it names. Never empty.
    pub addresses: Addresses,
    /// Decides nothing: counts whom it would refuse.
    pub shadow: bool,
    /// Of a denial: connections that are open when it comes into force end, too.
    pub close_existing: bool,
}

/// Allow or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Lets in.
    Allow,
    /// Closes at once.
    Deny,
}

/// How many leading bits of an address make a client, for limits by client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientPrefix {
    /// Of IPv4, 0 to 32. Default 32: each address.
    pub v4: u8,
    /// Of IPv6, 0 to 128. Default 64: what one household or machine has.
    pub v6: u8,
}

impl Default for ClientPrefix {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}
