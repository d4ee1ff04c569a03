//! A judge of packets who knows nothing of the engine: for any bytes on the wire, whether a router has to let them in, and as
//! what.
//!
//! Headers are read by etherparse; the rules are those of the texts, the ones in [`disagreements`](crate::disagreements)
//! included. The receiver is the one of the [`corpus`](crate::corpus): a router at [`OWN`] with the peers [`ROUTER`] and
//! [`SECOND_ROUTER`], the on-link [`PREFIX`], and [`ROUTED`] by way of [`GATEWAY`]; it reassembles nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::corpus::{Case, GATEWAY, OWN, ROUTED, ROUTER, SECOND_ROUTER};
use crate::disagreements::{CLASSES, Packet, Who};
use crate::packet::{SeenInner, SeenOuter, checksum, isatap};
use crate::scene::PREFIX;

/// What has to become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has to come out of the tunnel as exactly these bytes.
    Pass(Vec<u8>),
    /// It may not come out, for this reason.
    Refuse(&'static str),
    /// It may come out as these bytes: how many do is a matter of limits, or of the kernel in front of us.
    Either(Vec<u8>),
}

/// Judges one IPv4 packet as it arrives on the wire.
pub fn judge(frame: &[u8]) -> Verdict {
    let Some(outer) = SeenOuter::read(frame) else {
        return Verdict::Refuse("no IPv4 packet of protocol 41 (RFC 791 3.1)");
    };
    let header = outer.header.slice();
    if checksum(&[header]) != 0 {
        return Verdict::Refuse("a wrong header checksum (RFC 1122 3.2.1.2)");
    }
    if outer.dst() != OWN {
        return Verdict::Refuse("for somebody else");
    }
    if outer.header.more_fragments() || outer.header.fragments_offset().value() != 0 {
        return Verdict::Refuse("a fragment whose rest never comes");
    }
    let case = Case {
        id: 0,
        group: "",
        note: String::new(),
        whole: frame.to_vec(),
        frames: Vec::new(),
    };
    let Some(packet) = Packet::read(&case, true) else {
        return Verdict::Refuse("shorter than an IPv6 header (RFC 4213 3.6)");
    };
    let refusing = || {
        CLASSES
            .iter()
            .filter(|class| class.who == Who::KernelTakes && (class.explains)(&packet))
    };
    if let Some(class) = refusing().find(|class| class.always) {
        return Verdict::Refuse(class.name);
    }
    let Some(inner) = outer.inner() else {
        return Verdict::Refuse("no IPv6 packet to its end (RFC 8200 3)");
    };
    if !is_vouched_for(outer.src(), inner.src()) {
        return Verdict::Refuse("the sender may not speak for the inner source (RFC 5214 7.3)");
    }
    if goes_back(outer.src(), inner.src(), inner.dst()) {
        return Verdict::Refuse("it would go back to where it came from (RFC 6324 3.3)");
    }
    let Some(delivered) = delivered(&outer, &inner) else {
        return Verdict::Refuse("congestion is lost on who knows no ECN (RFC 6040 4.2)");
    };
    // Which options the kernel lets pass is its own business, but for those that mean nothing.
    let odd_options = header[20..].iter().any(|option| *option > 1);
    if odd_options || refusing().next().is_some() {
        Verdict::Either(delivered)
    } else {
        Verdict::Pass(delivered)
    }
}

/// RFC 5214 7.3: the inner source embeds the outer one, under a prefix of this link; or the sender is a router of the link, or
/// routes the network of the source.
fn is_vouched_for(sender: Ipv4Addr, src: Ipv6Addr) -> bool {
    let is_prefixed = [PREFIX, "fe80::"]
        .iter()
        .any(|prefix| [false, true].iter().any(|u| isatap(prefix, *u, sender) == src));
    is_prefixed || is_router(sender) || sender == GATEWAY && is_routed(src)
}

