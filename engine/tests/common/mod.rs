//! Packets and a site for verdict tests: 10/8 with router 10.0.0.9, on-link 2001:db8:1::/64, and we are 10.0.0.1.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{Locator, NextHop, Role, Rulebook, RulebookBuilder};
use isatap_engine::isatap::iid;
use isatap_engine::wire::checksum::pseudo_v6;
use isatap_engine::wire::ext;
use isatap_engine::wire::ipv4::OuterHeader;
use isatap_engine::wire::ipv6::Ipv6Header;
use isatap_engine::wire::vnet::{self, VnetHeader};

pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The site as a builder, for tests that change one thing.
pub(crate) fn site(role: Role) -> RulebookBuilder {
    RulebookBuilder {
        role,
        locators: vec![Locator {
            addr: OWN,
            if_index: 0,
        }],
        own6: vec![iid::link_local(OWN), v6("2001:db8:1::5efe:10.0.0.1")],
        prl: if role == Role::Host { vec![ROUTER] } else { vec![] },
        default_hop: (role == Role::Host).then_some(NextHop::Via(ROUTER)),
        routes: vec![
            ("2001:db8:1::/64".parse().unwrap(), NextHop::OnLink),
            ("2001:db8:7::/48".parse().unwrap(), NextHop::Via(GATEWAY)),
            ("2001:db8:8::/48".parse().unwrap(), NextHop::Unreachable),
        ],
        site: vec!["10.0.0.0/8".parse().unwrap()],
        broadcasts: vec![Ipv4Addr::new(10, 0, 0, 255)],
        ..RulebookBuilder::default()
    }
}

pub(crate) fn host() -> Rulebook {
    site(Role::Host).build().unwrap()
}

pub(crate) fn router() -> Rulebook {
    site(Role::Router).build().unwrap()
}

/// An inner packet with a payload of the given protocol, traffic class and hop limit.
#[derive(Clone, Debug)]
pub(crate) struct Inner {
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    pub(crate) next_header: u8,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: u8,
    pub(crate) payload: Vec<u8>,
}

impl Inner {
    /// A UDP datagram of 16 bytes with a good checksum.
    pub(crate) fn udp(src: &str, dst: &str) -> Self {
        let (src, dst) = (v6(src), v6(dst));
        let mut payload = vec![0x13, 0x88, 0x13, 0x89, 0, 24, 0, 0];
        payload.extend(*b"sixteen bytes ok");
        let len = u32::try_from(payload.len()).unwrap();
        let sum = pseudo_v6(&src.octets(), &dst.octets(), len, ext::UDP)
            .add_bytes(&payload)
            .finish();
        payload[6..8].copy_from_slice(&sum.to_be_bytes());
        Self {
            src,
            dst,
            next_header: ext::UDP,
            traffic_class: 0,
            hop_limit: 64,
            payload,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 40];
        Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: 0,
            payload_len: u16::try_from(self.payload.len()).unwrap(),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            src: self.src,
            dst: self.dst,
        }
        .emit(&mut out);
        out.extend(&self.payload);
        out
    }
}

/// An outer packet around `inner`.
pub(crate) fn outer(src: Ipv4Addr, dst: Ipv4Addr, tos: u8, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    let payload_len = u16::try_from(inner.len()).unwrap();
    OuterHeader {
        src,
        dst,
        tos,
        ttl: 64,
        dont_fragment: false,
        id: 7,
        payload_len,
    }
    .emit(&mut header);
    [&header[..], inner].concat()
}

/// A frame as the TUN queue gives it.
pub(crate) fn frame(vnet: &VnetHeader, inner: &[u8]) -> Vec<u8> {
    let mut header = [0; vnet::LEN];
    vnet.emit(&mut header);
    [&header[..], inner].concat()
}
