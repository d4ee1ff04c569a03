//! Devices that cut superpackets of IPv4 tunnels themselves (`tx-ipxip4-segmentation`): what the `ebpf` lane takes out of the
//! tunnel must not be forwarded to them as it is.
//!
//! ```text
//!   a device has changed --> which bit is the feature? --> who has it?
//! ```
//!
//! The kernel is asked over ethtool's generic netlink family (`linux/ethtool_netlink.h`, `linux/genetlink.h`; Linux 5.6). What
//! cannot be read is unknown, so that no device is trusted.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;

use isatap_engine::ebpf::Segmenters;
use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator, parse_u16, parse_u32};
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use tracing::warn;

use super::wire::MAX_SEGMENTERS;
use crate::link::plain::{self, Word, attribute, encode_attribute, message, nonsense};

/// The feature, as `ethtool -k` has it. Its number is not the same in all kernels.
const FEATURE: &[u8] = b"tx-ipxip4-segmentation\0";

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROL: u16 = 0x10;
/// Bytes of `struct genlmsghdr`: command, version, 16 bits of nothing.
const GENERIC_LEN: usize = 4;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `ETHTOOL_MSG_STRSET_GET`, and in it `ETHTOOL_A_STRSET_STRINGSETS`.
const GET_NAMES: u8 = 1;
const NAME_SETS: u16 = 2;
/// `ETHTOOL_A_STRINGSETS_STRINGSET`, in that `ETHTOOL_A_STRINGSET_ID` and `ETHTOOL_A_STRINGSET_STRINGS`.
const NAME_SET: u16 = 1;
const NAME_SET_ID: u16 = 1;
const NAMES: u16 = 3;
/// `ETH_SS_FEATURES`.
const OF_FEATURES: u32 = 4;
/// `ETHTOOL_A_STRINGS_STRING`, in that `ETHTOOL_A_STRING_INDEX` and `ETHTOOL_A_STRING_VALUE`.
const NAME: u16 = 1;
const NAME_INDEX: u16 = 1;
const NAME_VALUE: u16 = 2;

/// `ETHTOOL_MSG_FEATURES_GET`: in question and answer `ETHTOOL_A_FEATURES_HEADER` (that of names has the same number), in the answer
/// `ETHTOOL_A_FEATURES_ACTIVE`.
const GET_FEATURES: u8 = 11;
const HEADER: u16 = 1;
const ACTIVE: u16 = 4;
/// `ETHTOOL_A_HEADER_DEV_INDEX`, `ETHTOOL_A_HEADER_FLAGS`, `ETHTOOL_FLAG_COMPACT_BITSETS`.
const DEVICE_INDEX: u16 = 1;
const FLAGS: u16 = 3;
const COMPACT: u32 = 1;
/// `ETHTOOL_A_BITSET_VALUE`: words of 32 bits.
const BITS: u16 = 4;

/// Looks when a device has changed.
#[derive(Debug)]
pub struct SegmentersWatch {
    word: Word,
    /// What was found last; `None` when that has to be found out.
    known: RefCell<Option<Segmenters>>,
    /// The family's number and the feature's, which stay; without the latter the kernel does not have the feature.
    numbers: OnceCell<(u16, Option<u32>)>,
    /// That they cannot be read has been told.
    told: Cell<bool>,
}

impl SegmentersWatch {
    /// Of the devices in the network namespace of the thread. Has not looked yet.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            word: Word::of(libc::RTMGRP_LINK)?,
            known: RefCell::new(None),
            numbers: OnceCell::new(),
            told: Cell::new(false),
        })
    }

    /// Which ones there are. Takes a lock of the kernel that may be held for long (RTNL) only when a device has changed since.
    pub fn look(&self) -> Segmenters {
        // Before the questions: what changes after them is the next look's.
        let changed = self.word.came().unwrap_or(true);
        if let Some(known) = self.known.borrow().as_ref().filter(|_| !changed) {
            return known.clone();
        }
        let found = self.ask();
        if let Err(error) = &found
            && !self.told.replace(true)
        {
            warn!(
                "the features of devices cannot be read, and superpackets that are forwarded are left to workers: {error}"
            );
        }
        *self.known.borrow_mut() = found.as_ref().ok().cloned();
        found.unwrap_or(Segmenters::Unknown)
    }

    fn ask(&self) -> io::Result<Segmenters> {
        let (family, bit) = if let Some(numbers) = self.numbers.get() {
            *numbers
        } else {
            let numbers = numbers()?;
            *self.numbers.get_or_init(|| numbers)
        };
        let mut devices = Vec::new();
        if let Some(bit) = bit {
            plain::find(NETLINK_GENERIC, &features(family), |kind, payload| {
                devices.extend(device_with(family, bit, kind, payload)?);
                Ok(None::<()>)
            })?;
        }
        // A question that was asked again.
        devices.sort_unstable();
        devices.dedup();
        Ok(if devices.len() > MAX_SEGMENTERS {
            Segmenters::Unknown
        } else {
            Segmenters::Known(devices)
        })
    }
}

