//! A router advertisement as plain values: what of it makes sense, and how many options did not (RFC 4861 4.2).
//!
//! The message as a whole has been validated when this succeeds (V1, V11). An option that breaks a rule is left out
//! without harm to the others (V2, V5, V10).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use isatap_engine::fib::Ipv6Prefix;
use isatap_engine::isatap::classify::{self, InnerDest, InnerSource};
use isatap_engine::isatap::iid;
use isatap_engine::wire::ext;
use isatap_engine::wire::nd::{self, NdOption, Preference, PrefixInfo, RouteInfo};

use super::dnssl;

/// Options of one kind looked at in one advertisement; those beyond are counted in [`Ignored::excess`] (FAULTS 49).
pub const MAX_OPTIONS_OF_A_KIND: usize = 32;

/// The least MTU of a link that carries IPv6 (RFC 8200 5).
const MIN_MTU: u32 = 1280;

/// A prefix of the link (RFC 4861 4.6.2). Lifetimes in seconds as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertPrefix {
    /// Without bits behind its length.
    pub prefix: Ipv6Prefix,
    /// Nodes with addresses in it are neighbours.
    pub on_link: bool,
    /// An address may be formed: the flag is set, and it is a /64 (V5).
    pub autonomous: bool,
    /// Seconds; all ones is for ever.
    pub valid: u32,
    /// Seconds, not more than `valid`.
    pub preferred: u32,
}

/// A route through the sender (RFC 4191 2.3). Lifetime in seconds as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertRoute {
    /// Where it leads to; of length 0 it replaces what the header says of the default route (RFC 4191 3.1).
    pub prefix: Ipv6Prefix,
    /// -1, 0 or 1.
    pub preference: i8,
    /// Seconds; 0 withdraws.
    pub lifetime: u32,
}

/// Options, and values inside of options, that were left out, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Of an unknown type, or without the shape their type has.
    pub unknown: u32,
    /// Link-layer addresses, which this link has not (N3).
    pub link_layer: u32,
    /// Prefixes that cannot be on this link, or preferred for longer than valid (V5).
    pub prefix: u32,
    /// Routes to where no unicast packet goes.
    pub route: u32,
    /// An MTU below 1280 or beyond any packet (V4).
    pub mtu: u32,
    /// Name servers that are no unicast address.
    pub server: u32,
    /// Names that are none (V10).
    pub name: u32,
    /// More than [`MAX_OPTIONS_OF_A_KIND`].
    pub excess: u32,
}

impl Ignored {
    /// Each cause with its name on metrics.
    pub const fn by_cause(&self) -> [(&'static str, u32); 8] {
        [
            ("unknown", self.unknown),
            ("link_layer", self.link_layer),
            ("prefix", self.prefix),
            ("route", self.route),
            ("mtu", self.mtu),
            ("server", self.server),
            ("name", self.name),
            ("excess", self.excess),
        ]
    }
}

/// A router advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The router: the IPv4 address in `source`.
    pub from: Ipv4Addr,
    /// The link-local address it speaks from, as it writes it: the next hop of its routes.
    pub source: Ipv6Addr,
    /// Hop limit for packets of this host; 0 says nothing.
    pub hop_limit: u8,
    /// As a default router: -1, 0 or 1.
    pub preference: i8,
    /// As a default router; zero withdraws.
    pub router_lifetime: Duration,
    /// How long a neighbour stays reachable.
    pub reachable: Option<Duration>,
    /// Between solicitations of a neighbour.
    pub retrans: Option<Duration>,
    /// Prefixes of the link.
    pub prefixes: Vec<AdvertPrefix>,
    /// Routes through the sender.
    pub routes: Vec<AdvertRoute>,
    /// The link's MTU in bytes, at least 1280; the last one said.
    pub mtu: Option<u16>,
    /// Name servers with their lifetimes in seconds; 0 withdraws.
    pub dns: Vec<(Ipv6Addr, u32)>,
    /// Search domains with their lifetimes in seconds; 0 withdraws.
    pub search: Vec<(String, u32)>,
    /// What was left out.
    pub ignored: Ignored,
}

