//! Whether another router of the link says the same as this one (RFC 4861 6.2.7, RFC 8106 6): hosts believe whoever spoke
//! last, so that two who disagree make them change their mind for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::fib::Ipv6Prefix;
use isatap_engine::wire::{ext, nd};

use super::message::HOP_LIMIT;
use crate::config::resolved::Advertise;
use crate::slaac::{Advert, MAX_ROUTERS};

/// How often one disagreement of one router is told.
const TELL_AGAIN: Duration = Duration::from_secs(3600);
/// What is told of one router between two such times at most.
const MAX_TOLD_PER_ROUTER: usize = 32;

/// One disagreement: what they say, then what we say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields of an advertisement")]
pub enum Disagreement {
    HopLimit(u8, u8),
    Managed,
    Other,
    ReachableTime(u32),
    RetransTimer(u32),
    Mtu(u16, u16),
    ValidLifetime(Ipv6Prefix, u32, u32),
    PreferredLifetime(Ipv6Prefix, u32, u32),
    ServerLifetime(Ipv6Addr, u32, u32),
    Server(Ipv6Addr),
    DomainLifetime(String, u32, u32),
    Domain(String),
}

impl Disagreement {
    /// Every label.
    pub const FIELDS: [&'static str; 9] = [
        "hop_limit",
        "managed",
        "mtu",
        "name_server",
        "other",
        "prefix_lifetime",
        "reachable_time",
        "retrans_timer",
        "search_domain",
    ];

    /// The label on metrics.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::HopLimit(..) => "hop_limit",
            Self::Managed => "managed",
            Self::Other => "other",
            Self::ReachableTime(_) => "reachable_time",
            Self::RetransTimer(_) => "retrans_timer",
            Self::Mtu(..) => "mtu",
            Self::ValidLifetime(..) | Self::PreferredLifetime(..) => "prefix_lifetime",
            Self::ServerLifetime(..) | Self::Server(_) => "name_server",
            Self::DomainLifetime(..) | Self::Domain(_) => "search_domain",
        }
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HopLimit(theirs, ours) => write!(f, "hop limit {theirs}, and we {ours}"),
            Self::Managed => f.write_str("addresses by DHCPv6 (M), and we do not"),
            Self::Other => f.write_str("other configuration by DHCPv6 (O), and we do not"),
            Self::ReachableTime(theirs) => write!(f, "reachable time {theirs} ms, and we none"),
            Self::RetransTimer(theirs) => write!(f, "retrans timer {theirs} ms, and we none"),
            Self::Mtu(theirs, ours) => write!(f, "MTU {theirs}, and we {ours}"),
            Self::ValidLifetime(prefix, theirs, ours) => {
                write!(f, "{prefix} valid for {theirs} s, and we for {ours} s")
            }
            Self::PreferredLifetime(prefix, theirs, ours) => {
                write!(f, "{prefix} preferred for {theirs} s, and we for {ours} s")
            }
            Self::ServerLifetime(server, theirs, ours) => {
                write!(f, "name server {server} for {theirs} s, and we for {ours} s")
            }
            Self::Server(server) => write!(f, "name server {server}, and we others"),
            Self::DomainLifetime(name, theirs, ours) => {
                write!(f, "search domain {name} for {theirs} s, and we for {ours} s")
            }
            Self::Domain(name) => write!(f, "search domain {name}, and we others"),
        }
    }
}

