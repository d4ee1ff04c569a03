//! The programs of the `ebpf` lane without any device of the tunnel: packets are tried out on them, one after the other.

use std::net::Ipv4Addr;

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{Cause, Egress, Image, Segmenters, Surroundings, compile};
use isatap_engine::fib::RulebookBuilder;
use isatap_engine::io::ebpf::{Action, Programs, Shared, Tried};
use isatap_engine::reason::DropReason;
use isatap_engine::stats::Direction;

use crate::daemon::TUNNEL;
use crate::processes::stay_on_this_cpu;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// The type of IPv4 in an Ethernet header.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// The type of IPv6 in an Ethernet header.
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The loopback device, where packets are tried out: they come from there, and are sent there.
pub const LOOPBACK: u32 = 1;

/// Everything is carried, sent by the loopback device, which takes IPv4 packets of `mtu` bytes.
///
/// # Panics
/// Never: the network is one.
pub fn by_loopback(mtu: u16) -> Surroundings {
    Surroundings {
        link_len: 14,
        carry_in: true,
        carry_out: true,
        alone: true,
        own_v4: Vec::new(),
        egress: vec![Egress {
            network: "0.0.0.0/0".parse().expect("a prefix"),
            device: LOOPBACK,
            mtu,
            via: Ipv4Addr::UNSPECIFIED,
        }],
        segmenters: Segmenters::default(),
    }
}

/// Programs that nothing is attached to, asked by one CPU: what CPUs remember, each remembers for itself.
#[derive(Debug)]
pub struct Trial {
    programs: Programs,
    shared: Shared,
}

impl Trial {
    /// Programs without rules, with room for `slots` entries. The calling thread stays on its CPU from now on.
    ///
    /// # Panics
    /// When the kernel refuses anything.
    pub fn new(slots: u32) -> Self {
        stay_on_this_cpu();
        let programs = Programs::load(slots, TUNNEL).unwrap_or_else(|error| panic!("programs: {error:?}"));
        let shared = Shared::new(&programs.maps().expect("descriptors")).expect("mapped maps");
        Self { programs, shared }
    }

    /// These rules for the tables of the programs, where everything is carried and sent by the loopback device. `seed` says by which
    /// keys tables are made and flows remembered.
    ///
    /// # Panics
    /// When the rules cannot be, or do not fit.
    pub fn compile(&self, rules: RulebookBuilder, seed: u64) -> Image {
        let surroundings = by_loopback(u16::MAX);
        let rules = rules.build().expect("a Rulebook");
        compile(&rules, &surroundings, self.shared.slots_per_table(), seed).expect("rules that fit")
    }

    /// Has the programs decide by these from now on.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn publish(&self, image: &Image) {
        self.shared.publish(image).expect("published");
    }

    /// An IPv6 packet on its way out: the IPv4 packet that it becomes, if it is carried.
    ///
    /// # Panics
    /// When the kernel refuses to try.
    pub fn send(&mut self, inner: &[u8]) -> Option<Vec<u8>> {
        carried(self.try_frame(Direction::Encap, [0; 6], ETHERTYPE_IPV6, inner))
    }

    /// An IPv4 packet that comes in: the IPv6 packet in it, if it is carried.
    ///
    /// # Panics
    /// As [`Trial::send`].
    pub fn receive(&mut self, outer: &[u8]) -> Option<Vec<u8>> {
        carried(self.try_frame(Direction::Decap, [0; 6], ETHERTYPE_IPV4, outer))
    }

    /// What becomes of any packet behind any Ethernet header. That of this machine has the address 00:00:00:00:00:00.
    ///
    /// # Panics
    /// As [`Trial::send`].
    pub fn try_frame(
        &mut self,
        direction: Direction,
        to: [u8; 6],
        ether_type: [u8; 2],
        packet: &[u8],
    ) -> Tried {
        let frame = [&to[..], &[0; 6], &ether_type, packet].concat();
        let tried = self.programs.try_out(direction, &frame);
        tried.unwrap_or_else(|error| panic!("{} bytes: {error}", packet.len()))
    }

    /// A counter of the programs.
    pub fn count(&self, direction: Direction, counter: Counter) -> u64 {
        self.shared.count(counter, direction as usize)
    }

    /// All packets that were counted as carried, left or dropped.
    pub fn counted(&self, direction: Direction) -> u64 {
        let causes = Cause::ALL.iter().map(|cause| Counter::Passed(*cause));
        let reasons = DropReason::ALL.iter().map(|reason| Counter::Dropped(*reason));
        let all = causes.chain(reasons).chain([Counter::Packets]);
        all.map(|counter| self.count(direction, counter)).sum()
    }
}

fn carried(mut tried: Tried) -> Option<Vec<u8>> {
    (tried.action == Action::Carried).then(|| tried.frame.split_off(ETHERNET))
}
