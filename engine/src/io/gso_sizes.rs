//! Of which segments the kernel has put a received packet together: GRO knows, and a raw socket does not say.
//!
//! ```text
//!  GRO -> IPv4 -> socket of control: a filter notes the segment size, and keeps nothing
//!              -> socket of a worker -> worker: a packet like those that are merged? -> looks it up
//! ```
//!
//! The socket of control matches every packet and keeps none in any case; what is asked of its filter besides costs other packets
//! one comparison. It was opened last, and the kernel goes through sockets from the latest: the note is there before the packet is.
//! A note is found by a hash over what tells packets apart, at two places that the hash says; where others have taken both meanwhile it
//! is missed, and then the packet is what it would be without.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::libc;

use super::mapping::Mapping;
use super::raw::set_int;
use super::steer::{insn, load_socket_program, random_key};

/// Places for notes. Of a hundred packets that wait, each with one place, one in 650 would find its note overwritten; with two it is one in
/// a hundred thousand.
const PLACE_BITS: u32 = 16;
const PLACES: usize = 1 << PLACE_BITS;
/// Behind the notes lies the key of the hash.
const WORDS: usize = PLACES + 1;

/// How far to the right in the hash each place is.
const SHIFTS: [u32; 2] = [u64::BITS - PLACE_BITS, u64::BITS - 2 * PLACE_BITS];

/// Multiplier of the hash (the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// What a note has besides the hash.
const SIZE_BITS: u32 = 16;

/// Words of an outer packet without options, which alone are merged: identification, source; inner length and next header, low
/// halves of both addresses, and the first eight bytes of TCP or UDP.
const HASHED: [u32; 9] = [4, 12, 24, 36, 40, 52, 56, 60, 64];
/// Of packets that reach so far also what follows: not even the identification need differ between two.
const HASHED_OF_LONGER: [u32; 6] = [68, 72, 76, 80, 84, 88];
const LONGER: u32 = 92;

/// Offsets within `struct __sk_buff` (linux/bpf.h).
const SKB_LEN: u64 = 0;
const SKB_GSO_SIZE: u64 = 176;

/// What is known of received packets; nothing at all by default.
#[derive(Clone, Debug, Default)]
pub struct GsoSizes {
    notes: Option<Arc<Notes>>,
}

#[derive(Debug)]
struct Notes {
    map: Mapping,
    key: u64,
}

impl GsoSizes {
    /// What the filter notes that has this map.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(crate) fn new(map: &OwnedFd) -> io::Result<Self> {
        let map = Mapping::new(map, WORDS)?;
        let key = map.words()[PLACES].load(Ordering::Relaxed);
        Ok(Self {
            notes: Some(Arc::new(Notes { map, key })),
        })
    }

    /// The segment size of a packet as a raw socket gives it; `None` when it was not merged, or when that is not known.
    pub fn of(&self, packet: &[u8]) -> Option<u16> {
        let notes = self.notes.as_ref()?;
        let hash = hash(packet, notes.key)?;
        let words = notes.map.words();
        let notes = places(hash).into_iter().filter_map(|place| words.get(place));
        let note = notes
            .map(|word| word.load(Ordering::Relaxed))
            .find(|note| note >> SIZE_BITS == (hash << SIZE_BITS) >> SIZE_BITS)?;
        u16::try_from(note & u64::from(u16::MAX))
            .ok()
            .filter(|size| *size > 0)
    }
}

/// Where a note is.
fn places(hash: u64) -> [usize; 2] {
    SHIFTS.map(|shift| usize::try_from(hash >> shift).map_or(0, |place| place % PLACES))
}

/// As the filter computes it.
fn hash(packet: &[u8], key: u64) -> Option<u64> {
    let word = |at: &u32| {
        let at = usize::try_from(*at).ok()?;
        let word = packet.get(at..)?.first_chunk::<4>()?;
        Some(u64::from(u32::from_be_bytes(*word)))
    };
    let longer = if packet.len() < LONGER as usize {
        &[][..]
    } else {
        &HASHED_OF_LONGER
    };
    HASHED.iter().chain(longer).try_fold(key, |hash, at| {
        let product = (hash ^ word(at)?).wrapping_mul(MULTIPLIER);
        Some(product ^ (product >> 32))
    })
}

/// Has a socket that keeps nothing note what is merged, and returns the map with the notes. It has to be the last one of its
/// protocol that was opened.
///
/// # Errors
/// What the kernel says: programs may be loaded with CAP_BPF or as root only, and maps can be mapped since Linux 5.5.
pub(crate) fn note(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let map = create_map()?;
    let key = u64::from(random_key()) << 32 | u64::from(random_key());
    Mapping::new(&map, WORDS)?.words()[PLACES].store(key, Ordering::Relaxed);
    let program = load_socket_program(&noting_program(key, map.as_raw_fd()))?;
    // The kernel keeps its own reference to the program.
    set_int(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, program.as_raw_fd())?;
    Ok(map)
}

