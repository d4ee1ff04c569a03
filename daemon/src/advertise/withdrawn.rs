//! What was advertised and is so no longer: said with lifetime 0 for a while, so that hosts stop using it at once and not
//! when it would have ended (RFC 4861 6.2.7 and 12, RFC 4191 4, RFC 8106 5.1).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::fib::{Ipv4Prefix, Ipv6Prefix};
use isatap_engine::wire::nd::{NdOption, Preference, PrefixInfo, RouteInfo};

use super::message::Content;
use crate::config::advertise::MAX_PREFIXES;
use crate::config::resolved::Advertise;
use crate::slaac::dnssl;

/// How long something is taken back for: a host that was told once keeps an address for two hours at most (RFC 4862
/// 5.5.3 e), so that nobody who heard of it late is worse off.
const PERIOD: Duration = Duration::from_secs(2 * 3600);
/// Things taken back at most; the oldest give way. Every prefix of the longest file may be replaced at once, each told to
/// another network, and something may have been taken back before.
const MAX_WITHDRAWN: usize = 2 * MAX_PREFIXES;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Prefix {
        prefix: Ipv6Prefix,
        was_on_link: bool,
        hosts: Option<Ipv4Prefix>,
    },
    Route(Ipv6Prefix),
    Server([[u8; 16]; 1]),
    Domain(Vec<u8>),
}

/// The list, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Withdrawn {
    items: Vec<(Item, Instant)>,
    content: Advertise,
}

impl Withdrawn {
    /// From now on `new` is said: what `new` has not, and was said before, is taken back.
    pub(super) fn replace(&mut self, now: Instant, new: &Advertise) {
        let old = std::mem::replace(&mut self.content, new.clone());
        let prefixes = old.prefixes.iter().filter(|line| !new.prefixes.contains(line));
        let prefixes = prefixes.map(|line| Item::Prefix {
            prefix: line.prefix,
            was_on_link: line.on_link,
            hosts: line.hosts,
        });
        let routes = old.routes.iter().map(|route| Item::Route(route.prefix));
        let servers = servers(&old).map(|server| Item::Server([server.octets()]));
        let domains = domains(&old).map(|name| Item::Domain(dnssl::encode(std::slice::from_ref(name))));
        let gone: Vec<_> = prefixes.chain(routes).chain(servers).chain(domains).collect();
        self.items.retain(|(item, _)| !gone.contains(item));
        self.items
            .extend(gone.into_iter().map(|item| (item, now + PERIOD)));
        // What is said again, or still, is not taken back. Prefixes are decided for each host.
        self.items.retain(|(item, _)| !is_said(item, new));
        let excess = self.items.len().saturating_sub(MAX_WITHDRAWN);
        self.items.drain(..excess);
    }

    /// Forgets what has been said for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.items.retain(|(_, until)| *until > now);
    }

    /// What the host at `client` is to forget, beside what `content` tells it.
    pub(super) fn options_for(&self, content: &Content, client: Ipv4Addr) -> Vec<NdOption<'_>> {
        let current = content.prefixes_for(client);
        let option = |item| match item {
            &Item::Prefix {
                prefix,
                was_on_link,
                hosts,
            } if hosts.is_none_or(|hosts| hosts.contains(client)) => {
                match current.iter().find(|line| line.prefix == prefix) {
                    None => Some(zero_prefix(prefix, was_on_link, true)),
                    // Without the on-link flag nothing is said about on-link (RFC 4861 6.3.4).
                    Some(line) if was_on_link && !line.on_link => Some(zero_prefix(prefix, true, false)),
                    Some(_) => None,
                }
            }
            Item::Prefix { .. } => None,
            Item::Route(prefix) => Some(NdOption::RouteInfo(RouteInfo {
                prefix: prefix.addr(),
                prefix_len: prefix.len(),
                preference: Preference::Medium,
                lifetime: 0,
            })),
            Item::Server(servers) => Some(NdOption::Rdnss { lifetime: 0, servers }),
            Item::Domain(names) => Some(NdOption::Dnssl { lifetime: 0, names }),
        };
        // The newest are the most urgent.
        self.items
            .iter()
            .rev()
            .filter_map(|(item, _)| option(item))
            .collect()
    }
}

fn servers(says: &Advertise) -> impl Iterator<Item = Ipv6Addr> {
    says.dns.iter().flat_map(|list| list.items.iter().copied())
}

fn domains(says: &Advertise) -> impl Iterator<Item = &String> {
    says.search.iter().flat_map(|list| &list.items)
}

fn is_said(item: &Item, new: &Advertise) -> bool {
    match item {
        Item::Prefix { .. } => false,
        Item::Route(prefix) => new.routes.iter().any(|route| route.prefix == *prefix),
        Item::Server([server]) => servers(new).any(|said| said.octets() == *server),
        Item::Domain(name) => domains(new).any(|said| dnssl::encode(std::slice::from_ref(said)) == *name),
    }
}