impl Advert {
    /// Reads an inner packet. `None` when it is no valid router advertisement from a link-local ISATAP address.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let upper = ext::walk(packet).ok()?;
        let message = nd::parse(packet, &upper)?.ok()?;
        let fixed = message.router_advertisement()?;
        let source = message.src();
        if !iid::is_link_local_64(&source) {
            return None;
        }
        let millis = |value: u32| (value != 0).then(|| Duration::from_millis(u64::from(value)));
        let mut advert = Self {
            from: iid::embedded(&source)?,
            source,
            hop_limit: fixed.cur_hop_limit,
            preference: preference(fixed.preference),
            router_lifetime: Duration::from_secs(u64::from(fixed.router_lifetime)),
            reachable: millis(fixed.reachable_time),
            retrans: millis(fixed.retrans_timer),
            prefixes: Vec::new(),
            routes: Vec::new(),
            mtu: None,
            dns: Vec::new(),
            search: Vec::new(),
            ignored: Ignored::default(),
        };
        for option in message.options() {
            advert.take(&option);
        }
        Some(advert)
    }

    fn take(&mut self, option: &NdOption<'_>) {
        let ignored = &mut self.ignored;
        match option {
            NdOption::SourceLinkLayer(_) | NdOption::TargetLinkLayer(_) => ignored.link_layer += 1,
            NdOption::PrefixInfo(info) => match prefix(info) {
                Some(prefix) => put(&mut self.prefixes, prefix, ignored),
                None => ignored.prefix += 1,
            },
            NdOption::RouteInfo(info) => match route(info) {
                Some(route) => put(&mut self.routes, route, ignored),
                None => ignored.route += 1,
            },
            NdOption::Mtu(mtu) => match u16::try_from(*mtu) {
                Ok(fits) if *mtu >= MIN_MTU => self.mtu = Some(fits),
                _ => ignored.mtu += 1,
            },
            NdOption::Rdnss { lifetime, servers } => {
                for server in servers.iter().map(|octets| Ipv6Addr::from(*octets)) {
                    if is_host(&server) {
                        put(&mut self.dns, (server, *lifetime), ignored);
                    } else {
                        ignored.server += 1;
                    }
                }
            }
            NdOption::Dnssl { lifetime, names } => {
                let (names, bad) = dnssl::decode(names);
                ignored.name += bad;
                for name in names {
                    put(&mut self.search, (name, *lifetime), ignored);
                }
            }
            NdOption::RedirectedHeader(_) | NdOption::Unknown { .. } => ignored.unknown += 1,
        }
    }
}

fn put<T>(list: &mut Vec<T>, item: T, ignored: &mut Ignored) {
    if list.len() < MAX_OPTIONS_OF_A_KIND {
        list.push(item);
    } else {
        ignored.excess += 1;
    }
}

fn preference(preference: Preference) -> i8 {
    match preference {
        Preference::Low => -1,
        Preference::Medium => 0,
        Preference::High => 1,
    }
}

/// RFC 4862 5.5.3 a to d, and RFC 4861 6.3.4 for the on-link flag.
fn prefix(info: &PrefixInfo) -> Option<AdvertPrefix> {
    let prefix = Ipv6Prefix::containing(info.prefix, info.prefix_len).ok()?;
    let sane = prefix.len() > 0 && is_global(&prefix) && info.preferred_lifetime <= info.valid_lifetime;
    let autonomous = info.autonomous && prefix.len() == 64;
    (sane && (info.on_link || autonomous)).then_some(AdvertPrefix {
        prefix,
        on_link: info.on_link,
        autonomous,
        valid: info.valid_lifetime,
        preferred: info.preferred_lifetime,
    })
}

fn route(info: &RouteInfo) -> Option<AdvertRoute> {
    let prefix = Ipv6Prefix::containing(info.prefix, info.prefix_len).ok()?;
    (prefix.len() == 0 || is_global(&prefix)).then_some(AdvertRoute {
        prefix,
        preference: preference(info.preference),
        lifetime: info.lifetime,
    })
}

/// Whether no link-local, multicast or otherwise special address is at either end.
fn is_global(prefix: &Ipv6Prefix) -> bool {
    let last = prefix.addr().to_bits() | u128::MAX.checked_shr(u32::from(prefix.len())).unwrap_or(0);
    [prefix.addr(), Ipv6Addr::from_bits(last)]
        .iter()
        .all(|addr| classify::inner_source(addr) == InnerSource::Global)
}

fn is_host(addr: &Ipv6Addr) -> bool {
    matches!(
        classify::inner_dest(addr),
        InnerDest::Unicast | InnerDest::LinkLocal
    )
}
