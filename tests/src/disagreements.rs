//! Where the kernel's ISATAP device and ours judge a packet of the [`corpus`](crate::corpus) differently, class by class,
//! with the clause that makes us right.
//!
//! The kernel's device checks outer and inner source and leaves nearly everything else to the IPv6 input behind it, or
//! to nobody. We stand in front of an IPv6 input that is not to see what a tunnel has to refuse. The rules here are
//! written from the texts, without the engine, and are exact: whatever a class explains, we refuse (or take).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::corpus::{Case, GATEWAY, OWN, ROUTED, ROUTER, SECOND_ROUTER};
use crate::nd::{
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};
use crate::packet::{ICMPV6, SeenInner, SeenOuter, isatap, link_local, upper_checksum};
use crate::scene::PREFIX;

/// Which way a disagreement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The kernel's device takes the packet and we refuse it.
    KernelTakes,
    /// We take the packet and the kernel's device refuses it.
    WeTake,
    /// Both take it, and what they make of it differs.
    BothTake,
}

/// One reason to disagree.
#[derive(Debug)]
pub struct Class {
    /// In a few words.
    pub name: &'static str,
    /// Which way.
    pub who: Who,
    /// Why ours is right.
    pub clause: &'static str,
    /// Whether it explains a packet.
    pub explains: fn(&Packet<'_>) -> bool,
    /// Whether we refuse (or take) all that it explains; what a limit stops depends on time.
    pub always: bool,
}

/// A packet of protocol 41 as the classes see it.
#[derive(Debug)]
pub struct Packet<'a> {
    outer: SeenOuter<'a>,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    /// Whether the receiver is a router, and not a host.
    is_router: bool,
}

impl<'a> Packet<'a> {
    /// Reads a case; nothing if it holds no whole IPv6 header, which nobody takes.
    pub fn read(case: &'a Case, is_router: bool) -> Option<Self> {
        let outer = case.outer()?;
        let address = |at: usize| {
            Some(Ipv6Addr::from(
                <[u8; 16]>::try_from(outer.payload.get(at..at + 16)?).ok()?,
            ))
        };
        Some(Self {
            src: address(8)?,
            dst: address(24)?,
            outer,
            is_router,
        })
    }

    /// The inner packet, where its lengths are right.
    fn inner(&self) -> Option<SeenInner<'a>> {
        self.outer.inner()
    }

    /// The first header that is no extension header, and what follows it; nothing where the chain leaves the packet or
    /// has more than eight headers.
    fn upper(&self) -> Option<Upper<'a>> {
        let inner = self.inner()?;
        let (mut next, mut rest, mut in_fragment) = (inner.header.next_header().0, inner.payload, false);
        for passed in 0..=8 {
            let len = match next {
                0 | 43 | 44 | 51 | 60 if passed == 8 => return None,
                0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
                51 => (usize::from(*rest.get(1)?) + 2) * 4,
                44 => 8,
                _ => {
                    return Some(Upper {
                        protocol: next,
                        message: rest,
                        in_fragment,
                    });
                }
            };
            let later = next == 44 && u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3 != 0;
            in_fragment |= next == 44;
            next = rest[0];
            rest = rest.get(len..)?;
            if later {
                return Some(Upper {
                    protocol: next,
                    message: &[],
                    in_fragment,
                });
            }
        }
        None
    }

    fn is_from_router(&self) -> bool {
        [ROUTER, SECOND_ROUTER].contains(&self.outer.src())
    }

    fn is_to_ourselves(&self) -> bool {
        [link_local(OWN), isatap(PREFIX, false, OWN)].contains(&self.dst)
    }
}

/// What lies behind the extension headers.
#[derive(Debug)]
struct Upper<'a> {
    protocol: u8,
    message: &'a [u8],
    in_fragment: bool,
}

