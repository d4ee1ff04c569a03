//! What one advertisement says to one host (RFC 4861 4.2 and 6.2.3, RFC 4191 2, RFC 8106 5).
//!
//! ```text
//!  hop limit 64 | M 0, O 0, preference | router lifetime | reachable 0 | retrans 0
//!  prefix ... MTU, route ..., name servers ..., search domains ...      no link-layer address (RFC 4213 3.8)
//! ```
//!
//! A message is one packet that every link carries, never fragments (RFC 6980 5): the configuration is refused when any
//! host's would be longer.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::wire::ipv6;
use isatap_engine::wire::nd::{
    self, NdKind, NdOption, Preference, PrefixInfo, RouteInfo, RouterAdvertisement,
};

use crate::config::advertise::{AdvertisedPrefix, AdvertisedRoute};
use crate::config::resolved::Advertise;
use crate::slaac::dnssl;

/// The longest message in bytes, IPv6 header included.
pub const MAX_LEN: usize = ipv6::MIN_MTU;
/// What every message has: IPv6 header, fixed part, MTU.
pub const FIXED_LEN: usize = ipv6::HEADER_LEN + NdKind::RouterAdvertisement.min_len() + 8;
/// A prefix, in bytes.
pub const PREFIX_LEN: usize = 32;
/// Hosts send packets with it (AdvCurHopLimit, RFC 4861 6.2.1).
pub const HOP_LIMIT: u8 = 64;

/// Everything there is to say, in the form of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    fixed: RouterAdvertisement,
    prefixes: Vec<AdvertisedPrefix>,
    routes: Vec<RouteInfo>,
    mtu: u16,
    dns: Vec<(u32, Vec<[u8; 16]>)>,
    search: Vec<(u32, Vec<u8>)>,
}

/// How it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As configured.
    Normal,
    /// This router is about to be none: lifetimes of everything that depends on it are 0 (RFC 4861 6.2.5, RFC 4191 4).
    Final,
}

impl Content {
    /// What the configuration says; `tunnel_mtu` unless it names another.
    pub fn new(says: &Advertise, tunnel_mtu: u16) -> Self {
        Self {
            fixed: RouterAdvertisement {
                cur_hop_limit: HOP_LIMIT,
                managed: false,
                other: false,
                // Of no meaning without a lifetime, and to be medium then (RFC 4191 2.2).
                preference: if says.router_lifetime == 0 {
                    Preference::Medium
                } else {
                    says.preference
                },
                router_lifetime: says.router_lifetime,
                reachable_time: 0,
                retrans_timer: 0,
            },
            prefixes: says.prefixes.clone(),
            routes: says
                .routes
                .iter()
                .map(|route| route_info(route, says.router_lifetime))
                .collect(),
            mtu: says.mtu.unwrap_or(tunnel_mtu),
            dns: says
                .dns
                .iter()
                .map(|list| (list.lifetime, list.items.iter().map(Ipv6Addr::octets).collect()))
                .collect(),
            search: says
                .search
                .iter()
                .map(|list| (list.lifetime, dnssl::encode(&list.items)))
                .collect(),
        }
    }

    /// The prefixes that the host at `client` is told of.
    pub fn prefixes_for(&self, client: Ipv4Addr) -> Vec<&AdvertisedPrefix> {
        prefixes_for(&self.prefixes, client)
    }

    /// The whole packet for the host at `client`. Of `retractions`, options of lifetime 0, as many as find room are added.
    pub fn packet<'a>(
        &'a self,
        tone: Tone,
        (from, to): (Ipv6Addr, Ipv6Addr),
        client: Ipv4Addr,
        retractions: impl IntoIterator<Item = NdOption<'a>>,
    ) -> Vec<u8> {
        let mut options = Options::default();
        let mut fixed = self.fixed;
        let lifetime = |lifetime| if tone == Tone::Final { 0 } else { lifetime };
        match tone {
            Tone::Final => {
                fixed.router_lifetime = 0;
                fixed.preference = Preference::Medium;
            }
            // Prefixes and MTU outlive a router: another one may carry on with them.
            Tone::Normal => {
                for prefix in self.prefixes_for(client) {
                    options.add(NdOption::PrefixInfo(prefix_info(prefix)));
                }
                options.add(NdOption::Mtu(u32::from(self.mtu)));
            }
        }
        for route in &self.routes {
            options.add(NdOption::RouteInfo(RouteInfo {
                lifetime: lifetime(route.lifetime),
                ..*route
            }));
        }
        for (until, servers) in &self.dns {
            let lifetime = lifetime(*until);
            options.add(NdOption::Rdnss { lifetime, servers });
        }
        for (until, names) in &self.search {
            let lifetime = lifetime(*until);
            options.add(NdOption::Dnssl { lifetime, names });
        }
        retractions.into_iter().for_each(|option| options.add(option));
        let mut packet = vec![0; MAX_LEN];
        let len = nd::emit_router_advertisement(&mut packet, from, to, &fixed, &options.list);
        packet.truncate(len);
        packet
    }
}

