//! Packets on their way to the TUN interface, and what becomes of them.

use std::collections::VecDeque;
use std::io;

use nix::libc;

use super::lane::{LaneFault, RAW_SLOTS, REPLY_SLOTS, Refused, Written};
use super::ticket::{self, Uses};
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
    uses: Uses,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.writing.fmt(f)
    }
}

/// How many writes there can be: as many as there are slots that can be written.
const WRITES: usize = RAW_SLOTS as usize + REPLY_SLOTS as usize;
const _: () = assert!(WRITES <= ticket::PLACES);

/// Writes in the kernel's hands, by ticket.
#[derive(Debug)]
pub(crate) struct WriteTable {
    entries: Box<[Entry]>,
    free: Vec<usize>,
    /// Packets that the TUN interface refused, for whoever captures; only while somebody does.
    refused: VecDeque<Refused>,
    keep_refused: bool,
}

impl WriteTable {
    pub(crate) fn new() -> Self {
        Self {
            entries: (0..WRITES).map(|_| Entry::default()).collect(),
            free: (0..WRITES).rev().collect(),
            refused: VecDeque::with_capacity(usize::from(RAW_SLOTS)),
            keep_refused: false,
        }
    }

    /// Whether packets that the TUN interface refuses are kept from now on.
    pub(crate) fn keep_refused(&mut self, keep: bool) {
        self.keep_refused = keep;
        if !keep {
            self.refused.clear();
        }
    }

    /// Takes a packet that the TUN interface refused; it is counted already.
    pub(crate) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.pop_front()
    }

    /// Keeps a packet until its completion; hands `written` back when the table is full, which the number of slots rules
    /// out.
    pub(crate) fn insert(
        &mut self,
        head: Packet,
        tails: &mut Vec<Packet>,
        written: Written,
    ) -> Result<u32, Written> {
        let place = self.free.pop().ok_or(written)?;
        let entry = &mut self.entries[place];
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
        Ok(entry.uses.ticket(place))
    }

    /// The parts of a write, in order. They stay where they are until [`WriteTable::settle`].
    pub(crate) fn parts(&self, ticket: u32) -> &[libc::iovec] {
        self.entries
            .get(ticket::place(ticket))
            .map(|entry| &entry.parts[..])
            .unwrap_or_default()
    }

    /// Accounts for a finished write and lets its slots go; `None` when there is no such write.
    pub(crate) fn settle(
        &mut self,
        ticket: u32,
        result: Result<usize, i32>,
        stats: &WorkerStats,
    ) -> Option<Result<(), LaneFault>> {
        let place = ticket::place(ticket);
        let entry = self.entries.get_mut(place)?;
        if entry.uses.ticket(place) != ticket {
            return None;
        }
        let mut writing = entry.writing.take()?;
        entry.uses.count();
        self.free.push(place);
        let len = writing.len();
        let (refused, settled) = settle_write(len, writing.written, result, stats);
        writing.tails.clear();
        entry.spare = writing.tails;
        if let (true, Some(reason), Written::Decap { packets, .. }) =
            (self.keep_refused, refused, writing.written)
        {
            self.refused.push_back(Refused::Write {
                reason,
                head: writing.head,
                len,
                packets,
            });
        }
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

/// Accounts for a finished write of `len` bytes: bytes taken, or an errno. Says why it was dropped, if it was, and whether the
/// worker can go on.
fn settle_write(
    len: usize,
    written: Written,
    result: Result<usize, i32>,
    stats: &WorkerStats,
) -> (Option<DropReason>, Result<(), LaneFault>) {
    let decap = stats.direction(Direction::Decap);
    let errno = match (result, written) {
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
            return (None, Ok(()));
        }
        (Ok(taken), Written::Reply) if taken == len => {
            stats.event(LoopEvent::ReplySent).bump();
            return (None, Ok(()));
        }
        (Ok(_), written) => {
            stats.event(LoopEvent::ShortWrite).bump();
            return (refuse(written, stats), Ok(()));
        }
        (Err(errno), _) => errno,
    };
    stats.error(IoOperation::TunWrite, errno).bump();
    let reason = match written {
        // A TUN interface that is down answers EIO (FAULTS 57).
        Written::Decap { packets, .. } if errno == libc::EIO => {
            decap.drops(DropReason::TunDown).add(packets as u64);
            Some(DropReason::TunDown)
        }
        written => refuse(written, stats),
    };
    let fault = if errno == libc::EBADFD {
        Err(LaneFault::TunGone(io::Error::from_raw_os_error(errno)))
    } else {
        Ok(())
    };
    (reason, fault)
}

/// Counts a packet that the TUN interface did not take; says as what, unless it was our own.
pub(crate) fn refuse(written: Written, stats: &WorkerStats) -> Option<DropReason> {
    match written {
        Written::Decap { packets, .. } => {
            let reason = DropReason::TunError;
            stats
                .direction(Direction::Decap)
                .drops(reason)
                .add(packets as u64);
            Some(reason)
        }
        Written::Reply => {
            stats.event(LoopEvent::ReplyFailed).bump();
            None
        }
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

    /// Only who captures keeps what was refused, and never a packet of our own.
    #[test]
    fn refused_packets_are_kept_while_somebody_asks() {
        let pool = Pool::new(3, 256).unwrap();
        let stats = WorkerStats::default();
        let mut table = WriteTable::new();
        let decap = Written::Decap {
            packets: 2,
            bytes: 64,
            segments: 2,
        };
        let refuse = |table: &mut WriteTable, written, result| {
            let packet = Packet::received(pool.take().unwrap(), 74);
            let index = table.insert(packet, &mut Vec::new(), written).unwrap();
            assert!(table.settle(index, result, &stats).unwrap().is_ok());
        };
        refuse(&mut table, decap, Err(libc::EIO));
        assert!(table.take_refused().is_none());
        table.keep_refused(true);
        refuse(&mut table, decap, Ok(74));
        refuse(&mut table, Written::Reply, Err(libc::EIO));
        assert!(table.take_refused().is_none());
        refuse(&mut table, decap, Err(libc::EIO));
        let Some(Refused::Write {
            reason: DropReason::TunDown,
            head,
            len: 74,
            packets: 2,
        }) = table.take_refused()
        else {
            panic!("a packet that the interface refused");
        };
        assert_eq!(head.len(), 74);
        refuse(&mut table, decap, Ok(1));
        table.keep_refused(false);
        assert!(table.take_refused().is_none());
        drop(head);
        assert_eq!(pool.census().held, 0);
    }

    /// FAULTS 39: a write is settled once.
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
        let again = table.insert(packet(10), &mut Vec::new(), Written::Reply).unwrap();
        assert!(
            table.settle(index, Ok(10), &stats).is_none(),
            "nor does a late one find the packet that came to its place"
        );
        assert!(table.settle(u32::MAX, Ok(35), &stats).is_none());
        assert!(table.settle(again, Err(libc::EIO), &stats).unwrap().is_ok());
        assert_eq!((table.is_empty(), pool.census().held), (true, 0));
        assert_eq!(stats.event(LoopEvent::ReplySent).get(), 1);
    }
}
