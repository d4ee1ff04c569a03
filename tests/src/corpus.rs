//! A large corpus of outer packets, valid and hostile, for two receivers that should judge alike: generated, and the same
//! every time.
//!
//! Each case carries its number in the flow label of its inner packet, so that whatever a receiver delivers says which
//! case it was, however damaged. The receivers are set up as [`OWN`] with the addresses, the prefix, the routers and the
//! route named here.
//!
//! | module | cases |
//! |---|---|
//! | [`addresses`] | who sends to whom: outer and inner sources, inner and outer destinations |
//! | [`headers`] | lengths, versions, IPv4 options, fragments, ECN, extension headers, tunnels in the tunnel |
//! | [`discovery`] | neighbour discovery from everybody, by the book or not |
//! | [`mixtures`] | several of these at once, drawn at random |
//! | [`damage`] | a few bytes of a good packet changed at random |

mod addresses;
mod damage;
mod discovery;
mod headers;
mod mixtures;

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::packet::{Inner, Outer, SeenInner, SeenOuter, isatap};
use crate::scene::PREFIX;

/// The receiver's locator.
pub const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// A potential router of the receiver.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
/// A second one; the kernel knows it as `prl-nodefault`.
pub const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 8);
/// Some host of the site, and the one that sends all of this.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
/// The host that [`ROUTED`] is routed to.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 30);
/// What the receiver routes to [`GATEWAY`].
pub const ROUTED: &str = "2001:db8:7::";
/// A host beyond the site's border.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// Who may be answered: a receiver must not have to look for their Ethernet addresses, or answers to those who have none
/// keep others from being sent.
pub const ANSWERED: [Ipv4Addr; 8] = [
    ROUTER,
    SECOND_ROUTER,
    GATEWAY,
    OUTSIDE,
    Ipv4Addr::new(10, 0, 0, 77),
    Ipv4Addr::new(172, 16, 5, 5),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(169, 254, 3, 4),
];

/// One outer packet of the corpus.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number, in the flow label of the inner packet.
    pub id: u32,
    /// Which kind it is.
    pub group: &'static str,
    /// What is special about it.
    pub note: String,
    /// The packet before any fragmentation.
    pub whole: Vec<u8>,
    /// What is sent.
    pub frames: Vec<Vec<u8>>,
}

impl Case {
    /// The packet as a receiver of protocol 41 sees it, if it is one.
    pub fn outer(&self) -> Option<SeenOuter<'_>> {
        SeenOuter::read(&self.whole)
    }

    /// What the outer packet carries, if that is a whole IPv6 packet.
    pub fn inner(&self) -> Option<SeenInner<'_>> {
        self.outer()?.inner()
    }
}

/// The number of the case that an inner packet belongs to.
pub fn id_of(inner: &[u8]) -> Option<u32> {
    let label: [u8; 3] = inner.get(1..4)?.try_into().ok()?;
    Some(u32::from_be_bytes([0, label[0] & 0x0f, label[1], label[2]]))
}

/// The whole corpus.
pub fn generate(seed: u64) -> Vec<Case> {
    let mut corpus = Corpus {
        cases: Vec::new(),
        state: seed,
    };
    addresses::add(&mut corpus);
    headers::add(&mut corpus);
    discovery::add(&mut corpus);
    mixtures::add(&mut corpus);
    damage::add(&mut corpus);
    corpus.cases
}

struct Corpus {
    cases: Vec<Case>,
    state: u64,
}

impl Corpus {
    /// A case of one frame.
    fn add(&mut self, group: &'static str, note: impl Into<String>, outer: &Outer, payload: &[u8]) {
        let payload = self.numbered(payload);
        let whole = outer.wrap(&payload);
        self.add_frames(group, note, whole.clone(), vec![whole]);
    }

    /// The same from [`HOST`], whose packets are in order but for `payload`.
    fn add_inner(&mut self, group: &'static str, note: impl Into<String>, payload: &[u8]) {
        self.add(group, note, &Outer::new(HOST, OWN), payload);
    }

    /// A case of any frames; `whole` carries the next number already.
    fn add_frames(
        &mut self,
        group: &'static str,
        note: impl Into<String>,
        whole: Vec<u8>,
        frames: Vec<Vec<u8>>,
    ) {
        self.cases.push(Case {
            id: self.next_id(),
            group,
            note: note.into(),
            whole,
            frames,
        });
    }

    fn next_id(&self) -> u32 {
        u32::try_from(self.cases.len() + 1).expect("fewer than 2^20 cases")
    }

    /// The inner packet with the next case's number as its flow label.
    fn numbered(&self, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = self.next_id().to_be_bytes();
        let mut payload = payload.to_vec();
        if let Some(label) = payload.get_mut(1..4) {
            label.copy_from_slice(&[label[0] & 0xf0 | high, middle, low]);
        }
        payload
    }

    /// One of `choices`, drawn at random.
    fn draw<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random(choices.len())]
    }

    /// Whether the next of `times` draws is the one.
    fn once_in(&mut self, times: usize) -> bool {
        self.random(times) == 0
    }

    /// The next of the seed's numbers below `bound` (splitmix64).
    fn random(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).expect("31 bits") % bound
    }
}

/// An inner header from the sender itself to the receiver, both under the on-link prefix.
fn plain() -> Inner {
    Inner::new(isatap(PREFIX, false, HOST), isatap(PREFIX, false, OWN))
}

/// A datagram of that header.
fn datagram(inner: &Inner) -> Vec<u8> {
    inner.udp(9, 9, b"a datagram of the corpus")
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_corpus_is_large_and_always_the_same() {
        let (one, two) = (generate(1), generate(1));
        assert!(one.len() > 3000, "{} cases", one.len());
        let frames = |cases: &[Case]| cases.iter().map(|case| case.frames.clone()).collect::<Vec<_>>();
        assert_eq!(frames(&one), frames(&two));
        assert_ne!(frames(&one), frames(&generate(2)));
    }

    #[test]
    fn every_case_can_be_recognised() {
        let cases = generate(1);
        let ids: BTreeSet<_> = cases.iter().map(|case| case.id).collect();
        assert_eq!(ids.len(), cases.len());
        // Where the outer header's length lies, the inner packet is not where it was put.
        let lies = |case: &Case| case.group == "damage" || case.note.starts_with("header length");
        for case in cases.iter().filter(|case| !lies(case)) {
            let payload = case.outer().map(|outer| outer.payload).unwrap_or_default();
            if payload.len() >= 40 {
                assert_eq!(id_of(payload), Some(case.id), "{}: {}", case.group, case.note);
            }
        }
    }
}
