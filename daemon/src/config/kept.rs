//! A configuration in force as one process leaves it to the next: read again without a file, a name server or an account.
//!
//! The settings travel as the lines that would give them, together with whatever the machine was asked for their sake: a
//! successor that starts in a chroot, while the file is being edited and no name can be looked up, comes to the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::diagnostic::ConfigError;
use super::machine::{Candidate, Machine, Remembering};
use super::resolve::{Overrides, resolve};
use super::resolved::{Settings, User};
use super::{Loader, file};
use crate::advertise::TakenBack;
use crate::pmtu::KnownPath;
use crate::prl::Known;

/// What messages about such a text call it: nobody should ever see one.
const SHOWN: &str = "the configuration in force";

/// What the machine has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Addresses of host names.
    pub names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Accounts, with user and group.
    pub users: BTreeMap<String, (u32, u32)>,
    /// Groups.
    pub groups: BTreeMap<String, u32>,
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The address that carries the tunnel, or that it began with.
    pub locator: Ipv4Addr,
    /// The settings, as lines.
    pub lines: String,
    /// What was asked for them.
    pub memory: Memory,
    /// This router is being taken out of service.
    #[serde(default)]
    pub drained: bool,
    /// Since when, in milliseconds after the moment that all engines agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<u64>,
    /// What earlier settings advertised, and hosts are still told to forget.
    #[serde(default)]
    pub taken_back: Vec<TakenBack>,
    /// The last good answer for each name of routers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routers: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Routers that were heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<Known>,
    /// What routers on the way said of paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<KnownPath>,
}

impl Kept {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Plain data with text keys: cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are none of these, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("{SHOWN} cannot be read: {error}"))
    }
}

impl<M: Machine> Loader<M> {
    /// What a successor needs to have `settings` in force.
    pub fn keep(&self, settings: &Settings) -> Kept {
        Kept {
            locator: settings.bind.addr(),
            lines: settings.to_string(),
            memory: self.machine.memory(),
            drained: false,
            drained_at: None,
            taken_back: Vec::new(),
            routers: BTreeMap::new(),
            heard: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// Takes over what another process has kept: this loader remembers what that one did.
    ///
    /// # Errors
    /// It contradicts itself.
    pub fn load_kept(&self, kept: &Kept) -> Result<Settings, ConfigError> {
        self.machine.recall(&kept.memory);
        self.machine.seal();
        let parsed = file::parse(&SHOWN.into(), kept.lines.as_bytes()).map_err(ConfigError::new)?;
        let machine = Settled {
            machine: &self.machine,
            locator: kept.locator,
        };
        resolve(parsed, &Overrides::default(), None, &machine)
    }
}

/// A machine that has one address, and knows what it remembers.
struct Settled<'a, M> {
    machine: &'a Remembering<M>,
    locator: Ipv4Addr,
}

impl<M: Machine> Machine for Settled<'_, M> {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        // Lines have addresses where names were looked up; only those that are looked up again and again stay names.
        Err(format!("{name} is not looked up here"))
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        Ok(vec![Candidate {
            addr: self.locator,
            interface: String::new(),
        }])
    }

    fn source_towards(&self, _server: Ipv4Addr) -> Option<Ipv4Addr> {
        Some(self.locator)
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        self.machine.user(name)
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        self.machine.group(name)
    }

    fn usable_cores(&self) -> usize {
        self.machine.usable_cores()
    }
}