/// The number of the family and that of the feature, if the kernel has it.
fn numbers() -> io::Result<(u16, Option<u32>)> {
    let none = || nonsense("none");
    let family = plain::find(NETLINK_GENERIC, &family(), |kind, payload| {
        family_number(kind, payload).map(Some)
    })?;
    let family = family.ok_or_else(none)?;
    let bit = plain::find(NETLINK_GENERIC, &names(family), |kind, payload| {
        feature_number(family, kind, payload).map(Some)
    })?;
    Ok((family, bit.ok_or_else(none)?))
}

/// An attribute of attributes: newer families are strict about the mark.
fn encode_nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    encode_attribute(kind | NESTED, attributes)
}

fn question(kind: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let payload = [&[command, 1, 0, 0], attributes].concat();
    message(kind, NLM_F_REQUEST | flags, &payload)
}

/// Which number has ethtool's family?
fn family() -> Vec<u8> {
    let name = encode_attribute(FAMILY_NAME, b"ethtool\0");
    question(CONTROL, NLM_F_ACK, GET_FAMILY, &name)
}

/// The attributes of an answer of a family.
fn attributes_of(family: u16, kind: u16, payload: &[u8]) -> io::Result<&[u8]> {
    let attributes = payload.get(GENERIC_LEN..).filter(|_| kind == family);
    attributes.ok_or_else(|| nonsense("another family's"))
}

fn number(attributes: &[u8], kind: u16) -> io::Result<u32> {
    let value = attribute(attributes, kind)?.and_then(|value| parse_u32(value).ok());
    value.ok_or_else(|| nonsense("a number is missing"))
}

fn family_number(kind: u16, payload: &[u8]) -> io::Result<u16> {
    let attributes = attributes_of(CONTROL, kind, payload)?;
    let number = attribute(attributes, FAMILY_ID)?.and_then(|value| parse_u16(value).ok());
    number.ok_or_else(|| nonsense("a family without a number"))
}

/// What are the names of all features?
fn names(family: u16) -> Vec<u8> {
    let id = encode_attribute(NAME_SET_ID, &OF_FEATURES.to_ne_bytes());
    let sets = encode_nested(NAME_SETS, &encode_nested(NAME_SET, &id));
    // A header without a device: there must be one.
    let header = encode_nested(HEADER, &[]);
    question(family, NLM_F_ACK, GET_NAMES, &[header, sets].concat())
}

/// The number of [`FEATURE`] in the answer to [`names`].
fn feature_number(family: u16, kind: u16, payload: &[u8]) -> io::Result<Option<u32>> {
    let attributes = attributes_of(family, kind, payload)?;
    let unread = || nonsense("names of features");
    let sets = attribute(attributes, NAME_SETS)?.ok_or_else(unread)?;
    let set = attribute(sets, NAME_SET)?.ok_or_else(unread)?;
    let names = attribute(set, NAMES)?.ok_or_else(unread)?;
    for name in NlasIterator::new(names) {
        let name = name.map_err(|error| nonsense(&error.to_string()))?;
        let whole = usize::from(name.length());
        let Some(parts) = name
            .into_inner()
            .get(GENERIC_LEN..whole)
            .filter(|_| name.kind() == NAME)
        else {
            continue;
        };
        if attribute(parts, NAME_VALUE)? == Some(FEATURE) {
            return number(parts, NAME_INDEX).map(Some);
        }
    }
    Ok(None)
}

/// Which features have all devices?
fn features(family: u16) -> Vec<u8> {
    let flags = encode_attribute(FLAGS, &COMPACT.to_ne_bytes());
    let header = encode_nested(HEADER, &flags);
    question(family, NLM_F_DUMP, GET_FEATURES, &header)
}

