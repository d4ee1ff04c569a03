//! What a capture says of a packet: its comment in the file.
//!
//! The first words are for programs as well: `dropped <reason>`, `sent to <address>`, `delivered`, `given to control: <kind>`.

use std::fmt::Write as _;

use isatap_engine::capture::{Fate, Record};
use isatap_engine::wire::icmpv6::ErrorMessage;

/// Writes the comment of `record` into `text`, which is emptied first.
pub(super) fn comment(record: &Record, text: &mut String) {
    text.clear();
    // Writing to a String cannot fail.
    let _ = fate(record.fate, text);
    let _ = write!(text, " ({}, worker {})", record.direction.name(), record.worker);
    if record.missed_before > 0 {
        let _ = write!(text, "; {} missed before it", record.missed_before);
    }
}

fn fate(fate: Fate, text: &mut String) -> std::fmt::Result {
    match fate {
        Fate::Sent { to, segments: 1, .. } => write!(text, "sent to {to}"),
        Fate::Sent {
            to,
            segments,
            segment_len,
        } => write!(
            text,
            "sent to {to} as {segments} packets of at most {segment_len} bytes"
        ),
        Fate::Delivered { gso_size: 0, .. } => write!(text, "delivered"),
        Fate::Delivered { segments, gso_size } => {
            write!(text, "delivered as {segments} segments, gso_size {gso_size}")
        }
        Fate::Punted(kind) => write!(text, "given to control: {}", kind.name()),
        Fate::Dropped { reason, told } => {
            write!(text, "dropped {}", reason.name())?;
            told.map_or(Ok(()), |message| write!(text, ", answered: {}", answer(message)))
        }
        Fate::Refused { reason, packets, to } => {
            write!(text, "dropped {}: the kernel refused it", reason.name())?;
            if let Some(to) = to {
                write!(text, " on its way to {to}")?;
            }
            if packets > 1 {
                write!(text, ", with {} more that were merged into it", packets - 1)?;
            }
            Ok(())
        }
    }
}

fn answer(message: ErrorMessage) -> String {
    match message {
        ErrorMessage::Unreachable { code: 0 } => "no route to destination".to_owned(),
        ErrorMessage::Unreachable { code: 3 } => "address unreachable".to_owned(),
        ErrorMessage::Unreachable { code } => format!("destination unreachable, code {code}"),
        ErrorMessage::PacketTooBig { mtu } => format!("packet too big, MTU {mtu}"),
        ErrorMessage::TimeExceeded => "time exceeded".to_owned(),
        ErrorMessage::ParameterProblem { code, pointer } => {
            format!("parameter problem, code {code}, at byte {pointer}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isatap_engine::path::PuntKind;
    use isatap_engine::reason::DropReason;
    use isatap_engine::stats::Direction;
    use std::net::Ipv4Addr;

    #[test]
    fn every_fate_has_its_words() {
        let to = Ipv4Addr::new(10, 0, 0, 3);
        for (fate, expected) in [
            (
                Fate::Sent {
                    to,
                    segments: 1,
                    segment_len: 100,
                },
                "sent to 10.0.0.3",
            ),
            (
                Fate::Sent {
                    to,
                    segments: 12,
                    segment_len: 1280,
                },
                "sent to 10.0.0.3 as 12 packets of at most 1280 bytes",
            ),
            (
                Fate::Delivered {
                    segments: 1,
                    gso_size: 0,
                },
                "delivered",
            ),
            (
                Fate::Delivered {
                    segments: 5,
                    gso_size: 1220,
                },
                "delivered as 5 segments, gso_size 1220",
            ),
            (
                Fate::Punted(PuntKind::HostSolicitation),
                "given to control: host_solicitation",
            ),
            (
                Fate::Dropped {
                    reason: DropReason::SrcMismatch,
                    told: None,
                },
                "dropped src_mismatch",
            ),
            (
                Fate::Dropped {
                    reason: DropReason::TooBig,
                    told: Some(ErrorMessage::PacketTooBig { mtu: 1280 }),
                },
                "dropped too_big, answered: packet too big, MTU 1280",
            ),
            (
                Fate::Refused {
                    reason: DropReason::SendError,
                    packets: 1,
                    to: Some(to),
                },
                "dropped send_error: the kernel refused it on its way to 10.0.0.3",
            ),
            (
                Fate::Refused {
                    reason: DropReason::TunDown,
                    packets: 3,
                    to: None,
                },
                "dropped tun_down: the kernel refused it, with 2 more that were merged into it",
            ),
        ] {
            let mut record = Record {
                worker: 1,
                direction: Direction::Decap,
                at: 0,
                len: 40,
                missed_before: 0,
                fate,
            };
            let mut text = "old".to_owned();
            comment(&record, &mut text);
            assert_eq!(text, format!("{expected} (decap, worker 1)"));
            record.missed_before = 15;
            comment(&record, &mut text);
            assert_eq!(text, format!("{expected} (decap, worker 1); 15 missed before it"));
        }
    }
}
