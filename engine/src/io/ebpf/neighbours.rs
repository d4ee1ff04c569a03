//! Which neighbours the programs may send frames to themselves, and the generations that they are read by.
//!
//! A program that is told nothing of a neighbour has the kernel's IPv4 find it, which looks a route and the neighbour up for each
//! packet. What it is told here is true only for as long as somebody listens to the kernel: whoever ends an engine forgets it all
//! ([`Generations::revoke`]).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};

use zerocopy::IntoBytes;

use super::shared::write;
use crate::ebpf::layout::{Generation, NeighbourPlace};
use crate::ebpf::numbers::NEIGHBOURS;
use crate::io::mapping::Mapping;

const PLACE_WORDS: usize = size_of::<NeighbourPlace>() / 8;
const _: () = assert!(size_of::<NeighbourPlace>().is_multiple_of(8) && size_of::<Generation>() == 32);

/// The type of IPv4 in an Ethernet header.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub addr: Ipv4Addr,
    /// The interface index of the Ethernet device that it is behind.
    pub device: u32,
    /// Its link address and that of the device, while the kernel would send to it.
    pub link: Option<[[u8; 6]; 2]>,
    /// The kernel asks it once it has a packet for it, and not before (STALE, RFC 4861 7.3.2).
    pub is_doubted: bool,
}

impl Neighbour {
    /// What its place holds.
    fn place(&self) -> NeighbourPlace {
        let Some([dst, src]) = self.link else {
            return NeighbourPlace::default();
        };
        let mut link = [0; 14];
        for (byte, from) in link
            .iter_mut()
            .zip(dst.into_iter().chain(src).chain(ETHERTYPE_IPV4))
        {
            *byte = from;
        }
        NeighbourPlace {
            addr: self.addr.to_bits(),
            device: self.device,
            link,
            doubted: u8::from(self.is_doubted),
            ..NeighbourPlace::default()
        }
    }
}

/// What news of a neighbour makes of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The frames stay the same, and what CPUs remember of them stays right: nobody need look again.
    DoubtEnds,
    /// Whoever remembers a neighbour looks again.
    Written,
}

/// The generations in force, and those that are being written. One process at a time writes them.
#[derive(Debug)]
pub(super) struct Generations(Mapping);

impl Generations {
    /// Maps them.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        Mapping::new(map, size_of::<Generation>() / 8).map(Self)
    }

    pub(super) fn read(&self) -> Generation {
        let mut generation = Generation::default();
        let (bytes, _) = generation.as_mut_bytes().as_chunks_mut::<8>();
        for (bytes, word) in bytes.iter_mut().zip(self.0.words()) {
            *bytes = word.load(Ordering::Acquire).to_ne_bytes();
        }
        generation
    }

    /// Says what is about to be written; `change` changes one of the two that say so.
    pub(super) fn announce(&self, change: impl FnOnce(&mut Generation)) {
        self.store(1, change);
    }

    /// What was written counts from now on; `change` changes one of the two that packets read.
    pub(super) fn begin(&self, change: impl FnOnce(&mut Generation)) {
        self.store(0, change);
    }

    /// What comes before every packet of the TUN interface, and by which key CPUs remember flows.
    pub(super) fn surround(&self, link_len: u32, key: u64) {
        self.store(2, |around| around.link_len = link_len);
        self.store(3, |around| around.key = key);
    }

    /// What kind of kernel this is.
    pub(super) fn set_preemptible(&self, preemptible: bool) {
        self.store(2, |around| around.preemptible = u32::from(preemptible));
    }

    /// No rules, and no neighbours. Which generation was written last stays known.
    pub(super) fn clear(&self) {
        self.begin(|now| (now.active, now.neighbours) = (0, 0));
        self.announce(|writing| writing.neighbours_writing = 0);
    }

    /// Nothing counts any longer that was known of neighbours, in places or in what CPUs remember, until somebody forgets or sets
    /// them: for when whoever kept them current is gone.
    pub(super) fn revoke(&self) {
        let next = self.read().neighbours.wrapping_add(1);
        self.announce(|writing| writing.neighbours_writing = next.wrapping_add(1));
        self.begin(|now| now.neighbours = next);
    }

    fn store(&self, word: usize, change: impl FnOnce(&mut Generation)) {
        let mut generation = self.read();
        change(&mut generation);
        let (bytes, _) = generation.as_bytes().as_chunks::<8>();
        self.0.words()[word].store(u64::from_ne_bytes(bytes[word]), Ordering::Release);
    }
}