/// The device that a part of the answer to [`features`] is about, if it has the feature of this number.
fn device_with(family: u16, bit: u32, kind: u16, payload: &[u8]) -> io::Result<Option<u32>> {
    let attributes = attributes_of(family, kind, payload)?;
    let unread = || nonsense("a device's features");
    let header = attribute(attributes, HEADER)?.ok_or_else(unread)?;
    let active = attribute(attributes, ACTIVE)?.ok_or_else(unread)?;
    let bits = attribute(active, BITS)?.ok_or_else(unread)?;
    let word = bits
        .chunks_exact(4)
        .nth(usize::try_from(bit / 32).unwrap_or(usize::MAX));
    let word = word.and_then(|word| parse_u32(word).ok()).ok_or_else(unread)?;
    let device = number(header, DEVICE_INDEX)?;
    Ok((word >> (bit % 32) & 1 == 1).then_some(device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_tests::netns::Netns;
    use proptest::prelude::*;

    fn index(device: &str) -> u32 {
        nix::net::if_::if_nametoindex(device).unwrap()
    }

    /// What `ethtool -K` changes is seen at the next look, and nothing is asked for without a change.
    #[test]
    fn devices_with_the_feature_are_found() {
        let ns = Netns::new("segmenters");
        ns.enter(|| {
            let watch = SegmentersWatch::open().unwrap();
            assert_eq!(watch.look(), Segmenters::default());
            *watch.known.borrow_mut() = Some(Segmenters::Unknown);
            assert_eq!(watch.look(), Segmenters::Unknown, "nothing has changed");
            ns.ip("link add eth0 type veth peer name eth1");
            let both = vec![index("eth0"), index("eth1")];
            let mut sorted = both.clone();
            sorted.sort_unstable();
            assert_eq!(watch.look(), Segmenters::Known(sorted));
            ns.run("ethtool -K eth0 tx-ipxip4-segmentation off");
            assert_eq!(watch.look(), Segmenters::Known(vec![both[1]]));
            ns.run("ethtool -K eth1 tx-ipxip4-segmentation off");
            assert_eq!(watch.look(), Segmenters::default());
            ns.run("ethtool -K eth0 tx-ipxip4-segmentation on");
            assert_eq!(watch.look(), Segmenters::Known(vec![both[0]]));
            ns.ip("link delete eth0");
            assert_eq!(watch.look(), Segmenters::default());
        });
    }

    /// More than fit a message: none is trusted.
    #[test]
    fn too_many_are_any() {
        let ns = Netns::new("segmenters");
        ns.enter(|| {
            let watch = SegmentersWatch::open().unwrap();
            let pairs = MAX_SEGMENTERS / 2 + 1;
            let links: String = (0..pairs)
                .map(|n| format!("link add a{n} type veth peer name b{n}\n"))
                .collect();
            ns.ip_batch(&links);
            assert_eq!(watch.look(), Segmenters::Unknown);
            ns.ip("link delete a0");
            let Segmenters::Known(devices) = watch.look() else {
                panic!("{:?}", watch.look())
            };
            assert_eq!(devices.len(), MAX_SEGMENTERS);
        });
    }

    #[test]
    fn a_kernel_without_the_feature_has_no_such_device() {
        let name = |index: u32, value: &[u8]| {
            let parts = [
                encode_attribute(NAME_INDEX, &index.to_ne_bytes()),
                encode_attribute(NAME_VALUE, value),
            ];
            encode_nested(NAME, &parts.concat())
        };
        let answer = |names: &[Vec<u8>]| {
            let names = encode_nested(NAMES, &names.concat());
            let sets = encode_nested(NAME_SETS, &encode_nested(NAME_SET, &names));
            [vec![GET_NAMES, 1, 0, 0], sets].concat()
        };
        let other = name(24, b"tx-ipxip6-segmentation\0");
        let without = answer(&[name(0, b"tx-scatter-gather\0"), other.clone()]);
        assert_eq!(feature_number(20, 20, &without).unwrap(), None);
        let with = answer(&[other, name(70, FEATURE)]);
        assert_eq!(feature_number(20, 20, &with).unwrap(), Some(70));
        assert!(feature_number(20, 21, &with).is_err());
        assert!(feature_number(20, 20, &with[..4]).is_err());
    }

    #[test]
    fn a_device_whose_features_are_cut_off_is_an_error() {
        let device = |bits: &[u8]| {
            let index = encode_attribute(DEVICE_INDEX, &7u32.to_ne_bytes());
            let active = encode_nested(ACTIVE, &encode_attribute(BITS, bits));
            [
                vec![GET_FEATURES, 1, 0, 0],
                encode_attribute(HEADER, &index),
                active,
            ]
            .concat()
        };
        let bits = [0u32.to_ne_bytes(), (1u32 << 6).to_ne_bytes()].concat();
        assert_eq!(device_with(20, 38, 20, &device(&bits)).unwrap(), Some(7));
        assert_eq!(device_with(20, 37, 20, &device(&bits)).unwrap(), None);
        assert!(device_with(20, 64, 20, &device(&bits)).is_err());
        assert!(device_with(20, 38, 20, &device(&bits[..7])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(payload in prop::collection::vec(any::<u8>(), 0..160)) {
            let _ = family_number(CONTROL, &payload);
            let _ = feature_number(20, 20, &payload);
            let _ = device_with(20, 24, 20, &payload);
        }
    }
}
