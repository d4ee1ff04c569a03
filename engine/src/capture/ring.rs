//! A ring of records between one writer and one reader who share no lock and never wait for each other.
//!
//! ```text
//!            read                    written
//!   words ----|======================|-----------   both count on for ever; a word's place is its number modulo the length
//!   record    | head, 4 words | bytes, filled up to a whole word |
//! ```
//!
//! The words are atomic, so that nothing here needs `unsafe`: a relaxed load or store costs what an ordinary one does. A record
//! becomes visible by the release of `written`, its room is free again by the release of `read`.

use crate::sync::{Arc, AtomicU64, Ordering};

/// Words before the bytes of a record. The first one's lower half is the number of bytes.
pub(super) const HEAD_WORDS: usize = 4;

const WORD: usize = size_of::<u64>();

/// The head of a record.
pub(super) type Head = [u64; HEAD_WORDS];

/// On a cache line of its own, so that writer and reader do not take each other's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Position(AtomicU64);

#[derive(Debug)]
struct Ring {
    words: Box<[AtomicU64]>,
    written: Position,
    read: Position,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Writer {
    ring: Arc<Ring>,
    written: u64,
    /// What the reader had read when last looked at.
    read: u64,
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Reader {
    ring: Arc<Ring>,
    read: u64,
}

/// A ring of `bytes` bytes, rounded up to a power of two; its memory is touched already.
pub(super) fn ring(bytes: usize) -> (Writer, Reader) {
    let count = bytes.div_ceil(WORD).next_power_of_two();
    let ring = Arc::new(Ring {
        words: (0..count).map(|_| AtomicU64::new(0)).collect(),
        written: Position::default(),
        read: Position::default(),
    });
    let writer = Writer {
        ring: Arc::clone(&ring),
        written: 0,
        read: 0,
    };
    (writer, Reader { ring, read: 0 })
}

impl Ring {
    /// The two runs of words from number `at` on: up to the end, and from the beginning.
    fn runs(&self, at: u64) -> (&[AtomicU64], &[AtomicU64]) {
        // The length is a power of two that fits usize.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the remainder is less than a length"
        )]
        let index = (at & (self.words.len() as u64 - 1)) as usize;
        let (beginning, end) = self.words.split_at(index);
        (end, beginning)
    }
}

impl Writer {
    /// Appends a record whose first word of the head says the number of `bytes`; false when there is no room.
    pub(super) fn push(&mut self, head: &Head, bytes: &[u8]) -> bool {
        let len = self.ring.words.len() as u64;
        let needed = (HEAD_WORDS + bytes.len().div_ceil(WORD)) as u64;
        if self.written + needed - self.read > len {
            self.read = self.ring.read.0.load(Ordering::Acquire);
            if self.written + needed - self.read > len {
                return false;
            }
        }
        let (first, second) = self.ring.runs(self.written);
        for (word, value) in first.iter().chain(second).zip(head) {
            word.store(*value, Ordering::Relaxed);
        }
        let (first, second) = self.ring.runs(self.written + HEAD_WORDS as u64);
        let (before, after) = bytes.split_at(bytes.len().min(first.len() * WORD));
        store(first, before);
        store(second, after);
        self.written += needed;
        self.ring.written.0.store(self.written, Ordering::Release);
        true
    }
}

/// Copies bytes to words; the last word is filled up with zeroes.
fn store(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    for (word, chunk) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
    if let (false, Some(word)) = (rest.is_empty(), words.get(whole.len())) {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

impl Reader {
    /// The head of the oldest record.
    pub(super) fn peek(&self) -> Option<Head> {
        if self.ring.written.0.load(Ordering::Acquire) == self.read {
            return None;
        }
        let (first, second) = self.ring.runs(self.read);
        let mut head = [0; HEAD_WORDS];
        for (value, word) in head.iter_mut().zip(first.iter().chain(second)) {
            *value = word.load(Ordering::Relaxed);
        }
        Some(head)
    }

    /// Takes the oldest record: its bytes go to `bytes`, which is emptied first.
    pub(super) fn pop(&mut self, bytes: &mut Vec<u8>) -> Option<Head> {
        let head = self.peek()?;
        let len = byte_len(&head);
        let count = len.div_ceil(WORD);
        let (first, second) = self.ring.runs(self.read + HEAD_WORDS as u64);
        bytes.clear();
        for word in first.iter().chain(second).take(count) {
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes.truncate(len);
        self.read += (HEAD_WORDS + count) as u64;
        self.ring.read.0.store(self.read, Ordering::Release);
        Some(head)
    }
}

/// The number of bytes, as the head says it.
fn byte_len(head: &Head) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    let len = head[0] as u32;
    len as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(len: usize, mark: u64) -> Head {
        [len as u64 | 7 << 32, mark, 2, 3]
    }

    #[test]
    fn records_come_out_as_they_went_in_and_none_is_half_written() {
        let (mut writer, mut reader) = ring(256);
        let mut out = Vec::new();
        assert_eq!(reader.pop(&mut out), None);
        // 32 words: a record of 20 bytes takes 7 of them, so that the places move round.
        for mark in 0..100u8 {
            let bytes: Vec<u8> = (0..20).map(|at| at ^ mark).collect();
            for _ in 0..4 {
                assert!(writer.push(&head(20, mark.into()), &bytes));
            }
            assert!(!writer.push(&head(20, 0), &bytes), "there is no room for a fifth");
            for _ in 0..4 {
                assert_eq!(reader.peek(), Some(head(20, mark.into())));
                assert_eq!(reader.pop(&mut out), Some(head(20, mark.into())));
                assert_eq!(out, bytes);
            }
        }
        assert!(writer.push(&head(0, 1), &[]));
        assert_eq!(reader.pop(&mut out), Some(head(0, 1)));
        assert!(out.is_empty());
        assert!(!writer.push(&head(250, 1), &[0; 250]), "larger than the ring");
        assert!(writer.push(&head(224, 1), &[9; 224]), "exactly the ring");
        assert_eq!(reader.pop(&mut out).map(|_| out.len()), Some(224));
    }

    #[test]
    fn writer_and_reader_run_side_by_side() {
        const RECORDS: u64 = 20_000;
        let (mut writer, mut reader) = ring(1024);
        let producer = std::thread::spawn(move || {
            let mut missed = 0;
            for mark in 0..RECORDS {
                let len = usize::try_from(mark % 61).unwrap();
                let byte = u8::try_from(mark % 251).unwrap();
                while !writer.push(&head(len, mark), &vec![byte; len]) {
                    missed += 1;
                    std::thread::yield_now();
                }
            }
            missed
        });
        let mut out = Vec::new();
        for mark in 0..RECORDS {
            let seen = loop {
                match reader.pop(&mut out) {
                    Some(seen) => break seen,
                    None => std::thread::yield_now(),
                }
            };
            let byte = u8::try_from(mark % 251).unwrap();
            assert_eq!(seen[1], mark);
            assert_eq!(out.len() as u64, mark % 61);
            assert!(out.iter().all(|have| *have == byte), "record {mark}");
        }
        assert!(producer.join().is_ok());
    }
}