/// Compares an advertisement, a whole inner packet, with what we say. `None` when it is none. What one side leaves
/// unspecified is no disagreement, nor are prefixes that only one has.
pub fn compare(packet: &[u8], says: &Advertise, tunnel_mtu: u16) -> Option<(Ipv4Addr, Vec<Disagreement>)> {
    let theirs = Advert::parse(packet)?;
    let message = nd::parse(packet, &ext::walk(packet).ok()?)?.ok()?;
    let fixed = message.router_advertisement()?;
    let mut found = Vec::new();
    if fixed.cur_hop_limit != 0 && fixed.cur_hop_limit != HOP_LIMIT {
        found.push(Disagreement::HopLimit(fixed.cur_hop_limit, HOP_LIMIT));
    }
    if fixed.managed {
        found.push(Disagreement::Managed);
    }
    if fixed.other {
        found.push(Disagreement::Other);
    }
    if fixed.reachable_time != 0 {
        found.push(Disagreement::ReachableTime(fixed.reachable_time));
    }
    if fixed.retrans_timer != 0 {
        found.push(Disagreement::RetransTimer(fixed.retrans_timer));
    }
    let mtu = says.mtu.unwrap_or(tunnel_mtu);
    if let Some(said) = theirs.mtu.filter(|said| *said != mtu) {
        found.push(Disagreement::Mtu(said, mtu));
    }
    compare_prefixes(&theirs, says, &mut found);
    let ours = says
        .dns
        .iter()
        .flat_map(|list| list.items.iter().map(|item| (item, list.lifetime)));
    for (server, said, ours) in differences(&theirs.dns, ours) {
        found.push(match ours {
            Some(ours) => Disagreement::ServerLifetime(server, said, ours),
            None => Disagreement::Server(server),
        });
    }
    let lower: Vec<_> = says
        .search
        .iter()
        .flat_map(|list| {
            list.items
                .iter()
                .map(|item| (item.to_ascii_lowercase(), list.lifetime))
        })
        .collect();
    for (name, said, ours) in differences(
        &theirs.search,
        lower.iter().map(|(name, lifetime)| (name, *lifetime)),
    ) {
        found.push(match ours {
            Some(ours) => Disagreement::DomainLifetime(name, said, ours),
            None => Disagreement::Domain(name),
        });
    }
    Some((theirs.from, found))
}

fn compare_prefixes(theirs: &Advert, says: &Advertise, found: &mut Vec<Disagreement>) {
    for said in &theirs.prefixes {
        let ours: Vec<_> = says
            .prefixes
            .iter()
            .filter(|line| line.prefix == said.prefix)
            .collect();
        // Several lines of ours are for several networks; agreeing with one is enough.
        let Some(first) = ours.first() else { continue };
        if ours.iter().all(|line| line.valid != said.valid) {
            found.push(Disagreement::ValidLifetime(said.prefix, said.valid, first.valid));
        }
        if ours.iter().all(|line| line.preferred != said.preferred) {
            found.push(Disagreement::PreferredLifetime(
                said.prefix,
                said.preferred,
                first.preferred,
            ));
        }
    }
}

/// What they say otherwise than we, with our value if we name the thing at all; nothing when we name none. A thing that
/// they take back is no difference.
fn differences<'a, T: Clone + PartialEq + 'a>(
    theirs: &[(T, u32)],
    ours: impl Iterator<Item = (&'a T, u32)>,
) -> Vec<(T, u32, Option<u32>)> {
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        return Vec::new();
    }
    let theirs = theirs.iter().filter(|(_, lifetime)| *lifetime != 0);
    let known = theirs.map(|(item, said)| {
        let our = ours
            .iter()
            .find(|(our, _)| *our == item)
            .map(|(_, lifetime)| *lifetime);
        (item.clone(), *said, our)
    });
    known.filter(|(_, said, our)| *our != Some(*said)).collect()
}

/// What has been told lately, so that it is not told with every advertisement.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<Ipv4Addr, BTreeMap<Disagreement, Instant>>);