/// eBPF: what is no superpacket is not looked at any further.
fn noting_program(key: u64, map: i32) -> Vec<u64> {
    const R0: u64 = 0;
    const R1: u64 = 1;
    const R2: u64 = 2;
    const R6: u64 = 6;
    const R7: u64 = 7;
    const R8: u64 = 8;
    const R9: u64 = 9;
    const STACK: u64 = 10;
    /// `src` of a 64-bit constant that is the descriptor of a map.
    const MAP: u64 = 1;
    let constant = |to, kind, value: u64| {
        [
            insn(0x18, to, kind, 0, low_half(value)),
            insn(0, 0, 0, 0, low_half(value >> 32)),
        ]
    };
    // r8 = mixed with a word
    let fold = |at: &u32| {
        [
            insn(0x20, 0, 0, 0, *at), // r0 = packet word, or exit with 0
            insn(0xaf, R8, R0, 0, 0),
            insn(0x2f, R8, R9, 0, 0),
            insn(0xbf, R0, R8, 0, 0),
            insn(0x77, R0, 0, 0, 32),
            insn(0xaf, R8, R0, 0, 0),
        ]
    };
    let of_longer: Vec<u64> = HASHED_OF_LONGER.iter().flat_map(fold).collect();
    // Each place on the stack, below the last one.
    const ON_STACK: [u16; 2] = [4u16.wrapping_neg(), 8u16.wrapping_neg()];
    let mut end = Vec::new();
    for (shift, at) in SHIFTS.into_iter().zip(ON_STACK) {
        end.extend([
            insn(0xbf, R0, R8, 0, 0),
            insn(0x77, R0, 0, 0, shift),
            insn(0x57, R0, 0, 0, low_half(PLACES as u64 - 1)),
            insn(0x63, STACK, R0, u64::from(at), 0),
        ]);
    }
    end.extend([
        insn(0x67, R8, 0, 0, SIZE_BITS), // r8 <<= 16
        insn(0x4f, R8, R7, 0, 0),        // r8 |= segment size
    ]);
    for at in ON_STACK {
        end.extend([
            insn(0xbf, R2, STACK, 0, 0), // r2 = where the place is said
            insn(0x07, R2, 0, 0, u32::from(at.wrapping_neg()).wrapping_neg()),
        ]);
        end.extend(constant(R1, MAP, u64::try_from(map).unwrap_or_default()));
        end.extend([
            insn(0x85, 0, 0, 0, 1),   // r0 = bpf_map_lookup_elem
            insn(0x15, R0, 0, 1, 0),  // if r0 == 0 goto after the note
            insn(0x7b, R0, R8, 0, 0), // the note
        ]);
    }
    let mut middle = constant(R8, 0, key).to_vec();
    middle.extend(constant(R9, 0, MULTIPLIER));
    middle.extend(HASHED.iter().flat_map(fold));
    middle.push(insn(0x61, R0, R6, SKB_LEN, 0));
    middle.push(insn(0xa5, R0, 0, of_longer.len() as u64, LONGER)); // if r0 < LONGER goto end
    middle.extend(of_longer);
    middle.extend(end);

    let mut program = vec![
        insn(0xbf, R6, R1, 0, 0), // r6 = skb, as LD_ABS wants it
        insn(0x61, R7, R6, SKB_GSO_SIZE, 0),
        insn(0x15, R7, 0, middle.len() as u64, 0), // if r7 == 0 goto keep nothing
    ];
    program.extend(middle);
    program.extend([insn(0xb7, R0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)]); // keep nothing
    program
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

/// The head of `union bpf_attr` for BPF_MAP_CREATE (linux/bpf.h).
#[repr(C)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

fn create_map() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_F_MMAPABLE: u32 = 1024;
    let attr = MapCreateAttr {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: u32::try_from(WORDS).map_err(io::Error::other)?,
        map_flags: BPF_F_MMAPABLE,
    };
    // SAFETY: `attr` is the kernel's layout for this command, its size is passed along, and it outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            &raw const attr,
            size_of::<MapCreateAttr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miri::cases;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashSet};

    /// An eBPF machine, enough for our program: the notes that it makes of a packet, by their places.
    fn run(program: &[u64], packet: &[u8], gso_size: u64) -> BTreeMap<usize, u64> {
        const CONTEXT: u64 = 0xc0;
        const MAP: i32 = 5;
        let (mut notes, mut registers, mut stack) = (BTreeMap::new(), [0u64; 11], [0u32; 2]);
        let (mut pc, mut found) = (0usize, 0);
        registers[1] = CONTEXT;
        loop {
            let [code, both, o0, o1, i @ ..] = program[pc].to_le_bytes();
            let (dst, src) = (usize::from(both & 15), usize::from(both >> 4));
            let (off, imm) = (i16::from_le_bytes([o0, o1]), i32::from_le_bytes(i));
            let wide = i64::from(imm).cast_unsigned();
            let ahead = usize::try_from(off.max(0)).unwrap();
            pc += 1;
            match code {
                // A constant of two words; as a map it is known by its descriptor.
                0x18 => {
                    registers[dst] = wide & u64::from(u32::MAX) | program[pc] & !u64::from(u32::MAX);
                    pc += 1;
                }
                0x20 => match packet
                    .get(usize::try_from(imm).unwrap()..)
                    .and_then(<[u8]>::first_chunk)
                {
                    Some(word) => registers[0] = u64::from(u32::from_be_bytes(*word)),
                    None => return notes,
                },
                0x61 if registers[src] == CONTEXT && off == 0 => registers[dst] = packet.len() as u64,
                0x61 if registers[src] == CONTEXT && off == 176 => registers[dst] = gso_size,
                0x63 if dst == 10 => {
                    stack[usize::try_from(-off / 4 - 1).unwrap()] = u32::try_from(registers[src]).unwrap();
                }
                0x7b if registers[dst] == 1 => _ = notes.insert(found, registers[src]),
                0x85 => {
                    assert_eq!((imm, registers[1]), (1, MAP.unsigned_abs().into()));
                    let at = registers[2].cast_signed().unsigned_abs() / 4 - 1;
                    found = usize::try_from(stack[usize::try_from(at).unwrap()]).unwrap();
                    assert!(found < PLACES);
                    registers[0] = 1;
                }
                0x07 => registers[dst] = registers[dst].wrapping_add(wide),
                0x2f => registers[dst] = registers[dst].wrapping_mul(registers[src]),
                0x4f => registers[dst] |= registers[src],
                0x57 => registers[dst] &= wide,
                0x67 => registers[dst] <<= wide,
                0x77 => registers[dst] >>= wide,
                0xaf => registers[dst] ^= registers[src],
                0xb7 => registers[dst] = wide,
                0xbf => registers[dst] = registers[src],
                0x15 => pc += if registers[dst] == wide { ahead } else { 0 },
                0xa5 => pc += if registers[dst] < wide { ahead } else { 0 },
                0x95 => {
                    assert_eq!(registers[0], 0, "the socket keeps nothing");
                    return notes;
                }
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// What the filter notes of a packet, a worker finds: at each of its places the size, and no more of it than the hash.
    fn assert_found(packet: &[u8], key: u64, size: u16) {
        let noted = run(&noting_program(key, 5), packet, size.into());
        let expected = hash(packet, key).filter(|_| size > 0).map(|hash| {
            let note = hash << SIZE_BITS | u64::from(size);
            places(hash).map(|place| (place, note)).into_iter().collect()
        });
        assert_eq!(
            noted,
            expected.unwrap_or_default(),
            "{packet:02x?} {key:#x} {size}"
        );
    }

    /// One byte more or less is where either begins to read further.
    #[test]
    fn packets_of_every_length_are_found() {
        let packet: Vec<u8> = (0..200).collect();
        for len in 0..packet.len() {
            for size in [0, 1, 1220, u16::MAX] {
                assert_found(&packet[..len], 0x0123_4567_89ab_cdef, size);
            }
        }
    }

    proptest! {
        #[test]
        fn the_filter_computes_what_workers_do(
            packet in proptest::collection::vec(any::<u8>(), 0..cases(200, 100usize)),
            key in any::<u64>(),
            size in any::<u16>(),
        ) {
            assert_found(&packet, key, size);
        }
    }

    /// What the filter reads is what tells packets apart.
    #[test]
    fn packets_that_differ_have_different_notes() {
        let packet = vec![0x45; 200];
        let mut seen = HashSet::from([hash(&packet, 1).unwrap(), hash(&packet, 2).unwrap()]);
        for at in HASHED.iter().chain(&HASHED_OF_LONGER) {
            for byte in 0..4 {
                let mut other = packet.clone();
                other[*at as usize + byte] ^= 1;
                assert!(seen.insert(hash(&other, 1).unwrap()), "{at} + {byte}");
            }
        }
        assert_eq!(hash(&packet[..67], 1), None);
        assert!(hash(&packet[..68], 1).is_some());
    }

    /// A note at one place is overwritten by one packet in 65536, at both by hardly any.
    #[test]
    fn two_packets_hardly_ever_share_both_places() {
        let mut packet = vec![0x45; 200];
        let mut of = |number: u32| {
            packet[60..64].copy_from_slice(&number.to_be_bytes());
            places(hash(&packet, 7).unwrap())
        };
        // As many as the sockets of all workers have room for, one after the other.
        let waiting: Vec<_> = (0..2000).map(&mut of).collect();
        let taken: HashSet<_> = waiting.iter().flatten().collect();
        let others: Vec<_> = (10_000..60_000).map(&mut of).collect();
        let lost = others
            .iter()
            .filter(|both| both.iter().all(|place| taken.contains(place)));
        let single = others.iter().filter(|[first, _]| taken.contains(first));
        let (lost, single) = (lost.count(), single.count());
        assert!(lost * 10 < single, "{lost} and {single} of 50000");
    }

    #[test]
    fn without_notes_nothing_is_known() {
        assert_eq!(GsoSizes::default().of(&[0x45; 200]), None);
    }
}
