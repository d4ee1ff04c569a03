//! This router's own part in the prefixes it advertises: an address in those that are on-link, and a route for each, so
//! that packets for their hosts go into the tunnel whoever sends them (RFC 6964 3.5: the router owns the prefix).
//!
//! Both kinds are routed to the interface without a gateway, which makes them on-link for the packet path: packets from
//! their hosts pass the source check (RFC 5214 7.3), packets to them go to the embedded address. Without the on-link flag
//! the hosts do not know; what they send each other comes through here.

use std::net::Ipv4Addr;

use isatap_engine::isatap::iid;

use crate::config::resolved::Advertise;
use crate::slaac::{Lifetime, ON_LINK_METRIC, Origin, Wanted, WantedAddress, WantedRoute};

/// What the kernel should have for `says` and these addresses of the tunnel.
pub fn wanted(says: &Advertise, locators: &[Ipv4Addr]) -> Wanted {
    let mut wanted = Wanted::default();
    if !says.on {
        return wanted;
    }
    for line in &says.prefixes {
        if !wanted.routes.iter().any(|route| route.prefix == line.prefix) {
            wanted.routes.push(WantedRoute {
                prefix: line.prefix,
                via: None,
                metric: ON_LINK_METRIC,
                preference: 0,
                lifetime: Lifetime::Forever,
                origin: Origin::Own,
            });
        }
        for locator in locators.iter().filter(|_| line.on_link) {
            let addr = iid::address(&line.prefix.addr(), *locator);
            if !wanted.addresses.iter().any(|known| known.addr == addr) {
                wanted.addresses.push(WantedAddress {
                    addr,
                    prefix_len: 128,
                    valid: Lifetime::Forever,
                    preferred: Lifetime::Forever,
                    origin: Origin::Own,
                });
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::advertise::AdvertisedPrefix;

    /// T11: each prefix is routed once; an address for each locator in those that are on-link for anybody.
    #[test]
    fn each_prefix_has_a_route_and_on_link_ones_addresses() {
        let line = |prefix: &str, on_link, hosts: Option<&str>| AdvertisedPrefix {
            prefix: prefix.parse().unwrap(),
            on_link,
            valid: 7200,
            preferred: 3600,
            hosts: hosts.map(|hosts| hosts.parse().unwrap()),
        };
        let says = Advertise {
            on: true,
            prefixes: vec![
                line("2001:db8:1::/64", false, Some("10.0.0.0/8")),
                line("2001:db8:1::/64", true, Some("10.0.0.0/28")),
                line("2001:db8:2::/64", false, None),
            ],
            ..Advertise::default()
        };
        let locators = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8)];
        let has = wanted(&says, &locators);
        let addresses: Vec<_> = has
            .addresses
            .iter()
            .map(|address| address.addr.to_string())
            .collect();
        assert_eq!(
            addresses,
            ["2001:db8:1::5efe:a00:1", "2001:db8:1:0:200:5efe:808:808"]
        );
        let routes: Vec<_> = has.routes.iter().map(|route| route.prefix.to_string()).collect();
        assert_eq!(routes, ["2001:db8:1::/64", "2001:db8:2::/64"]);
        let off = Advertise { on: false, ..says };
        assert_eq!(wanted(&off, &locators), Wanted::default());
    }
}
