//! Crafted neighbour discovery messages (RFC 4861 4): bodies after the ICMPv6 checksum, and whole packets.

use std::net::Ipv6Addr;

use crate::packet::Inner;

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Redirect.
pub const REDIRECT: u8 = 137;

/// The body of a router solicitation without options.
pub fn router_solicitation() -> Vec<u8> {
    vec![0; 4]
}

/// The body of a router advertisement of `lifetime` seconds followed by `options`.
pub fn router_advertisement(lifetime: u16, options: &[u8]) -> Vec<u8> {
    let mut body = vec![64, 0];
    body.extend_from_slice(&lifetime.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(options);
    body
}

/// A prefix information option: on-link and autonomous, with both lifetimes in seconds.
pub fn prefix_option(prefix: Ipv6Addr, prefix_len: u8, valid: u32, preferred: u32) -> Vec<u8> {
    let mut option = vec![3, 4, prefix_len, 0xc0];
    option.extend_from_slice(&valid.to_be_bytes());
    option.extend_from_slice(&preferred.to_be_bytes());
    option.extend_from_slice(&[0; 4]);
    option.extend_from_slice(&prefix.octets());
    option
}

/// The same with other flags: 0x80 is on-link, 0x40 autonomous.
pub fn prefix_option_flagged(prefix: Ipv6Addr, len: u8, flags: u8, valid: u32, preferred: u32) -> Vec<u8> {
    let mut option = prefix_option(prefix, len, valid, preferred);
    option[3] = flags;
    option
}

/// An MTU option.
pub fn mtu_option(mtu: u32) -> Vec<u8> {
    let mut option = vec![5, 1, 0, 0];
    option.extend_from_slice(&mtu.to_be_bytes());
    option
}

/// A route information option (RFC 4191 2.3) in its longest form; `preference` is -1, 0 or 1.
pub fn route_option(prefix: Ipv6Addr, prefix_len: u8, preference: i8, lifetime: u32) -> Vec<u8> {
    let mut option = vec![24, 3, prefix_len, preference_bits(preference)];
    option.extend_from_slice(&lifetime.to_be_bytes());
    option.extend_from_slice(&prefix.octets());
    option
}

/// Name servers (RFC 8106 5.1).
pub fn dns_option(servers: &[Ipv6Addr], lifetime: u32) -> Vec<u8> {
    let units = u8::try_from(1 + 2 * servers.len()).expect("few servers");
    let mut option = vec![25, units, 0, 0];
    option.extend_from_slice(&lifetime.to_be_bytes());
    for server in servers {
        option.extend_from_slice(&server.octets());
    }
    option
}

/// Preference as in the flags of an advertisement and of a route information option.
fn preference_bits(preference: i8) -> u8 {
    match preference {
        -1 => 0b11 << 3,
        1 => 0b01 << 3,
        _ => 0,
    }
}

/// A router advertisement about to be sent. What it says nothing about is 0.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// For packets of the host.
    pub hop_limit: u8,
    /// -1, 0 or 1.
    pub preference: i8,
    /// As a default router, in seconds.
    pub lifetime: u16,
    /// All options, one after the other.
    pub options: Vec<u8>,
}

impl Advertisement {
    /// Of a default router for half an hour, with these options.
    pub fn new(options: &[Vec<u8>]) -> Self {
        Self {
            hop_limit: 0,
            preference: 0,
            lifetime: 1800,
            options: options.concat(),
        }
    }

    /// With another router lifetime.
    #[must_use]
    pub fn lifetime(mut self, seconds: u16) -> Self {
        self.lifetime = seconds;
        self
    }

    /// The whole packet.
    pub fn packet(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let mut body = router_advertisement(self.lifetime, &self.options);
        body[0] = self.hop_limit;
        body[1] = preference_bits(self.preference);
        packet(src, dst, ROUTER_ADVERTISEMENT, &body)
    }
}

/// A source (1) or target (2) link-layer address option, which this kind of link never uses.
pub fn link_layer_option(kind: u8, address: [u8; 6]) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend_from_slice(&address);
    option
}

/// The body of a neighbour solicitation.
pub fn neighbour_solicitation(target: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&target.octets());
    body
}

/// The body of a neighbour advertisement with the R, S and O flags in the top bits of `flags`.
pub fn neighbour_advertisement(flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![flags, 0, 0, 0];
    body.extend_from_slice(&target.octets());
    body
}

/// The body of a redirect: packets for `destination` are to go to `target`.
pub fn redirect(target: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&target.octets());
    body.extend_from_slice(&destination.octets());
    body
}

/// A whole neighbour discovery packet with hop limit 255.
pub fn packet(src: Ipv6Addr, dst: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut inner = Inner::new(src, dst);
    inner.hop_limit = 255;
    inner.icmpv6(kind, 0, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::SeenInner;

    #[test]
    fn messages_have_the_lengths_of_the_rfc() {
        let a: Ipv6Addr = "fe80::1".parse().expect("address");
        let cases = [
            (ROUTER_SOLICITATION, router_solicitation(), 8),
            (
                ROUTER_ADVERTISEMENT,
                router_advertisement(1800, &prefix_option(a, 64, 100, 50)),
                16 + 32,
            ),
            (NEIGHBOUR_SOLICITATION, neighbour_solicitation(a), 24),
            (NEIGHBOUR_ADVERTISEMENT, neighbour_advertisement(0x60, a), 24),
            (REDIRECT, redirect(a, a), 40),
        ];
        for (kind, body, len) in cases {
            let packet = packet(a, a, kind, &body);
            let seen = SeenInner::read(&packet).expect("IPv6");
            assert_eq!(seen.payload.len(), len);
            assert_eq!(seen.icmpv6().map(|(k, c, _)| (k, c)), Some((kind, 0)));
            assert!(seen.checksum_is_right());
        }
    }
}
