//! What this kernel lacks for the programs, found by trying: they are loaded, and each is given a valid packet.
//!
//! Version numbers say little: distributions move features between kernels, and leave them out of some.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};

use super::programs::name_of;
use super::{Action, Hook, LoadError, Programs, Shared};
use crate::ebpf::layout::Counter;
use crate::ebpf::{Cause, Egress, Segmenters, Surroundings, compile};
use crate::fib::{Ipv4Prefix, Ipv6Prefix, Locator, NextHop, RulebookBuilder};
use crate::isatap::iid;
use crate::stats::Direction;
use crate::wire::ipv4::{MIN_HEADER_LEN, OuterHeader};
use crate::wire::ipv6::{HEADER_LEN, Ipv6Header};

/// What a kernel that accepts both programs can do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// How programs get to their devices.
    pub hook: Hook,
    /// Packets of the TUN interface can be carried, or why not.
    pub encap: Result<(), Lacking>,
    /// Packets of the IPv4 network can be carried, or why not.
    pub decap: Result<(), Lacking>,
}

/// What a kernel lacks. The text is for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// A helper, and the version of Linux that brought it.
    Helper(&'static str, &'static str),
    /// Instructions.
    Atomics,
    /// The headers of a valid packet cannot be changed.
    Headers(Direction),
    /// A valid packet is left for another cause, or dropped.
    Trial(Direction, Option<Cause>),
}

/// What the programs call that is younger than most.
const HELPERS: [(BpfHelper, &str, &str); 4] = [
    (
        BpfHelper::BPF_FUNC_skb_change_proto,
        "bpf_skb_change_proto",
        "4.8",
    ),
    (BpfHelper::BPF_FUNC_skb_change_head, "bpf_skb_change_head", "4.10"),
    (BpfHelper::BPF_FUNC_skb_adjust_room, "bpf_skb_adjust_room", "4.13"),
    (BpfHelper::BPF_FUNC_redirect_neigh, "bpf_redirect_neigh", "5.10"),
];

/// The two ends of the trial's tunnel.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The prefix of its link.
const LINK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
const ETHERNET_LEN: usize = 14;
const PAYLOAD: [u8; 12] = [0, 9, 0, 9, 0, 12, 0, 0, b'e', b'b', b'p', b'f'];

impl Features {
    /// Whether nothing is lacking, for either direction.
    ///
    /// # Errors
    /// What is lacking, as a [`LoadError`] that names the program.
    pub fn complete(&self) -> Result<(), LoadError> {
        for direction in Direction::ALL {
            let found = match direction {
                Direction::Encap => self.encap,
                Direction::Decap => self.decap,
            };
            found.map_err(|lacking| LoadError::Lacking(name_of(direction), lacking))?;
        }
        Ok(())
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Helper(name, version) => write!(out, "the kernel has no {name} (Linux {version})"),
            Self::Atomics => {
                out.write_str("the kernel has no atomic operations that return a value (Linux 5.12)")
            }
            Self::Headers(Direction::Encap) => {
                out.write_str("the kernel puts no outer header on (bpf_skb_adjust_room, Linux 5.2)")
            }
            Self::Headers(Direction::Decap) => out.write_str(
                "the kernel takes no outer header off (BPF_F_ADJ_ROOM_DECAP_L3_IPV6, Linux 6.3, or bpf_skb_change_proto)",
            ),
            Self::Trial(direction, Some(cause)) => {
                let direction = direction.name();
                write!(out, "the program for {direction} leaves a valid packet: {}", cause.help())
            }
            Self::Trial(direction, None) => {
                write!(out, "the program for {} does not carry a valid packet", direction.name())
            }
        }
    }
}

impl std::error::Error for Lacking {}

impl Programs {
    /// Tries both programs, which must not be in use yet: nothing remains of the trial in their maps.
    ///
    /// # Errors
    /// When the kernel does not let them be tried.
    pub fn features(&mut self) -> Result<Features, LoadError> {
        let shared = Shared::new(&self.maps()?).map_err(LoadError::Memory)?;
        let image = rules(shared.slots_per_table()).ok_or(LoadError::Object("rules for a trial"))?;
        shared.publish(&image).map_err(LoadError::Memory)?;
        let found = Features {
            hook: Hook::of_the_kernel()?,
            encap: self.carries(&shared, Direction::Encap)?,
            decap: self.carries(&shared, Direction::Decap)?,
        };
        shared.clear();
        Ok(found)
    }

