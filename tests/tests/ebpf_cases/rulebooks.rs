//! Rulebooks at random, and what the programs are told besides.

use std::net::Ipv4Addr;

use isatap_engine::ebpf::{Egress, Segmenters, Surroundings};
use isatap_engine::fib::{
    HopGroup, Ipv4Prefix, Ipv6Prefix, Locator, NextHop, PeerPolicy, Role, Rulebook, RulebookBuilder,
};
use isatap_engine::isatap::ecn::EcnMode;
use isatap_engine::isatap::mark::Mark;
use isatap_engine::isatap::mtu::{PathMtu, PathMtuMode};
use isatap_engine::isatap::tos::{DscpPolicy, TtlPolicy};

use super::{Draw, OWN, V4};

/// The device that packets are tried out on: the loopback device.
pub(crate) const DEVICE: u32 = 1;

const MTUS: [u16; 6] = [1280, 1280, 1400, 1480, 2000, 65_515];
const PATHS: [u16; 8] = [0, 68, 1299, 1300, 1400, 1500, 9000, u16::MAX];

/// A Rulebook that control could build.
pub(crate) fn rulebook(draw: &mut Draw) -> Rulebook {
    let groups: Vec<_> = draw.some(2, |draw| {
        let mut active = draw.some(3, |draw| (draw.host(), u16::from(draw.byte())));
        active.push((draw.host(), 1));
        let passive = draw.some(2, Draw::host);
        HopGroup::new(draw.host(), &active, &passive).expect("an active member")
    });
    let hop = |draw: &mut Draw| match draw.below(7) {
        0 | 1 => NextHop::OnLink,
        2 => NextHop::Unreachable,
        3 if !groups.is_empty() => {
            NextHop::Group(u16::try_from(draw.below(groups.len())).expect("a small number"))
        }
        _ => NextHop::Via(draw.v4()),
    };
    let own: Vec<_> = (0..draw.below(OWN + 1)).map(|index| V4[index]).collect();
    let parts = RulebookBuilder {
        role: draw.one(&[Role::Host, Role::Router]),
        locators: own
            .iter()
            .map(|addr| Locator {
                addr: *addr,
                if_index: draw.one(&[0, 0, 0, DEVICE, DEVICE + 98]),
            })
            .collect(),
        own6: draw.some(5, Draw::v6),
        prl: draw.some(2, Draw::host),
        peer_routers: draw.some(2, Draw::host),
        routes: draw.some(8, |draw| {
            let len = draw.one(&[0, 3, 16, 32, 48, 63, 64, 64, 64, 65, 96, 127, 128]);
            let prefix = Ipv6Prefix::containing(draw.v6(), len).expect("a length that can be");
            (prefix, hop(draw))
        }),
        default_hop: draw.once_in(2).then(|| hop(draw)),
        groups: groups.clone(),
        advertises: draw.once_in(2),
        connected: Vec::new(),
        site: draw.some(4, network),
        any_site: draw.once_in(3),
        broadcasts: draw.some(2, |draw| draw.one(&V4[8..11])),
        mtu: draw.one(&MTUS),
        ttl: draw.one(&[
            TtlPolicy::Inherit,
            TtlPolicy::Fixed(64),
            TtlPolicy::Fixed(0),
            TtlPolicy::Fixed(255),
        ]),
        dscp: draw.one(&[
            DscpPolicy::Inherit,
            DscpPolicy::Fixed(0),
            DscpPolicy::Fixed(46),
            DscpPolicy::Fixed(63),
        ]),
        peers: policy(draw),
        peer_networks: draw.some(3, |draw| (network(draw), policy(draw))),
        paths: draw.some(4, |draw| {
            let path = PathMtu::of_path(draw.one(&PATHS));
            let link = PathMtu::of_link(draw.one(&PATHS));
            (draw.host(), if draw.once_in(3) { path.and(link) } else { path })
        }),
        link_mtu: draw.one(&[u16::MAX, u16::MAX, 1500, 1400, 1300]),
        mark: Mark::new([draw.bits(), draw.bits()]),
        strict_ingress: !draw.once_in(4),
        nested: draw.once_in(3),
        loop_checks: !draw.once_in(4),
        own_6to4: draw.some(1, Draw::host),
    };
    parts.build().expect("a Rulebook that can be")
}

fn network(draw: &mut Draw) -> Ipv4Prefix {
    let len = draw.one(&[0, 8, 8, 9, 16, 24, 30, 31, 32]);
    Ipv4Prefix::containing(draw.v4(), len).expect("a length that can be")
}

fn policy(draw: &mut Draw) -> PeerPolicy {
    PeerPolicy {
        path_mtu: draw.one(&[PathMtuMode::Static, PathMtuMode::Dynamic]),
        ecn: draw.one(&[EcnMode::Normal, EcnMode::Normal, EcnMode::Compat]),
    }
}

/// Mostly a machine that carries everything by one device.
pub(crate) fn surroundings(draw: &mut Draw) -> Surroundings {
    let mut egress = draw.some(2, |draw| Egress {
        network: network(draw),
        device: draw.one(&[0, DEVICE]),
        mtu: draw.one(&[1500, 1500, 1400, u16::MAX]),
        via: draw.one(&[
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(10, 0, 0, 254),
        ]),
    });
    if !draw.once_in(10) {
        egress.insert(
            0,
            Egress {
                network: "0.0.0.0/0".parse().expect("a prefix"),
                device: DEVICE,
                mtu: draw.one(&[1500, u16::MAX]),
                via: Ipv4Addr::UNSPECIFIED,
            },
        );
    }
    Surroundings {
        link_len: 14,
        carry_in: !draw.once_in(30),
        carry_out: !draw.once_in(30),
        alone: !draw.once_in(5),
        own_v4: if draw.once_in(3) {
            draw.some(2, Draw::host)
        } else {
            Vec::new()
        },
        egress,
        segmenters: Segmenters::default(),
    }
}
