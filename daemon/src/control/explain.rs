//! What would happen to a packet, and by which rule: the engine's own verdict on a packet made for the question.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{NextHop, Rulebook};
use isatap_engine::isatap::{SiteKnowledge as _, iid};
use isatap_engine::path::{self, DecapVerdict, EncapVerdict};
use isatap_engine::reason::DropReason;
use isatap_engine::wire::ext;
use isatap_engine::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use isatap_engine::wire::ipv6::{HEADER_LEN, Ipv6Header};
use isatap_engine::wire::vnet;

use super::carrier::Carriers;
use crate::ops::query::ExplainRequest;

/// The payload of the example: an empty UDP datagram.
const UDP: [u8; 8] = [0x80, 0, 0x80, 0, 0, 8, 0, 0];

/// Says what would happen to a packet, and who would do it, one sentence a line.
pub(super) fn explain(
    rules: &Rulebook,
    locator: Ipv4Addr,
    request: ExplainRequest,
    carriers: &Carriers<'_>,
) -> Result<Vec<String>, String> {
    let inner = inner(request.src6, request.dst6);
    match request.src4 {
        Some(src4) => received(rules, locator, src4, request, &inner, carriers),
        None => Ok(sent(rules, request.dst6, &inner, carriers)),
    }
}

fn inner(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LEN];
    Ipv6Header {
        src,
        dst,
        next_header: ext::UDP,
        hop_limit: 64,
        payload_len: 8,
        traffic_class: 0,
        flow_label: 0,
    }
    .emit(&mut packet);
    packet.extend(UDP);
    packet
}

fn received(
    rules: &Rulebook,
    locator: Ipv4Addr,
    src: Ipv4Addr,
    request: ExplainRequest,
    inner: &[u8],
    carriers: &Carriers<'_>,
) -> Result<Vec<String>, String> {
    let payload_len = u16::try_from(inner.len()).map_err(|_| "the example is too long".to_owned())?;
    let mut header = [0; MIN_HEADER_LEN];
    OuterHeader {
        src,
        dst: locator,
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        id: 0,
        payload_len,
    }
    .emit(&mut header);
    let mut lines = vec![format!(
        "received from {src} for {locator}: {} to {}",
        request.src6, request.dst6
    )];
    if rules.is_router(src) {
        lines.push(format!("{src} is a router of the PRL or a peer router"));
    } else if rules.is_site_host(src) {
        lines.push(format!("{src} belongs to the site networks"));
    }
    match iid::embedded(&request.src6) {
        Some(embedded) => lines.push(format!("the source embeds {embedded}")),
        None => lines.push("the source is no ISATAP address".to_owned()),
    }
    if rules.is_on_link(&request.src6) {
        lines.push("the source is on-link".to_owned());
    }
    let packet = [&header[..], inner].concat();
    let verdict = path::decap::decide(rules, &packet);
    lines.push(match &verdict {
        DecapVerdict::Deliver(_) => "delivered to the kernel".to_owned(),
        DecapVerdict::Punt(handed) => format!("given to control: {:?}", handed.kind),
        DecapVerdict::Drop(reason) => dropped(*reason),
    });
    lines.extend(carriers.of_received(rules, locator, &packet, &verdict));
    Ok(lines)
}

fn sent(rules: &Rulebook, dst: Ipv6Addr, inner: &[u8], carriers: &Carriers<'_>) -> Vec<String> {
    let mut lines = vec![match rules.route(&dst) {
        Some(NextHop::OnLink) => format!("{dst} is on-link"),
        Some(NextHop::Via(router)) => format!("the route for {dst} leads to {router}"),
        Some(NextHop::Group(number)) => {
            let members = rules
                .group(number)
                .map(|group| group.active())
                .unwrap_or_default();
            let members: Vec<_> = members.iter().map(ToString::to_string).collect();
            format!(
                "the route for {dst} leads to {}: each flow to one of them",
                members.join(" or ")
            )
        }
        Some(NextHop::Unreachable) => format!("the gateway of the route for {dst} is no ISATAP address"),
        None => format!("there is no route for {dst} over this interface"),
    }];
    let frame = [&[0; vnet::LEN][..], inner].concat();
    let verdict = path::encap::decide(rules, &frame);
    let fate = match &verdict {
        EncapVerdict::Send(route) => {
            lines.extend(path(rules, &route.outer));
            format!("sent from {} to {}", route.outer.src, route.outer.dst)
        }
        EncapVerdict::Reply(reason, error) => format!("{}; the sender is told: {error:?}", dropped(*reason)),
        EncapVerdict::Punt(kind) => format!("given to control: {kind:?}"),
        EncapVerdict::Drop(reason) => dropped(*reason),
    };
    lines.push(fate);
    lines.extend(carriers.of_sent(inner, &verdict));
    lines
}

