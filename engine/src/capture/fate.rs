//! What became of a captured packet, as it travels through the ring in two words.

use std::net::Ipv4Addr;

use crate::path::PuntKind;
use crate::reason::DropReason;
use crate::wire::icmpv6::ErrorMessage;

/// What the worker decided, or the kernel after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To be sent to the IPv4 network. Whether the kernel takes it is seen later: [`Fate::Refused`].
    Sent {
        /// The next hop.
        to: Ipv4Addr,
        /// Packets it becomes; 1 for an ordinary one.
        segments: u16,
        /// Inner bytes of each but the last.
        segment_len: u16,
    },
    /// To be written to the TUN interface.
    Delivered {
        /// Segments it stands for, as the underlay's GRO merged them; 1 for an ordinary one.
        segments: u16,
        /// Payload bytes of each but the last; 0 for an ordinary one.
        gso_size: u16,
    },
    /// Given to control.
    Punted(PuntKind),
    /// Dropped by the worker.
    Dropped {
        /// Why.
        reason: DropReason,
        /// What its sender is told, within limits.
        told: Option<ErrorMessage>,
    },
    /// Decided to be sent or delivered, and refused by the kernel.
    Refused {
        /// Why, as it is counted.
        reason: DropReason,
        /// Packets as they were received; several were merged into one write.
        packets: u16,
        /// The next hop, of a packet to be sent.
        to: Option<Ipv4Addr>,
    },
}

/// The two words: kind, number of the variant's enum, and two values of 16 bits; then what needs more.
pub(super) type Code = [u64; 2];

const SENT: u8 = 0;
const DELIVERED: u8 = 1;
const PUNTED: u8 = 2;
const DROPPED: u8 = 3;
const REFUSED: u8 = 4;

impl Fate {
    /// Why it was dropped, if it was.
    pub fn reason(&self) -> Option<DropReason> {
        match self {
            Fate::Dropped { reason, .. } | Fate::Refused { reason, .. } => Some(*reason),
            Fate::Sent { .. } | Fate::Delivered { .. } | Fate::Punted(_) => None,
        }
    }

    /// The next hop, as far as there is one.
    pub fn next_hop(&self) -> Option<Ipv4Addr> {
        match self {
            Fate::Sent { to, .. } => Some(*to),
            Fate::Refused { to, .. } => *to,
            Fate::Delivered { .. } | Fate::Punted(_) | Fate::Dropped { .. } => None,
        }
    }

    pub(super) fn encode(&self) -> Code {
        match *self {
            Fate::Sent {
                to,
                segments,
                segment_len,
            } => code(SENT, 0, segments, segment_len, u64::from(to.to_bits())),
            Fate::Delivered { segments, gso_size } => code(DELIVERED, 0, segments, gso_size, 0),
            Fate::Punted(kind) => code(PUNTED, kind as u8, 0, 0, 0),
            Fate::Dropped { reason, told } => {
                let (told, extra) = told.map_or((0, 0), encode_message);
                code(DROPPED, reason as u8, told, 0, extra)
            }
            Fate::Refused { reason, packets, to } => {
                let to_bits = to.map_or(0, |to| u64::from(to.to_bits()));
                code(REFUSED, reason as u8, packets, u16::from(to.is_some()), to_bits)
            }
        }
    }

    /// What [`Fate::encode`] wrote; `None` for anything else.
    pub(super) fn decode([word, extra]: Code) -> Option<Self> {
        let [_, _, _, _, b1, b0, number, kind] = word.to_be_bytes();
        let [_, _, a1, a0, ..] = word.to_be_bytes();
        let (first, second) = (u16::from_be_bytes([a1, a0]), u16::from_be_bytes([b1, b0]));
        let address = || u32::try_from(extra).ok().map(Ipv4Addr::from_bits);
        let reason = || DropReason::ALL.get(usize::from(number)).copied();
        Some(match kind {
            SENT => Fate::Sent {
                to: address()?,
                segments: first,
                segment_len: second,
            },
            DELIVERED => Fate::Delivered {
                segments: first,
                gso_size: second,
            },
            PUNTED => Fate::Punted(*PuntKind::ALL.get(usize::from(number))?),
            DROPPED => Fate::Dropped {
                reason: reason()?,
                told: decode_message(first, extra),
            },
            REFUSED => Fate::Refused {
                reason: reason()?,
                packets: first,
                to: if second == 0 { None } else { Some(address()?) },
            },
            _ => return None,
        })
    }
}

fn code(kind: u8, number: u8, first: u16, second: u16, extra: u64) -> Code {
    let word = u64::from(kind) | u64::from(number) << 8 | u64::from(second) << 16 | u64::from(first) << 32;
    [word, extra]
}

fn encode_message(message: ErrorMessage) -> (u16, u64) {
    match message {
        ErrorMessage::Unreachable { code } => (1, u64::from(code)),
        ErrorMessage::PacketTooBig { mtu } => (2, u64::from(mtu)),
        ErrorMessage::TimeExceeded => (3, 0),
        ErrorMessage::ParameterProblem { code, pointer } => (4, u64::from(code) << 32 | u64::from(pointer)),
    }
}

fn decode_message(kind: u16, extra: u64) -> Option<ErrorMessage> {
    let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).ok();
    match kind {
        1 => Some(ErrorMessage::Unreachable {
            code: u8::try_from(extra).ok()?,
        }),
        2 => Some(ErrorMessage::PacketTooBig { mtu: low(extra)? }),
        3 => Some(ErrorMessage::TimeExceeded),
        4 => Some(ErrorMessage::ParameterProblem {
            code: u8::try_from(extra >> 32).ok()?,
            pointer: low(extra)?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_survives_the_ring() {
        let to = Ipv4Addr::new(10, 0, 255, 3);
        let mut fates = vec![
            Fate::Sent {
                to,
                segments: 47,
                segment_len: 1280,
            },
            Fate::Delivered {
                segments: 1,
                gso_size: 0,
            },
            Fate::Delivered {
                segments: 65_535,
                gso_size: 65_534,
            },
        ];
        for reason in DropReason::ALL {
            for told in [
                None,
                Some(ErrorMessage::Unreachable { code: 3 }),
                Some(ErrorMessage::PacketTooBig { mtu: 65_515 }),
                Some(ErrorMessage::TimeExceeded),
                Some(ErrorMessage::ParameterProblem {
                    code: 2,
                    pointer: u32::MAX,
                }),
            ] {
                fates.push(Fate::Dropped {
                    reason: *reason,
                    told,
                });
            }
            for to in [None, Some(to), Some(Ipv4Addr::UNSPECIFIED)] {
                fates.push(Fate::Refused {
                    reason: *reason,
                    packets: 300,
                    to,
                });
            }
        }
        fates.extend(PuntKind::ALL.iter().map(|kind| Fate::Punted(*kind)));
        for fate in fates {
            assert_eq!(Fate::decode(fate.encode()), Some(fate));
        }
        assert_eq!(Fate::decode([u64::MAX, 0]), None);
    }
}
