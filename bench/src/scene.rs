//! A router's Rulebook with a chosen number of PRL entries, routes and site prefixes, and the hosts it carries for.
//!
//! ```text
//!  host k        locator 10.0.0.0 + 4 (k + 1) + 2, address 2001:db8:1::5efe:<locator>      on-link
//!  gateway k     locator 10.0.0.0 + 4 (k + 1) + 1
//!  network k     3fff:xxxx:xxxx::/48 (RFC 9637) via gateway k                               routed
//!  site prefix k 10.0.0.0 + 4 (k + 1), /30: it holds host k and gateway k
//!  router k      172.16.0.0 + k + 1                                                         PRL
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{
    BuildError, Ipv4Prefix, Ipv6Prefix, Locator, NextHop, PrefixError, Role, Rulebook, RulebookBuilder,
};
use isatap_engine::isatap::iid;

/// Our locator.
pub const LOCATOR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The tunnel MTU of DESIGN 3.
pub const MTU: u16 = 1480;
/// The on-link prefix of the ISATAP interface, a /64.
pub const ON_LINK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
/// A node beyond the router: the other end of every connection.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 2);
/// Numbers of hosts, networks and site prefixes go up to here: their /30s fill 10/8.
pub const MAX_COUNT: u32 = 1 << 21;

/// How much is known.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Routers in the PRL.
    pub prl: u32,
    /// Routed networks, besides the on-link prefix.
    pub networks: u32,
    /// Site prefixes of one host each; 0 stands for one prefix that holds all of them.
    pub site: u32,
}

impl Size {
    /// One of each.
    pub const ONE: Self = Self {
        prl: 1,
        networks: 1,
        site: 0,
    };
    /// DESIGN P8.
    pub const LARGE: Self = Self {
        prl: 10_000,
        networks: 1_000_000,
        site: 0,
    };
}

/// The locator of host `k`.
pub fn host_v4(k: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + 4 * (k % MAX_COUNT + 1) + 2)
}

/// The locator of gateway `k`.
pub fn gateway_v4(k: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(host_v4(k).to_bits() - 1)
}

/// The on-link address of host `k`.
pub fn host_v6(k: u32) -> Ipv6Addr {
    iid::address(&ON_LINK, host_v4(k))
}

/// An address in network `k`.
pub fn network_v6(k: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(network_bits(k) | u128::from(k) << 16 | 5)
}

/// The locator of router `k`.
pub fn router_v4(k: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0xac10_0000 + k + 1)
}

fn network_bits(k: u32) -> u128 {
    0x3fff << 112 | u128::from(k) << 80
}

/// The router's Rulebook before it is built.
///
/// # Errors
/// [`PrefixError`] if the picture above were wrong.
pub fn builder(size: Size) -> Result<RulebookBuilder, PrefixError> {
    let mut routes = vec![(Ipv6Prefix::containing(ON_LINK, 64)?, NextHop::OnLink)];
    for k in 0..size.networks {
        let prefix = Ipv6Prefix::containing(Ipv6Addr::from_bits(network_bits(k)), 48)?;
        routes.push((prefix, NextHop::Via(gateway_v4(k))));
    }
    let site = match size.site {
        0 => vec![Ipv4Prefix::containing(Ipv4Addr::new(10, 0, 0, 0), 8)?],
        count => (0..count)
            .map(|k| Ipv4Prefix::containing(host_v4(k), 30))
            .collect::<Result<_, _>>()?,
    };
    Ok(RulebookBuilder {
        role: Role::Router,
        locators: vec![Locator {
            addr: LOCATOR,
            if_index: 0,
        }],
        own6: vec![iid::link_local(LOCATOR), iid::address(&ON_LINK, LOCATOR)],
        prl: (0..size.prl).map(router_v4).collect(),
        routes,
        site,
        broadcasts: vec![Ipv4Addr::new(10, 255, 255, 255)],
        mtu: MTU,
        ..RulebookBuilder::default()
    })
}

/// The router's Rulebook.
///
/// # Errors
/// [`BuildError`] if the picture above were wrong.
pub fn rulebook(size: Size) -> Result<Rulebook, Box<dyn std::error::Error>> {
    Ok(builder(size)?
        .build()
        .map_err(|error: BuildError| error.to_string())?)
}

/// Numbers below `count` in an order no prefetcher follows: all of them before any comes again when `count` is a
/// power of two, and nearly so otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Shuffled {
    state: u32,
    count: u32,
}

impl Shuffled {
    /// Numbers below `count`, which is at least 1.
    pub const fn new(count: u32) -> Self {
        Self { state: 1, count }
    }
}

impl Iterator for Shuffled {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        // Numerical Recipes' generator; its high bits are scaled to the range.
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u32::try_from((u64::from(self.state) * u64::from(self.count)) >> 32).ok()
    }
}