/// What is known about the path, if anything limits it.
fn path(rules: &Rulebook, outer: &OuterHeader) -> Vec<String> {
    let (path, peer) = (rules.path(outer.dst), outer.dst);
    let mut lines = Vec::new();
    if path.link() < u16::MAX {
        lines.push(format!(
            "the link towards {peer} takes IPv4 packets of {} bytes: larger ones leave in fragments, or their senders are told",
            path.link()
        ));
    }
    if path.path() < path.link() {
        lines.push(format!(
            "the path to {peer} takes IPv4 packets of {} bytes",
            path.path()
        ));
    }
    if outer.dont_fragment {
        lines.push("nobody may fragment it: the path is explored (PathMtu dynamic)".to_owned());
    }
    lines
}

fn dropped(reason: DropReason) -> String {
    format!("dropped, {}: {}", reason.name(), reason.help())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_engine::fib::{Locator, Role, RulebookBuilder};

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const WORKERS: Carriers<'static> = Carriers::Workers("");

    fn answer(src4: Option<Ipv4Addr>, src6: &str, dst6: &str) -> String {
        let rules = RulebookBuilder {
            role: Role::Router,
            locators: vec![Locator {
                addr: US,
                if_index: 0,
            }],
            routes: vec![("2001:db8::/64".parse().unwrap(), NextHop::OnLink)],
            site: vec!["10.0.0.0/8".parse().unwrap()],
            ..RulebookBuilder::default()
        };
        let request = ExplainRequest {
            src4,
            src6: src6.parse().unwrap(),
            dst6: dst6.parse().unwrap(),
        };
        explain(&rules.build().unwrap(), US, request, &WORKERS)
            .unwrap()
            .join("\n")
    }

    #[test]
    fn received_packets() {
        let good = answer(Some(HOST), "2001:db8::5efe:10.0.0.5", "2001:db8:1::1");
        assert!(good.ends_with("delivered to the kernel"), "{good}");
        let forged = answer(Some(HOST), "2001:db8::5efe:10.0.0.6", "2001:db8:1::1");
        assert!(forged.contains("dropped, src_mismatch"), "{forged}");
        let stranger = answer(
            Some(Ipv4Addr::new(8, 8, 8, 8)),
            "2001:db8::200:5efe:8.8.8.8",
            "2001:db8:1::1",
        );
        assert!(stranger.contains("dropped, not_site"), "{stranger}");
    }

    #[test]
    fn paths_are_told() {
        use isatap_engine::isatap::mtu::PathMtu;
        let rules = RulebookBuilder {
            locators: vec![Locator {
                addr: US,
                if_index: 0,
            }],
            site: vec!["10.0.0.0/8".parse().unwrap()],
            link_mtu: 1290,
            paths: vec![(HOST, PathMtu::of_path(600))],
            ..RulebookBuilder::default()
        };
        let request = ExplainRequest {
            src4: None,
            src6: iid::link_local(US),
            dst6: iid::link_local(HOST),
        };
        let text = explain(&rules.build().unwrap(), US, request, &WORKERS)
            .unwrap()
            .join("\n");
        for part in [
            "10.0.0.5 takes IPv4 packets of 1290 bytes",
            "path to 10.0.0.5 takes IPv4 packets of 600",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn sent_packets() {
        let good = answer(None, "2001:db8::5efe:10.0.0.1", "2001:db8::5efe:10.0.0.5");
        assert!(good.ends_with("sent from 10.0.0.1 to 10.0.0.5"), "{good}");
        let nowhere = answer(None, "2001:db8::5efe:10.0.0.1", "2001:db8:9::1");
        assert!(nowhere.contains("dropped, no_route"), "{nowhere}");
    }
}