/// Options, as long as they find room.
#[derive(Default)]
struct Options<'a> {
    list: Vec<NdOption<'a>>,
    len: usize,
}

impl<'a> Options<'a> {
    fn add(&mut self, option: NdOption<'a>) {
        let len = self.len + option.emit_len();
        if len <= MAX_LEN - ipv6::HEADER_LEN - NdKind::RouterAdvertisement.min_len() {
            self.len = len;
            self.list.push(option);
        }
    }
}

/// The prefixes for one host. Of two lines about one prefix the one for the smaller network speaks.
pub fn prefixes_for(prefixes: &[AdvertisedPrefix], client: Ipv4Addr) -> Vec<&AdvertisedPrefix> {
    let width = |prefix: &AdvertisedPrefix| prefix.hosts.map_or(0, |hosts| 1 + hosts.len());
    let mut chosen: Vec<&AdvertisedPrefix> = Vec::new();
    for prefix in prefixes
        .iter()
        .filter(|prefix| prefix.hosts.is_none_or(|hosts| hosts.contains(client)))
    {
        match chosen.iter_mut().find(|known| known.prefix == prefix.prefix) {
            None => chosen.push(prefix),
            Some(known) if width(prefix) > width(known) => *known = prefix,
            Some(_) => {}
        }
    }
    chosen
}

/// Bytes of a message that a route takes.
pub fn route_len(route: &AdvertisedRoute) -> usize {
    NdOption::RouteInfo(route_info(route, 0)).emit_len()
}

/// Bytes of a message that a list of so many name servers takes.
pub const fn servers_len(count: usize) -> usize {
    8 + 16 * count
}

/// Bytes of a message that a list of search domains takes.
pub fn domains_len(names: &[String]) -> usize {
    (8 + dnssl::encode(names).len()).next_multiple_of(8)
}

fn route_info(route: &AdvertisedRoute, router_lifetime: u16) -> RouteInfo {
    // Where the router is none, its routes are none (RFC 4191 4).
    let lifetime = match router_lifetime {
        0 => 0,
        _ => route.lifetime.unwrap_or(u32::from(router_lifetime)),
    };
    RouteInfo {
        prefix: route.prefix.addr(),
        prefix_len: route.prefix.len(),
        preference: route.preference,
        lifetime,
    }
}

