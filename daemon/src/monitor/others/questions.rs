//! What [`super::Lookout`] asks the kernel over netlink, and what parts of the answers mean. Pure.
//!
//! | question | family | an answer's part |
//! |---|---|---|
//! | which chains has nf_tables? | `NETLINK_NETFILTER` | `nfgenmsg`, attributes of a chain |
//! | how many policies has IPsec? | `NETLINK_XFRM` | flags, counts by direction |
//! | what happens to packets without a policy? | `NETLINK_XFRM` | a byte by direction |
//! | which devices are there? | `NETLINK_ROUTE` | `ifinfomsg`, attributes of a link |
//!
//! Numbers are those of the headers in `linux/`: `netfilter/nfnetlink.h`, `netfilter/nf_tables.h`, `netfilter.h`, `xfrm.h`,
//! `if_arp.h`, `if_link.h`. The kernel writes them in its own byte order, except for nf_tables, which uses the network's.

use std::io;

use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, parse_u32, parse_u32_be};

use crate::link::plain::{attribute, message, nonsense};

/// `NFNL_SUBSYS_NFTABLES`: in the upper byte of the type of a message.
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWCHAIN`.
const NEW_CHAIN: u16 = NFTABLES | 3;
/// `NFT_MSG_GETCHAIN`.
const GET_CHAIN: u16 = NFTABLES | 4;
/// Bytes of `struct nfgenmsg`: family, version, resource.
const NFGENMSG_LEN: usize = 4;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_NETDEV`.
const FAMILY_INET: u8 = 1;
const FAMILY_IPV4: u8 = 2;
const FAMILY_NETDEV: u8 = 5;
/// `NFTA_CHAIN_HOOK`: only a chain with a hook sees packets by itself.
const CHAIN_HOOK: u16 = 4;
/// `NFTA_CHAIN_POLICY`.
const CHAIN_POLICY: u16 = 5;
/// `NFTA_CHAIN_USE`: for a chain with a hook, which no rule can jump to, the number of its rules.
const CHAIN_USE: u16 = 6;
/// `NFTA_HOOK_HOOKNUM`.
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = 2;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// `NFNLGRP_NFTABLES`, as a bit: tables, chains and rules that come and go.
pub(super) const NFTABLES_GROUP: u32 = 1 << (7 - 1);
/// `XFRMNLGRP_POLICY`, as a bit: policies that come and go, and what happens without one.
pub(super) const POLICY_GROUP: u32 = 1 << (4 - 1);

/// `XFRM_MSG_NEWSPDINFO`.
const NEW_SPD_INFO: u16 = 0x24;
/// `XFRM_MSG_GETSPDINFO`.
const GET_SPD_INFO: u16 = 0x25;
/// `XFRM_MSG_GETDEFAULT`, which is also the type of its answer (Linux 5.15).
const GET_DEFAULT: u16 = 0x28;
/// Bytes of flags before the attributes of an answer to [`GET_SPD_INFO`].
const SPD_FLAGS_LEN: usize = 4;
/// `XFRMA_SPD_INFO`.
const SPD_INFO: u16 = 1;
/// `XFRM_USERPOLICY_BLOCK`.
const BLOCK: u8 = 1;

/// Bytes of `struct ifinfomsg`: family, padding, 16 bits of type, index, flags, mask.
const IFINFOMSG_LEN: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: counters of every device are much work for the kernel.
const WITHOUT_COUNTERS: [u8; 8] = {
    let [a, b] = 8u16.to_ne_bytes();
    let [c, d] = 29u16.to_ne_bytes();
    let [e, f, g, h] = 8u32.to_ne_bytes();
    [a, b, c, d, e, f, g, h]
};

/// Which chains are there, of every family?
pub(super) fn chains() -> Vec<u8> {
    message(GET_CHAIN, NLM_F_REQUEST | NLM_F_DUMP, &[0; NFGENMSG_LEN])
}

/// Whether an answer to [`chains`] tells of one that does something with outer packets. These come from devices to this
/// machine or the other way, and are never forwarded. Bridges' chains see frames before and after our programs do.
///
/// # Errors
/// It is no such answer.
pub(super) fn sees_outer(kind: u16, payload: &[u8]) -> io::Result<bool> {
    let unread = || nonsense("a chain");
    let (header, attributes) = payload.split_at_checked(NFGENMSG_LEN).ok_or_else(unread)?;
    if kind != NEW_CHAIN {
        return Err(unread());
    }
    let family = header[0];
    if ![FAMILY_INET, FAMILY_IPV4, FAMILY_NETDEV].contains(&family) {
        return Ok(false);
    }
    let Some(hook) = attribute(attributes, CHAIN_HOOK)? else {
        return Ok(false);
    };
    let number = |attributes, kind| {
        let value = attribute(attributes, kind)?.and_then(|value| parse_u32_be(value).ok());
        value.ok_or_else(unread)
    };
    if family != FAMILY_NETDEV && number(hook, HOOK_NUMBER)? == FORWARD {
        return Ok(false);
    }
    Ok(number(attributes, CHAIN_POLICY)? != ACCEPT || number(attributes, CHAIN_USE)? > 0)
}