/// All of them.
pub const CLASSES: [Class; 18] = {
    use Who::{KernelTakes, WeTake};
    const fn class(
        name: &'static str,
        who: Who,
        clause: &'static str,
        explains: fn(&Packet<'_>) -> bool,
    ) -> Class {
        Class {
            name,
            who,
            clause,
            explains,
            always: true,
        }
    }
    [
        class(
            "outer source no host has: 0/8, 240/4, broadcast",
            KernelTakes,
            "RFC 1122 3.2.1.3",
            no_sender,
        ),
        class("outer source outside the site", KernelTakes, "RFC 5214 10", |p| {
            is_outside(p.outer.src())
        }),
        class(
            "source route in the outer header",
            KernelTakes,
            "RFC 7126 4.3, 4.4",
            has_source_route,
        ),
        class("inner version other than 6", KernelTakes, "RFC 8200 3", |p| {
            p.outer.payload[0] >> 4 != 6
        }),
        class(
            "inner packet longer than what arrived",
            KernelTakes,
            "RFC 4213 3.6",
            |p| usize::from(payload_len(p)) > p.outer.payload.len() - 40,
        ),
        class("inner payload length 0", KernelTakes, "RFC 2675 3", |p| {
            payload_len(p) == 0
        }),
        class("inner source no packet has", KernelTakes, "RFC 4213 3.6", |p| {
            p.src.is_multicast() || !p.src.is_unspecified() && is_never_unicast(&p.src)
        }),
        class("inner source that is ours", KernelTakes, "RFC 3704 2", |p| {
            [link_local(OWN), isatap(PREFIX, false, OWN)].contains(&p.src)
        }),
        class(
            "inner destination no packet has",
            KernelTakes,
            "RFC 4291 2.5",
            |p| is_never_unicast(&p.dst),
        ),
        class(
            "multicast that this link does not carry",
            KernelTakes,
            "RFC 5214 6.3",
            is_foreign_multicast,
        ),
        class(
            "on its way back into a tunnel",
            KernelTakes,
            "RFC 6324 3.2.3, 3.3",
            is_loop,
        ),
        class(
            "extension headers beyond the packet, or too many",
            KernelTakes,
            "RFC 8200 4, RFC 8504 5.3",
            |p| p.inner().is_some() && p.upper().is_none(),
        ),
        class("a tunnel in the tunnel", KernelTakes, "RFC 2473 4.1", |p| {
            p.upper()
                .is_some_and(|upper| [4, 41, 47].contains(&upper.protocol))
        }),
        class(
            "neighbour discovery that is not valid",
            KernelTakes,
            "RFC 4861 6.1, 7.1, 8.1, RFC 6980 5",
            |p| discovery(p).is_some_and(|upper| !is_valid_discovery(p, &upper)),
        ),
        class(
            "advertisement or redirect of no router",
            KernelTakes,
            "RFC 5214 8.3.3",
            |p| {
                let speaks_as_router =
                    |upper: Upper<'_>| [ROUTER_ADVERTISEMENT, REDIRECT].contains(&upper.message[0]);
                discovery(p).is_some_and(speaks_as_router)
                    && (p.is_router
                        || !p.is_from_router()
                        || !p.src.is_unicast_link_local()
                        || embedded(&p.src) != Some(p.outer.src()))
            },
        ),
        class(
            "redirect that the daemon takes itself",
            KernelTakes,
            "RFC 4861 8.3",
            |p| discovery(p).is_some_and(|upper| upper.message[0] == REDIRECT),
        ),
        Class {
            always: false,
            ..class(
                "more solicitations than a router hears",
                KernelTakes,
                "RFC 4861 6.2.6",
                |p| {
                    let asks = |upper: Upper<'_>| upper.message[0] == ROUTER_SOLICITATION;
                    p.is_router && discovery(p).is_some_and(asks)
                },
            )
        },
        class(
            "source that is routed to the sender",
            WeTake,
            "RFC 6324 3.2.4.2",
            |p| p.outer.src() == GATEWAY && p.src.segments()[..3] == routed().segments()[..3],
        ),
    ]
};

fn routed() -> Ipv6Addr {
    ROUTED.parse().expect("an address")
}

fn payload_len(p: &Packet<'_>) -> u16 {
    u16::from_be_bytes([p.outer.payload[4], p.outer.payload[5]])
}

fn no_sender(p: &Packet<'_>) -> bool {
    let src = p.outer.src();
    matches!(src.octets()[0], 0 | 127 | 224..) || src == Ipv4Addr::new(10, 0, 0, 255) || src == OWN
}

/// Neither private (RFC 1918, RFC 6598, RFC 3927) nor of a connected network.
fn is_outside(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    !(v4.is_private() || v4.is_link_local() || a == 100 && b & 0xc0 == 64)
}

fn has_source_route(p: &Packet<'_>) -> bool {
    let mut options = &p.outer.header.slice()[20..];
    while let Some(&kind) = options.first() {
        match kind {
            0 => return false,
            1 => options = &options[1..],
            131 | 137 => return true,
            // What does not add up nobody takes.
            _ => {
                options = options
                    .get(1)
                    .and_then(|len| options.get(usize::from(*len).max(2)..))
                    .unwrap_or_default()
            }
        }
    }
    false
}

/// `::`, `::1`, IPv4-compatible, IPv4-mapped, and `fe80::/10` beside `fe80::/64` (RFC 4291 2.5.2 to 2.5.6).
fn is_never_unicast(addr: &Ipv6Addr) -> bool {
    let bits = addr.to_bits();
    bits >> 32 == 0 || bits >> 32 == 0xffff || bits >> 118 == 0xfe80 >> 6 && bits >> 64 != 0xfe80 << 48
}

/// All but what routers say to all nodes, anybody to all routers where there is one, and the solicited-node group of our
/// addresses.
fn is_foreign_multicast(p: &Packet<'_>) -> bool {
    let [a, b, c] = [OWN.octets()[1], OWN.octets()[2], OWN.octets()[3]];
    let own_group = 0xff02 << 112 | 0x1_ff00_0000 | u128::from(u32::from_be_bytes([0, a, b, c]));
    let carried = match p.dst.to_bits() {
        bits if bits == 0xff02 << 112 | 1 => p.is_from_router(),
        bits if bits == 0xff02 << 112 | 2 => p.is_router,
        bits => bits == own_group,
    };
    p.dst.is_multicast() && !carried
}

/// The IPv4 address that ISATAP's format embeds.
fn embedded(addr: &Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = addr.octets();
    let is_isatap = matches!(octets[8..12], [0 | 2, 0, 0x5e, 0xfe]);
    is_isatap.then(|| Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
}

fn is_loop(p: &Packet<'_>) -> bool {
    if p.is_to_ourselves() || p.dst.is_multicast() || p.dst.is_unicast_link_local() {
        return false;
    }
    let on_link = p.dst.to_bits() >> 64 == isatap(PREFIX, false, OWN).to_bits() >> 64;
    let is_6to4_of_ours = p.dst.octets()[..2] == [0x20, 0x02] && p.dst.octets()[2..6] == OWN.octets();
    let ours_elsewhere = !on_link && (embedded(&p.dst) == Some(OWN) || is_6to4_of_ours);
    ours_elsewhere || on_link && embedded(&p.dst) == Some(p.outer.src())
}

/// The message, if it is one of the five of RFC 4861.
fn discovery<'a>(p: &Packet<'a>) -> Option<Upper<'a>> {
    let upper = p.upper().filter(|upper| upper.protocol == ICMPV6)?;
    let kind = upper.message.first()?;
    (ROUTER_SOLICITATION..=REDIRECT).contains(kind).then_some(upper)
}

