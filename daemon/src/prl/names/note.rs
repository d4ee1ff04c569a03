//! What an operator should hear about the names of the PRL, in words.

use std::fmt;
use std::net::Ipv4Addr;

use super::LookupError;
use crate::config::resolved::MAX_SERVERS;

/// Addresses shown of a long list.
const MAX_SHOWN: usize = 8;

/// Addresses of an answer that are not used, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// No host can have them: 0/8, 127/8, multicast, 240/4.
    pub forbidden: usize,
    /// More than the list has room for.
    pub beyond: usize,
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A name leads elsewhere.
    Changed {
        /// Which.
        name: String,
        /// Where to now; empty for nowhere.
        addrs: Vec<Ipv4Addr>,
    },
    /// Not everything that was answered is used; said when it changes.
    Ignored {
        /// For which name.
        name: String,
        /// How many.
        ignored: Ignored,
    },
    /// A lookup failed, and the one before did not, or for another reason.
    Failed {
        /// Of which name.
        name: String,
        /// Why.
        error: LookupError,
        /// Addresses of the last good answer that stay in use.
        kept: usize,
    },
    /// A lookup succeeded, and the one before did not.
    Recovered {
        /// Of which name.
        name: String,
    },
    /// All names together have more addresses than the list has room for.
    Full {
        /// Addresses left out.
        beyond: usize,
    },
}

impl Note {
    /// The name it is about, if it is about one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Changed { name, .. }
            | Self::Ignored { name, .. }
            | Self::Failed { name, .. }
            | Self::Recovered { name } => Some(name),
            Self::Full { .. } => None,
        }
    }

    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Changed { .. } | Self::Recovered { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { name, addrs } if addrs.is_empty() => {
                write!(f, "{name} leads to no router any more")
            }
            Self::Changed { name, addrs } => {
                let shown: Vec<_> = addrs.iter().take(MAX_SHOWN).map(ToString::to_string).collect();
                write!(f, "{name} leads to {}", shown.join(", "))?;
                match addrs.len().saturating_sub(MAX_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Ignored { name, ignored } => {
                write!(f, "of the addresses of {name}, ")?;
                match (ignored.forbidden, ignored.beyond) {
                    (forbidden, 0) => write!(f, "{forbidden} cannot be a router's and are ignored"),
                    (0, beyond) => write!(f, "{beyond} are ignored: {MAX_SERVERS} are the most"),
                    (forbidden, beyond) => write!(
                        f,
                        "{forbidden} cannot be a router's and {beyond} more are ignored: {MAX_SERVERS} are the most"
                    ),
                }
            }
            Self::Failed { name, error, kept: 0 } => {
                write!(f, "{name} cannot be looked up: {error}; trying again")
            }
            Self::Failed { name, error, kept } => write!(
                f,
                "{name} cannot be looked up: {error}; its last {kept} router(s) stay in use, trying again"
            ),
            Self::Recovered { name } => write!(f, "{name} can be looked up again"),
            Self::Full { beyond } => write!(
                f,
                "the potential router list is full with {MAX_SERVERS} addresses; {beyond} more are ignored"
            ),
        }
    }
}