/// How many policies are there?
pub(super) fn policies() -> Vec<u8> {
    message(GET_SPD_INFO, NLM_F_REQUEST | NLM_F_ACK, &[0; SPD_FLAGS_LEN])
}

/// Whether the answer to [`policies`] tells of any, of either family: for what comes in, goes out, is forwarded. Those that
/// programs give their own sockets are no concern of others.
///
/// # Errors
/// It is no such answer.
pub(super) fn has_policies(kind: u16, payload: &[u8]) -> io::Result<bool> {
    let unread = || nonsense("counts of policies");
    if kind != NEW_SPD_INFO {
        return Err(unread());
    }
    let attributes = payload.get(SPD_FLAGS_LEN..).ok_or_else(unread)?;
    let counts = attribute(attributes, SPD_INFO)?.and_then(|counts| counts.get(..12));
    let mut counts = counts.ok_or_else(unread)?.chunks_exact(4);
    Ok(counts.any(|count| parse_u32(count).is_ok_and(|count| count > 0)))
}

/// What happens to packets that no policy is for?
pub(super) fn default_policy() -> Vec<u8> {
    message(GET_DEFAULT, NLM_F_REQUEST | NLM_F_ACK, &[0; 3])
}

/// Whether the answer to [`default_policy`] is that some are refused: a byte each for those that come in, are forwarded,
/// go out.
///
/// # Errors
/// It is no such answer.
pub(super) fn refuses_by_default(kind: u16, payload: &[u8]) -> io::Result<bool> {
    match payload {
        [into, _, out, ..] if kind == GET_DEFAULT => Ok([into, out].contains(&&BLOCK)),
        _ => Err(nonsense("the default policy")),
    }
}

/// Which devices are there?
pub(super) fn devices() -> Vec<u8> {
    let question = [&[0; IFINFOMSG_LEN][..], &WITHOUT_COUNTERS].concat();
    message(libc::RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &question)
}

