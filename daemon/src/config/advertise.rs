//! What a router says of itself and its link: the `Advertise*` and `Router*` names of the file (RFC 4861 6.2.1, RFC 4191,
//! RFC 8106).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::diagnostic::{Origin, Sourced};
use super::engine_types::{Ipv4Prefix, Ipv6Prefix, Preference};
use super::file::Words;
use super::names::Key;
use super::values::{self, Refusal};
use crate::advertise::message;

/// `valid` of a prefix in seconds (AdvValidLifetime, RFC 4861 6.2.1).
pub const DEFAULT_VALID: u32 = 2_592_000;
/// `preferred` of a prefix in seconds (AdvPreferredLifetime, RFC 4861 6.2.1).
pub const DEFAULT_PREFERRED: u32 = 604_800;
/// `RouterLifetime` in seconds (AdvDefaultLifetime: three times a MaxRtrAdvInterval of 600 s, RFC 4861 6.2.1).
pub const DEFAULT_ROUTER_LIFETIME: u16 = 1800;
/// `lifetime` of name servers and search domains in seconds (three times MaxRtrAdvInterval, RFC 8106 5.1).
pub const DEFAULT_DNS_LIFETIME: u32 = 1800;
/// A lifetime without end.
pub const LIFETIME_INFINITE: u32 = u32::MAX;
/// Most routes one advertisement may hold (RFC 4191 4).
pub const MAX_ROUTES: usize = 17;
/// Most prefixes in a file: each is looked at for each host that solicits.
pub const MAX_PREFIXES: usize = 1024;

/// Everything about advertisements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// `Advertise`: whether solicitations are answered here.
    pub on: bool,
    /// `AdvertisePrefix`.
    pub prefixes: Vec<AdvertisedPrefix>,
    /// `AdvertiseRoute`, at most [`MAX_ROUTES`].
    pub routes: Vec<AdvertisedRoute>,
    /// `AdvertiseDns`.
    pub dns: Vec<AdvertisedList<Ipv6Addr>>,
    /// `AdvertiseSearch`.
    pub search: Vec<AdvertisedList<String>>,
    /// `AdvertiseMtu`; `None` for the tunnel MTU.
    pub mtu: Option<u16>,
    /// `RouterLifetime` in seconds, 0..=9000; 0: no default router.
    pub router_lifetime: u16,
    /// `RouterPreference`.
    pub preference: Preference,
}

impl Default for Advertise {
    fn default() -> Self {
        Self {
            on: false,
            prefixes: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: None,
            router_lifetime: DEFAULT_ROUTER_LIFETIME,
            preference: Preference::Medium,
        }
    }
}

/// One prefix that hosts autoconfigure addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisedPrefix {
    /// 64 bits long.
    pub prefix: Ipv6Prefix,
    /// Hosts of the prefix reach each other directly; without, through the router (RFC 6964 3.5).
    pub on_link: bool,
    /// Seconds, or [`LIFETIME_INFINITE`].
    pub valid: u32,
    /// Seconds, not more than `valid`.
    pub preferred: u32,
    /// Only for the hosts in this network (RFC 6964 3.4).
    pub hosts: Option<Ipv4Prefix>,
}

/// One route through this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisedRoute {
    /// Where to.
    pub prefix: Ipv6Prefix,
    /// Among routers.
    pub preference: Preference,
    /// Seconds; `None` for the router's.
    pub lifetime: Option<u32>,
}

/// Name servers or search domains of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedList<T> {
    /// At least one.
    pub items: Vec<T>,
    /// Seconds.
    pub lifetime: u32,
}

/// The same as the file says it, with the places. `None` and empty lists: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Advertise`")]
pub struct AdvertiseText {
    pub on: Option<Sourced<bool>>,
    pub prefixes: Vec<Sourced<AdvertisedPrefix>>,
    pub routes: Vec<Sourced<AdvertisedRoute>>,
    pub dns: Vec<Sourced<AdvertisedList<Ipv6Addr>>>,
    pub search: Vec<Sourced<AdvertisedList<String>>>,
    pub mtu: Option<Sourced<u16>>,
    pub router_lifetime: Option<Sourced<u16>>,
    pub preference: Option<Sourced<Preference>>,
}

