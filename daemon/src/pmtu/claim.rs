//! Whether an ICMPv4 "fragmentation needed" is worth believing (RFC 1191 4, 5, 7.1; REQUIREMENTS M6, N8; FAULTS 25).
//!
//! Anybody can send one. It counts when what it quotes is a packet that we send: from a locator, protocol 41, with DF, to a peer
//! whose path is explored, under the identification that only we know, of a size the tunnel has, and with an inner
//! destination that leads there.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::Rulebook;
use isatap_engine::io::errqueue::SendFailure;
use isatap_engine::isatap::mtu::{OVERHEAD, PathMtuMode};
use isatap_engine::isatap::{SiteKnowledge as _, iid, plateau};
use isatap_engine::wire::ipv4::PROTO_IPV6;

/// Bytes of an IPv6 header, and what it says its payload begins behind.
const INNER_HEADER_LEN: u16 = 40;

/// What a router says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where the path leads.
    pub peer: Ipv4Addr,
    /// What it takes, in bytes of IPv4 packet.
    pub mtu: u16,
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The quote is no packet of ours, or too short to tell.
    Foreign,
    /// The quoted packet may be fragmented: no router has a reason to complain.
    Fragmentable,
    /// We do not explore the path to this peer.
    Static,
    /// Its identification is not the one we use.
    Unmarked,
    /// No packet of ours has such sizes or addresses.
    Implausible,
}

impl Refusal {
    /// The label on metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Foreign => "foreign",
            Refusal::Fragmentable => "fragmentable",
            Refusal::Static => "static",
            Refusal::Unmarked => "unmarked",
            Refusal::Implausible => "implausible",
        }
    }
}