/// Whether an answer to [`devices`] tells of a sit tunnel that hears: the kernel passes those over that are down
/// (ipip6_tunnel_lookup of net/ipv6/sit.c), as `sit0` is that comes with the module.
///
/// # Errors
/// It is no such answer.
pub(super) fn hears(kind: u16, payload: &[u8]) -> io::Result<bool> {
    let header = payload.first_chunk::<IFINFOMSG_LEN>();
    let header = header
        .filter(|_| kind == libc::RTM_NEWLINK)
        .ok_or_else(|| nonsense("a device"))?;
    let device_type = u16::from_ne_bytes([header[2], header[3]]);
    let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    Ok(device_type == libc::ARPHRD_SIT && flags & UP != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::plain::encode_attribute;
    use proptest::prelude::*;

    /// A chain of a table; with a hook of this number, policy and count of rules, or none.
    fn chain(family: u8, hook: Option<(u32, u32, u32)>) -> Vec<u8> {
        let mut payload = vec![family, 0, 0, 0];
        payload.extend(encode_attribute(1, b"tbl\0"));
        if let Some((number, policy, rules)) = hook {
            let mut value = encode_attribute(HOOK_NUMBER, &number.to_be_bytes());
            value.extend(encode_attribute(2, &0u32.to_be_bytes()));
            // NLA_F_NESTED.
            payload.extend(encode_attribute(CHAIN_HOOK | 0x8000, &value));
            payload.extend(encode_attribute(CHAIN_POLICY, &policy.to_be_bytes()));
            payload.extend(encode_attribute(7, b"filter\0"));
            payload.extend(encode_attribute(CHAIN_USE, &rules.to_be_bytes()));
        } else {
            payload.extend(encode_attribute(CHAIN_USE, &9u32.to_be_bytes()));
        }
        payload
    }

    #[test]
    fn chains_that_do_nothing_to_outer_packets_do_not_count() {
        const DROP: u32 = 0;
        let (input, ingress) = (1, 0);
        for (family, hook, counts) in [
            (FAMILY_INET, Some((input, ACCEPT, 0)), false),
            (FAMILY_INET, Some((input, ACCEPT, 1)), true),
            (FAMILY_INET, Some((input, DROP, 0)), true),
            (FAMILY_INET, Some((FORWARD, DROP, 4)), false),
            (FAMILY_INET, None, false),
            (FAMILY_IPV4, Some((input, ACCEPT, 0)), false),
            (FAMILY_IPV4, Some((input, ACCEPT, 1)), true),
            (FAMILY_IPV4, Some((FORWARD, DROP, 4)), false),
            (FAMILY_NETDEV, Some((ingress, ACCEPT, 0)), false),
            (FAMILY_NETDEV, Some((ingress, ACCEPT, 1)), true),
            // A number that means something else here.
            (FAMILY_NETDEV, Some((FORWARD, DROP, 0)), true),
            // ARP, bridges, IPv6.
            (3, Some((input, DROP, 4)), false),
            (7, Some((input, DROP, 4)), false),
            (10, Some((input, DROP, 4)), false),
        ] {
            let seen = sees_outer(NEW_CHAIN, &chain(family, hook)).unwrap();
            assert_eq!(seen, counts, "family {family}, {hook:?}");
        }
    }

    #[test]
    fn a_chain_that_cannot_be_read_is_an_error() {
        let whole = chain(FAMILY_INET, Some((FORWARD + 1, ACCEPT, 0)));
        assert!(!sees_outer(NEW_CHAIN, &whole).unwrap());
        assert!(sees_outer(GET_CHAIN, &whole).is_err());
        // Cut off anywhere behind the beginning of the hook: something is missing. Before it, no hook can be seen.
        let hook_at = NFGENMSG_LEN + 8;
        for len in 0..whole.len() {
            let is_whole = [NFGENMSG_LEN, hook_at].contains(&len);
            assert_eq!(sees_outer(NEW_CHAIN, &whole[..len]).is_ok(), is_whole, "{len}");
        }
    }

    fn counts(counts: [u32; 6]) -> Vec<u8> {
        let value: Vec<u8> = counts.iter().flat_map(|count| count.to_ne_bytes()).collect();
        let mut payload = vec![0; SPD_FLAGS_LEN];
        payload.extend(encode_attribute(SPD_INFO, &value));
        payload.extend(encode_attribute(2, &[1; 8]));
        payload
    }

    #[test]
    fn policies_count_unless_they_are_of_sockets() {
        for (numbers, present) in [
            ([0; 6], false),
            ([0, 0, 0, 1, 2, 3], false),
            ([1, 0, 0, 0, 0, 0], true),
            ([0, 256, 0, 0, 0, 0], true),
            ([0, 0, 1 << 31, 0, 0, 0], true),
        ] {
            assert_eq!(
                has_policies(NEW_SPD_INFO, &counts(numbers)).unwrap(),
                present,
                "{numbers:?}"
            );
        }
        let none = counts([0; 6]);
        for wrong in [&none[..0], &none[..3], &none[..4], &none[..19]] {
            assert!(has_policies(NEW_SPD_INFO, wrong).is_err(), "{wrong:?}");
        }
        assert!(has_policies(GET_SPD_INFO, &none).is_err());
    }

    #[test]
    fn a_default_that_refuses_counts_where_packets_come_or_go() {
        for (default, present) in [
            ([2, 2, 2], false),
            ([2, BLOCK, 2], false),
            ([BLOCK, 2, 2], true),
            ([2, 2, BLOCK], true),
        ] {
            assert_eq!(
                refuses_by_default(GET_DEFAULT, &default).unwrap(),
                present,
                "{default:?}"
            );
        }
        assert!(refuses_by_default(GET_DEFAULT, &[2, 2]).is_err());
        assert!(refuses_by_default(NEW_SPD_INFO, &[2, 2, 2]).is_err());
    }

    fn device(device_type: u16, flags: u32) -> Vec<u8> {
        let mut payload = vec![0, 0];
        payload.extend(device_type.to_ne_bytes());
        payload.extend(7u32.to_ne_bytes());
        payload.extend(flags.to_ne_bytes());
        payload.extend([0; 4]);
        payload.extend(encode_attribute(3, b"sit1\0"));
        payload
    }

    #[test]
    fn sit_tunnels_count_that_are_up() {
        const ETHERNET: u16 = 1;
        for (device_type, flags, present) in [
            (libc::ARPHRD_SIT, 0x80, false),
            (libc::ARPHRD_SIT, 0x81, true),
            (ETHERNET, 0x81, false),
        ] {
            let payload = device(device_type, flags);
            assert_eq!(
                hears(libc::RTM_NEWLINK, &payload).unwrap(),
                present,
                "{device_type} {flags}"
            );
        }
        let payload = device(ETHERNET, 0);
        assert!(hears(libc::RTM_NEWLINK, &payload[..15]).is_err());
        assert!(hears(libc::RTM_GETLINK, &payload).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(kind in 0usize..4, payload in prop::collection::vec(any::<u8>(), 0..120)) {
            let kind = [NEW_CHAIN, NEW_SPD_INFO, GET_DEFAULT, libc::RTM_NEWLINK][kind];
            for read in [sees_outer, has_policies, refuses_by_default, hears] {
                let _ = read(kind, &payload);
            }
        }
    }
}