impl AdvertiseText {
    /// Reads the values of `key`.
    pub(super) fn read(&mut self, key: Key, words: &mut Words) {
        match key {
            Key::Advertise => self.on = words.only(values::yes_no),
            Key::AdvertisePrefix => self.prefixes.extend(prefix(words)),
            Key::AdvertiseRoute => self.routes.extend(route(words)),
            Key::AdvertiseDns => self.dns.extend(list(words, |text| {
                text.parse().map_err(|_| Refusal::Expected(None))
            })),
            Key::AdvertiseSearch => self.search.extend(list(words, |text| {
                let name = text.strip_suffix('.').unwrap_or(text);
                values::is_domain(name)
                    .then(|| name.to_owned())
                    .ok_or(Refusal::Expected(None))
            })),
            Key::AdvertiseMtu => self.mtu = words.only(values::mtu),
            Key::RouterLifetime => {
                self.router_lifetime = words.only(|text| {
                    let seconds = values::number(text, 0..=9000)?;
                    u16::try_from(seconds).map_err(|_| Refusal::Expected(None))
                });
            }
            Key::RouterPreference => self.preference = words.only(preference),
            _ => {}
        }
    }

    /// With the defaults filled in.
    pub(super) fn resolve(self) -> Advertise {
        fn values<T>(list: Vec<Sourced<T>>) -> Vec<T> {
            list.into_iter().map(|item| item.value).collect()
        }
        let defaults = Advertise::default();
        Advertise {
            on: self.on.map_or(defaults.on, |on| on.value),
            prefixes: values(self.prefixes),
            routes: values(self.routes),
            dns: values(self.dns),
            search: values(self.search),
            mtu: self.mtu.map(|mtu| mtu.value),
            router_lifetime: self
                .router_lifetime
                .map_or(defaults.router_lifetime, |seconds| seconds.value),
            preference: self.preference.map_or(defaults.preference, |word| word.value),
        }
    }
}

/// Where the advertisement for some host becomes longer than every link carries, and what to do about it; `None` when each
/// fits (RFC 6980 5: fragments are no way out).
pub(super) fn too_long(text: &AdvertiseText) -> Option<(Origin, String)> {
    let lines: Vec<_> = text.prefixes.iter().map(|line| line.value).collect();
    // Whoever is in the innermost of nested networks is told most; without any, everybody is told the same.
    let networks = lines.iter().filter_map(|line| line.hosts);
    let first_hosts: BTreeSet<_> = networks
        .map(|network| network.addr())
        .chain([Ipv4Addr::UNSPECIFIED])
        .collect();
    let worst = first_hosts
        .into_iter()
        .max_by_key(|host| message::prefixes_for(&lines, *host).len())?;
    let told = message::prefixes_for(&lines, worst);
    let prefixes = text.prefixes.iter().filter(|line| told.contains(&&line.value));
    let prefixes = prefixes.map(|line| (&line.origin, message::PREFIX_LEN));
    let routes = text
        .routes
        .iter()
        .map(|line| (&line.origin, message::route_len(&line.value)));
    let servers = |list: &Sourced<AdvertisedList<Ipv6Addr>>| message::servers_len(list.value.items.len());
    let servers = text.dns.iter().map(|line| (&line.origin, servers(line)));
    let domains = text
        .search
        .iter()
        .map(|line| (&line.origin, message::domains_len(&line.value.items)));
    let mut len = message::FIXED_LEN;
    let mut beyond = None;
    for (origin, option_len) in prefixes.chain(routes).chain(servers).chain(domains) {
        len += option_len;
        if len > message::MAX_LEN {
            beyond.get_or_insert(origin);
        }
    }
    let whom = told
        .iter()
        .filter_map(|line| line.hosts)
        .max_by_key(Ipv4Prefix::len)
        .map_or_else(
            || "every host".to_owned(),
            |network| format!("the hosts in {network}"),
        );
    let message = format!(
        "from here on the advertisement for {whom} has no room: it would be {len} bytes long, and every link carries only \
         {max}; leave out prefixes (32 bytes each; there are {count}), routes, name servers or search domains, or give \
         prefixes a \"for\" network",
        max = message::MAX_LEN,
        count = told.len(),
    );
    beyond.map(|origin| (origin.clone(), message))
}