/// What came by a router, or by a gateway, may not go on to one: it knows the way itself.
fn goes_back(sender: Ipv4Addr, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
    let is_ours = [PREFIX, "fe80::"]
        .iter()
        .any(|prefix| isatap(prefix, false, OWN) == dst);
    if is_ours || dst.is_multicast() || dst.is_unicast_link_local() {
        return false;
    }
    let own_word = [PREFIX, "fe80::"]
        .iter()
        .any(|prefix| isatap(prefix, false, sender) == src || isatap(prefix, true, sender) == src);
    if own_word {
        return false;
    }
    if is_routed(dst) {
        return sender == GATEWAY;
    }
    let on_link = [ROUTER, SECOND_ROUTER]
        .iter()
        .any(|router| [false, true].iter().any(|u| isatap(PREFIX, *u, *router) == dst));
    on_link && is_router(sender)
}

fn is_router(v4: Ipv4Addr) -> bool {
    [ROUTER, SECOND_ROUTER].contains(&v4)
}

fn is_routed(addr: Ipv6Addr) -> bool {
    let routed: Ipv6Addr = ROUTED.parse().expect("a prefix");
    addr.segments()[..3] == routed.segments()[..3]
}

/// The inner packet without what follows it, and with the ECN field that RFC 6040 figure 4 wants.
fn delivered(outer: &SeenOuter<'_>, inner: &SeenInner<'_>) -> Option<Vec<u8>> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const CE: u8 = 3;
    let (of_outer, of_inner) = (outer.tos() & 3, inner.header.traffic_class() & 3);
    let ecn = match (of_inner, of_outer) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) | (CE, _) => CE,
        (_, ECT_1) => ECT_1,
        _ => of_inner,
    };
    let mut packet = outer.payload[..40 + inner.payload.len()].to_vec();
    packet[1] = packet[1] & !0x30 | ecn << 4;
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::HOST;
    use crate::packet::{Inner, Outer, link_local};

    fn on_link(v4: Ipv4Addr) -> Ipv6Addr {
        isatap(PREFIX, false, v4)
    }

    #[test]
    fn good_packets_pass() {
        let far: Ipv6Addr = "2001:db8:5::1".parse().expect("an address");
        let routed: Ipv6Addr = "2001:db8:7::1".parse().expect("an address");
        for (sender, src, dst) in [
            (HOST, on_link(HOST), on_link(OWN)),
            (HOST, link_local(HOST), link_local(OWN)),
            (HOST, isatap(PREFIX, true, HOST), far),
            (ROUTER, far, on_link(OWN)),
            (GATEWAY, routed, on_link(HOST)),
        ] {
            let inner = Inner::new(src, dst).udp(1, 9, b"good");
            let padded = [inner.as_slice(), b"padding"].concat();
            let frame = Outer::new(sender, OWN).wrap(&padded);
            assert_eq!(judge(&frame), Verdict::Pass(inner), "{src} by {sender}");
        }
    }

    #[test]
    fn bad_packets_do_not() {
        let good = Inner::new(on_link(HOST), on_link(OWN)).udp(1, 9, b"good");
        let routed: Ipv6Addr = "2001:db8:7::1".parse().expect("an address");
        let beside: Ipv6Addr = "2001:db8:7::2".parse().expect("an address");
        let from = |sender, inner: &[u8]| Outer::new(sender, OWN).wrap(inner);
        let mut damaged = from(HOST, &good);
        damaged[8] ^= 1;
        let mut marked = Outer::new(HOST, OWN);
        marked.tos = 3;
        let mut piece = Outer::new(HOST, OWN);
        piece.more_fragments = true;
        for frame in [
            damaged,
            from(ROUTED_BY_NOBODY, &good),
            from(GATEWAY, &Inner::new(routed, beside).udp(1, 9, b"back")),
            from(
                HOST,
                &Inner::new(routed, on_link(OWN)).udp(1, 9, b"not the gateway"),
            ),
            from(HOST, &good[..good.len() - 1]),
            Outer::new(HOST, HOST).wrap(&good),
            marked.wrap(&good),
            piece.wrap(&good),
            Vec::new(),
        ] {
            assert!(matches!(judge(&frame), Verdict::Refuse(_)), "{frame:02x?}");
        }
    }

    const ROUTED_BY_NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 31);
}
