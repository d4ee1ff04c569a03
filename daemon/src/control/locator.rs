//! Which IPv4 addresses carry the tunnel now: fixed, or following the machine (RFC 5214 6.2, FAULTS 54). Pure.

use std::net::Ipv4Addr;

use isatap_engine::fib::MAX_LOCATORS;
use isatap_engine::isatap::classify;

use crate::config::resolved::Bind;
use crate::link::MirrorState;
use crate::link::mirror::V4Address;

/// What to do about the locator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The one in force is right, whether the machine has it now or not.
    Keep,
    /// Another one takes over.
    Move(Ipv4Addr),
    /// The machine has several and nothing tells them apart.
    Ambiguous(Vec<Ipv4Addr>),
    /// The one in force is gone and no way to a router starts at another: routes may still come.
    Wait,
}

/// Where packets to the routers start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// No router is known.
    NoRouter,
    /// The kernel has no route to any router.
    NoRoute,
    /// At this address.
    From(Ipv4Addr),
}

/// Chooses the locator. `way` is asked when the one in force cannot stay: an address that no way to a router starts at
/// helps nobody, be it the only one (a bridge of containers, while the network is away). A link-local one (169.254/16) is
/// a makeshift of a machine that was given no address yet: it gives way to one that can be routed, unless the router is
/// on the same link-local network.
pub(super) fn choose(
    state: &MirrorState,
    bind: Bind,
    current: Ipv4Addr,
    way: impl FnOnce() -> Way,
) -> Choice {
    if let Bind::Fixed(addr) = bind {
        return if addr == current {
            Choice::Keep
        } else {
            Choice::Move(addr)
        };
    }
    let present = state.device_of(current).is_some();
    let candidates = candidates(state, |_| true);
    let is_makeshift = current.is_link_local() && !candidates.contains(&current);
    if candidates.is_empty() || present && !is_makeshift {
        return Choice::Keep;
    }
    match (way(), candidates.as_slice()) {
        (Way::From(source), _) if present && source == current => Choice::Keep,
        (Way::From(source), _) if state.v4().any(|v4| v4.addr == source && is_usable(state, &v4)) => {
            Choice::Move(source)
        }
        (Way::NoRouter, [only]) => Choice::Move(*only),
        _ if present => Choice::Keep,
        (Way::NoRouter, _) => Choice::Ambiguous(candidates),
        _ => Choice::Wait,
    }
}

/// The locator set (RFC 5214 6.2): the preferred locator, and with an automatic one the other addresses of its device,
/// which cannot be of another site (A5). Empty while the machine does not have the preferred one.
pub(super) fn set(state: &MirrorState, bind: Bind, preferred: Ipv4Addr) -> Vec<Ipv4Addr> {
    let Some(device) = state.device_of(preferred) else {
        return Vec::new();
    };
    let others = candidates(state, |v4| bind.is_auto() && v4.if_index == device);
    let mut all = vec![preferred];
    all.extend(others.into_iter().filter(|addr| *addr != preferred));
    all.truncate(MAX_LOCATORS);
    all
}

/// Addresses that could carry the tunnel; link-local ones (169.254/16) only if there is nothing else.
fn candidates(state: &MirrorState, which: impl Fn(&V4Address) -> bool) -> Vec<Ipv4Addr> {
    let mut all: Vec<Ipv4Addr> = state
        .v4()
        .filter(which)
        .filter(|v4| is_usable(state, v4))
        .map(|v4| v4.addr)
        .collect();
    if all.iter().any(|addr| !addr.is_link_local()) {
        all.retain(|addr| !addr.is_link_local());
    }
    all.dedup();
    all
}

