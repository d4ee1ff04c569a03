//! Packets on their way to the TUN interface, and what becomes of them.

use std::io;

use nix::libc;

use super::lane::{LaneFault, RAW_SLOTS, REPLY_SLOTS, Written};
use crate::buf::Packet;
use crate::reason::DropReason;
use crate::stats::{Direction, IoOperation, LoopEvent, WorkerStats};

/// One packet for the TUN interface, gathered from one slot or many.
#[derive(Debug)]
pub(crate) struct Writing {
    head: Packet,
    tails: Vec<Packet>,
    written: Written,
}

impl Writing {
    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tails.iter().map(Packet::len).sum::<usize>()
    }
}

/// What the kernel reads for one write. Keeps its memory from write to write.
#[derive(Default)]
struct Entry {
    writing: Option<Writing>,
    parts: Vec<libc::iovec>,
    spare: Vec<Packet>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.writing.fmt(f)
    }
}

/// Writes in the kernel's hands, by number: as many as there are slots that can be written.
#[derive(Debug)]
pub(crate) struct WriteTable {
    entries: Box<[Entry]>,
    free: Vec<u32>,
}

impl WriteTable {
    pub(crate) fn new() -> Self {
        let count = u32::from(RAW_SLOTS) + u32::from(REPLY_SLOTS);
        Self {
            entries: (0..count).map(|_| Entry::default()).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Keeps a packet until its completion; hands `written` back when the table is full, which the number of slots rules
    /// out.
    pub(crate) fn insert(
        &mut self,
        head: Packet,
        tails: &mut Vec<Packet>,
        written: Written,
    ) -> Result<u32, Written> {
        let index = self.free.pop().ok_or(written)?;
        let entry = &mut self.entries[index as usize];
        let mut writing = Writing {
            head,
            tails: std::mem::take(&mut entry.spare),
            written,
        };
        writing.tails.append(tails);
        entry.parts.clear();
        entry.parts.push(part(writing.head.bytes_mut()));
        entry
            .parts
            .extend(writing.tails.iter_mut().map(|tail| part(tail.bytes_mut())));
        entry.writing = Some(writing);
        Ok(index)
    }

    /// The parts of a write, in order. They stay where they are until [`WriteTable::settle`].
    pub(crate) fn parts(&self, index: u32) -> &[libc::iovec] {
        self.entries
            .get(index as usize)
            .map(|entry| &entry.parts[..])
            .unwrap_or_default()
    }

    /// Accounts for a finished write and lets its slots go; `None` when there is no such write.
    pub(crate) fn settle(
        &mut self,
        index: u32,
        result: Result<usize, i32>,
        stats: &WorkerStats,
    ) -> Option<Result<(), LaneFault>> {
        let entry = self.entries.get_mut(index as usize)?;
        let mut writing = entry.writing.take()?;
        self.free.push(index);
        let settled = settle_write(writing.len(), writing.written, result, stats);
        writing.tails.clear();
        entry.spare = writing.tails;
        Some(settled)
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
        for writing in self.entries.iter().filter_map(|entry| entry.writing.as_ref()) {
            match writing.written {
                Written::Decap { packets, .. } => {
                    stats
                        .direction(Direction::Decap)
                        .drops(DropReason::Shutdown)
                        .add(packets as u64);
                }
                Written::Reply => stats.event(LoopEvent::ReplyFailed).bump(),
            }
        }
    }
}

fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// Accounts for a finished write of `len` bytes: bytes taken, or an errno.
fn settle_write(
    len: usize,
    written: Written,
    result: Result<usize, i32>,
    stats: &WorkerStats,
) -> Result<(), LaneFault> {
    let decap = stats.direction(Direction::Decap);
    match (result, written) {
        (
            Ok(taken),
            Written::Decap {
                packets,
                bytes,
                segments,
            },
        ) if taken == len => {
            decap.delivered.add(packets as u64);
            decap.bytes.add(bytes as u64);
            if segments > 1 {
                decap.superpackets.bump();
                decap.segments.add(segments as u64);
            }
        }
        (Ok(taken), Written::Reply) if taken == len => stats.event(LoopEvent::ReplySent).bump(),
        (Ok(_), written) => {
            stats.event(LoopEvent::ShortWrite).bump();
            refuse(written, stats);
        }
        (Err(errno), written) => {
            stats.error(IoOperation::TunWrite, errno).bump();
            match written {
                // A TUN interface that is down answers EIO (FAULTS 57).
                Written::Decap { packets, .. } if errno == libc::EIO => {
                    decap.drops(DropReason::TunDown).add(packets as u64);
                }
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
        Written::Decap { packets, .. } => {
            stats
                .direction(Direction::Decap)
                .drops(DropReason::TunError)
                .add(packets as u64);
        }
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
        let mut table = WriteTable::new();
        let index = table.insert(packet, &mut Vec::new(), written).unwrap();
        let fault = table.settle(index, result, &stats).unwrap().is_err();
        assert_eq!((table.is_empty(), pool.census().held), (true, 0));
        (stats, fault)
    }

    /// FAULTS 39, 56, 57: every outcome of a write has its counter; a deleted device ends the worker.
    #[test]
    fn every_outcome_is_counted() {
        let decap = Written::Decap {
            packets: 1,
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

        let merged = Written::Decap {
            packets: 3,
            bytes: 64,
            segments: 3,
        };
        let (stats, _) = settle(merged, Ok(74));
        let counted = stats.direction(Direction::Decap);
        assert_eq!(
            (
                counted.delivered.get(),
                counted.superpackets.get(),
                counted.segments.get()
            ),
            (3, 1, 3)
        );

        for (result, reason, ends) in [
            (Err(libc::EIO), DropReason::TunDown, false),
            (Err(libc::EINVAL), DropReason::TunError, false),
            (Err(libc::EBADFD), DropReason::TunError, true),
            (Ok(10), DropReason::TunError, false),
        ] {
            let (stats, fault) = settle(merged, result);
            let counted = stats.direction(Direction::Decap);
            assert_eq!(
                (counted.drops(reason).get(), counted.delivered.get(), fault),
                (3, 0, ends),
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
        let pool = Pool::new(3, 256).unwrap();
        let packet = |len| Packet::received(pool.take().unwrap(), len);
        let (head, mut tails) = (packet(10), vec![packet(20), packet(5)]);
        let stats = WorkerStats::default();
        let mut table = WriteTable::new();
        let index = table.insert(head, &mut tails, Written::Reply).unwrap();
        let lengths: Vec<_> = table.parts(index).iter().map(|part| part.iov_len).collect();
        assert_eq!((table.len(), pool.census().held, tails.len()), (1, 3, 0));
        assert_eq!(lengths, [10, 20, 5]);
        assert!(table.settle(index, Ok(35), &stats).unwrap().is_ok());
        assert!(
            table.settle(index, Ok(35), &stats).is_none(),
            "a duplicate completion finds nothing"
        );
        assert!(table.settle(u32::MAX, Ok(35), &stats).is_none());
        assert_eq!((table.is_empty(), pool.census().held), (true, 0));
        assert_eq!(stats.event(LoopEvent::ReplySent).get(), 1);
    }
}
