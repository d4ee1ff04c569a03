//! What autoconfiguration has made of a host's tunnel interface, as the kernel shows it.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::daemon::TUNNEL;
use crate::netns::Netns;
use crate::wait;

/// An address of the interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address.
    pub addr: Ipv6Addr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// Whether new connections should begin from another one.
    pub deprecated: bool,
    /// Who made it, in the kernel's words; nothing for an operator, or when `ip` is too old to tell.
    pub protocol: String,
    /// Seconds left; nothing for ever.
    pub valid: Option<u32>,
    /// Seconds left; nothing for ever.
    pub preferred: Option<u32>,
}

/// A route out of the interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// `default` or a prefix.
    pub prefix: String,
    /// The router.
    pub via: Option<Ipv6Addr>,
    /// Who made it, in the kernel's words.
    pub protocol: String,
    /// The kernel's metric.
    pub metric: u32,
    /// `low`, `medium`, `high`.
    pub preference: String,
    /// Seconds left; nothing for ever.
    pub expires: Option<u32>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// Addresses but link-local ones.
    pub addresses: BTreeSet<Address>,
    /// Routes of the main table but the link-local one.
    pub routes: BTreeSet<Route>,
    /// Of the interface, in bytes.
    pub mtu: u32,
    /// Of packets out of the interface.
    pub hop_limit: u32,
}

impl Configured {
    /// Reads it in `ns`.
    ///
    /// # Panics
    /// When there is no tunnel interface, or the kernel shows it in another form.
    #[track_caller]
    pub fn read(ns: &Netns) -> Self {
        let addresses = ns.ip(&format!("-6 -o addr show dev {TUNNEL}"));
        // Not `dev is0`: ip then leaves out routes with several next hops.
        let routes = ns.ip("-6 -o route show");
        let link = ns.ip(&format!("-o link show dev {TUNNEL}"));
        let hop_limit = ns.read_sysctl(&format!("ipv6/conf/{TUNNEL}/hop_limit"));
        Self {
            addresses: addresses.lines().filter_map(Address::read).collect(),
            routes: routes.lines().flat_map(Route::read).collect(),
            mtu: number(after(&words(&link), "mtu")).unwrap_or_default(),
            hop_limit: hop_limit.parse().expect("a number"),
        }
    }

    /// The same without lifetimes: what can be compared with another reading.
    #[must_use]
    pub fn timeless(mut self) -> Self {
        let addresses = std::mem::take(&mut self.addresses).into_iter();
        self.addresses = addresses
            .map(|address| Address {
                valid: None,
                preferred: None,
                ..address
            })
            .collect();
        let routes = std::mem::take(&mut self.routes).into_iter();
        self.routes = routes
            .map(|route| Route {
                expires: None,
                ..route
            })
            .collect();
        self
    }

    /// The address that is this one.
    pub fn address(&self, addr: Ipv6Addr) -> Option<&Address> {
        self.addresses.iter().find(|address| address.addr == addr)
    }

    /// Routes to this prefix, `default` among them.
    pub fn to(&self, prefix: &str) -> Vec<&Route> {
        self.routes
            .iter()
            .filter(|route| route.prefix == prefix)
            .collect()
    }

    /// The next hops of the default routes.
    pub fn default_routers(&self) -> BTreeSet<Ipv6Addr> {
        self.to("default").iter().filter_map(|route| route.via).collect()
    }

    /// Waits until it is as `is_so` wants it, and returns it.
    ///
    /// # Panics
    /// When that does not happen in time.
    #[track_caller]
    pub fn wait(ns: &Netns, what: &str, timeout: Duration, is_so: impl Fn(&Self) -> bool) -> Self {
        wait::until(what, timeout, || {
            let seen = Self::read(ns);
            if is_so(&seen) {
                Ok(seen)
            } else {
                Err(format!("{seen:#?}"))
            }
        })
    }
}

impl Address {
    fn read(line: &str) -> Option<Self> {
        let words = words(line);
        let (addr, len) = after(&words, "inet6")?.split_once('/')?;
        let addr: Ipv6Addr = addr.parse().ok()?;
        (!addr.is_unicast_link_local()).then(|| Self {
            addr,
            prefix_len: len.parse().expect("a length"),
            deprecated: words.contains(&"deprecated"),
            protocol: after(&words, "proto").unwrap_or_default().to_owned(),
            valid: number(after(&words, "valid_lft")),
            preferred: number(after(&words, "preferred_lft")),
        })
    }
}

impl Route {
    /// One for each next hop.
    fn read(line: &str) -> Vec<Self> {
        let words = words(line);
        let is_ours = after(&words, "dev") == Some(TUNNEL);
        let Some(prefix) = words.first().filter(|word| is_ours && !word.starts_with("fe80:")) else {
            return Vec::new();
        };
        let gateways = words.windows(2).filter(|pair| pair[0] == "via");
        let mut gateways: Vec<Option<Ipv6Addr>> = gateways.map(|pair| pair[1].parse().ok()).collect();
        if gateways.is_empty() {
            gateways.push(None);
        }
        let route = |via| Self {
            prefix: (*prefix).to_owned(),
            via,
            protocol: after(&words, "proto").unwrap_or_default().to_owned(),
            metric: number(after(&words, "metric")).unwrap_or_default(),
            preference: after(&words, "pref").unwrap_or_default().to_owned(),
            expires: number(after(&words, "expires")),
        };
        gateways.into_iter().map(route).collect()
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split([' ', '\\', '\t'])
        .filter(|word| !word.is_empty())
        .collect()
}

fn after<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1])
}

/// `forever` is none.
fn number(word: Option<&str>) -> Option<u32> {
    word?.trim_end_matches("sec").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ip_are_read() {
        let line = "2: is0    inet6 2001:db8:1::5efe:a00:a/128 scope global deprecated dynamic noprefixroute \
                    proto kernel_ra \\       valid_lft 7sec preferred_lft 0sec";
        let address = Address::read(line).expect("an address");
        assert_eq!((address.prefix_len, address.deprecated), (128, true));
        assert_eq!((address.valid, address.preferred), (Some(7), Some(0)));
        assert_eq!(address.protocol, "kernel_ra");
        let line = "default proto ra metric 1024 expires 9sec pref medium\\\tnexthop via fe80::1 dev is0 weight 1 \
                    \\\tnexthop via fe80::2 dev is0 weight 1 ";
        let routes = Route::read(line);
        assert_eq!(routes.len(), 2);
        assert_eq!((routes[1].metric, routes[1].expires), (1024, Some(9)));
        assert_eq!(routes[1].via, Some("fe80::2".parse().expect("an address")));
    }
}
