//! What is remembered of a host, and the bytes of it that an engine leaves to the next.
//!
//! ```text
//!  0        4          8            12         16
//!  | IPv4   | locator  | identifier | heard at | 0 stranger, 1 steady |     network order; all zero: nobody
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::isatap::iid;

use super::order::Queue;

/// Bytes of a host.
pub(super) const RECORD_LEN: usize = 20;

/// Where a host without an address listens.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Tenths of a second since a moment that all engines agree on: for thirteen years.
pub(super) type Tenths = u32;

/// One host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) v4: Ipv4Addr,
    /// Our address that it solicited.
    pub(super) locator: Ipv4Addr,
    /// The first half of its interface identifier, with the `u` bit as it has it; 0 when it gave none.
    pub(super) identifier: u32,
    pub(super) heard_at: Tenths,
    pub(super) queue: Queue,
    /// An advertisement is on its way.
    pub(super) waits: bool,
    /// Because it asked.
    pub(super) asked: bool,
}

impl Record {
    /// Nobody.
    pub(super) const NOBODY: Self = Self {
        v4: Ipv4Addr::UNSPECIFIED,
        locator: Ipv4Addr::UNSPECIFIED,
        identifier: 0,
        heard_at: 0,
        queue: Queue::Stranger,
        waits: false,
        asked: false,
    };

    /// The first half of the identifier in `addr`, where its other half is `v4`; 0 otherwise.
    pub(super) fn identifier_of(addr: &Ipv6Addr, v4: Ipv4Addr) -> u32 {
        let [.., a, b, c, d, _, _, _, _] = addr.octets();
        match iid::embedded(addr) {
            Some(embedded) if embedded == v4 => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    /// Where an advertisement goes to inside: a host has a link-local address with the identifier that it solicited with, under
    /// whatever prefix (RFC 5214 6.2). Whoever gave none is told by the group (RFC 4861 6.2.6).
    pub(super) fn addr(&self) -> Ipv6Addr {
        if self.identifier == 0 {
            return ALL_NODES;
        }
        let identifier = u128::from(self.identifier) << 32 | u128::from(self.v4.to_bits());
        Ipv6Addr::from_bits(0xfe80 << 112 | identifier)
    }

    /// For the next engine.
    pub(super) fn encode(&self) -> [u8; RECORD_LEN] {
        let queue = u32::from(self.queue == Queue::Steady);
        let fields = [
            self.v4.to_bits(),
            self.locator.to_bits(),
            self.identifier,
            self.heard_at,
            queue,
        ];
        let mut bytes = [0; RECORD_LEN];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// Of the engine before. `None`: nobody, or nothing that this program writes; whoever wrote it may have been out of its mind.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = [0; RECORD_LEN / 4];
        if bytes.len() != RECORD_LEN {
            return None;
        }
        for (field, bytes) in fields.iter_mut().zip(bytes.chunks_exact(4)) {
            *field = u32::from_be_bytes(bytes.try_into().ok()?);
        }
        let [v4, locator, identifier, heard_at, queue] = fields;
        let v4 = Ipv4Addr::from_bits(v4);
        let record = Self {
            v4,
            locator: Ipv4Addr::from_bits(locator),
            identifier,
            heard_at,
            queue: match queue {
                0 => Queue::Stranger,
                1 => Queue::Steady,
                _ => return None,
            },
            ..Self::NOBODY
        };
        let is_host = !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_loopback());
        let is_right = identifier == 0 || Self::identifier_of(&record.addr(), v4) == identifier;
        (is_host && is_right).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: Record = Record {
        v4: Ipv4Addr::new(10, 0, 0, 5),
        locator: Ipv4Addr::new(10, 0, 0, 1),
        identifier: 0x0000_5efe,
        heard_at: 7,
        queue: Queue::Steady,
        ..Record::NOBODY
    };

    #[test]
    fn what_is_no_host_is_nobody() {
        assert_eq!(Record::decode(&HOST.encode()), Some(HOST));
        let nameless = Record {
            identifier: 0,
            ..HOST
        };
        assert_eq!(Record::decode(&nameless.encode()), Some(nameless));
        assert_eq!(Record::decode(&Record::NOBODY.encode()), None);
        for bad in [
            Record {
                v4: Ipv4Addr::BROADCAST,
                ..HOST
            },
            Record {
                v4: Ipv4Addr::new(224, 0, 0, 1),
                ..HOST
            },
            Record {
                identifier: 0x1234_5678,
                ..HOST
            },
        ] {
            assert_eq!(Record::decode(&bad.encode()), None, "{bad:?}");
        }
        assert_eq!(Record::decode(&HOST.encode()[1..]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), RECORD_LEN)) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(&record.encode()[..], &bytes[..]);
            }
        }
    }
}
