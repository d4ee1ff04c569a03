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
}

/// Chooses the locator. `towards_router` tells the source the kernel would use, to decide among several. A link-local
/// one (169.254/16) is a makeshift of a machine that was given no address yet: it gives way to one that can be routed,
/// unless the router is on the same link-local network.
pub(super) fn choose(
    state: &MirrorState,
    bind: Bind,
    current: Ipv4Addr,
    towards_router: impl FnOnce() -> Option<Ipv4Addr>,
) -> Choice {
    let wanted = match bind {
        Bind::Fixed(addr) => addr,
        Bind::Auto(_) => {
            let present = state.device_of(current).is_some();
            let candidates = candidates(state, |_| true);
            if present && (!current.is_link_local() || candidates.contains(&current)) {
                return Choice::Keep;
            }
            let source = if present || candidates.len() > 1 {
                towards_router()
            } else {
                None
            };
            match (candidates.as_slice(), source) {
                ([], _) => current,
                (_, Some(source)) if present && source == current => current,
                ([only], _) => *only,
                (several, Some(source)) if several.contains(&source) => source,
                _ if present => current,
                _ => return Choice::Ambiguous(candidates),
            }
        }
    };
    if wanted == current {
        Choice::Keep
    } else {
        Choice::Move(wanted)
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
        .filter(|v4| v4.if_index != state.if_index() && !classify::invalid_next_hop(v4.addr))
        .map(|v4| v4.addr)
        .collect();
    if all.iter().any(|addr| !addr.is_link_local()) {
        all.retain(|addr| !addr.is_link_local());
    }
    all.dedup();
    all
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
        assert_eq!(choose(&machine(&[(2, NEW)]), bind, OLD, || None), Choice::Keep);
        assert_eq!(
            choose(&machine(&[]), bind, NEW, || None),
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
                choose(&machine(&addresses), bind, OLD, || None),
                expected,
                "{addresses:?}"
            );
        }
        let several = machine(&[(2, NEW), (3, THIRD)]);
        assert_eq!(choose(&several, bind, OLD, || Some(THIRD)), Choice::Move(THIRD));
        assert!(matches!(
            choose(&several, bind, OLD, || Some(OLD)),
            Choice::Ambiguous(_)
        ));
    }

    /// A machine that gets an address after it gave itself one uses the better one, unless the router is nearer.
    #[test]
    fn a_link_local_locator_gives_way() {
        let own = Ipv4Addr::new(169, 254, 0, 1);
        let bind = Bind::Auto(own);
        let alone = machine(&[(2, own)]);
        assert_eq!(choose(&alone, bind, own, || None), Choice::Keep);
        let given = machine(&[(2, own), (2, NEW)]);
        assert_eq!(choose(&given, bind, own, || None), Choice::Move(NEW));
        assert_eq!(choose(&given, bind, own, || Some(NEW)), Choice::Move(NEW));
        assert_eq!(choose(&given, bind, own, || Some(own)), Choice::Keep);
        let several = machine(&[(2, own), (2, NEW), (3, THIRD)]);
        assert_eq!(choose(&several, bind, own, || Some(THIRD)), Choice::Move(THIRD));
        assert_eq!(
            choose(&several, bind, own, || None),
            Choice::Keep,
            "nothing tells the others apart"
        );
    }
}
