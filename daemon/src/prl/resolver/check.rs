//! Every name of a configuration looked up once, for `--check-config` and `isatapctl check`.

use std::net::Ipv4Addr;

use isatap_engine::isatap::classify;

use super::Resolver;
use crate::config::diagnostic::{Diagnostic, Sourced, quoted};
use crate::config::resolved::Bind;
use crate::config::{ConfigError, Loaded};
use crate::prl::names::LookupError;

const REMEDY: &str = "put the routers' addresses into DNS or /etc/hosts, or write them here";

/// Looks the server names of `loaded` up; returns the whole potential router list.
///
/// # Errors
/// Each name without an address that another host can have.
pub fn check(loaded: &Loaded) -> Result<Vec<Ipv4Addr>, ConfigError> {
    let mut routers = loaded.settings.servers.clone();
    if loaded.names.is_empty() {
        return Ok(routers);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ConfigError::single(format!("names cannot be looked up: {error}")))?;
    let resolver = Resolver::open();
    let lookups = loaded.names.iter().map(|name| resolver.look_up(&name.value));
    let results = runtime.block_on(futures_util::future::join_all(lookups));
    let mut wrong = Vec::new();
    for (name, result) in loaded.names.iter().zip(results) {
        match result
            .map_err(|error| cannot(&name.value, &error))
            .and_then(|answer| usable(&name.value, &answer.addrs, loaded.settings.bind))
        {
            Ok(addrs) => routers.extend(addrs),
            Err(message) => wrong.push(diagnostic(name, message)),
        }
    }
    if !wrong.is_empty() {
        return Err(ConfigError::new(wrong));
    }
    let mut seen = Vec::new();
    routers.retain(|addr| {
        !seen.contains(addr) && {
            seen.push(*addr);
            true
        }
    });
    Ok(routers)
}

fn diagnostic(name: &Sourced<String>, message: String) -> Diagnostic {
    Diagnostic {
        origin: name.origin.clone(),
        message,
    }
}

fn cannot(name: &str, error: &LookupError) -> String {
    match error {
        LookupError::NoAddress => format!("the name {} has no IPv4 address; {REMEDY}", quoted(name)),
        error => format!("the name {} cannot be resolved: {error}; {REMEDY}", quoted(name)),
    }
}

/// The addresses another host can have.
fn usable(name: &str, addrs: &[Ipv4Addr], bind: Bind) -> Result<Vec<Ipv4Addr>, String> {
    let ourselves = |addr: &Ipv4Addr| *addr == bind.addr();
    let usable: Vec<_> = addrs
        .iter()
        .copied()
        .filter(|addr| !classify::invalid_next_hop(*addr) && !ourselves(addr))
        .collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    let shown: Vec<_> = addrs.iter().take(8).map(ToString::to_string).collect();
    let shown = shown.join(", ");
    let name = quoted(name);
    Err(if addrs.iter().any(ourselves) {
        format!(
            "the name {name} leads to our own address alone ({shown}); to be a router, name no ServerAddress and no ROUTER"
        )
    } else {
        format!("the name {name} has no IPv4 address that a host can have ({shown}); {REMEDY}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_do_not_count() {
        let bind = Bind::Fixed(Ipv4Addr::new(10, 0, 0, 5));
        let check = |list: &[&str]| {
            let addrs: Vec<Ipv4Addr> = list.iter().map(|addr| addr.parse().unwrap()).collect();
            usable("x", &addrs, bind)
        };
        assert_eq!(
            check(&["127.0.0.1", "10.0.0.1", "10.0.0.5"]),
            Ok(vec![Ipv4Addr::new(10, 0, 0, 1)])
        );
        assert_eq!(
            check(&["0.0.0.0", "224.0.0.1"]).unwrap_err(),
            format!("the name \"x\" has no IPv4 address that a host can have (0.0.0.0, 224.0.0.1); {REMEDY}")
        );
        assert!(
            check(&["10.0.0.5"])
                .unwrap_err()
                .contains("our own address alone (10.0.0.5)")
        );
    }
}
