//! Good packets changed at random, as many as wanted and the same every time: of headers more than of what is behind them,
//! and often so that the result is another good packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::corpus::{GATEWAY, HOST, OUTSIDE, OWN, ROUTER, SECOND_ROUTER};
use crate::nd;
use crate::packet::{Inner, Outer, UDP, checksum, isatap, link_local, udp_message};
use crate::scene::PREFIX;

const OUTER_LEN: usize = 20;
const INNER_LEN: usize = 40;
/// Where the mutations of headers strike: both headers and the beginning of the next.
const HEADERS_LEN: usize = OUTER_LEN + INNER_LEN + 8;
/// Values that mean something somewhere: versions, protocols, extremes.
const TELLING: [u8; 14] = [0, 1, 4, 6, 17, 41, 43, 44, 47, 58, 60, 0x7f, 0x80, 0xff];
/// Who might have sent a packet.
const SENDERS: [Ipv4Addr; 9] = [
    HOST,
    ROUTER,
    SECOND_ROUTER,
    GATEWAY,
    OUTSIDE,
    OWN,
    Ipv4Addr::new(10, 0, 0, 255),
    Ipv4Addr::new(172, 16, 5, 5),
    Ipv4Addr::new(240, 0, 0, 1),
];

/// Frames without end.
#[derive(Debug)]
pub struct Mutations {
    state: u64,
    number: u32,
    templates: Vec<Vec<u8>>,
}

