//! Captures: records are whole and in order whatever the reader does meanwhile, and what a worker has let go of is final.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the engine's module, of which a model uses a part"
)]
#[path = "../../../engine/src/capture/ring.rs"]
mod ring;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the engine's module, of which a model uses a part"
)]
#[path = "../../../engine/src/capture/state.rs"]
mod state;

use loom::thread;

use crate::explore;
use crate::stats::Direction;
use crate::sync::Arc;
use ring::{Head, Reader, Writer};
use state::TapState;

/// The lengths of the records, in this order: the ring of 8 words takes one of them at a time, or the last two.
const RECORDS: [usize; 3] = [9, 3, 0];

fn record(number: usize) -> (Head, Vec<u8>) {
    let (len, mark) = (RECORDS[number] as u64, number as u64 + 1);
    let bytes = (0..RECORDS[number]).map(|at| at.to_le_bytes()[0] ^ mark.to_le_bytes()[0]);
    ([len, mark, mark, mark], bytes.collect())
}

/// Writes the records that find room; says which.
fn write(writer: &mut Writer) -> Vec<usize> {
    let push = |number: &usize| {
        let (head, bytes) = record(*number);
        writer.push(&head, &bytes)
    };
    (0..RECORDS.len()).filter(push).collect()
}

/// The next record, which must be one as it was written; its number.
fn read(reader: &mut Reader) -> Option<usize> {
    let mut bytes = Vec::new();
    let head = reader.pop(&mut bytes)?;
    let number = usize::try_from(head[1]).expect("a number") - 1;
    assert_eq!((head, bytes), record(number), "half of one and half of another");
    Some(number)
}

/// A reader as fast as the writer, or slower, sees each record that found room, whole, once and in order.
pub fn records_are_whole() {
    explore(5, || {
        let (mut writer, mut reader) = ring::ring(64);
        let worker = thread::spawn(move || write(&mut writer));
        let mut seen: Vec<_> = (0..2).filter_map(|_| read(&mut reader)).collect();
        let written = worker.join().expect("a worker");
        seen.extend(std::iter::from_fn(|| read(&mut reader)));
        assert_eq!(seen, written);
    });
}

/// When a worker has let go, its counters are final and every record it wrote can be read.
pub fn what_is_released_is_final() {
    explore(5, || {
        let state = Arc::new(TapState::default());
        let (mut writer, mut reader) = ring::ring(64);
        let worker = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let counters = &state.counters[Direction::Encap as usize];
                for number in 0..2 {
                    if state.has_ended() {
                        break;
                    }
                    let (head, bytes) = record(number);
                    counters.seen.bump();
                    if writer.push(&head, &bytes) {
                        counters.matched.bump();
                    }
                }
                state.release();
            }
        });
        state.end();
        let counts = || {
            let counters = &state.counters[Direction::Encap as usize];
            (counters.seen.get(), counters.matched.get())
        };
        let released = state.is_released();
        let (early, records) = (counts(), std::iter::from_fn(|| read(&mut reader)).count());
        worker.join().expect("a worker");
        if released {
            assert_eq!(early, counts(), "counters of a worker that has let go");
            assert_eq!(early.1, records as u64, "its records");
        }
        assert!(state.is_released());
    });
}
