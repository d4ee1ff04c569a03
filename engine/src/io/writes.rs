//! Packets on their way to the TUN interface, and what becomes of them.

use std::io;

use nix::libc;

use super::lane::{LaneFault, RAW_SLOTS, REPLY_SLOTS, Written};
use crate::buf::Packet;
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent, WorkerStats};

/// Writes in the kernel's hands, by number: as many as there are slots that can be written.
#[derive(Debug)]
pub(crate) struct WriteTable {
    entries: Box<[Option<(Packet, Written)>]>,
    free: Vec<u32>,
}

impl WriteTable {
    pub(crate) fn new() -> Self {
        let count = u32::from(RAW_SLOTS) + u32::from(REPLY_SLOTS);
        Self {
            entries: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Keeps a packet until its completion; hands `written` back when the table is full, which the number of slots
    /// rules out.
    pub(crate) fn insert(&mut self, packet: Packet, written: Written) -> Result<u32, Written> {
        let index = self.free.pop().ok_or(written)?;
        self.entries[index as usize] = Some((packet, written));
        Ok(index)
    }

    pub(crate) fn take(&mut self, index: u32) -> Option<(Packet, Written)> {
        let entry = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(entry)
    }

    /// Writes in the kernel's hands.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts what is still in the kernel's hands as dropped for shutdown.
    pub(crate) fn abandon(&mut self, stats: &WorkerStats) {
        for (_, written) in self.entries.iter().flatten() {
            match written {
                Written::Decap { .. } => stats
                    .direction(Direction::Decap)
                    .drops(DropReason::Shutdown)
                    .bump(),
                Written::Reply => stats.event(LoopEvent::ReplyFailed).bump(),
            }
        }
    }
}

/// Accounts for a finished write: bytes taken, or an errno.
///
/// # Errors
/// [`LaneFault::TunGone`] when the device is no more; the packet is counted all the same.
pub(crate) fn settle_write(
    packet: &Packet,
    written: Written,
    result: Result<usize, i32>,
    stats: &WorkerStats,
) -> Result<(), LaneFault> {
    let decap = stats.direction(Direction::Decap);
    match (result, written) {
        (Ok(taken), Written::Decap { bytes, segments }) if taken == packet.len() => {
            decap.delivered.bump();
            decap.bytes.add(bytes as u64);
            if segments > 1 {
                decap.superpackets.bump();
                decap.segments.add(segments as u64);
            }
        }
        (Ok(taken), Written::Reply) if taken == packet.len() => stats.event(LoopEvent::ReplySent).bump(),
        (Ok(_), written) => {
            stats.event(LoopEvent::ShortWrite).bump();
            refuse(written, stats);
        }
        (Err(errno), written) => {
            stats.error(IoOperation::TunWrite, errno).bump();
            match written {
                // A TUN interface that is down answers EIO (FAULTS 57).
                Written::Decap { .. } if errno == libc::EIO => decap.drops(DropReason::TunDown).bump(),
                written => refuse(written, stats),
            }
            if errno == libc::EBADFD {
                return Err(LaneFault::TunGone(io::Error::from_raw_os_error(errno)));
            }
        }
    }
    Ok(())
}

/// Counts a packet that the TUN interface did not take.
pub(crate) fn refuse(written: Written, stats: &WorkerStats) {
    match written {
        Written::Decap { .. } => stats
            .direction(Direction::Decap)
            .drops(DropReason::TunError)
            .bump(),
        Written::Reply => stats.event(LoopEvent::ReplyFailed).bump(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Pool;

    fn settle(written: Written, result: Result<usize, i32>) -> (WorkerStats, bool) {
        let stats = WorkerStats::default();
        let pool = Pool::new(1, 256).unwrap();
        let packet = Packet::received(pool.take().unwrap(), 74);
        let fault = settle_write(&packet, written, result, &stats).is_err();
        (stats, fault)
    }

    /// FAULTS 39, 56, 57: every outcome of a write has its counter; a deleted device ends the worker.
    #[test]
    fn every_outcome_is_counted() {
        let decap = Written::Decap {
            bytes: 64,
            segments: 1,
        };
        let (stats, fault) = settle(decap, Ok(74));
        let counted = stats.direction(Direction::Decap);
        assert_eq!(
            (
                counted.delivered.get(),
                counted.bytes.get(),
                counted.superpackets.get()
            ),
            (1, 64, 0)
        );
        assert!(!fault);

        let (stats, _) = settle(
            Written::Decap {
                bytes: 64,
                segments: 3,
            },
            Ok(74),
        );
        let counted = stats.direction(Direction::Decap);
        assert_eq!((counted.superpackets.get(), counted.segments.get()), (1, 3));

        for (result, reason, ends) in [
            (Err(libc::EIO), DropReason::TunDown, false),
            (Err(libc::EINVAL), DropReason::TunError, false),
            (Err(libc::EBADFD), DropReason::TunError, true),
            (Ok(10), DropReason::TunError, false),
        ] {
            let (stats, fault) = settle(decap, result);
            let counted = stats.direction(Direction::Decap);
            assert_eq!(
                (counted.drops(reason).get(), counted.delivered.get(), fault),
                (1, 0, ends),
                "{result:?}"
            );
        }
        assert_eq!(
            settle(Written::Reply, Ok(74)).0.event(LoopEvent::ReplySent).get(),
            1
        );
        assert_eq!(
            settle(Written::Reply, Err(libc::EIO))
                .0
                .event(LoopEvent::ReplyFailed)
                .get(),
            1
        );
    }

    #[test]
    fn the_table_keeps_packets_until_their_completion() {
        let pool = Pool::new(2, 256).unwrap();
        let mut table = WriteTable::new();
        let index = table
            .insert(Packet::received(pool.take().unwrap(), 10), Written::Reply)
            .unwrap();
        assert_eq!((table.len(), pool.census().held), (1, 1));
        assert!(table.take(index).is_some());
        assert!(
            table.take(index).is_none(),
            "a duplicate completion finds nothing"
        );
        assert!(table.take(u32::MAX).is_none());
        assert_eq!((table.is_empty(), pool.census().held), (true, 0));
    }
}