/// The places.
#[derive(Debug)]
pub(super) struct Neighbours(Mapping);

impl Neighbours {
    /// Maps them.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(super) fn new(map: impl AsFd) -> io::Result<Self> {
        Mapping::new(map, NEIGHBOURS as usize * PLACE_WORDS).map(Self)
    }

    /// Writes what is another thing than before. A neighbour that is gone takes nobody else's place away, and one in doubt not that of
    /// one that is not: whoever may ask this machine for its address makes the kernel know many of those.
    pub(super) fn set(&self, generation: &Generations, news: &[Neighbour]) {
        let changes = |news: &Neighbour| self.change(news) != Change::Nothing;
        let put = |news: &Neighbour| {
            if changes(news) {
                let words = self.words(NeighbourPlace::of(news.addr, news.device));
                write(words, news.place().as_bytes());
            }
        };
        // Each is asked again once those before it are written: two may want one place.
        if news.iter().any(|news| self.change(news) == Change::Written) {
            self.write(generation, || news.iter().for_each(put));
        } else {
            news.iter().for_each(put);
        }
    }

    /// Whether nothing is known that is wrong if this is told a moment later: that a neighbour is in doubt, who has no other link
    /// address than it had.
    pub(super) fn may_wait(&self, news: &Neighbour) -> bool {
        let (held, wanted) = (self.read(news), news.place());
        let is_held = (held.addr, held.device) == (news.addr.to_bits(), news.device);
        news.is_doubted && (!is_held || held.link == wanted.link)
    }

    fn change(&self, news: &Neighbour) -> Change {
        let (held, wanted) = (self.read(news), news.place());
        let is_held = (held.addr, held.device) == (news.addr.to_bits(), news.device);
        let is_free = held == NeighbourPlace::default() || held.doubted != 0;
        match news.link {
            None if !is_held => Change::Nothing,
            Some(_) if !is_held && news.is_doubted && !is_free => Change::Nothing,
            // Doubted again: it has been asked meanwhile, and is to be asked once more.
            Some(_) if held == wanted && !news.is_doubted => Change::Nothing,
            Some(_) if is_held && held.link == wanted.link && !news.is_doubted => Change::DoubtEnds,
            _ => Change::Written,
        }
    }

    /// How many places are taken.
    pub(super) fn count(&self) -> usize {
        let places = self.0.words().chunks(PLACE_WORDS);
        // The first word has address and device.
        places
            .filter(|place| place[0].load(Ordering::Relaxed) != 0)
            .count()
    }

    /// Empties all places.
    pub(super) fn forget(&self, generation: &Generations) {
        self.write(generation, || {
            for word in self.0.words() {
                word.store(0, Ordering::Relaxed);
            }
        });
    }

    fn write(&self, generation: &Generations, change: impl FnOnce()) {
        let next = generation.read().neighbours_writing.wrapping_add(1);
        generation.announce(|writing| writing.neighbours_writing = next);
        // Whoever sees one of the words below sees that as well.
        fence(Ordering::SeqCst);
        change();
        fence(Ordering::SeqCst);
        generation.begin(|now| now.neighbours = next);
    }

    fn words(&self, place: usize) -> &[std::sync::atomic::AtomicU64] {
        &self.0.words()[place * PLACE_WORDS..][..PLACE_WORDS]
    }

    fn read(&self, neighbour: &Neighbour) -> NeighbourPlace {
        let mut place = NeighbourPlace::default();
        let words = self.words(NeighbourPlace::of(neighbour.addr, neighbour.device));
        let (bytes, _) = place.as_mut_bytes().as_chunks_mut::<8>();
        for (bytes, word) in bytes.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        place
    }
}
