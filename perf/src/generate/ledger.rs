//! Which packets of which flows arrived, and how: each number once, and in order, is what a tunnel owes.

/// One bit a sequence number: exact for any order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    flows: Vec<Flow>,
}

#[derive(Clone, Debug, Default)]
struct Flow {
    seen: Vec<u64>,
    next: u32,
    received: u64,
    duplicated: u64,
    reordered: u64,
}

/// The sums over all flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    /// Distinct packets.
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// Arrivals of packets that had arrived before.
    pub(crate) duplicated: u64,
    /// Arrivals after one with a higher number.
    pub(crate) reordered: u64,
}

impl Ledger {
    pub(crate) fn new(flows: usize) -> Self {
        Self {
            flows: vec![Flow::default(); flows],
        }
    }

    /// Notes an arrival; true if this packet came for the first time. A flow that nobody sends is ignored.
    pub(crate) fn observe(&mut self, flow: u16, sequence: u32) -> bool {
        let Some(flow) = self.flows.get_mut(usize::from(flow)) else {
            return false;
        };
        let (word, bit) = (sequence as usize / 64, 1u64 << (sequence % 64));
        if flow.seen.len() <= word {
            flow.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if flow.seen[word] & bit != 0 {
            flow.duplicated += 1;
            return false;
        }
        flow.seen[word] |= bit;
        flow.received += 1;
        if sequence < flow.next {
            flow.reordered += 1;
        } else {
            flow.next = sequence + 1;
        }
        true
    }

    /// What it comes to, with how many packets of each flow were sent.
    pub(crate) fn totals(&self, sent: &[u32]) -> Totals {
        let mut totals = Totals::default();
        for (flow, sent) in self.flows.iter().zip(sent) {
            totals.sent += u64::from(*sent);
            totals.received += flow.received;
            totals.lost += u64::from(*sent).saturating_sub(flow.received);
            totals.duplicated += flow.duplicated;
            totals.reordered += flow.reordered;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_repeated_and_late_are_told_apart() {
        let mut ledger = Ledger::new(2);
        for sequence in [0, 1, 3, 2, 3, 70] {
            ledger.observe(0, sequence);
        }
        ledger.observe(1, 0);
        assert!(!ledger.observe(9, 0), "a flow that nobody sends");
        let totals = ledger.totals(&[71, 2]);
        assert_eq!(
            totals,
            Totals {
                sent: 73,
                received: 6,
                lost: 67,
                duplicated: 1,
                reordered: 1
            }
        );
    }

    #[test]
    fn a_loss_is_no_reordering() {
        let mut ledger = Ledger::new(1);
        assert!(ledger.observe(0, 5) && ledger.observe(0, 9) && !ledger.observe(0, 9));
        let totals = ledger.totals(&[10]);
        assert_eq!((totals.lost, totals.duplicated, totals.reordered), (8, 1, 0));
    }
}