impl Told {
    /// Whether this is to be told now.
    pub fn is_news(&mut self, now: Instant, router: Ipv4Addr, what: &Disagreement) -> bool {
        if self.0.len() >= MAX_ROUTERS && !self.0.contains_key(&router) {
            return false;
        }
        let told = self.0.entry(router).or_default();
        told.retain(|_, at| now.saturating_duration_since(*at) < TELL_AGAIN);
        if told.contains_key(what) || told.len() >= MAX_TOLD_PER_ROUTER {
            return false;
        }
        told.insert(what.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advertise::message::{Content, Tone};
    use crate::config::advertise::{AdvertisedList, AdvertisedPrefix};
    use isatap_engine::isatap::iid;
    use isatap_engine::wire::nd::{NdOption, RouterAdvertisement};

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn says() -> Advertise {
        Advertise {
            on: true,
            prefixes: vec![AdvertisedPrefix {
                prefix: "2001:db8:1::/64".parse().unwrap(),
                on_link: true,
                valid: 7200,
                preferred: 3600,
                hosts: None,
            }],
            dns: vec![AdvertisedList {
                items: vec!["2001:db8::53".parse().unwrap()],
                lifetime: 900,
            }],
            search: vec![AdvertisedList {
                items: vec!["Example.org".to_owned()],
                lifetime: 900,
            }],
            ..Advertise::default()
        }
    }

    fn ends() -> (Ipv6Addr, Ipv6Addr) {
        (iid::link_local(PEER), iid::link_local(US))
    }

    fn found(theirs: &Advertise) -> Vec<String> {
        let packet = Content::new(theirs, 1280).packet(Tone::Normal, ends(), US, []);
        let (from, found) = compare(&packet, &says(), 1280).unwrap();
        assert_eq!(from, PEER);
        found
            .iter()
            .map(|what| format!("{}: {what}", what.field()))
            .collect()
    }

    /// T8: every field of RFC 4861 6.2.7 and RFC 8106.
    #[test]
    fn each_difference_is_found() {
        assert_eq!(found(&says()), [""; 0]);
        let mut theirs = says();
        theirs.mtu = Some(1400);
        theirs.prefixes[0].valid = 8000;
        theirs.prefixes[0].preferred = 60;
        theirs.dns[0].items.push("2001:db8::54".parse().unwrap());
        theirs.dns[0].lifetime = 60;
        theirs.search[0].items.push("other.example".to_owned());
        assert_eq!(
            found(&theirs),
            [
                "mtu: MTU 1400, and we 1280",
                "prefix_lifetime: 2001:db8:1::/64 valid for 8000 s, and we for 7200 s",
                "prefix_lifetime: 2001:db8:1::/64 preferred for 60 s, and we for 3600 s",
                "name_server: name server 2001:db8::53 for 60 s, and we for 900 s",
                "name_server: name server 2001:db8::54, and we others",
                "search_domain: search domain other.example, and we others",
            ]
        );
        let other = Advertise {
            prefixes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            router_lifetime: 9000,
            ..says()
        };
        assert_eq!(found(&other), [""; 0], "what only one says is no contradiction");
    }

    #[test]
    fn the_fixed_part_as_well() {
        let fixed = RouterAdvertisement {
            cur_hop_limit: 32,
            managed: true,
            other: true,
            reachable_time: 30_000,
            retrans_timer: 1000,
            ..RouterAdvertisement::default()
        };
        let mut packet = vec![0; 100];
        let len =
            nd::emit_router_advertisement(&mut packet, ends().0, ends().1, &fixed, &[NdOption::Mtu(1280)]);
        let (_, found) = compare(&packet[..len], &says(), 1280).unwrap();
        let fields: Vec<_> = found.iter().map(Disagreement::field).collect();
        assert_eq!(
            fields,
            ["hop_limit", "managed", "other", "reachable_time", "retrans_timer"]
        );
        assert!(fields.iter().all(|field| Disagreement::FIELDS.contains(field)));
        let silent = RouterAdvertisement::default();
        let len = nd::emit_router_advertisement(&mut packet, ends().0, ends().1, &silent, &[]);
        assert_eq!(compare(&packet[..len], &says(), 1280).unwrap().1, []);
        assert_eq!(compare(&packet[..20], &says(), 1280), None);
    }

    #[test]
    fn each_is_told_once_an_hour() {
        let now = Instant::now();
        let mut told = Told::default();
        let what = Disagreement::Managed;
        assert!(told.is_news(now, PEER, &what));
        assert!(!told.is_news(now, PEER, &what));
        assert!(told.is_news(now, PEER, &Disagreement::Other));
        assert!(told.is_news(now, US, &what));
        assert!(told.is_news(now + TELL_AGAIN, PEER, &what));
        let news = (0..1000).filter(|mtu| told.is_news(now + TELL_AGAIN, US, &Disagreement::Mtu(*mtu, 1280)));
        assert!(news.count() <= MAX_TOLD_PER_ROUTER);
    }
}
