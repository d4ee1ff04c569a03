//! One thing that was advertised and is taken back: the option of lifetime 0 that says so, and the text that the next engine
//! reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{Ipv4Prefix, Ipv6Prefix};
use isatap_engine::wire::nd::{NdOption, Preference, PrefixInfo, RouteInfo};
use serde::{Deserialize, Serialize};

use crate::config::advertise::AdvertisedPrefix;
use crate::slaac::dnssl;

/// The thing; servers and domains as the wire has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub(super) enum Item {
    Prefix {
        prefix: Ipv6Prefix,
        was_on_link: bool,
        /// Who was told.
        hosts: Option<Ipv4Prefix>,
    },
    Route(Ipv6Prefix),
    Server([[u8; 16]; 1]),
    Domain(Vec<u8>),
}

impl Item {
    pub(super) fn prefix(line: &AdvertisedPrefix) -> Self {
        Self::Prefix {
            prefix: line.prefix,
            was_on_link: line.on_link,
            hosts: line.hosts,
        }
    }

    pub(super) fn server(addr: Ipv6Addr) -> Self {
        Self::Server([addr.octets()])
    }

    /// Names that differ by their letters' case alone are one name (RFC 4343).
    pub(super) fn domain(name: &str) -> Self {
        Self::Domain(dnssl::encode(&[name.to_ascii_lowercase()]))
    }

    /// What the host at `client` is to forget, beside the prefixes that it is told of now.
    pub(super) fn option_for(&self, current: &[&AdvertisedPrefix], client: Ipv4Addr) -> Option<NdOption<'_>> {
        match self {
            &Self::Prefix {
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
            Self::Prefix { .. } => None,
            Self::Route(prefix) => Some(NdOption::RouteInfo(RouteInfo {
                prefix: prefix.addr(),
                prefix_len: prefix.len(),
                preference: Preference::Medium,
                lifetime: 0,
            })),
            Self::Server(servers) => Some(NdOption::Rdnss { lifetime: 0, servers }),
            Self::Domain(names) => Some(NdOption::Dnssl { lifetime: 0, names }),
        }
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

/// As text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Text {
    Prefix {
        prefix: String,
        was_on_link: bool,
        hosts: Option<String>,
    },
    Route(String),
    Server(Ipv6Addr),
    Domain(String),
}

impl From<Item> for Text {
    fn from(item: Item) -> Self {
        match item {
            Item::Prefix {
                prefix,
                was_on_link,
                hosts,
            } => Self::Prefix {
                prefix: prefix.to_string(),
                was_on_link,
                hosts: hosts.map(|hosts| hosts.to_string()),
            },
            Item::Route(prefix) => Self::Route(prefix.to_string()),
            Item::Server([octets]) => Self::Server(octets.into()),
            Item::Domain(names) => Self::Domain(dnssl::decode(&names).0.concat()),
        }
    }
}

impl TryFrom<Text> for Item {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let prefix = |text: String| text.parse().map_err(|error| format!("{text}: {error}"));
        Ok(match text {
            Text::Prefix {
                prefix: addr,
                was_on_link,
                hosts,
            } => Self::Prefix {
                prefix: prefix(addr)?,
                was_on_link,
                hosts: hosts
                    .map(|hosts| hosts.parse().map_err(|error| format!("{hosts}: {error}")))
                    .transpose()?,
            },
            Text::Route(addr) => Self::Route(prefix(addr)?),
            Text::Server(addr) => Self::server(addr),
            Text::Domain(name) => {
                let item = Self::domain(&name);
                match &item {
                    Self::Domain(bytes) if dnssl::decode(bytes) == (vec![name.clone()], 0) => item,
                    _ => return Err(format!("{name}: not a domain name")),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_engine_writes_the_next_one_reads() {
        let prefix = |hosts: Option<&str>| Item::Prefix {
            prefix: "2001:db8:1::/64".parse().unwrap(),
            was_on_link: true,
            hosts: hosts.map(|hosts| hosts.parse().unwrap()),
        };
        let items = vec![
            prefix(None),
            prefix(Some("10.0.1.0/24")),
            Item::Route("2001:db8:2::/48".parse().unwrap()),
            Item::server("2001:db8::53".parse().unwrap()),
            Item::domain("corp.example"),
        ];
        let text = serde_json::to_string(&items).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Item>>(&text).unwrap(), items, "{text}");
        assert!(text.contains(r#"{"domain":"corp.example"}"#), "{text}");
    }

    #[test]
    fn what_no_engine_writes_is_refused() {
        let long = "a.".repeat(200);
        for text in [
            r#"{"route":"2001:db8::/129"}"#,
            r#"{"prefix":{"prefix":"2001:db8::/64","was_on_link":true,"hosts":"10.0.0.0/33"}}"#,
            r#"{"server":"10.0.0.1"}"#,
            r#"{"domain":""}"#,
            r#"{"domain":"two words"}"#,
            r#"{"other":"2001:db8::/64"}"#,
            &format!(r#"{{"domain":"{long}"}}"#),
        ] {
            assert!(serde_json::from_str::<Item>(text).is_err(), "{text}");
        }
    }
}
