//! Our readings against those of two parsers we did not write, etherparse and smoltcp, on bytes that are
//! nearly right.
//!
//! Where they are more lenient than a tunnel may be, the test says so.

use super::ext_chains::any_chain;
use super::*;
use crate::wire::ext::{self, ExtError};
use crate::wire::icmpv6::{self, ErrorMessage, Icmpv6View};
use crate::wire::ipv4::{Ipv4View, MIN_HEADER_LEN};
use crate::wire::ipv6::Ipv6View;
use crate::wire::nd::{self, NdOption, NeighborFlags, PrefixInfo, RouterAdvertisement};
use crate::wire::transport::{TcpView, UdpView};
use etherparse::{
    Icmpv6Slice, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice, UdpSlice,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags,
    NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags, TcpPacket, UdpPacket,
};

fn steered_segment() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..100), 0..16u8, -1..=1i32).prop_map(|(mut bytes, offset, miss)| {
        let len = i32::try_from(bytes.len()).unwrap();
        if len > 20 {
            bytes[12] = offset << 4 | bytes[12] & 0x0f;
            bytes[4..6].copy_from_slice(&u16::try_from(len + miss).unwrap().to_be_bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn ipv4(bytes in nearly_packet(4)) {
        ipv4_agree(&bytes);
    }

    #[test]
    fn outer_header(header in any_outer()) {
        outer_header_agree(&header);
    }

    #[test]
    fn ipv6(bytes in nearly_packet(6)) {
        ipv6_agree(&bytes);
    }

    #[test]
    fn ipv6_header_values(header in any_inner()) {
        ipv6_header_values_agree(&header);
    }

    #[test]
    fn extension_headers(bytes in prop_oneof![3 => any_chain(), 1 => nearly_packet(6)]) {
        extension_headers_agree(&bytes);
    }

    #[test]
    fn tcp(bytes in steered_segment()) {
        tcp_agree(&bytes);
    }

    #[test]
    fn udp(bytes in steered_segment()) {
        udp_agree(&bytes);
    }

    #[test]
    fn icmpv6_checksums(payload in prop::collection::vec(any::<u8>(), 8..cases(400, 100)), good in any::<bool>()) {
        icmpv6_checksums_agree(&payload, good);
    }

    #[test]
    fn icmpv6_errors(payload in prop::collection::vec(any::<u8>(), 1..cases(1400, 300)), mtu in 1280..=65_515u32) {
        icmpv6_errors_agree(&payload, mtu);
    }

    #[test]
    fn neighbor_discovery(
        numbers in any::<[u32; 4]>(),
        lifetime in 1..u16::MAX,
        bits in any::<[bool; 5]>(),
        prefix in any::<[u8; 16]>(),
        mtu in any::<u32>(),
    ) {
        neighbor_discovery_agree(numbers, lifetime, bits, prefix, mtu);
    }
}

fn ipv4_agree(bytes: &[u8]) {
    let ours = Ipv4View::new(bytes);
    let theirs = Ipv4HeaderSlice::from_slice(bytes).ok().filter(|header| {
        usize::from(header.total_len()) >= header.slice().len()
            && usize::from(header.total_len()) <= bytes.len()
    });
    assert_eq!(ours.is_ok(), theirs.is_some());
    // smoltcp checks lengths only against each other, so it accepts all that we accept.
    if let Ok(view) = ours {
        let other = Ipv4Packet::new_checked(bytes).unwrap();
        assert_eq!(view.payload(), other.payload());
        assert_eq!(view.src(), other.src_addr());
        assert_eq!(view.dst(), other.dst_addr());
        assert_eq!(view.id(), other.ident());
        assert_eq!(view.tos(), other.dscp() << 2 | other.ecn());
    }
    if let (Ok(view), Some(header)) = (ours, theirs) {
        assert_eq!(view.header_len(), header.slice().len());
        assert_eq!(view.total_len(), usize::from(header.total_len()));
        assert_eq!(view.tos() >> 2, header.dcp().value());
        assert_eq!(view.dont_fragment(), header.dont_fragment());
        assert_eq!(view.more_fragments(), header.more_fragments());
        assert_eq!(view.fragment_offset() >> 3, header.fragments_offset().value());
        assert_eq!(view.is_fragment(), header.is_fragmenting_payload());
        assert_eq!((view.ttl(), view.protocol()), (header.ttl(), header.protocol().0));
        assert_eq!(
            (view.src(), view.dst()),
            (header.source_addr(), header.destination_addr())
        );
        assert_eq!(view.options(), header.options());
    }
}

/// E3: both accept our outer header, checksum included.
fn outer_header_agree(header: &OuterHeader) {
    let mut bytes = vec![0; MIN_HEADER_LEN + usize::from(header.payload_len)];
    header.emit(bytes.first_chunk_mut().unwrap());
    let theirs = etherparse::Ipv4Header::from_slice(&bytes).unwrap().0;
    assert_eq!(theirs.header_checksum, theirs.calc_header_checksum());
    assert_eq!(theirs.protocol, IpNumber::IPV6);
    assert_eq!(
        (theirs.source, theirs.destination),
        (header.src.octets(), header.dst.octets())
    );
    assert_eq!(
        (theirs.identification, theirs.time_to_live),
        (header.id, header.ttl)
    );
    assert_eq!(
        (theirs.dont_fragment, theirs.more_fragments),
        (header.dont_fragment, false)
    );
    let other = Ipv4Packet::new_checked(&bytes[..]).unwrap();
    assert!(other.verify_checksum());
    assert_eq!(other.payload().len(), usize::from(header.payload_len));
}

fn ipv6_agree(bytes: &[u8]) {
    let ours = Ipv6View::new(bytes);
    // Neither knows that a tunnel refuses payload length 0.
    let theirs = Ipv6HeaderSlice::from_slice(bytes).ok().filter(|header| {
        let payload_len = usize::from(header.payload_length());
        payload_len != 0 && 40 + payload_len <= bytes.len()
    });
    assert_eq!(ours.is_ok(), theirs.is_some());
    if let (Ok(view), Some(header)) = (ours, theirs) {
        assert_eq!(view.traffic_class(), header.traffic_class());
        assert_eq!(view.flow_label(), header.flow_label().value());
        assert_eq!(view.payload_len(), header.payload_length());
        assert_eq!(
            (view.next_header(), view.hop_limit()),
            (header.next_header().0, header.hop_limit())
        );
        assert_eq!(
            (view.src(), view.dst()),
            (header.source_addr(), header.destination_addr())
        );
        let other = Ipv6Packet::new_checked(bytes).unwrap();
        assert_eq!(view.payload(), other.payload());
        assert_eq!(view.total_len(), other.total_len());
        assert_eq!(view.traffic_class(), other.traffic_class());
        assert_eq!((view.src(), view.dst()), (other.src_addr(), other.dst_addr()));
    }
}

fn ipv6_header_values_agree(header: &Ipv6Header) {
    let mut bytes = [0; 40];
    header.emit(&mut bytes);
    let (theirs, _) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
    assert_eq!(theirs.traffic_class, header.traffic_class);
    assert_eq!(theirs.flow_label.value(), header.flow_label);
    assert_eq!(theirs.to_bytes(), bytes);
}

/// FAULTS 18. etherparse also steps over mobility, HIP and shim6, has no bound, and reads on behind a
/// later fragment's header; such chains are left out.
fn extension_headers_agree(bytes: &[u8]) {
    let Ok(view) = Ipv6View::new(bytes) else {
        return;
    };
    let ours = ext::walk(view.packet());
    let theirs_differ =
        |upper: ext::Upper| upper.is_later_fragment() || [135, 139, 140].contains(&upper.protocol);
    if ours == Err(ExtError::TooMany) || ours.is_ok_and(theirs_differ) {
        return;
    }
    let theirs = etherparse::Ipv6Header::skip_all_header_extensions_in_slice(
        view.payload(),
        IpNumber(view.next_header()),
    );
    match (ours, theirs) {
        (Ok(upper), Ok((protocol, rest))) => {
            assert_eq!(upper.protocol, protocol.0);
            assert_eq!(upper.offset, view.total_len() - rest.len());
        }
        (ours, theirs) => assert_eq!(ours.is_ok(), theirs.is_ok()),
    }
}

fn tcp_agree(bytes: &[u8]) {
    let ours = TcpView::new(bytes);
    let theirs = TcpHeaderSlice::from_slice(bytes);
    assert_eq!(ours.is_ok(), theirs.is_ok());
    if let (Ok(view), Ok(header)) = (ours, theirs) {
        assert_eq!(
            (view.src_port(), view.dst_port()),
            (header.source_port(), header.destination_port())
        );
        assert_eq!(
            (view.seq(), view.ack()),
            (header.sequence_number(), header.acknowledgment_number())
        );
        assert_eq!(view.header_len(), header.slice().len());
        assert_eq!(view.options(), header.options());
        assert_eq!(
            (view.window(), view.urgent()),
            (header.window_size(), header.urgent_pointer())
        );
        assert_eq!(view.checksum(), header.checksum());
        let flags = [
            header.fin(),
            header.syn(),
            header.rst(),
            header.psh(),
            header.ack(),
            header.urg(),
            header.ece(),
            header.cwr(),
        ];
        let expected = flags
            .iter()
            .enumerate()
            .map(|(bit, set)| u8::from(*set) << bit)
            .sum::<u8>();
        assert_eq!(view.flags(), expected);
        let other = TcpPacket::new_checked(bytes).unwrap();
        assert_eq!(view.payload(), other.payload());
    }
}

fn udp_agree(bytes: &[u8]) {
    let ours = UdpView::new(bytes);
    // etherparse lets length 0 mean "all the rest", as a jumbogram's would; none comes through the
    // tunnel.
    let theirs = UdpSlice::from_slice(bytes).ok().filter(|udp| udp.length() >= 8);
    assert_eq!(ours.is_ok(), theirs.is_some());
    if let Ok(view) = ours {
        let header = UdpHeaderSlice::from_slice(bytes).unwrap();
        assert_eq!(
            (view.src_port(), view.dst_port()),
            (header.source_port(), header.destination_port())
        );
        assert_eq!(
            (view.len_field(), view.checksum()),
            (header.length(), header.checksum())
        );
        let other = UdpPacket::new_checked(bytes).unwrap();
        assert_eq!(view.payload(), other.payload());
    }
}

fn icmpv6_checksums_agree(payload: &[u8], good: bool) {
    let mut packet = inner(58, payload);
    if good {
        icmpv6::fill_checksum(&mut packet[40..], &A, &B);
    }
    let theirs = Icmpv6Slice::from_slice(&packet[40..]).unwrap();
    let ours = Icmpv6View::new(&packet, 40);
    assert_eq!(ours.is_ok(), theirs.is_checksum_valid(A.octets(), B.octets()));
    assert!(ours.is_ok() || !good);
    if let Ok(view) = ours {
        assert_eq!(
            (view.message_type(), view.code(), view.checksum()),
            (theirs.type_u8(), theirs.code_u8(), theirs.checksum())
        );
    }
}

/// N7: smoltcp understands our errors and finds their checksum right.
fn icmpv6_errors_agree(payload: &[u8], mtu: u32) {
    let offending = inner(17, payload);
    let mut out = [0; 1280];
    let len = icmpv6::emit_error(&mut out, &B, &A, ErrorMessage::PacketTooBig { mtu }, &offending);
    let (src, dst, repr) = smoltcp_reads(&out[..len]);
    assert_eq!((src, dst), (B, A));
    let Ok(Icmpv6Repr::PktTooBig {
        mtu: read,
        header,
        data,
    }) = repr
    else {
        panic!("not a packet too big: {repr:?}");
    };
    assert_eq!((read, header.src_addr, header.dst_addr), (mtu, A, B));
    assert_eq!(data, &payload[..payload.len().min(1280 - 48 - 40)]);

    let kind = ErrorMessage::Unreachable {
        code: icmpv6::ADDRESS_UNREACHABLE,
    };
    let len = icmpv6::emit_error(&mut out, &B, &A, kind, &offending);
    let (_, _, repr) = smoltcp_reads(&out[..len]);
    let addr_unreachable = matches!(
        repr,
        Ok(Icmpv6Repr::DstUnreachable {
            reason: Icmpv6DstUnreachable::AddrUnreachable,
            ..
        })
    );
    assert!(addr_unreachable);
}

/// V1, N4: our messages in smoltcp's words.
fn neighbor_discovery_agree(numbers: [u32; 4], lifetime: u16, bits: [bool; 5], prefix: [u8; 16], mtu: u32) {
    let [reachable_time, retrans_timer, valid_lifetime, preferred_lifetime] = numbers;
    let [managed, other, on_link, autonomous, router] = bits;
    let fields = RouterAdvertisement {
        cur_hop_limit: 64,
        managed,
        other,
        router_lifetime: lifetime,
        reachable_time,
        retrans_timer,
        ..Default::default()
    };
    let option = PrefixInfo {
        prefix: prefix.into(),
        prefix_len: 64,
        on_link,
        autonomous,
        valid_lifetime,
        preferred_lifetime,
    };
    let options = [NdOption::PrefixInfo(option), NdOption::Mtu(mtu)];
    let mut out = [0; 1280];
    let len = nd::emit_router_advertisement(&mut out, A, B, &fields, &options);
    let (_, _, repr) = smoltcp_reads(&out[..len]);
    let mut flags = NdiscRouterFlags::empty();
    flags.set(NdiscRouterFlags::MANAGED, managed);
    flags.set(NdiscRouterFlags::OTHER, other);
    let mut prefix_flags = smoltcp::wire::NdiscPrefixInfoFlags::empty();
    prefix_flags.set(smoltcp::wire::NdiscPrefixInfoFlags::ON_LINK, on_link);
    prefix_flags.set(smoltcp::wire::NdiscPrefixInfoFlags::ADDRCONF, autonomous);
    let seconds = |count: u32| smoltcp::time::Duration::from_secs(u64::from(count));
    let millis = |count: u32| smoltcp::time::Duration::from_millis(u64::from(count));
    assert_eq!(
        repr,
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            hop_limit: 64,
            flags,
            router_lifetime: seconds(u32::from(lifetime)),
            reachable_time: millis(reachable_time),
            retrans_time: millis(retrans_timer),
            lladdr: None,
            mtu: Some(mtu),
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: 64,
                flags: prefix_flags,
                valid_lifetime: seconds(valid_lifetime),
                preferred_lifetime: seconds(preferred_lifetime),
                prefix: prefix.into(),
            }),
        }))
    );

    let len = nd::emit_router_solicitation(&mut out, A, B);
    assert_eq!(
        smoltcp_reads(&out[..len]).2,
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None }))
    );
    let len = nd::emit_neighbor_solicitation(&mut out, A, B, B, &[]);
    let expected = NdiscRepr::NeighborSolicit {
        target_addr: B,
        lladdr: None,
    };
    assert_eq!(smoltcp_reads(&out[..len]).2, Ok(Icmpv6Repr::Ndisc(expected)));
    let flags = NeighborFlags {
        router,
        solicited: true,
        override_cache: false,
    };
    let len = nd::emit_neighbor_advertisement(&mut out, A, B, A, flags, &[]);
    let mut neighbor_flags = NdiscNeighborFlags::SOLICITED;
    neighbor_flags.set(NdiscNeighborFlags::ROUTER, router);
    let expected = NdiscRepr::NeighborAdvert {
        flags: neighbor_flags,
        target_addr: A,
        lladdr: None,
    };
    assert_eq!(smoltcp_reads(&out[..len]).2, Ok(Icmpv6Repr::Ndisc(expected)));
}

/// Source, destination and message of a whole packet, checksum verified, as smoltcp sees them.
fn smoltcp_reads(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr, smoltcp::wire::Result<Icmpv6Repr<'_>>) {
    let ip = Ipv6Packet::new_checked(packet).unwrap();
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let message = Icmpv6Packet::new_checked(&packet[40..]).unwrap();
    assert!(message.verify_checksum(&src, &dst));
    (
        src,
        dst,
        Icmpv6Repr::parse(&src, &dst, &message, &ChecksumCapabilities::default()),
    )
}