fn is_usable(state: &MirrorState, v4: &V4Address) -> bool {
    v4.if_index != state.if_index() && !classify::invalid_next_hop(v4.addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
    use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

    const OLD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const NEW: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
    const THIRD: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 5);

    fn machine(addresses: &[(u32, Ipv4Addr)]) -> MirrorState {
        let message = |(index, addr): &(u32, Ipv4Addr)| {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.index = *index;
            message.header.prefix_len = 24;
            message.attributes.push(AddressAttribute::Local((*addr).into()));
            RouteNetlinkMessage::NewAddress(message)
        };
        let messages: Vec<_> = addresses.iter().map(message).collect();
        MirrorState::from_dump(7, &messages)
    }

    #[test]
    fn a_fixed_address_is_waited_for() {
        let bind = Bind::Fixed(OLD);
        assert_eq!(
            choose(&machine(&[(2, NEW)]), bind, OLD, || Way::NoRouter),
            Choice::Keep
        );
        assert_eq!(
            choose(&machine(&[]), bind, NEW, || Way::NoRouter),
            Choice::Move(OLD),
            "after a reload"
        );
    }

    /// A4: every address of the device carries the tunnel, the preferred one first; another device's may be another
    /// site's (A5), and a fixed one stays alone.
    #[test]
    fn a4_a5_a_set_is_of_one_device() {
        let link_local = Ipv4Addr::new(169, 254, 0, 1);
        let several = machine(&[(2, OLD), (2, NEW), (3, THIRD), (2, link_local)]);
        assert_eq!(set(&several, Bind::Auto(NEW), NEW), [NEW, OLD]);
        assert_eq!(set(&several, Bind::Auto(THIRD), THIRD), [THIRD]);
        assert_eq!(set(&several, Bind::Fixed(OLD), OLD), [OLD]);
        assert_eq!(
            set(&machine(&[(2, NEW)]), Bind::Auto(OLD), OLD),
            [] as [Ipv4Addr; 0]
        );
        let addresses: Vec<_> = (0..40).map(|n| (2, Ipv4Addr::new(10, 0, 9, n + 1))).collect();
        let many = set(&machine(&addresses), Bind::Auto(addresses[7].1), addresses[7].1);
        assert_eq!((many.len(), many[0]), (MAX_LOCATORS, addresses[7].1));
    }

    #[test]
    fn an_automatic_one_follows_the_machine() {
        let bind = Bind::Auto(OLD);
        let link_local = Ipv4Addr::new(169, 254, 0, 1);
        for (addresses, expected) in [
            (vec![(2, OLD), (2, NEW)], Choice::Keep),
            (vec![(2, NEW)], Choice::Move(NEW)),
            (vec![(2, NEW), (3, link_local)], Choice::Move(NEW)),
            (vec![(3, link_local)], Choice::Move(link_local)),
            (vec![], Choice::Keep),
            (vec![(1, Ipv4Addr::LOCALHOST)], Choice::Keep),
            (vec![(7, NEW)], Choice::Keep),
            (vec![(2, NEW), (3, THIRD)], Choice::Ambiguous(vec![NEW, THIRD])),
        ] {
            assert_eq!(
                choose(&machine(&addresses), bind, OLD, || Way::NoRouter),
                expected,
                "{addresses:?}"
            );
        }
        let several = machine(&[(2, NEW), (3, THIRD)]);
        assert_eq!(
            choose(&several, bind, OLD, || Way::From(THIRD)),
            Choice::Move(THIRD)
        );
        // The kernel's answer is older than the mirror, or the other way round.
        assert_eq!(choose(&several, bind, OLD, || Way::From(OLD)), Choice::Wait);
        assert_eq!(choose(&several, bind, OLD, || Way::NoRoute), Choice::Wait);
    }

    /// The only address left may lead nowhere, like that of a bridge for containers: the tunnel is not to settle there.
    #[test]
    fn an_address_without_a_way_to_a_router_is_no_locator() {
        let bind = Bind::Auto(OLD);
        let bridge = machine(&[(3, THIRD)]);
        assert_eq!(choose(&bridge, bind, OLD, || Way::NoRoute), Choice::Wait);
        let makeshift = Ipv4Addr::new(169, 254, 0, 1);
        let both = machine(&[(2, makeshift), (3, THIRD)]);
        assert_eq!(
            choose(&both, bind, OLD, || Way::From(makeshift)),
            Choice::Move(makeshift),
            "the way starts there"
        );
        assert_eq!(choose(&bridge, bind, THIRD, || Way::NoRoute), Choice::Keep);
    }

    /// A machine that gets an address after it gave itself one uses the better one, unless the router is nearer.
    #[test]
    fn a_link_local_locator_gives_way() {
        let own = Ipv4Addr::new(169, 254, 0, 1);
        let bind = Bind::Auto(own);
        let alone = machine(&[(2, own)]);
        assert_eq!(choose(&alone, bind, own, || Way::NoRouter), Choice::Keep);
        let given = machine(&[(2, own), (2, NEW)]);
        assert_eq!(choose(&given, bind, own, || Way::NoRouter), Choice::Move(NEW));
        assert_eq!(choose(&given, bind, own, || Way::From(NEW)), Choice::Move(NEW));
        assert_eq!(choose(&given, bind, own, || Way::From(own)), Choice::Keep);
        let several = machine(&[(2, own), (2, NEW), (3, THIRD)]);
        assert_eq!(
            choose(&several, bind, own, || Way::From(THIRD)),
            Choice::Move(THIRD)
        );
        assert_eq!(
            choose(&several, bind, own, || Way::NoRouter),
            Choice::Keep,
            "nothing tells the others apart"
        );
    }
}