/// The checks that every receiver makes (RFC 4861 6.1.1, 6.1.2, 7.1.1, 7.1.2, 8.1; RFC 6980 5).
fn is_valid_discovery(p: &Packet<'_>, upper: &Upper<'_>) -> bool {
    let message = upper.message;
    let body_len = match message[0] {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => 24,
        _ => 40,
    };
    let Some(mut options) = message.get(body_len..) else {
        return false;
    };
    let hop_limit = p.outer.payload[7];
    let sum = upper_checksum(p.src, p.dst, ICMPV6, message);
    if upper.in_fragment || hop_limit != 255 || message[1] != 0 || sum != 0 {
        return false;
    }
    let mut has_source_option = false;
    while let Some(&kind) = options.first() {
        has_source_option |= kind == 1;
        let len = options.get(1).map_or(0, |units| usize::from(*units) * 8);
        match options.get(len..) {
            Some(rest) if len > 0 => options = rest,
            _ => return false,
        }
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&message[at..at + 16]).expect("16 bytes"));
    let to_solicited_node = p.dst.to_bits() >> 24 == (0xff02 << 88 | 0x1ff);
    match message[0] {
        ROUTER_SOLICITATION => !(p.src.is_unspecified() && has_source_option),
        ROUTER_ADVERTISEMENT => p.src.is_unicast_link_local(),
        NEIGHBOUR_SOLICITATION => {
            !address(8).is_multicast() && (!p.src.is_unspecified() || to_solicited_node && !has_source_option)
        }
        NEIGHBOUR_ADVERTISEMENT => {
            !address(8).is_multicast() && (message[4] & 0x40 == 0 || !p.dst.is_multicast())
        }
        _ => {
            let (target, about) = (address(8), address(24));
            p.src.is_unicast_link_local()
                && !about.is_multicast()
                && (target.is_unicast_link_local() || target == about)
        }
    }
}