/// What `failure`, an ICMPv4 "fragmentation needed", says.
///
/// # Errors
/// [`Refusal`]: it is not to be believed.
pub fn read(failure: &SendFailure, rules: &Rulebook) -> Result<Claim, Refusal> {
    let (outer, inner) = failure.quote.split_first_chunk::<20>().ok_or(Refusal::Foreign)?;
    let number = |at: usize| u16::from_be_bytes([outer[at], outer[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(outer[at], outer[at + 1], outer[at + 2], outer[at + 3]);
    let (src, peer) = (address(12), address(16));
    // We write no options.
    let ours = outer[0] == 0x45 && outer[9] == PROTO_IPV6 && rules.is_locator(src);
    if !ours || peer != failure.destination {
        return Err(Refusal::Foreign);
    }
    if rules.peer_policy(peer).path_mtu == PathMtuMode::Static {
        return Err(Refusal::Static);
    }
    if number(6) != 0x4000 {
        return Err(Refusal::Fragmentable);
    }
    if number(4) != rules.tunnel().mark.identification(src, peer) {
        return Err(Refusal::Unmarked);
    }
    let total_len = number(2);
    let largest = rules.tunnel().mtu.tunnel_mtu() + OVERHEAD;
    if !(OVERHEAD + INNER_HEADER_LEN..=largest).contains(&total_len)
        || !is_possible(inner, total_len, peer, rules)
    {
        return Err(Refusal::Implausible);
    }
    // A router of before RFC 1191 does not say what would fit, or repeats what did not (RFC 1191 5).
    let mtu = match u16::try_from(failure.info) {
        Ok(said @ 1..) if said < total_len => said,
        _ => plateau::below(total_len),
    };
    Ok(Claim {
        peer,
        mtu: mtu.max(plateau::MIN),
    })
}

/// Whether we would send the inner packet to `peer` in an IPv4 packet of `total_len` bytes, as far as it is quoted: eight bytes
/// are all that must be.
fn is_possible(inner: &[u8], total_len: u16, peer: Ipv4Addr, rules: &Rulebook) -> bool {
    let Some(start) = inner.first_chunk::<6>() else {
        return true;
    };
    let payload_len = u16::from_be_bytes([start[4], start[5]]);
    if start[0] >> 4 != 6 || payload_len != total_len - OVERHEAD - INNER_HEADER_LEN {
        return false;
    }
    let Some(dst) = inner.get(24..).and_then(<[u8]>::first_chunk::<16>) else {
        return true;
    };
    let dst = Ipv6Addr::from(*dst);
    rules.is_first_hop(&dst, peer) || rules.is_on_link(&dst) && iid::embedded(&dst) == Some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_engine::fib::{Locator, PeerPolicy, RulebookBuilder};
    use isatap_engine::io::errqueue::ErrorOrigin;
    use isatap_engine::isatap::mark::Mark;
    use isatap_engine::wire::ipv4::OuterHeader;

    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
    const MARK: Mark = Mark::new([7, 8]);

    /// Dynamic for 10.0.0.0/16, tunnel MTU 1480.
    fn rules() -> Rulebook {
        let dynamic = PeerPolicy {
            path_mtu: PathMtuMode::Dynamic,
            ..PeerPolicy::default()
        };
        RulebookBuilder {
            locators: vec![Locator {
                addr: US,
                if_index: 0,
            }],
            site: vec!["10.0.0.0/8".parse().unwrap()],
            peer_networks: vec![("10.0.0.0/16".parse().unwrap(), dynamic)],
            mtu: 1480,
            mark: MARK,
            ..RulebookBuilder::default()
        }
        .build()
        .unwrap()
    }

    /// A packet of ours of `total_len` bytes to `peer` as quoted, and what changes about it.
    fn quote(peer: Ipv4Addr, total_len: u16) -> Vec<u8> {
        let mut header = [0; 20];
        OuterHeader {
            src: US,
            dst: peer,
            tos: 0,
            ttl: 60,
            dont_fragment: true,
            id: MARK.identification(US, peer),
            payload_len: total_len - 20,
        }
        .emit(&mut header);
        let mut quote = header.to_vec();
        quote.extend([0x60, 0, 0, 0]);
        quote.extend((total_len - 60).to_be_bytes());
        quote.extend([17, 64]);
        quote.extend(iid::link_local(US).octets());
        quote.extend(iid::link_local(peer).octets());
        quote
    }

    fn heard(info: u32, quote: &[u8]) -> Result<u16, Refusal> {
        let destination = quote
            .get(16..20)
            .map_or(PEER, |dst| Ipv4Addr::new(dst[0], dst[1], dst[2], dst[3]));
        let failure = SendFailure {
            origin: ErrorOrigin::Icmp,
            errno: 90,
            icmp: (3, 4),
            info,
            destination,
            quote: quote.to_vec(),
        };
        read(&failure, &rules()).map(|claim| {
            assert_eq!(claim.peer, destination);
            claim.mtu
        })
    }

    /// M6: the size that is said; a likely one when none is, or an impossible one (RFC 1191 5, 7.1); never below 68.
    #[test]
    fn m6_what_is_believed() {
        for (info, total_len, mtu) in [
            (1400, 1500, 1400),
            (600, 1500, 600),
            (1299, 1300, 1299),
            (10, 1500, 68),
            (0, 1500, 1492),
            (0, 1400, 1300),
            (1500, 1500, 1492),
            (9000, 1300, 1006),
            (70_000, 1300, 1006),
        ] {
            assert_eq!(
                heard(info, &quote(PEER, total_len)),
                Ok(mtu),
                "{info} about {total_len}"
            );
        }
    }

    /// RFC 792: the header and eight bytes are all a router must quote.
    #[test]
    fn a_short_quote_will_do() {
        let whole = quote(PEER, 1500);
        for len in 20..whole.len() {
            assert_eq!(heard(1400, &whole[..len]), Ok(1400), "{len} bytes");
        }
        for len in 0..20 {
            assert_eq!(heard(1400, &whole[..len]), Err(Refusal::Foreign), "{len} bytes");
        }
    }

    /// N8, FAULTS 25: one thing wrong with the quote, and it is about no packet of ours.
    #[test]
    fn what_is_not_believed() {
        let changed = |at: usize, bytes: &[u8]| {
            let mut quote = quote(PEER, 1500);
            quote[at..at + bytes.len()].copy_from_slice(bytes);
            heard(1400, &quote)
        };
        for (what, at, bytes, refusal) in [
            ("version", 0, &[0x55][..], Refusal::Foreign),
            ("options", 0, &[0x46], Refusal::Foreign),
            ("protocol", 9, &[17], Refusal::Foreign),
            ("source", 12, &[10, 0, 0, 9], Refusal::Foreign),
            ("no DF", 6, &[0, 0], Refusal::Fragmentable),
            ("a fragment", 6, &[0x60, 0], Refusal::Fragmentable),
            ("identification 0", 4, &[0, 0], Refusal::Unmarked),
            ("larger than the tunnel", 2, &[5, 221], Refusal::Implausible),
            ("smaller than a header", 2, &[0, 59], Refusal::Implausible),
            ("no IPv6", 20, &[0x40], Refusal::Implausible),
            ("another inner length", 24, &[5, 0], Refusal::Implausible),
            (
                "an inner destination elsewhere",
                20 + 24 + 15,
                &[9],
                Refusal::Implausible,
            ),
        ] {
            assert_eq!(changed(at, bytes), Err(refusal), "{what}");
        }
        assert_eq!(heard(1400, &quote(OTHER, 1500)), Err(Refusal::Static));
        let mut elsewhere = quote(PEER, 1500);
        elsewhere[16..20].copy_from_slice(&[10, 0, 0, 77]);
        assert_eq!(
            heard(1400, &elsewhere),
            Err(Refusal::Unmarked),
            "the mark is one peer's"
        );
    }
}
