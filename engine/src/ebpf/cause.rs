//! Why a packet is left to a worker: the one list behind the enum, the metric label and the number in the programs.
//!
//! A packet that is left is not lost: it goes on as it came, and a worker reads it, decides and counts. `build.rs` reads
//! this file as well, and makes the header for the programs from it.

macro_rules! causes {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+) => {
        /// Why the programs leave a packet to a worker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Cause {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl Cause {
            /// Every cause, in the order of their counters.
            pub const ALL: &'static [Cause] = &[ $( Cause::$variant, )+ ];

            /// How many causes there are: the length of a counter array.
            pub const COUNT: usize = Self::ALL.len();

            /// The label on metrics.
            pub const fn name(self) -> &'static str {
                match self { $( Cause::$variant => $name, )+ }
            }

            /// One sentence for operators.
            pub const fn help(self) -> &'static str {
                match self { $( Cause::$variant => concat!($( $doc, )+).trim_ascii(), )+ }
            }
        }
    };
}

causes! {
    /// The rules could not be read, or not while a packet is interrupted that reads them for the same flow (PREEMPT_RT).
    Rules = "rules",
    /// The rules were replaced twice while they were being read.
    Outdated = "outdated",
    /// All packets of this direction are left: somebody captures, the interface is down, or the rules do not fit the tables.
    Held = "held",
    /// The packet came in by another device than the one that has the address (RFC 5214 7.3).
    Device = "device",
    /// The outer header has options, or is none.
    Options = "options",
    /// The outer header's checksum is wrong: the kernel's IPv4 drops it.
    Checksum = "checksum",
    /// The sender's IPv4 address is one of this machine's own: the kernel's IPv4 drops such a packet, unless it is told otherwise (accept_local).
    Martian = "martian",
    /// A fragment of an outer packet: the kernel puts them together first.
    Fragment = "fragment",
    /// More or fewer bytes than the headers say: padding has to be cut off.
    Length = "length",
    /// An inner multicast destination.
    Multicast = "multicast",
    /// The inner packet has extension headers.
    Extension = "extension",
    /// Neighbour discovery.
    Control = "control",
    /// ECN fields that are dangerous together (RFC 6040 4.2): logged, and perhaps dropped.
    Ecn = "ecn",
    /// Datagrams that somebody may have merged without saying so.
    Merged = "merged",
    /// A worker drops the packet with its reason, and tells the sender where that is due.
    Refused = "refused",
    /// No device is known that leads to the IPv4 address.
    Route = "route",
    /// The packet is too big for the tunnel or the path: the sender is told.
    TooBig = "too_big",
    /// The packet is too big for our own link: it is fragmented, or the sender told.
    LinkMtu = "link_mtu",
    /// A superpacket of a kind that the programs do not know.
    Offload = "offload",
    /// The kernel would not change the packet's length.
    Room = "room",
    /// A superpacket, or what follows one, that goes on by a device that cuts tunnelled ones itself, and would take it for one; after `ethtool -K DEVICE tx-ipxip4-segmentation off` it is carried.
    Segmentation = "segmentation",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_ordered_like_the_counters() {
        for (i, a) in Cause::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i);
            assert!(!a.help().is_empty());
            assert!(Cause::ALL[i + 1..].iter().all(|b| a.name() != b.name()));
        }
    }
}
