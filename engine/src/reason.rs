//! Why a packet was dropped: the one list behind the enum, the metric label, the help text and the manual.
//!
//! Every packet the engine reads is delivered, punted to control, or dropped for exactly one of these reasons
//! (DESIGN D12). Names are fixed by the contract and appear as `reason="..."` on `isatapd_drops_total`.

macro_rules! drop_reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+) => {
        /// Why a packet was dropped. One counter per direction belongs to each variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[ $( DropReason::$variant, )+ ];

            /// How many reasons there are: the length of a counter array.
            pub const COUNT: usize = Self::ALL.len();

            /// The label on metrics, in JSON and in captures.
            pub const fn name(self) -> &'static str {
                match self { $( DropReason::$variant => $name, )+ }
            }

            /// One sentence for operators.
            pub const fn help(self) -> &'static str {
                match self { $( DropReason::$variant => concat!($( $doc, )+).trim_ascii(), )+ }
            }
        }
    };
}

drop_reasons! {
    /// The outer or inner packet is shorter than its own length fields say.
    Truncated = "truncated",
    /// A header is not what it claims to be: wrong version, impossible header length, payload length 0, broken extension header chain.
    Malformed = "malformed",
    /// The outer IPv4 source can be no host, or the outer destination is broadcast or multicast (RFC 1122 3.2.1.3, RFC 4213 3.6).
    OuterForbidden = "outer_forbidden",
    /// The outer packet carries an IPv4 source route option.
    SourceRoute = "source_route",
    /// The outer destination is not one of our locators (RFC 5214 7.3).
    NotLocal = "not_local",
    /// The IPv4 peer is outside the site networks and no member of the PRL.
    NotSite = "not_site",
    /// The inner source does not embed the outer source, and the sender is no router of the PRL (RFC 5214 7.3).
    SrcMismatch = "src_mismatch",
    /// The inner source embeds the outer source, but under a prefix that is not of this link (StrictIngress).
    SrcPrefix = "src_prefix",
    /// The inner source is an address no packet may come from: multicast, loopback, IPv4-mapped or -compatible, unspecified, our own.
    SrcForbidden = "src_forbidden",
    /// The inner destination, or the IPv4 address it leads to, is one no packet may go to.
    DstForbidden = "dst_forbidden",
    /// An inner multicast destination that this link does not emulate.
    DstMulticast = "dst_multicast",
    /// The inner packet is itself a tunnel packet (next header 41, 4 or 47) and NestedTunnels is off.
    Nested = "nested",
    /// The outer header says congestion experienced, the inner transport does not understand it (RFC 6040 4.2).
    Ecn = "ecn",
    /// The packet would go round: our own encapsulated packet was routed back into the tunnel.
    Loop = "loop",
    /// Neighbour discovery with a hop limit other than 255: it was forwarded.
    NdHopLimit = "nd_hop_limit",
    /// Neighbour discovery with a wrong ICMPv6 checksum.
    NdChecksum = "nd_checksum",
    /// Neighbour discovery with an ICMPv6 code other than 0.
    NdCode = "nd_code",
    /// Neighbour discovery that is too short, or has an option of length 0 or past the end.
    NdLength = "nd_length",
    /// Neighbour discovery from a source, or about a target, that the message type does not allow.
    NdAddress = "nd_address",
    /// Neighbour discovery in a fragment (RFC 6980).
    NdFragment = "nd_fragment",
    /// A router advertisement or redirect from somebody who is not a router of the PRL (RFC 5214 8.3.3).
    NdNotRouter = "nd_not_router",
    /// A redirect that is not followed: this node is a router, the sender is not the first hop for the destination, or the target is no host of the site (RFC 4861 8.1).
    NdRedirect = "nd_redirect",
    /// A redirect of our own kernel, which forwarded a packet back to the link: whether two hosts of a site reach each other directly is not known here (RFC 6964 3.5).
    OwnRedirect = "own_redirect",
    /// A merged packet arrived whose segments cannot be told apart again.
    Merged = "merged",
    /// No next hop: no route and no router for the destination.
    NoRoute = "no_route",
    /// The next hop is on-link but is no ISATAP address, so that no IPv4 address can be read from it.
    Unresolvable = "unresolvable",
    /// The packet is larger than the tunnel MTU.
    TooBig = "too_big",
    /// The TUN interface handed over offload metadata that does not fit the packet.
    BadOffload = "bad_offload",
    /// More packets of this kind than the limit allows.
    RateLimited = "rate_limited",
    /// The TUN interface is down.
    TunDown = "tun_down",
    /// The kernel refused the write to the TUN interface.
    TunError = "tun_error",
    /// The kernel refused to send the outer packet; see the per-errno counters.
    SendError = "send_error",
    /// The worker was stopping with the packet in hand.
    Shutdown = "shutdown",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_ordered_like_the_counters() {
        for (i, a) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i);
            assert!(!a.help().is_empty());
            assert!(DropReason::ALL[i + 1..].iter().all(|b| a.name() != b.name()));
        }
    }
}
