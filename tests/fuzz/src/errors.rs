//! ICMPv4 errors that anybody can send: what they quote, and what they claim (FAULTS 25, 26).

use isatap_engine::io::errqueue::{ErrorOrigin, SendFailure};
use isatap_engine::path::quoted;
use isatap_engine::path::reply::MAX_REPLY_LEN;
use isatap_engine::wire::ipv6::Ipv6View;
use isatapd::pmtu;

use crate::site::{GATEWAY, OWN, ROUTER, RULES};

/// A quote becomes an ICMPv6 error to its inner source, or nothing.
///
/// # Panics
/// A promise is broken.
pub fn icmp_quote(data: &[u8]) {
    for rules in &*RULES {
        for peer in [ROUTER, GATEWAY] {
            let mut out = [0; MAX_REPLY_LEN];
            let Ok(len) = quoted::translate(rules, peer, data, &mut out) else {
                continue;
            };
            let view = Ipv6View::new(&out[..len]).expect("an error is IPv6");
            assert_eq!(view.total_len(), len);
            assert!(len <= 1280, "RFC 4443 2.4 (c)");
            assert!(!view.dst().is_multicast() && !view.dst().is_unspecified());
            assert_eq!(
                &data[20 + 8..20 + 24],
                view.dst_bytes(),
                "it goes to who sent the packet"
            );
        }
    }
}

/// A claim about a path is believed for the peer it names, and never below what IPv6 needs without our own fragments.
///
/// # Panics
/// A promise is broken.
pub fn path_claim(data: &[u8]) {
    let Some((info, quote)) = data.split_first_chunk::<4>() else {
        return;
    };
    let failure = SendFailure {
        origin: ErrorOrigin::Icmp,
        errno: 90,
        icmp: (3, 4),
        info: u32::from_be_bytes(*info),
        // The kernel takes it from the quote.
        destination: quote
            .get(16..20)
            .and_then(<[u8]>::first_chunk::<4>)
            .map_or(ROUTER, |to| (*to).into()),
        quote: quote.to_vec(),
    };
    for rules in &*RULES {
        if let Ok(claim) = pmtu::read(&failure, rules) {
            assert!(claim.mtu >= 68, "RFC 791 3.2: {}", claim.mtu);
            assert_eq!(
                quote[16..20],
                claim.peer.octets(),
                "a packet of ours to this peer"
            );
            assert_eq!(quote[12..16], OWN.octets(), "a packet of ours");
        }
    }
}
