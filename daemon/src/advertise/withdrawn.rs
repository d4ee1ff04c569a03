//! What was advertised and is so no longer: said with lifetime 0 for a while, so that hosts stop using it at once and not
//! when it would have ended (RFC 4861 6.2.7 and 12, RFC 4191 4, RFC 8106 5.1).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use isatap_engine::wire::nd::NdOption;
use serde::{Deserialize, Serialize};

use super::item::Item;
use super::message::Content;
use crate::config::advertise::MAX_PREFIXES;
use crate::config::resolved::Advertise;

/// How long something is taken back for: a host that was told once keeps an address for two hours at most (RFC 4862
/// 5.5.3 e), so that nobody who heard of it late is worse off.
const PERIOD: Duration = Duration::from_secs(2 * 3600);
/// Things taken back at most; the oldest give way. Every prefix of the longest file may be replaced at once, each told to
/// another network, and something may have been taken back before.
const MAX_WITHDRAWN: usize = 2 * MAX_PREFIXES;

/// One thing taken back, as engines leave it to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    item: Item,
    /// Seconds after the moment that all engines agree on.
    until: u64,
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
        let prefixes = prefixes.map(Item::prefix);
        let routes = old.routes.iter().map(|route| Item::Route(route.prefix));
        let servers = servers(&old).map(Item::server);
        let domains = domains(&old).map(|name| Item::domain(name));
        let gone: Vec<_> = prefixes.chain(routes).chain(servers).chain(domains).collect();
        self.items.retain(|(item, _)| !gone.contains(item));
        self.items
            .extend(gone.into_iter().map(|item| (item, now + PERIOD)));
        // What is said again, or still, is not taken back. Prefixes are decided for each host.
        self.items.retain(|(item, _)| !is_said(item, new));
        let excess = self.items.len().saturating_sub(MAX_WITHDRAWN);
        self.items.drain(..excess);
    }

    /// What the next engine is to go on taking back; `epoch` is the same for both.
    pub(super) fn kept(&self, epoch: Instant) -> Vec<TakenBack> {
        let kept = |(item, until): &(Item, Instant)| TakenBack {
            item: item.clone(),
            until: until.saturating_duration_since(epoch).as_secs(),
        };
        self.items.iter().map(kept).collect()
    }

    /// Goes on with what an engine before this one took back, before anything is said. What this program does not do,
    /// such an engine did not do in its right mind.
    pub(super) fn recall(&mut self, epoch: Instant, now: Instant, kept: Vec<TakenBack>) {
        let lasting = |taken: TakenBack| {
            let until = epoch.checked_add(Duration::from_secs(taken.until))?;
            let left = until.checked_duration_since(now)?;
            (left <= PERIOD).then_some((taken.item, until))
        };
        let items = kept.into_iter().filter_map(lasting);
        self.items = items.take(MAX_WITHDRAWN).collect();
    }

    /// Forgets what has been said for long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.items.retain(|(_, until)| *until > now);
    }

    /// What the host at `client` is to forget, beside what `content` tells it.
    pub(super) fn options_for(&self, content: &Content, client: Ipv4Addr) -> Vec<NdOption<'_>> {
        let current = content.prefixes_for(client);
        // The newest are the most urgent.
        self.items
            .iter()
            .rev()
            .filter_map(|(item, _)| item.option_for(&current, client))
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
        Item::Server(_) => servers(new).any(|said| Item::server(said) == *item),
        Item::Domain(_) => domains(new).any(|said| Item::domain(said) == *item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::advertise::{AdvertisedList, AdvertisedPrefix, AdvertisedRoute};
    use crate::slaac::dnssl;
    use isatap_engine::wire::nd::Preference;

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

    /// T6, V12: an engine that follows goes on until the same moment, but for what is said again by then; what no engine
    /// leaves is not taken.
    #[test]
    fn the_next_engine_goes_on() {
        let epoch = Instant::now();
        let now = epoch + Duration::from_secs(100);
        let both = says(vec![
            line("2001:db8:1::/64", true, None),
            line("2001:db8:2::/64", false, None),
        ]);
        let none = says(Vec::new());
        let mut first = Withdrawn::default();
        first.replace(now, &both);
        first.replace(now, &none);
        let kept = first.kept(epoch);

        let later = now + PERIOD / 2;
        let mut second = Withdrawn::default();
        second.recall(epoch, later, kept.clone());
        let second_says = says(vec![line("2001:db8:2::/64", false, None)]);
        second.replace(later, &second_says);
        let gone = [("2001:db8:1::".to_owned(), true, true)];
        assert_eq!(prefixes(&second, &second_says, [10, 0, 0, 2]), gone);
        second.expire(now + PERIOD - Duration::from_secs(1));
        assert_eq!(prefixes(&second, &second_says, [10, 0, 0, 2]), gone);
        second.expire(now + PERIOD);
        assert_eq!(prefixes(&second, &second_says, [10, 0, 0, 2]), []);

        // Over, of another time, and far too many.
        for (at, kept, count) in [
            (now + PERIOD + Duration::from_secs(1), kept.clone(), 0),
            (epoch, kept.clone(), 0),
            (
                now,
                vec![TakenBack {
                    until: u64::MAX,
                    ..kept[0].clone()
                }],
                0,
            ),
            (now, vec![kept[0].clone(); MAX_WITHDRAWN + 1], MAX_WITHDRAWN),
        ] {
            let mut third = Withdrawn::default();
            third.recall(epoch, at, kept);
            assert_eq!(third.items.len(), count);
        }
    }

    /// T6: a name is the same however its letters are written.
    #[test]
    fn a_domain_written_otherwise_is_not_taken_back() {
        let search = |name: &str| Advertise {
            search: vec![AdvertisedList {
                items: vec![name.to_owned()],
                lifetime: 1800,
            }],
            ..says(Vec::new())
        };
        let now = Instant::now();
        let mut withdrawn = Withdrawn::default();
        withdrawn.replace(now, &search("Corp.Example"));
        withdrawn.replace(now, &search("corp.example."));
        assert_eq!(withdrawn.items, []);
        withdrawn.replace(now, &search("other.example"));
        assert_eq!(withdrawn.items.len(), 1);
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