fn prefix(words: &mut Words) -> Option<Sourced<AdvertisedPrefix>> {
    let prefix = words.next(|text| match values::ipv6_prefix(text)? {
        prefix if prefix.len() == 64 => Ok(prefix),
        _ => Err(Refusal::Because(
            "an interface identifier has 64 bits, so the prefix must have 64 (RFC 5214 6.1)".into(),
        )),
    })?;
    let (mut on_link, mut valid, mut preferred, mut hosts) = (false, None, None, None);
    while words.len() > 0 {
        let keywords = [("on-link", 0u8), ("valid", 1), ("preferred", 2), ("for", 3)];
        match words.next(|text| values::one_of(text, &keywords))?.value {
            0 => on_link = true,
            1 => valid = Some(words.next(lifetime)?.value),
            2 => preferred = Some(words.next(lifetime)?.value),
            _ => hosts = Some(words.next(values::ipv4_network)?.value),
        }
    }
    // Who names one of the two lifetimes alone means that one.
    let valid = valid.unwrap_or_else(|| DEFAULT_VALID.max(preferred.unwrap_or(0)));
    let preferred = preferred.unwrap_or_else(|| DEFAULT_PREFERRED.min(valid));
    if preferred > valid {
        let message = "AdvertisePrefix: the preferred lifetime is longer than the valid one";
        words.refuse(words.name_at.clone(), message.into());
        return None;
    }
    Some(Sourced {
        value: AdvertisedPrefix {
            prefix: prefix.value,
            on_link,
            valid,
            preferred,
            hosts,
        },
        origin: prefix.origin,
    })
}

fn route(words: &mut Words) -> Option<Sourced<AdvertisedRoute>> {
    let prefix = words.next(values::ipv6_prefix)?;
    let mut route = AdvertisedRoute {
        prefix: prefix.value,
        preference: Preference::Medium,
        lifetime: None,
    };
    while words.len() > 0 {
        let keywords = [("preference", true), ("lifetime", false)];
        match words.next(|text| values::one_of(text, &keywords))?.value {
            true => route.preference = words.next(preference)?.value,
            false => route.lifetime = Some(words.next(lifetime)?.value),
        }
    }
    Some(Sourced {
        value: route,
        origin: prefix.origin,
    })
}

/// Values up to the word `lifetime`, which is followed by one.
fn list<T>(
    words: &mut Words,
    read: impl Fn(&str) -> Result<T, Refusal>,
) -> Option<Sourced<AdvertisedList<T>>> {
    let first = words.next(&read)?;
    let mut list = AdvertisedList {
        items: vec![first.value],
        lifetime: DEFAULT_DNS_LIFETIME,
    };
    while let Some(text) = words.peek() {
        if text.eq_ignore_ascii_case("lifetime") {
            words.skip();
            list.lifetime = words.next(lifetime)?.value;
            words.end();
            break;
        }
        list.items.push(words.next(&read)?.value);
    }
    Some(Sourced {
        value: list,
        origin: first.origin,
    })
}

fn lifetime(text: &str) -> Result<u32, Refusal> {
    if ["infinity", "infinite"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text))
    {
        return Ok(LIFETIME_INFINITE);
    }
    values::number(text, 0..=u32::MAX)
        .map_err(|_| Refusal::Because("a lifetime is a number of seconds, or infinity".into()))
}

fn preference(text: &str) -> Result<Preference, Refusal> {
    values::one_of(
        text,
        &[
            ("low", Preference::Low),
            ("medium", Preference::Medium),
            ("high", Preference::High),
        ],
    )
}

/// The word of the file.
pub fn preference_word(preference: Preference) -> &'static str {
    match preference {
        Preference::Low => "low",
        Preference::Medium => "medium",
        Preference::High => "high",
    }
}

fn lifetime_word(seconds: u32) -> String {
    if seconds == LIFETIME_INFINITE {
        "infinity".to_owned()
    } else {
        seconds.to_string()
    }
}

impl fmt::Display for AdvertisedPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_link = if self.on_link { " on-link" } else { "" };
        let (valid, preferred) = (lifetime_word(self.valid), lifetime_word(self.preferred));
        write!(f, "{}{on_link} valid {valid} preferred {preferred}", self.prefix)?;
        self.hosts.map_or(Ok(()), |hosts| write!(f, " for {hosts}"))
    }
}

impl fmt::Display for AdvertisedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} preference {}",
            self.prefix,
            preference_word(self.preference)
        )?;
        self.lifetime.map_or(Ok(()), |seconds| {
            write!(f, " lifetime {}", lifetime_word(seconds))
        })
    }
}

impl<T: fmt::Display> fmt::Display for AdvertisedList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| write!(f, "{item} "))?;
        write!(f, "lifetime {}", lifetime_word(self.lifetime))
    }
}