fn prefix_info(prefix: &AdvertisedPrefix) -> PrefixInfo {
    PrefixInfo {
        prefix: prefix.prefix.addr(),
        prefix_len: prefix.prefix.len(),
        on_link: prefix.on_link,
        autonomous: true,
        valid_lifetime: prefix.valid,
        preferred_lifetime: prefix.preferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::advertise::AdvertisedList;
    use crate::slaac::Advert;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);

    fn prefix(prefix: &str, on_link: bool, hosts: Option<&str>) -> AdvertisedPrefix {
        AdvertisedPrefix {
            prefix: prefix.parse().unwrap(),
            on_link,
            valid: 7200,
            preferred: 3600,
            hosts: hosts.map(|hosts| hosts.parse().unwrap()),
        }
    }

    fn says() -> Advertise {
        Advertise {
            on: true,
            prefixes: vec![
                prefix("2001:db8:1::/64", true, None),
                prefix("2001:db8:2::/64", false, Some("10.0.1.0/24")),
                prefix("2001:db8:3::/64", false, Some("10.0.2.0/24")),
            ],
            routes: vec![
                AdvertisedRoute {
                    prefix: "2001:db8:f000::/36".parse().unwrap(),
                    preference: Preference::High,
                    lifetime: None,
                },
                AdvertisedRoute {
                    prefix: "::/0".parse().unwrap(),
                    preference: Preference::Low,
                    lifetime: Some(60),
                },
            ],
            dns: vec![AdvertisedList {
                items: vec!["2001:db8::53".parse().unwrap(), "2001:db8::54".parse().unwrap()],
                lifetime: 900,
            }],
            search: vec![AdvertisedList {
                items: vec!["example.org".to_owned(), "x.example".to_owned()],
                lifetime: 800,
            }],
            mtu: Some(1400),
            router_lifetime: 1200,
            preference: Preference::High,
        }
    }

    fn packet(says: &Advertise, tone: Tone) -> Vec<u8> {
        let ends = (
            "fe80::5efe:10.0.0.1".parse().unwrap(),
            "fe80::5efe:10.0.1.5".parse().unwrap(),
        );
        Content::new(says, 1280).packet(tone, ends, CLIENT, [])
    }

    fn read(says: &Advertise, tone: Tone) -> Advert {
        Advert::parse(&packet(says, tone)).expect("a valid advertisement")
    }

    /// T6, M12: everything configured, as a host reads it, and no link-layer address (T5).
    #[test]
    fn a_host_reads_what_is_configured() {
        let advert = read(&says(), Tone::Normal);
        assert_eq!((advert.hop_limit, advert.preference), (64, 1));
        assert_eq!(advert.router_lifetime.as_secs(), 1200);
        assert_eq!((advert.reachable, advert.retrans), (None, None));
        let prefixes: Vec<_> = advert.prefixes.iter().map(|p| (p.prefix, p.on_link)).collect();
        assert_eq!(
            prefixes,
            [
                ("2001:db8:1::/64".parse().unwrap(), true),
                ("2001:db8:2::/64".parse().unwrap(), false)
            ]
        );
        assert!(
            advert
                .prefixes
                .iter()
                .all(|p| p.autonomous && (p.valid, p.preferred) == (7200, 3600))
        );
        let routes: Vec<_> = advert.routes.iter().map(|r| (r.preference, r.lifetime)).collect();
        assert_eq!(routes, [(1, 1200), (-1, 60)]);
        assert_eq!(advert.mtu, Some(1400));
        assert_eq!(advert.dns.len(), 2);
        assert!(advert.dns.iter().all(|(_, lifetime)| *lifetime == 900));
        let search: Vec<_> = advert.search.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(search, ["example.org", "x.example"]);
        assert_eq!(advert.ignored.by_cause().map(|(_, count)| count), [0; 8]);
        let flags = packet(&says(), Tone::Normal)[45];
        assert_eq!(flags & 0xc0, 0, "neither M nor O");
        let tunnel = Advertise { mtu: None, ..says() };
        assert_eq!(read(&tunnel, Tone::Normal).mtu, Some(1280));
    }

    /// T7, L9: with the router its routes go, and what hosts should ask through it; prefixes stay.
    #[test]
    fn the_last_words_take_back_what_depends_on_the_router() {
        let last = read(&says(), Tone::Final);
        assert_eq!((last.router_lifetime.as_secs(), last.preference), (0, 0));
        assert_eq!(last.routes.len(), 2);
        assert!(last.routes.iter().all(|route| route.lifetime == 0));
        assert!(last.dns.iter().all(|(_, lifetime)| *lifetime == 0) && last.dns.len() == 2);
        assert!(last.search.iter().all(|(_, lifetime)| *lifetime == 0));
        assert_eq!((last.prefixes.len(), last.mtu), (0, None));
    }

    /// L9: a router that is no default router has no routes either, whatever their lines say.
    #[test]
    fn no_router_no_routes() {
        let none = Advertise {
            router_lifetime: 0,
            ..says()
        };
        let advert = read(&none, Tone::Normal);
        assert_eq!((advert.router_lifetime.as_secs(), advert.preference), (0, 0));
        assert!(advert.routes.iter().all(|route| route.lifetime == 0) && advert.routes.len() == 2);
        assert_eq!(advert.prefixes.len(), 2);
    }

    /// T10: of two lines about one prefix, that for the smaller network.
    #[test]
    fn the_narrower_line_speaks() {
        let both = [
            prefix("2001:db8:1::/64", true, None),
            prefix("2001:db8:1::/64", false, Some("10.0.1.0/28")),
            prefix("2001:db8:1::/64", true, Some("10.0.0.0/16")),
        ];
        let on_link = |client: [u8; 4]| {
            let chosen = prefixes_for(&both, Ipv4Addr::from(client));
            chosen.iter().map(|prefix| prefix.on_link).collect::<Vec<_>>()
        };
        assert_eq!(on_link([10, 0, 1, 5]), [false]);
        assert_eq!(on_link([10, 0, 1, 16]), [true]);
        assert_eq!(on_link([192, 0, 2, 1]), [true]);
    }

    /// What finds no room is left out, and the rest is whole.
    #[test]
    fn a_message_is_never_longer_than_every_link_carries() {
        let room = MAX_LEN - packet(&says(), Tone::Normal).len();
        let retraction = NdOption::Mtu(1);
        let ends = (
            "fe80::5efe:10.0.0.1".parse().unwrap(),
            "fe80::5efe:10.0.1.5".parse().unwrap(),
        );
        let content = Content::new(&says(), 1280);
        let long = content.packet(Tone::Normal, ends, CLIENT, vec![retraction; 500]);
        assert!(room > 8 && long.len() <= MAX_LEN && long.len() > MAX_LEN - 8);
        assert!(Advert::parse(&long).is_some());
    }

    #[test]
    fn lengths_are_those_of_the_message() {
        let says = says();
        let lists = says.dns.iter().map(|list| servers_len(list.items.len()));
        let domains = says.search.iter().map(|list| domains_len(&list.items));
        let routes = says.routes.iter().map(route_len);
        let sum = FIXED_LEN + 2 * PREFIX_LEN + lists.chain(domains).chain(routes).sum::<usize>();
        assert_eq!(packet(&says, Tone::Normal).len(), sum);
    }
}
