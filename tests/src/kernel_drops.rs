//! What the kernel of a namespace lost, by the kernel's own counters: interfaces, queueing disciplines, sockets.

use std::collections::BTreeMap;
use std::fs;

use crate::netns::Netns;

/// Column of "drop" within the receive half of `/proc/net/dev`.
const RX_DROP: usize = 3;
/// The same within the transmit half.
const TX_DROP: usize = 11;

/// Packets lost since the namespace was made, by where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelDrops(BTreeMap<String, u64>);

impl KernelDrops {
    /// Reads the counters of `ns`.
    ///
    /// # Panics
    /// When the kernel shows them in another form.
    #[track_caller]
    pub fn read(ns: &Netns) -> Self {
        let read = |name: &'static str| {
            // Not /proc/net: that is the namespace of the process, not of this thread.
            ns.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{name}")))
                .unwrap_or_else(|e| panic!("/proc/net/{name}: {e}"))
        };
        let mut drops = Self::default();
        drops.add_devices(&read("dev"));
        drops.add_raw_sockets(&read("raw"));
        drops.add_udp_sockets(&read("snmp6"));
        drops.add_queueing(&ns.run("tc -s qdisc show"));
        drops
    }

    /// What was lost since `before`, by where, zeros left out.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut drops = self.0.clone();
        for (place, count) in &before.0 {
            *drops.entry(place.clone()).or_default() -= count;
        }
        drops.retain(|_, count| *count > 0);
        Self(drops)
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// What was lost at places whose names start with `place`: `raw`, `udp`, `is0 tx` and the like.
    pub fn at(&self, place: &str) -> u64 {
        let named = self.0.iter().filter(|(name, _)| name.starts_with(place));
        named.map(|(_, count)| count).sum()
    }

    fn add(&mut self, place: &str, count: &str) {
        let count: u64 = count.parse().unwrap_or_else(|e| panic!("{place}: {count}: {e}"));
        *self.0.entry(place.to_owned()).or_default() += count;
    }

    fn add_devices(&mut self, text: &str) {
        for (device, counters) in text.lines().filter_map(|line| line.split_once(':')) {
            let columns: Vec<_> = counters.split_whitespace().collect();
            let device = device.trim();
            self.add(&format!("{device} rx"), columns[RX_DROP]);
            self.add(&format!("{device} tx"), columns[TX_DROP]);
        }
    }

    fn add_raw_sockets(&mut self, text: &str) {
        for line in text.lines().skip(1) {
            self.add("raw", line.split_whitespace().last().expect("drops"));
        }
    }

    fn add_udp_sockets(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(count) = line.strip_prefix("Udp6RcvbufErrors") {
                self.add("udp", count.trim());
            }
        }
    }

    /// `mq` shows the sum of its children; they are counted themselves.
    fn add_queueing(&mut self, text: &str) {
        let mut place = None;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["qdisc", kind, _, "dev", device, ..] = words[..] {
                place = (kind != "mq").then(|| format!("{device} qdisc"));
            } else if let (Some(place), Some((_, after))) = (&place, line.split_once("(dropped ")) {
                self.add(place, after.split(',').next().expect("a count"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_kernels_text() {
        let mut drops = KernelDrops::default();
        drops.add_devices(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n   \
             is0:  100       2    0    3    0     0          0         0    50       1    0    4    0     0       0  0\n",
        );
        drops
            .add_raw_sockets("  sl  local_address drops\n  41: 00000000:0029 00000000:0000 07 5\n 41: x 6\n");
        drops.add_udp_sockets("Udp6InErrors  9\nUdp6RcvbufErrors                \t7\n");
        drops.add_queueing(
            "qdisc mq 0: dev is0 root\n Sent 0 bytes 0 pkt (dropped 8, overlimits 0 requeues 0)\n\
             qdisc pfifo_fast 0: dev is0 parent :1 bands 3\n Sent 0 bytes 0 pkt (dropped 8, overlimits 0 requeues 0)\n",
        );
        let at = |place| drops.at(place);
        assert_eq!(
            (at("is0 rx"), at("is0 tx"), at("raw"), at("udp"), at("is0 qdisc")),
            (3, 4, 11, 7, 8)
        );
        assert_eq!(drops.total(), 33);
        assert_eq!(drops.since(&drops).total(), 0);
    }
}
