//! Routes on the ISATAP interface that cannot be honoured. What the kernel hands over is a packet, and not the route that it took: the
//! mirror finds that again by the destination alone. So a route for a source, or one of another table that a rule chooses, is not
//! told from others, and whoever has set one hears of it. Pure.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use isatap_engine::fib::Ipv6Prefix;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

/// Routes for sources that are named at most.
const MAX_NAMED: usize = 4;

/// Routes for a source, by destination, source, table and metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sourced(BTreeSet<(Ipv6Prefix, Ipv6Prefix, u32, u32)>);

impl Sourced {
    /// A route has come, or gone; whether it is one for a source.
    pub(super) fn apply(&mut self, message: &RouteMessage, is_there: bool) -> bool {
        let header = &message.header;
        let is_one = header.address_family == AddressFamily::Inet6
            && header.kind == RouteType::Unicast
            && header.source_prefix_length > 0;
        if !is_one {
            return false;
        }
        let (mut to, mut from) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        let (mut table, mut metric) = (u32::from(header.table), 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet6(addr)) => to = *addr,
                RouteAttribute::Source(RouteAddress::Inet6(addr)) => from = *addr,
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let to = Ipv6Prefix::containing(to, header.destination_prefix_length);
        let from = Ipv6Prefix::containing(from, header.source_prefix_length);
        if let (Ok(to), Ok(from)) = (to, from) {
            let key = (to, from, table, metric);
            let _ = if is_there {
                self.0.insert(key)
            } else {
                self.0.remove(&key)
            };
        }
        true
    }
}

/// What is not honoured, in words; `tables` are those of the routes with a gateway.
pub(super) fn not_honoured(sourced: &Sourced, tables: impl Iterator<Item = u32>) -> Vec<String> {
    let mut all = Vec::new();
    let tables: BTreeSet<u32> = tables.collect();
    if tables.len() > 1 {
        let name = |table: &u32| match *table {
            main if main == u32::from(RouteHeader::RT_TABLE_MAIN) => "main".to_owned(),
            table => table.to_string(),
        };
        let names: Vec<_> = tables.iter().map(name).collect();
        all.push(format!(
            "there are gateways in the tables {}, which hold for all packets here, those of main before others",
            names.join(", ")
        ));
    }
    if !sourced.0.is_empty() {
        let named = sourced.0.iter().take(MAX_NAMED);
        let named: Vec<_> = named.map(|(to, from, ..)| format!("{to} from {from}")).collect();
        let more = if sourced.0.len() > MAX_NAMED { ", ..." } else { "" };
        all.push(format!(
            "routes for a source are as if they were not there ({}{more})",
            named.join(", ")
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(from: &str, kind: RouteType) -> RouteMessage {
        let (to, from): (Ipv6Prefix, Ipv6Prefix) =
            ("2001:db8:7::/48".parse().unwrap(), from.parse().unwrap());
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = to.len();
        message.header.source_prefix_length = from.len();
        message.header.kind = kind;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet6(to.addr())),
            RouteAttribute::Source(RouteAddress::Inet6(from.addr())),
        ];
        message
    }

    #[test]
    fn routes_for_sources_come_and_go() {
        let mut sourced = Sourced::default();
        assert!(!sourced.apply(&route("::/0", RouteType::Unicast), true));
        assert!(!sourced.apply(&route("2001:db8:1::/64", RouteType::BlackHole), true));
        assert_eq!(not_honoured(&sourced, [254].into_iter()), Vec::<String>::new());
        assert!(sourced.apply(&route("2001:db8:1::/64", RouteType::Unicast), true));
        let said = not_honoured(&sourced, [254, 77, 254].into_iter());
        assert!(said[0].contains("tables 77, main"), "{said:?}");
        assert!(
            said[1].contains("2001:db8:7::/48 from 2001:db8:1::/64"),
            "{said:?}"
        );
        assert!(sourced.apply(&route("2001:db8:1::/64", RouteType::Unicast), false));
        assert_eq!(sourced, Sourced::default());
    }
}
