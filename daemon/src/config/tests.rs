//! The configuration as operators meet it: whole files in, settings or message texts out. FAULTS 45, 62, 63, 73, 74.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;

use proptest::prelude::*;

use super::file::{self, FileConfig};
use super::machine::{Candidate, Machine, Remembering};
use super::names::{Key, Reload};
use super::reload::{Plan, plan};
use super::resolve::{Overrides, resolve};
use super::resolved::{
    Bind, DscpPolicy, EcnMode, Lane, Layer, PathMtuMode, Role, Settings, SiteNetworks, TtlPolicy, User,
};
use super::values::Host;
use super::{ConfigError, Loader, source};
use crate::exit::ExitStatus;

mod accepted;
mod kept;
mod refused;
mod reloaded;
mod resolved;

/// A machine made of tables.
#[derive(Clone, Debug)]
struct Fake {
    names: HashMap<&'static str, Vec<Ipv4Addr>>,
    addresses: Vec<(&'static str, &'static str)>,
    source: Option<Ipv4Addr>,
}

impl Default for Fake {
    fn default() -> Self {
        let names = [
            ("isatap.example", vec!["192.0.2.1", "192.0.2.2"]),
            ("ourselves.example", vec!["198.51.100.1", "10.0.0.1"]),
            ("elsewhere.example", vec!["198.51.100.1", "198.51.100.2"]),
            ("bad.example", vec!["0.0.0.0", "127.0.0.1", "224.0.0.1"]),
            ("mixed.example", vec!["127.0.0.1", "192.0.2.3", "255.255.255.255"]),
            ("empty.example", vec![]),
        ];
        let names = names
            .into_iter()
            .map(|(name, list)| (name, list.into_iter().map(v4).collect()))
            .collect();
        Self {
            names,
            addresses: vec![("10.0.0.1", "eth0")],
            source: None,
        }
    }
}

impl Machine for Fake {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        self.names
            .get(name)
            .cloned()
            .ok_or_else(|| "Name or service not known".to_owned())
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        let candidate = |(addr, interface): &(&str, &str)| Candidate {
            addr: v4(addr),
            interface: (*interface).into(),
        };
        Ok(self.addresses.iter().map(candidate).collect())
    }

    fn source_towards(&self, _server: Ipv4Addr) -> Option<Ipv4Addr> {
        self.source
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        let ids = match name {
            "root" | "toor" => (0, 0),
            "wheel" => (5, 0),
            "nobody" => (65534, 65534),
            "isatap" => (990, 990),
            "broken" => return Err("Permission denied".into()),
            _ => return Ok(None),
        };
        Ok(Some(User {
            name: name.into(),
            uid: ids.0,
            gid: ids.1,
        }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "netops").then_some(44))
    }

    fn usable_cores(&self) -> usize {
        3
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn parse(text: &str) -> Result<FileConfig, Vec<String>> {
    file::parse(&"f".into(), text.as_bytes()).map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
}

fn load_with(text: &str, overrides: &Overrides, machine: &Fake) -> Result<Settings, ConfigError> {
    resolve(parse(text).unwrap(), overrides, Some("/etc/f".into()), machine)
}

fn load(text: &str) -> Settings {
    load_with(text, &Overrides::default(), &Fake::default()).unwrap()
}

/// The error texts of a file, whether they come from reading or from resolving.
fn refusal(text: &str) -> Vec<String> {
    match parse(text) {
        Err(wrong) => wrong,
        Ok(_) => {
            let error = load_with(text, &Overrides::default(), &Fake::default()).unwrap_err();
            error.diagnostics().iter().map(ToString::to_string).collect()
        }
    }
}
