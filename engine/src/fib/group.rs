//! Groups of equal next hops: which router a flow takes (RFC 4311 2, RFC 2992).
//!
//! Every group is a ring of [`SLOTS`] slots filled once, when the Rulebook is built, by weighted rendezvous hashing: each
//! slot goes to the member with the highest score for it. A flow takes the slot of its hash. When a member leaves, only
//! its own slots change hands; when it returns, the same slots return: every other flow stays where it is.

use std::net::Ipv4Addr;

/// Slots of a group: the finest share of flows is one in so many.
pub const SLOTS: usize = 64;

/// Members of one group at most; further ones are left out.
pub const MAX_GROUP_MEMBERS: usize = 64;

/// Equal next hops of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopGroup {
    slots: [Ipv4Addr; SLOTS],
    active: Vec<Ipv4Addr>,
    passive: Vec<Ipv4Addr>,
}

impl HopGroup {
    /// A group of next hops with weights (0 counts as 1), at the host with this address. `passive` are gateways of the same route
    /// that get no packets now, and whose own packets are still accepted (RFC 6324 3.2.4.2). `None` without an active member.
    pub fn new(host: Ipv4Addr, active: &[(Ipv4Addr, u16)], passive: &[Ipv4Addr]) -> Option<Self> {
        let active = &active[..active.len().min(MAX_GROUP_MEMBERS)];
        let mut slots = [Ipv4Addr::UNSPECIFIED; SLOTS];
        for (number, slot) in (0u64..).zip(&mut slots) {
            let score =
                |member: &(Ipv4Addr, u16)| f64::from(member.1.max(1)) / -draw(host, number, member.0).ln();
            let best = active.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
            *slot = best.0;
        }
        Some(Self {
            slots,
            active: active.iter().map(|member| member.0).collect(),
            passive: passive.to_vec(),
        })
    }

    /// The next hop of the flow with this hash.
    #[inline]
    pub fn pick(&self, flow: u64) -> Ipv4Addr {
        self.slots[(flow >> 32) as usize % SLOTS]
    }

    /// Whether the route names this gateway, in use or not.
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        self.active.contains(&addr) || self.passive.contains(&addr)
    }

    /// The next hop of each slot.
    pub fn slots(&self) -> &[Ipv4Addr; SLOTS] {
        &self.slots
    }

    /// All gateways that the route names, in use or not.
    pub fn members(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.active.iter().chain(&self.passive).copied()
    }

    /// The next hops in use.
    pub fn active(&self) -> &[Ipv4Addr] {
        &self.active
    }
}

/// A number strictly between 0 and 1 that host, slot and member alone decide.
fn draw(host: Ipv4Addr, slot: u64, member: Ipv4Addr) -> f64 {
    let chance = mix(u64::from(host.to_bits()));
    let bits = mix(chance ^ (slot << 32 | u64::from(member.to_bits()))) >> 33;
    (f64::from(u32::try_from(bits).unwrap_or(0)) + 0.5) / f64::from(1u32 << 31)
}

/// A bijection of 64 bits in which every input bit touches every output bit (the finaliser of MurmurHash3).
#[inline]
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

    fn router(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n)
    }

    fn shares(group: &HopGroup, of: Ipv4Addr) -> usize {
        group.slots.iter().filter(|slot| **slot == of).count()
    }

    /// P15: equal routers share the flows, a heavier one takes more.
    #[test]
    fn p15_flows_are_shared_by_weight() {
        let equal = HopGroup::new(HOST, &[(router(1), 1), (router(2), 1)], &[]).unwrap();
        let first = shares(&equal, router(1));
        assert!((20..=44).contains(&first), "{first} of {SLOTS}");
        let heavy = HopGroup::new(HOST, &[(router(1), 9), (router(2), 1)], &[]).unwrap();
        assert!(
            shares(&heavy, router(1)) > 45 && shares(&heavy, router(2)) > 0,
            "{heavy:?}"
        );
    }

    /// P14: a router that leaves moves its own flows only, and gets the same ones back.
    #[test]
    fn p14_only_the_flows_of_a_lost_router_move() {
        let all = [(router(1), 1), (router(2), 1), (router(3), 1)];
        let before = HopGroup::new(HOST, &all, &[]).unwrap();
        let after = HopGroup::new(HOST, &all[..2], &[router(3)]).unwrap();
        let mut moved = 0;
        for (old, new) in before.slots.iter().zip(&after.slots) {
            if *old == router(3) {
                moved += 1;
            } else {
                assert_eq!(old, new);
            }
        }
        assert!(moved > 0);
        assert!(after.contains(router(3)) && !after.active().contains(&router(3)));
    }

    /// P15: what one host gives a router too little, another one gives it too much.
    #[test]
    fn p15_many_hosts_share_among_all_routers() {
        let all: Vec<_> = (1..=64).map(|n| (router(n), 1)).collect();
        let hosts = (0..=255).map(|n| Ipv4Addr::new(10, 0, 1, n));
        let groups: Vec<_> = hosts
            .map(|host| HopGroup::new(host, &all, &[]).unwrap())
            .collect();
        for (router, _) in all {
            let share: usize = groups.iter().map(|group| shares(group, router)).sum();
            assert!(
                (192..=320).contains(&share),
                "{router}: {share} of 256 on average"
            );
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(HopGroup::new(HOST, &[], &[router(1)]), None);
        let many: Vec<_> = (0..200).map(|n| (router(n), 0)).collect();
        let group = HopGroup::new(HOST, &many, &[]).unwrap();
        assert_eq!(group.active().len(), MAX_GROUP_MEMBERS);
        for flow in [0, u64::MAX, 1 << 40] {
            assert!(group.contains(group.pick(flow)));
        }
    }
}
