//! Which next hops of a route get packets now: by reachability, preference and metric (RFC 4191 3.2, RFC 4861 6.3.6,
//! RFC 4311 2). Pure.
//!
//! The kernel knows the alternatives; it cannot know which of them is silent, since nothing is resolved on this link. So
//! the choice is made here, for every Rulebook: routes of the kernel stay as they are when a router fails.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::fib::{HopGroup, Ipv6Prefix, NextHop};
use isatap_engine::isatap::iid;

/// One next hop of a route on our interface. Its identity is the gateway as written: the same router may appear with
/// either u bit, and each of the two routes goes on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The gateway as the kernel has it; `None` on-link, or when no route of the kernel says so.
    pub gateway: Option<Ipv6Addr>,
    /// Where it leads; never a group.
    pub next: NextHop,
    /// RFC 4191 preference: -1, 0, 1.
    pub preference: i8,
    /// Share among equals, at least 1.
    pub weight: u16,
}

/// The next hop of a route on the ISATAP interface (DESIGN D7): the gateway must be an ISATAP address, since no
/// resolution exists on this link (RFC 5214 7.1).
pub(super) fn next_hop(gateway: Option<Ipv6Addr>) -> NextHop {
    match gateway {
        None => NextHop::OnLink,
        Some(gateway) => iid::embedded(&gateway).map_or(NextHop::Unreachable, NextHop::Via),
    }
}

/// Routes of a Rulebook with the groups they refer to.
#[derive(Debug)]
pub struct Choices {
    /// Whose choices they are.
    host: Ipv4Addr,
    /// One next hop per prefix.
    pub routes: Vec<(Ipv6Prefix, NextHop)>,
    /// Groups by number.
    pub groups: Vec<HopGroup>,
    numbers: HashMap<Selection, u16>,
}

/// Gateways of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Selection {
    active: Vec<(Ipv4Addr, u16)>,
    passive: Vec<Ipv4Addr>,
}

