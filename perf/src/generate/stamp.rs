//! What each packet of ours carries: which run and flow it belongs to, its number, and when it was sent.
//!
//! ```text
//!   0        2        4                 8                                  16
//!   | run    | flow   | sequence number | CLOCK_MONOTONIC of sending, ns   |
//! ```

use nix::time::{ClockId, clock_gettime};

/// The marks of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Packets of an earlier run that come late are nobody's.
    pub(crate) run: u16,
    pub(crate) flow: u16,
    /// Counts within the flow, from 0.
    pub(crate) sequence: u32,
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Bytes of data that every packet has at least.
    pub(crate) const LEN: usize = 16;

    /// Writes it to the start of `data`.
    pub(crate) fn write(&self, data: &mut [u8]) {
        data[..2].copy_from_slice(&self.run.to_be_bytes());
        data[2..4].copy_from_slice(&self.flow.to_be_bytes());
        data[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        data[8..16].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// Reads it back; `None` when there are too few bytes.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let (run, rest) = data.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u16::from_be_bytes(*run),
            flow: u16::from_be_bytes(*flow),
            sequence: u32::from_be_bytes(*sequence),
            sent_ns: u64::from_be_bytes(*sent_ns),
        })
    }
}

/// Both ends are on this machine: one clock for all.
pub(crate) fn now_ns() -> u64 {
    // This clock exists on every Linux; its seconds are positive.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let stamp = Stamp {
            run: 7,
            flow: 65_535,
            sequence: u32::MAX - 1,
            sent_ns: now_ns(),
        };
        let mut data = [0; 20];
        stamp.write(&mut data);
        assert_eq!(Stamp::read(&data), Some(stamp));
        assert_eq!(Stamp::read(&data[..15]), None);
        assert!(now_ns() >= stamp.sent_ns && stamp.sent_ns > 0);
    }
}