    fn carries(&mut self, shared: &Shared, direction: Direction) -> Result<Result<(), Lacking>, LoadError> {
        let (frame, inner) = packets(direction);
        let outer_len = match direction {
            Direction::Encap => MIN_HEADER_LEN,
            Direction::Decap => 0,
        };
        let tried = self.try_out(direction, &frame)?;
        let packet = tried.frame.get(ETHERNET_LEN + outer_len..);
        let is_right = tried.action == Action::Carried && packet == Some(&inner);
        let counted = |cause: &&Cause| shared.count(Counter::Passed(**cause), direction as usize) > 0;
        Ok(match Cause::ALL.iter().find(counted) {
            _ if is_right => Ok(()),
            Some(Cause::Room) => Err(Lacking::Headers(direction)),
            cause => Err(Lacking::Trial(direction, cause.copied())),
        })
    }
}

/// Why the kernel does not load a program, if that can be told.
pub(super) fn explained(program: &'static str, error: ProgramError) -> LoadError {
    let ProgramError::LoadError { verifier_log, .. } = &error else {
        return error.into();
    };
    let is_missing = |helper| {
        matches!(
            is_helper_supported(ProgramType::SchedClassifier, helper),
            Ok(false)
        )
    };
    match lacking(&verifier_log.to_string(), is_missing) {
        Some(lacking) => LoadError::Lacking(program, lacking),
        None => error.into(),
    }
}

/// What a kernel lacks that has refused a program in these words.
fn lacking(verifier_log: &str, is_missing: impl Fn(BpfHelper) -> bool) -> Option<Lacking> {
    let missing = HELPERS.iter().find(|(helper, ..)| is_missing(*helper));
    if let Some((_, name, version)) = missing {
        return Some(Lacking::Helper(name, version));
    }
    verifier_log
        .contains("uses reserved fields")
        .then_some(Lacking::Atomics)
}

fn rules(slots: usize) -> Option<crate::ebpf::Image> {
    let rules = RulebookBuilder {
        locators: vec![Locator {
            addr: NEAR,
            if_index: 0,
        }],
        own6: vec![address(NEAR)],
        routes: vec![(Ipv6Prefix::containing(LINK, 64).ok()?, NextHop::OnLink)],
        any_site: true,
        ..RulebookBuilder::default()
    };
    let surroundings = Surroundings {
        link_len: 14,
        carry_in: true,
        carry_out: true,
        alone: false,
        own_v4: Vec::new(),
        egress: vec![Egress {
            network: Ipv4Prefix::containing(FAR, 24).ok()?,
            device: 1,
            mtu: u16::MAX,
            via: Ipv4Addr::UNSPECIFIED,
        }],
        segmenters: Segmenters::default(),
    };
    compile(&rules.build().ok()?, &surroundings, slots, 0).ok()
}

/// A valid packet with its link header, and the inner packet in it.
fn packets(direction: Direction) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = match direction {
        Direction::Encap => (NEAR, FAR),
        Direction::Decap => (FAR, NEAR),
    };
    let payload_len = u16::try_from(PAYLOAD.len()).unwrap_or(0);
    let mut inner = vec![0; HEADER_LEN];
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len,
        next_header: 17,
        hop_limit: 64,
        src: address(from),
        dst: address(to),
    };
    header.emit(&mut inner);
    inner.extend(PAYLOAD);
    let mut outer = [0; MIN_HEADER_LEN];
    let header = OuterHeader {
        src: from,
        dst: to,
        tos: 0,
        ttl: 64,
        dont_fragment: false,
        id: 1,
        payload_len: payload_len + 40,
    };
    header.emit(&mut outer);
    let frame = |ether_type: [u8; 2], packet: &[u8]| [&[0; 12][..], &ether_type, packet].concat();
    match direction {
        Direction::Encap => (frame([0x86, 0xdd], &inner), inner),
        Direction::Decap => (frame([0x08, 0x00], &[&outer[..], &inner].concat()), inner),
    }
}

fn address(v4: Ipv4Addr) -> Ipv6Addr {
    let link_local = iid::link_local(v4).to_bits();
    Ipv6Addr::from_bits(LINK.to_bits() | link_local & u128::from(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_explained() {
        let atomics = "processed 41 insns\nBPF_STX uses reserved fields\n";
        let nothing = |_| false;
        assert_eq!(lacking("R1 invalid mem access", nothing), None);
        assert_eq!(lacking(atomics, nothing), Some(Lacking::Atomics));
        // A kernel without a helper lacks the rest as well: the helper's version is the one to know.
        let oldest = lacking(atomics, |helper| {
            matches!(
                helper,
                BpfHelper::BPF_FUNC_redirect_neigh | BpfHelper::BPF_FUNC_skb_change_head
            )
        });
        let said = oldest.map(|lacking| lacking.to_string());
        assert_eq!(
            said.as_deref(),
            Some("the kernel has no bpf_skb_change_head (Linux 4.10)")
        );
    }

    /// Other errors are told as they are.
    #[test]
    fn what_is_no_refusal_of_the_verifier_stays() {
        let said = explained("isatap_encap", ProgramError::AlreadyLoaded).to_string();
        assert_eq!(said, ProgramError::AlreadyLoaded.to_string());
    }
}