fn zero_prefix<'a>(prefix: Ipv6Prefix, on_link: bool, autonomous: bool) -> NdOption<'a> {
    NdOption::PrefixInfo(PrefixInfo {
        prefix: prefix.addr(),
        prefix_len: prefix.len(),
        on_link,
        autonomous,
        valid_lifetime: 0,
        preferred_lifetime: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::advertise::{AdvertisedList, AdvertisedPrefix, AdvertisedRoute};

    fn line(prefix: &str, on_link: bool, hosts: Option<&str>) -> AdvertisedPrefix {
        AdvertisedPrefix {
            prefix: prefix.parse().unwrap(),
            on_link,
            valid: 7200,
            preferred: 3600,
            hosts: hosts.map(|hosts| hosts.parse().unwrap()),
        }
    }

    fn says(prefixes: Vec<AdvertisedPrefix>) -> Advertise {
        Advertise {
            prefixes,
            ..Advertise::default()
        }
    }

    /// Prefixes of the options for a client: on-link and autonomous flags.
    fn prefixes(withdrawn: &Withdrawn, new: &Advertise, client: [u8; 4]) -> Vec<(String, bool, bool)> {
        let content = Content::new(new, 1280);
        let options = withdrawn.options_for(&content, client.into());
        let infos = options.iter().filter_map(|option| match option {
            NdOption::PrefixInfo(info) => Some((info.prefix.to_string(), info.on_link, info.autonomous)),
            _ => None,
        });
        infos.collect()
    }

    #[test]
    fn what_vanished_is_taken_back_from_those_who_had_it() {
        let now = Instant::now();
        let mut withdrawn = Withdrawn::default();
        withdrawn.replace(
            now,
            &says(vec![line("2001:db8:1::/64", true, Some("10.0.1.0/24"))]),
        );
        let new = says(vec![line("2001:db8:2::/64", true, None)]);
        withdrawn.replace(now, &new);
        let gone = [("2001:db8:1::".to_owned(), true, true)];
        assert_eq!(prefixes(&withdrawn, &new, [10, 0, 1, 1]), gone);
        assert_eq!(prefixes(&withdrawn, &new, [10, 0, 2, 1]), []);
        withdrawn.expire(now + PERIOD - Duration::from_secs(1));
        assert_eq!(prefixes(&withdrawn, &new, [10, 0, 1, 1]), gone);
        withdrawn.expire(now + PERIOD);
        assert_eq!(prefixes(&withdrawn, &new, [10, 0, 1, 1]), []);
    }

    #[test]
    fn what_returns_is_not_taken_back() {
        let now = Instant::now();
        let mut withdrawn = Withdrawn::default();
        let old = says(vec![line("2001:db8:1::/64", true, None)]);
        for new in [&old, &says(vec![]), &old] {
            withdrawn.replace(now, new);
        }
        assert_eq!(prefixes(&withdrawn, &old, [10, 0, 1, 1]), []);
    }

    /// V8, T11: without the on-link flag a host goes on believing what it was told before.
    #[test]
    fn on_link_alone_is_taken_back() {
        let now = Instant::now();
        let mut withdrawn = Withdrawn::default();
        withdrawn.replace(now, &says(vec![line("2001:db8:1::/64", true, None)]));
        let new = says(vec![line("2001:db8:1::/64", false, None)]);
        withdrawn.replace(now, &new);
        assert_eq!(
            prefixes(&withdrawn, &new, [10, 0, 1, 1]),
            [("2001:db8:1::".to_owned(), true, false)]
        );
    }

    #[test]
    fn routes_servers_and_domains_as_well() {
        let now = Instant::now();
        let list = |name: &str| AdvertisedList {
            items: vec![name.to_owned(), "stays.example".to_owned()],
            lifetime: 900,
        };
        let old = Advertise {
            routes: vec![AdvertisedRoute {
                prefix: "2001:db8::/32".parse().unwrap(),
                preference: Preference::High,
                lifetime: None,
            }],
            dns: vec![AdvertisedList {
                items: vec!["2001:db8::53".parse().unwrap()],
                lifetime: 900,
            }],
            search: vec![list("goes.example")],
            ..Advertise::default()
        };
        let new = Advertise {
            search: vec![list("comes.example")],
            ..Advertise::default()
        };
        let mut withdrawn = Withdrawn::default();
        withdrawn.replace(now, &old);
        withdrawn.replace(now, &new);
        let content = Content::new(&new, 1280);
        let options = withdrawn.options_for(&content, Ipv4Addr::new(10, 0, 0, 2));
        let goes = dnssl::encode(&["goes.example".to_owned()]);
        assert_eq!(options.len(), 3, "{options:?}");
        assert!(options.contains(&NdOption::Dnssl {
            lifetime: 0,
            names: &goes
        }));
    }

    /// T6, V12: a site with a prefix for each of its networks is renumbered in one reload, and every network hears it; what
    /// was taken back before is bounded.
    #[test]
    fn every_network_of_the_longest_file() {
        let now = Instant::now();
        let network = |number: usize| {
            let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
            [10, high, low, 0]
        };
        let of_site = |site: u32| {
            let all = (0..MAX_PREFIXES).map(|number| {
                let hosts = format!("{}/24", Ipv4Addr::from(network(number)));
                line(&format!("2001:db8:{site:x}:{number:x}::/64"), true, Some(&hosts))
            });
            says(all.collect())
        };
        let now_said = of_site(4);
        let mut withdrawn = Withdrawn::default();
        for site in 1..4 {
            withdrawn.replace(now, &of_site(site));
        }
        withdrawn.replace(now, &now_said);
        assert_eq!(withdrawn.items.len(), MAX_WITHDRAWN);
        for number in 0..MAX_PREFIXES {
            let gone = [3, 2].map(|site| {
                let prefix = Ipv6Addr::new(0x2001, 0xdb8, site, u16::try_from(number).unwrap(), 0, 0, 0, 0);
                (prefix.to_string(), true, true)
            });
            let told = prefixes(&withdrawn, &now_said, network(number));
            assert_eq!(told, gone, "network {number}");
        }
    }
}