impl Choices {
    /// No routes yet, at the host with this address.
    pub fn at(host: Ipv4Addr) -> Self {
        Self {
            host,
            routes: Vec::new(),
            groups: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// Adds a prefix with its alternatives, the best metric first.
    pub fn add(&mut self, prefix: Ipv6Prefix, levels: &[&[Hop]], reachable: &impl Fn(Ipv4Addr) -> bool) {
        let hop = self.choose(levels, reachable);
        self.routes.push((prefix, hop));
    }

    /// The next hop that stands for these alternatives.
    pub fn choose(&mut self, levels: &[&[Hop]], reachable: &impl Fn(Ipv4Addr) -> bool) -> NextHop {
        let usable = |hop: &&Hop| match hop.next {
            NextHop::OnLink => true,
            NextHop::Via(gateway) => reachable(gateway),
            NextHop::Group(_) | NextHop::Unreachable => false,
        };
        let alive = levels.iter().find(|level| level.iter().any(|hop| usable(&hop)));
        // When nothing answers, the best of the silent ones is worth a try: the detection may be wrong.
        let (level, by_reach) = match (alive, levels.first()) {
            (Some(level), _) => (*level, true),
            (None, Some(level)) => (*level, false),
            (None, None) => return NextHop::Unreachable,
        };
        let candidates: Vec<&Hop> = level.iter().filter(|hop| !by_reach || usable(hop)).collect();
        let best = candidates.iter().map(|hop| hop.preference).max();
        let mut selection = Selection::default();
        for hop in candidates.iter().filter(|hop| Some(hop.preference) == best) {
            match hop.next {
                NextHop::OnLink => return NextHop::OnLink,
                NextHop::Via(gateway) => selection.active.push((gateway, hop.weight)),
                NextHop::Group(_) | NextHop::Unreachable => {}
            }
        }
        selection.active.sort_unstable();
        selection.active.dedup_by_key(|member| member.0);
        for hop in levels.iter().copied().flatten() {
            if let NextHop::Via(gateway) = hop.next
                && selection.active.iter().all(|member| member.0 != gateway)
            {
                selection.passive.push(gateway);
            }
        }
        selection.passive.sort_unstable();
        selection.passive.dedup();
        self.number(selection)
    }

    fn number(&mut self, selection: Selection) -> NextHop {
        match (selection.active.as_slice(), selection.passive.is_empty()) {
            ([], _) => return NextHop::Unreachable,
            ([only], true) => return NextHop::Via(only.0),
            _ => {}
        }
        let first = selection.active[0].0;
        if let Some(number) = self.numbers.get(&selection) {
            return NextHop::Group(*number);
        }
        let (Ok(number), Some(group)) = (
            u16::try_from(self.groups.len()),
            HopGroup::new(self.host, &selection.active, &selection.passive),
        ) else {
            // More than 65536 different sets of gateways: these routes lose their alternatives, not their way.
            return NextHop::Via(first);
        };
        self.groups.push(group);
        self.numbers.insert(selection, number);
        NextHop::Group(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

    fn via(gateway: Ipv4Addr, preference: i8) -> Hop {
        Hop {
            gateway: Some(isatap_engine::isatap::iid::link_local(gateway)),
            next: NextHop::Via(gateway),
            preference,
            weight: 1,
        }
    }

    const ON_LINK: Hop = Hop {
        gateway: None,
        next: NextHop::OnLink,
        preference: 0,
        weight: 1,
    };
    const NOWHERE: Hop = Hop {
        gateway: Some(Ipv6Addr::LOCALHOST),
        next: NextHop::Unreachable,
        preference: 0,
        weight: 1,
    };

    /// Who gets packets, in words.
    fn chosen(levels: &[&[Hop]], silent: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let mut choices = Choices::at(HOST);
        match choices.choose(levels, &|gateway| !silent.contains(&gateway)) {
            NextHop::Via(gateway) => vec![gateway],
            NextHop::Group(number) => choices.groups[usize::from(number)].active().to_vec(),
            NextHop::OnLink => vec![Ipv4Addr::UNSPECIFIED],
            NextHop::Unreachable => vec![],
        }
    }

    /// P12, P13: what answers goes before what is preferred, preference before nothing, and the best metric first.
    #[test]
    fn p12_p13_reachability_then_preference() {
        let equal = [via(A, 0), via(B, 0)];
        let ranked = [via(A, 0), via(B, 1), via(C, -1)];
        let backup = [via(C, 1)];
        for (levels, silent, expected) in [
            (vec![&equal[..]], vec![], vec![A, B]),
            (vec![&equal[..]], vec![A], vec![B]),
            (vec![&equal[..]], vec![A, B], vec![A, B]),
            (vec![&ranked[..]], vec![], vec![B]),
            (vec![&ranked[..]], vec![B], vec![A]),
            (vec![&ranked[..]], vec![A, B], vec![C]),
            (vec![&equal[..], &backup[..]], vec![], vec![A, B]),
            (vec![&equal[..], &backup[..]], vec![A, B], vec![C]),
            (vec![&equal[..], &backup[..]], vec![A, B, C], vec![A, B]),
            (vec![&[NOWHERE][..]], vec![], vec![]),
            (vec![&[NOWHERE, via(A, 0)][..]], vec![], vec![A]),
            (vec![&[ON_LINK][..]], vec![], vec![Ipv4Addr::UNSPECIFIED]),
            (vec![], vec![], vec![]),
        ] {
            assert_eq!(
                chosen(&levels, &silent),
                expected,
                "{levels:?} without {silent:?}"
            );
        }
    }

    /// D11: the packets of every gateway of the route are accepted, of the silent ones as well.
    #[test]
    fn d11_gateways_that_get_nothing_are_still_known() {
        let mut choices = Choices::at(HOST);
        let levels: [&[Hop]; 2] = [&[via(A, 0), via(B, 0)], &[via(C, 0)]];
        let NextHop::Group(number) = choices.choose(&levels, &|gateway| gateway == A) else {
            panic!("alternatives make a group")
        };
        let group = &choices.groups[usize::from(number)];
        assert_eq!(group.active(), [A]);
        assert!([A, B, C].iter().all(|gateway| group.contains(*gateway)));
    }

    /// A million routes over the same routers share one group.
    #[test]
    fn equal_sets_share_a_group() {
        let mut choices = Choices::at(HOST);
        for order in [[via(A, 0), via(B, 0)], [via(B, 0), via(A, 0)]] {
            assert_eq!(choices.choose(&[&order], &|_| true), NextHop::Group(0));
        }
        assert_eq!(choices.groups.len(), 1);
    }
}
