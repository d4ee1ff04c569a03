//! How long a tunnel stood still around a moment, in a time that goes by only while the machine does: numbered datagrams through the
//! tunnel, and beside each one over the bare network.
//!
//! ```text
//!   one thread: a datagram to each, every half millisecond ---- the tunnel ------> when it came
//!                                                       \----- bare network -----> when it came: the ticks of the clock
//! ```
//!
//! With more work than cores everything stands still for a second now and then, and nothing ticks.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::netns::Netns;

const PORT: u16 = 7100;
/// Between two datagrams: the resolution of the gaps.
const EVERY: Duration = Duration::from_micros(500);
/// Receivers look whether it is over.
const LOOK: Duration = Duration::from_millis(500);

/// When each numbered datagram arrived.
type Arrivals = BTreeMap<u32, Instant>;

/// What became of the datagrams.
#[derive(Debug)]
pub struct Numbered {
    /// How many were sent through the tunnel.
    pub sent: usize,
    /// When those that came arrived, sorted.
    pub through: Vec<Instant>,
    ticks: Vec<Instant>,
}

impl Numbered {
    /// Sends from `from` to an address of a namespace by way of the tunnel, and to one beside it, until `done`. None may arrive twice.
    ///
    /// # Panics
    /// When one does, or a socket cannot be opened.
    pub fn stream(
        from: &Netns,
        tunnel: (&Netns, IpAddr),
        beside: (&Netns, IpAddr),
        done: &AtomicBool,
    ) -> Self {
        let ends = [tunnel, beside].map(|(to, addr)| {
            let target = SocketAddr::new(addr, PORT);
            let receiver = to.enter(|| UdpSocket::bind(target)).expect("a receiver");
            receiver.set_read_timeout(Some(LOOK)).expect("a timeout");
            let any: SocketAddr = if addr.is_ipv4() {
                ([0, 0, 0, 0], 0).into()
            } else {
                ([0; 16], 0).into()
            };
            let sender = from.enter(|| UdpSocket::bind(any)).expect("a sender");
            sender.connect(target).expect("a way there");
            (sender, receiver)
        });
        let [(tunnel, through), (beside, ticks)] = ends;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let receivers = [through, ticks].map(|receiver| {
                let over = &over;
                scope.spawn(move || receive(&receiver, over))
            });
            let mut sent = 0u32;
            while !done.load(Ordering::Relaxed) {
                // A full queue is what a dead engine looks like from here: the datagram is lost, as on any network.
                for end in [&tunnel, &beside] {
                    let _ = end.send(&sent.to_be_bytes());
                }
                sent += 1;
                thread::sleep(EVERY);
            }
            over.store(true, Ordering::Relaxed);
            let [through, ticks] = receivers.map(|receiver| {
                let mut times: Vec<_> = receiver.join().expect("a receiver").into_values().collect();
                times.sort_unstable();
                times
            });
            Self {
                sent: usize::try_from(sent).expect("a few"),
                through,
                ticks,
            }
        })
    }

    /// The longest time between two arrivals that begins before `end` and ends after `at`; `None` when nothing arrived any more.
    pub fn gap(&self, at: Instant, end: Instant) -> Option<Duration> {
        let after = self.through.partition_point(|arrival| *arrival < at);
        let window = &self.through[after.saturating_sub(1)..];
        let pairs = window.windows(2).take_while(|pair| pair[0] < end);
        pairs.map(|pair| EVERY * self.ticks_between(pair)).max()
    }

    fn ticks_between(&self, pair: &[Instant]) -> u32 {
        let until = |at: Instant| self.ticks.partition_point(|tick| *tick < at);
        u32::try_from(until(pair[1]) - until(pair[0])).expect("a few")
    }
}

fn receive(receiver: &UdpSocket, over: &AtomicBool) -> Arrivals {
    let (mut arrivals, mut number) = (Arrivals::new(), [0; 4]);
    loop {
        match receiver.recv(&mut number) {
            Ok(4) => {
                let number = u32::from_be_bytes(number);
                let twice = arrivals.insert(number, Instant::now());
                assert!(twice.is_none(), "datagram {number} came twice");
            }
            Ok(len) => panic!("a datagram of {len} bytes"),
            Err(_) if over.load(Ordering::Relaxed) => return arrivals,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel that stands still is seen, a machine that does is not.
    #[test]
    fn only_what_goes_on_beside_it_makes_a_gap() {
        let began = Instant::now();
        let times = |numbers: std::ops::Range<u32>| numbers.map(move |number| began + EVERY * number);
        let all = || times(0..1000).chain(times(5000..6000));
        let second = Duration::from_secs(1);
        let numbered = |through: Vec<Instant>, ticks: Vec<Instant>| Numbered {
            sent: 2000,
            through,
            ticks,
        };
        let machine = numbered(all().collect(), all().collect());
        assert_eq!(machine.gap(began, began + second), Some(EVERY));
        let tunnel = numbered(all().collect(), times(0..6000).collect());
        assert_eq!(tunnel.gap(began, began + second), Some(EVERY * 4001));
        assert_eq!(
            tunnel.gap(began + second * 9 / 4, began + second * 3),
            Some(EVERY * 4001)
        );
        assert_eq!(
            numbered(Vec::new(), all().collect()).gap(began, began + second),
            None
        );
    }
}