impl Mutations {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            number: 0,
            templates: templates(),
        }
    }

    /// The next of the seed's numbers below `bound` (splitmix64).
    fn random(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).expect("31 bits") % bound
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.random(256)).expect("a byte")
    }

    fn draw<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random(choices.len())]
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        let within = if self.random(5) == 0 {
            frame.len()
        } else {
            frame.len().min(HEADERS_LEN)
        };
        match self.random(10) {
            0 | 1 => {
                let (at, bit) = (self.random(within), self.random(8));
                frame[at] ^= 1 << bit;
            }
            2 => {
                let at = self.random(within);
                frame[at] = self.byte();
            }
            3 => {
                let at = self.random(within);
                frame[at] = self.draw(&TELLING);
            }
            4 => {
                let len = 1 + self.random(frame.len());
                frame.truncate(len);
                self.tell_length(frame);
            }
            5 => {
                let more = 1 + self.random(64);
                for _ in 0..more {
                    let byte = self.byte();
                    frame.push(byte);
                }
                self.tell_length(frame);
            }
            6 => self.length_field(frame),
            7 => self.other_sender(frame),
            8 => self.other_addresses(frame),
            _ => {
                // ECN and DSCP, outside and inside.
                let byte = self.byte();
                write(frame, 1, &[byte]);
                let byte = self.byte();
                write(frame, OUTER_LEN, &[6 << 4 | byte >> 4]);
            }
        }
    }

    /// As often as not the outer header says how long the packet is now.
    fn tell_length(&mut self, frame: &mut [u8]) {
        if self.random(2) == 0
            && let Ok(len) = u16::try_from(frame.len())
        {
            write(frame, 2, &len.to_be_bytes());
        }
    }

    fn length_field(&mut self, frame: &mut [u8]) {
        let at = self.draw(&[2, OUTER_LEN + 4]);
        if let Some(field) = frame.get(at..at + 2) {
            let said = u16::from_be_bytes([field[0], field[1]]);
            let off = u16::try_from(self.random(17)).expect("a small number");
            write(frame, at, &said.wrapping_add(off).wrapping_sub(8).to_be_bytes());
        }
    }

    /// Another sender; as often as not the inner source embeds it.
    fn other_sender(&mut self, frame: &mut [u8]) {
        let sender = if self.random(2) == 0 {
            Ipv4Addr::new(10, 0, self.byte() & 1, self.byte())
        } else {
            self.draw(&SENDERS)
        };
        write(frame, 12, &sender.octets());
        if self.random(2) == 0 {
            let prefix = self.draw(&[PREFIX, "fe80::", "2001:db8:5::"]);
            let src = isatap(prefix, self.random(2) == 0, sender);
            write(frame, OUTER_LEN + 8, &src.octets());
        }
    }

    fn other_addresses(&mut self, frame: &mut [u8]) {
        let addr = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
        let at = self.draw(&[OUTER_LEN + 8, OUTER_LEN + 24]);
        let chosen = match self.random(12) {
            0 => addr("::"),
            1 => addr("::1"),
            2 => addr("ff02::1"),
            3 => addr("ff02::2"),
            4 => addr("ff02::1:ff00:1"),
            5 => addr("ff0e::1"),
            6 => addr("::ffff:10.0.0.9"),
            7 => addr("2001:db8:7::1"),
            8 => addr("2002:a00:1::1"),
            9 => isatap("2001:db8:5::", false, OWN),
            10 => isatap(PREFIX, false, self.draw(&SENDERS)),
            _ => link_local(self.draw(&SENDERS)),
        };
        write(frame, at, &chosen.octets());
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    /// The next frame. Its number is its flow label and, unless that has to be 255, in its hop limit: no two near each other
    /// are merged as if they were of one flow, even when one of the two is struck.
    fn next(&mut self) -> Option<Vec<u8>> {
        let at = self.random(self.templates.len());
        let mut frame = self.templates[at].clone();
        self.number = (self.number + 1) & 0xf_ffff;
        let [_, high, middle, low] = self.number.to_be_bytes();
        let inner = usize::from(frame[0] & 0x0f) * 4;
        write(&mut frame, inner + 1, &[high, middle, low]);
        if frame[inner + 7] != 255 {
            let hop_limit = u8::try_from(64 + self.number % 101).expect("less than 255");
            write(&mut frame, inner + 7, &[hop_limit]);
        }
        for _ in 0..1 + self.random(3) {
            self.mutate(&mut frame);
        }
        // Rightly summed, or the kernel in front of us is all that is tried.
        if self.random(32) != 0 {
            let header_len = usize::from(frame[0] & 0x0f) * 4;
            if header_len >= OUTER_LEN && header_len <= frame.len() {
                frame[10..12].fill(0);
                let sum = checksum(&[&frame[..header_len]]);
                frame[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        Some(frame)
    }
}

/// Writes over what is there, as far as something is there.
fn write(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Good packets of every kind that a router lets in.
fn templates() -> Vec<Vec<u8>> {
    let own = isatap(PREFIX, false, OWN);
    let plain = |sender| Inner::new(isatap(PREFIX, false, sender), own);
    let local = |sender| Inner::new(link_local(sender), link_local(OWN));
    let addr = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    // Two extension headers before a datagram; a first piece; a later one.
    let datagram = udp_message(1, 9, b"behind headers");
    let chained = [
        &[60, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0][..],
        &datagram,
    ]
    .concat();
    let first = [&[UDP, 0, 0, 1, 0, 0, 0, 7][..], &datagram].concat();
    let later = [&[UDP, 0, 0, 0x40, 0, 0, 0, 7][..], &datagram].concat();
    let mut options = Outer::new(HOST, OWN);
    options.options = vec![1; 8];
    let mut templates = vec![options.wrap(&plain(HOST).udp(1, 9, b"options"))];
    let discovery = |kind, body: &[u8]| nd::packet(link_local(HOST), link_local(OWN), kind, body);
    for (sender, inner) in [
        (HOST, plain(HOST).udp(1, 9, b"a datagram")),
        (HOST, plain(HOST).tcp(1, 9, 7, 0x18, b"a segment")),
        (HOST, plain(HOST).echo_request(1, 1, b"a question")),
        (HOST, plain(HOST).wrap(0, &chained)),
        (HOST, plain(HOST).wrap(44, &first)),
        (HOST, plain(HOST).wrap(44, &later)),
        (HOST, plain(HOST).wrap(59, &[0; 16])),
        (HOST, local(HOST).udp(1, 9, b"on this link")),
        (
            HOST,
            Inner::new(isatap(PREFIX, false, HOST), addr("2001:db8:99::2")).udp(1, 9, b"on"),
        ),
        (
            ROUTER,
            Inner::new(addr("2001:db8:5::1"), own).udp(1, 9, b"from beyond"),
        ),
        (
            GATEWAY,
            Inner::new(addr("2001:db8:7::1"), own).udp(1, 9, b"from a network"),
        ),
        (HOST, discovery(133, &nd::router_solicitation())),
        (HOST, discovery(135, &nd::neighbour_solicitation(link_local(OWN)))),
        (
            HOST,
            discovery(136, &nd::neighbour_advertisement(0x60, link_local(HOST))),
        ),
    ] {
        templates.push(Outer::new(sender, OWN).wrap(&inner));
    }
    templates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Verdict, judge};

    #[test]
    fn a_seed_repeats_itself() {
        let some = |seed| Mutations::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }

    /// What is changed is good before, and after it good often enough that refusing everything would be noticed.
    #[test]
    fn good_ones_stay_good_often_enough() {
        for template in templates() {
            assert!(!matches!(judge(&template), Verdict::Refuse(_)), "{template:02x?}");
        }
        let count = 20_000;
        let passing = Mutations::new(1)
            .take(count)
            .filter(|frame| matches!(judge(frame), Verdict::Pass(_)));
        let passing = passing.count();
        assert!(
            (count / 20..count / 2).contains(&passing),
            "{passing} of {count} pass"
        );
    }
}
