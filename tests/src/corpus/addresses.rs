//! Who sends to whom: every outer source with every kind of inner source, and inner and outer destinations of all kinds
//! (RFC 5214 7.3, RFC 4213 3.6).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Corpus, GATEWAY, HOST, OUTSIDE, OWN, ROUTED, ROUTER, SECOND_ROUTER, address, datagram};
use crate::packet::{Inner, Outer, isatap};
use crate::scene::PREFIX;

pub(super) const SENDERS: [(&str, Ipv4Addr); 14] = [
    ("router", ROUTER),
    ("second router", SECOND_ROUTER),
    ("host", HOST),
    ("gateway", GATEWAY),
    ("host of another subnet", Ipv4Addr::new(172, 16, 5, 5)),
    ("host outside the site", OUTSIDE),
    ("the receiver itself", OWN),
    ("directed broadcast", Ipv4Addr::new(10, 0, 0, 255)),
    ("0/8", Ipv4Addr::new(0, 0, 0, 1)),
    ("127/8", Ipv4Addr::new(127, 0, 0, 1)),
    ("224/4", Ipv4Addr::new(224, 0, 0, 1)),
    ("240/4", Ipv4Addr::new(240, 0, 0, 1)),
    ("limited broadcast", Ipv4Addr::BROADCAST),
    ("link-local IPv4", Ipv4Addr::new(169, 254, 3, 4)),
];

pub(super) const PREFIXES: [(&str, &str); 7] = [
    ("link-local", "fe80::"),
    ("beside fe80::/64", "fe80:0:0:1::"),
    ("on-link", PREFIX),
    ("off-link", "2001:db8:77::"),
    ("routed to the gateway", ROUTED),
    ("unique local", "fd00:1::"),
    ("site-local", "fec0::"),
];

/// First half of an interface identifier; only the first two are ISATAP's (RFC 5214 6.1).
pub(super) const IDENTIFIERS: [(&str, u32); 6] = [
    ("u=0", 0x0000_5efe),
    ("u=1", 0x0200_5efe),
    ("group bit", 0x0100_5efe),
    ("u=1 and group bit", 0x0300_5efe),
    ("5eff", 0x0000_5eff),
    ("EUI-64", 0x0253_54ff),
];

/// Sources of no sender in particular.
pub(super) const SOURCES: [&str; 13] = [
    "::",
    "::1",
    "ff02::1",
    "ff0e::1234",
    "::10.0.0.9",
    "::ffff:10.0.0.9",
    "64:ff9b::10.0.0.9",
    "2002:a00:9::1",
    "2002:a00:1::1",
    "fe80::1",
    "fe80::5efe:10.0.0.1",
    "2001:db8:1::5efe:10.0.0.1",
    "2001:db8:1::1234",
];

pub(super) const DESTINATIONS: [&str; 30] = [
    "fe80::5efe:10.0.0.1",
    "fe80::200:5efe:10.0.0.1",
    "fe80::5efe:10.0.0.9",
    "fe80::5efe:10.0.0.77",
    "fe80::1",
    "fe80:0:0:1::5efe:10.0.0.1",
    "2001:db8:1::5efe:10.0.0.1",
    "2001:db8:1:0:200:5efe:10.0.0.1",
    "2001:db8:1::5efe:10.0.0.9",
    "2001:db8:1::5efe:10.0.0.77",
    "2001:db8:1::1",
    "2001:db8:7::1",
    "2001:db8:77::1",
    "2001:db8:77::5efe:10.0.0.1",
    "2001:db8:77::5efe:10.0.0.9",
    "2001:db8:77::5efe:10.0.0.77",
    "2002:a00:1::1",
    "2002:a00:9::1",
    "fec0::1",
    "::",
    "::1",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "ff01::1",
    "ff02::1",
    "ff02::2",
    "ff02::1:ff00:1",
    "ff02::16",
    "ff05::2",
    "ff0e::1234",
];

pub(super) fn add(corpus: &mut Corpus) {
    for (sender, v4) in SENDERS {
        sources_of(corpus, sender, v4);
    }
    for (sender, v4) in &SENDERS[..4] {
        for dst in DESTINATIONS {
            let mut inner = Inner::new(isatap(PREFIX, false, *v4), address(dst));
            if dst.starts_with("fe80") {
                inner.src = isatap("fe80::", false, *v4);
            }
            let note = format!("{sender} to {dst}");
            corpus.add(
                "inner destinations",
                note,
                &Outer::new(*v4, OWN),
                &datagram(&inner),
            );
        }
    }
    for dst in [
        OWN,
        Ipv4Addr::new(10, 0, 0, 77),
        Ipv4Addr::new(10, 0, 0, 255),
        Ipv4Addr::new(10, 0, 0, 0),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(192, 0, 2, 1),
    ] {
        for (_, v4) in &SENDERS[..3] {
            let inner = Inner::new(isatap(PREFIX, false, *v4), isatap(PREFIX, false, OWN));
            corpus.add(
                "outer destinations",
                dst.to_string(),
                &Outer::new(*v4, dst),
                &datagram(&inner),
            );
        }
    }
}

fn sources_of(corpus: &mut Corpus, sender: &str, v4: Ipv4Addr) {
    let outer = Outer::new(v4, OWN);
    for (prefix_kind, prefix) in PREFIXES {
        for (identifier_kind, identifier) in IDENTIFIERS {
            for embedded in [v4, Ipv4Addr::new(10, 0, 0, 77), OWN] {
                let src = assemble(prefix, identifier, embedded);
                let note = format!("{sender}: {prefix_kind}, {identifier_kind}, {embedded}");
                corpus.add(
                    "sources",
                    note,
                    &outer,
                    &datagram(&Inner::new(src, destination(&src))),
                );
            }
        }
    }
    for src in SOURCES {
        let inner = Inner::new(address(src), isatap(PREFIX, false, OWN));
        corpus.add("sources", format!("{sender}: {src}"), &outer, &datagram(&inner));
    }
}

/// The receiver's address of the scope that answers would come from.
fn destination(src: &Ipv6Addr) -> Ipv6Addr {
    isatap(
        if src.is_unicast_link_local() {
            "fe80::"
        } else {
            PREFIX
        },
        false,
        OWN,
    )
}

pub(super) fn assemble(prefix: &str, identifier: u32, embedded: Ipv4Addr) -> Ipv6Addr {
    let mut octets = address(prefix).octets();
    octets[8..12].copy_from_slice(&identifier.to_be_bytes());
    octets[12..].copy_from_slice(&embedded.octets());
    octets.into()
}
