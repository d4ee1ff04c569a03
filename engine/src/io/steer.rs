//! Which worker gets a packet: the shard filter of the receive sockets, and the steering program of the TUN queues.
//!
//! The kernel gives every matching raw socket a clone of each packet; a classic BPF filter on each socket keeps one share
//! of a hash over the inner flow (DESIGN D1). For the TUN queues an eBPF program computes the same hash: without it the
//! kernel learns from our writes which queue a flow belongs to, and reorders a packet whenever it changes its mind.
//! The flow is what stands at a fixed place: both inner addresses, and the ports of TCP and UDP when the transport header
//! follows at once. Packets too short to have a flow go to worker 0, so that they are counted.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

use crate::fib::Locator;

/// Multiplier of the flow hash (the golden ratio, as in many integer hashes).
const HASH_MULTIPLIER: u32 = 0x9e37_79b1;

/// What the last steps of the hash shift and multiply by (the finaliser of MurmurHash3): without them, flows whose ports
/// differ by two share a shard.
const MIX: [(u32, u32); 2] = [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)];
const MIX_LAST_SHIFT: u32 = 16;

/// Offsets within the inner IPv6 header.
const NEXT_HEADER_AT: u32 = 6;
const ADDRESSES_AT: u32 = 8;
const PORTS_AT: u32 = 40;
/// Offset of the destination in the outer IPv4 header.
const OUTER_DST_AT: u32 = 16;

/// Ancillary loads of classic BPF (linux/filter.h): `skb->dev->ifindex`.
const SKF_AD_IFINDEX: u32 = 0xffff_f000 + 8;
/// Scratch words: the hash so far, and the length of the outer header.
const M_HASH: u32 = 0;
const M_OUTER_LEN: u32 = 1;

/// One classic BPF instruction.
pub(crate) type Instruction = libc::sock_filter;

/// Which packets a receive socket keeps.
#[derive(Clone, Debug)]
pub struct Shard {
    /// This worker.
    pub index: usize,
    /// Of how many.
    pub count: usize,
    /// Key of the hash, the same for all shards of one engine.
    pub key: u32,
}

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    #[allow(clippy::cast_possible_truncation, reason = "opcodes are 16 bits")]
    let code = code as u16;
    Instruction { code, jt, jf, k }
}

const LD_W_ABS: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LD_W_IND: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const LD_B_IND: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LD_LEN: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const LD_IMM: u32 = libc::BPF_LD | libc::BPF_IMM;
const LDX_MSH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const LDX_MEM: u32 = libc::BPF_LDX | libc::BPF_MEM;
const ST: u32 = libc::BPF_ST;
const STX: u32 = libc::BPF_STX;
const JEQ: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JGE_K: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const XOR_X: u32 = libc::BPF_ALU | BPF_XOR | libc::BPF_X;
const SUB_X: u32 = libc::BPF_ALU | libc::BPF_SUB | libc::BPF_X;
const MUL_K: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const RSH_K: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const MOD_K: u32 = libc::BPF_ALU | BPF_MOD | libc::BPF_K;
const TAX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const LD_MEM: u32 = libc::BPF_LD | libc::BPF_MEM;
const RET_K: u32 = libc::BPF_RET | libc::BPF_K;
/// Linux additions to classic BPF that the libc crate does not name everywhere.
const BPF_MOD: u32 = 0x90;
const BPF_XOR: u32 = 0xa0;

const ACCEPT: Instruction = op(RET_K, 0, 0, u32::MAX);
const REJECT: Instruction = op(RET_K, 0, 0, 0);

/// A filter that keeps nothing: for send sockets, and for receive sockets until all of them exist.
pub(crate) fn keep_nothing() -> Vec<Instruction> {
    vec![REJECT]
}

/// The filter of one receive socket: locators on their own interfaces only (RFC 5214 7.3), then this shard's share.
pub(crate) fn receive_filter(shard: &Shard, locators: &[Locator]) -> Vec<Instruction> {
    let mut program = Vec::new();
    for locator in locators.iter().filter(|locator| locator.if_index != 0) {
        program.extend([
            op(LD_W_ABS, 0, 0, OUTER_DST_AT),
            op(JEQ, 0, 3, locator.addr.to_bits()),
            op(LD_W_ABS, 0, 0, SKF_AD_IFINDEX),
            op(JEQ, 1, 0, locator.if_index),
            REJECT,
        ]);
    }
    if shard.count > 1 {
        shard_share(&mut program, shard);
    }
    program.push(ACCEPT);
    program
}

fn shard_share(program: &mut Vec<Instruction>, shard: &Shard) {
    let count = u32::try_from(shard.count).unwrap_or(u32::MAX);
    let index = u32::try_from(shard.index).unwrap_or(u32::MAX);
    program.extend([
        op(LD_IMM, 0, 0, shard.key),
        op(ST, 0, 0, M_HASH),
        op(LDX_MSH, 0, 0, 0),
        op(STX, 0, 0, M_OUTER_LEN),
        // A = bytes after the outer header; without a whole inner header there is no flow: worker 0 counts it.
        op(LD_LEN, 0, 0, 0),
        op(SUB_X, 0, 0, 0),
        op(JGE_K, 1, 0, PORTS_AT),
        if index == 0 { ACCEPT } else { REJECT },
    ]);
    for word in 0..8 {
        fold_word(program, ADDRESSES_AT + 4 * word);
    }
    // Ports, when TCP or UDP follows and is there.
    program.extend([
        op(LDX_MEM, 0, 0, M_OUTER_LEN),
        op(LD_B_IND, 0, 0, NEXT_HEADER_AT),
        op(JEQ, 1, 0, 6),
        op(JEQ, 0, 9, 17),
        op(LD_LEN, 0, 0, 0),
        op(SUB_X, 0, 0, 0),
        op(JGE_K, 0, 6, PORTS_AT + 4),
    ]);
    fold_word(program, PORTS_AT);
    program.push(op(LD_MEM, 0, 0, M_HASH));
    let shift = |by| [op(TAX, 0, 0, 0), op(RSH_K, 0, 0, by), op(XOR_X, 0, 0, 0)];
    for (by, multiplier) in MIX {
        program.extend(shift(by));
        program.push(op(MUL_K, 0, 0, multiplier));
    }
    program.extend(shift(MIX_LAST_SHIFT));
    program.extend([op(MOD_K, 0, 0, count), op(JEQ, 1, 0, index), REJECT]);
}

/// hash = (hash ^ word) * multiplier: six instructions.
fn fold_word(program: &mut Vec<Instruction>, at: u32) {
    program.extend([
        op(LDX_MEM, 0, 0, M_OUTER_LEN),
        op(LD_W_IND, 0, 0, at),
        op(LDX_MEM, 0, 0, M_HASH),
        op(XOR_X, 0, 0, 0),
        op(MUL_K, 0, 0, HASH_MULTIPLIER),
        op(ST, 0, 0, M_HASH),
    ]);
}

/// The shard of an outer packet, computed as the filter does: the oracle for tests, and for tools that ask "which worker?".
pub fn shard_of(outer: &[u8], key: u32, count: usize) -> usize {
    let word = |at: usize| {
        outer
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let outer_len = outer.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if outer.len() < outer_len + PORTS_AT as usize || count < 2 {
        return 0;
    }
    let mut hash = key;
    let mut fold = |at: u32| hash = (hash ^ word(outer_len + at as usize)).wrapping_mul(HASH_MULTIPLIER);
    (0..8).for_each(|i| fold(ADDRESSES_AT + 4 * i));
    let next_header = outer[outer_len + NEXT_HEADER_AT as usize];
    if matches!(next_header, 6 | 17) && outer.len() >= outer_len + PORTS_AT as usize + 4 {
        fold(PORTS_AT);
    }
    for (by, multiplier) in MIX {
        hash = (hash ^ (hash >> by)).wrapping_mul(multiplier);
    }
    (hash ^ (hash >> MIX_LAST_SHIFT)) as usize % count
}

/// Loads the steering program of the TUN queues: the flow hash of an inner packet; the kernel takes it modulo the
/// number of queues.
///
/// # Errors
/// What `bpf(2)` says: programs may be loaded with CAP_BPF or as root only.
pub(crate) fn load_tun_steering() -> io::Result<OwnedFd> {
    load_socket_program(&steering_program(random_key()))
}

/// A key nobody outside can know.
pub fn random_key() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let hash = ahash::RandomState::new().build_hasher().finish();
    u32::try_from(hash >> 32).unwrap_or_default() | 1
}

/// An instruction of eBPF: opcode 8, dst 4, src 4, offset 16, immediate 32 (linux/bpf.h).
pub(super) fn insn(code: u64, dst: u64, src: u64, off: u64, imm: u32) -> u64 {
    code | dst << 8 | src << 12 | off << 16 | u64::from(imm) << 32
}

/// eBPF, one instruction per word.
fn steering_program(key: u32) -> Vec<u64> {
    const R0: u64 = 0;
    const R1: u64 = 1;
    const R6: u64 = 6;
    const R7: u64 = 7;
    let load_word = |at: u32| insn(0x20, 0, 0, 0, at); // LD_ABS W: r0 = packet word, or exit with 0
    let load_byte = |at: u32| insn(0x30, 0, 0, 0, at); // LD_ABS B
    let fold = |at: u32| {
        [
            load_word(at),
            insn(0xac, R7, R0, 0, 0),
            insn(0x24, R7, 0, 0, HASH_MULTIPLIER),
        ]
    };
    let mut program = vec![
        insn(0xbf, R6, R1, 0, 0),  // r6 = skb, as LD_ABS wants it
        insn(0xb4, R7, 0, 0, key), // w7 = key
    ];
    for word in 0..8 {
        program.extend(fold(ADDRESSES_AT + 4 * word));
    }
    program.push(load_byte(NEXT_HEADER_AT));
    program.push(insn(0x15, R0, 0, 1, 6)); // if r0 == TCP goto ports
    program.push(insn(0x55, R0, 0, 3, 17)); // if r0 != UDP goto end
    program.extend(fold(PORTS_AT));
    // w7 ^= w7 >> by
    let shift = |by| {
        [
            insn(0xbc, R0, R7, 0, 0),
            insn(0x74, R0, 0, 0, by),
            insn(0xac, R7, R0, 0, 0),
        ]
    };
    for (by, multiplier) in MIX {
        program.extend(shift(by));
        program.push(insn(0x24, R7, 0, 0, multiplier)); // w7 *= multiplier
    }
    program.extend(shift(MIX_LAST_SHIFT));
    program.push(insn(0xbc, R0, R7, 0, 0)); // w0 = w7
    program.push(insn(0x95, 0, 0, 0, 0)); // exit
    program
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD (linux/bpf.h).
#[repr(C)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

pub(super) fn load_socket_program(program: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
    let license = c"Dual MIT/GPL";
    let attr = ProgLoadAttr {
        prog_type: BPF_PROG_TYPE_SOCKET_FILTER,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `attr` is the kernel's layout for this command, its size is passed along, and the pointers in it are to
    // memory that outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoadAttr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just returned this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// A classic BPF machine, enough for our programs: what it accepts must be what `shard_of` says.
    fn run(program: &[Instruction], packet: &[u8], if_index: u32) -> bool {
        let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
        let mut memory = [0u32; 16];
        let word = |at: u64| {
            let at = usize::try_from(at).unwrap();
            packet
                .get(at..at + 4)
                .map(|b| u32::from_be_bytes(b.try_into().unwrap()))
        };
        loop {
            let insn = program[pc];
            pc += 1;
            let mut jump = |taken: bool| pc += usize::from(if taken { insn.jt } else { insn.jf });
            match u32::from(insn.code) {
                RET_K => return insn.k != 0,
                LD_W_ABS if insn.k == SKF_AD_IFINDEX => a = if_index,
                LD_W_ABS => match word(u64::from(insn.k)) {
                    Some(value) => a = value,
                    None => return false,
                },
                LD_W_IND => match word(u64::from(insn.k) + u64::from(x)) {
                    Some(value) => a = value,
                    None => return false,
                },
                LD_B_IND => match packet.get((insn.k + x) as usize) {
                    Some(value) => a = u32::from(*value),
                    None => return false,
                },
                LDX_MSH => x = u32::from(packet[insn.k as usize] & 0xf) * 4,
                LD_LEN => a = u32::try_from(packet.len()).unwrap(),
                LD_IMM => a = insn.k,
                LD_MEM => a = memory[insn.k as usize],
                LDX_MEM => x = memory[insn.k as usize],
                ST => memory[insn.k as usize] = a,
                STX => memory[insn.k as usize] = x,
                TAX => x = a,
                XOR_X => a ^= x,
                SUB_X => a = a.wrapping_sub(x),
                MUL_K => a = a.wrapping_mul(insn.k),
                RSH_K => a >>= insn.k,
                MOD_K => a %= insn.k,
                JEQ => jump(a == insn.k),
                JGE_K => jump(a >= insn.k),
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn outer(next_header: u8, inner_len: usize, seed: u8) -> Vec<u8> {
        let mut packet = vec![0u8; 20 + inner_len];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 0, 0, 1]);
        for (i, byte) in packet[20..].iter_mut().enumerate() {
            *byte = seed.wrapping_mul(31).wrapping_add(u8::try_from(i % 251).unwrap());
        }
        if inner_len > 6 {
            packet[26] = next_header;
        }
        packet
    }

    /// FAULTS 32: exactly one shard keeps a packet, for any number of workers, any length and any protocol.
    #[test]
    fn every_packet_has_exactly_one_shard() {
        for count in [1usize, 2, 3, 4, 8, 13] {
            let programs: Vec<_> = (0..count)
                .map(|index| {
                    receive_filter(
                        &Shard {
                            index,
                            count,
                            key: 77,
                        },
                        &[],
                    )
                })
                .collect();
            for inner_len in (0..60).chain([1280]) {
                for next_header in [6, 17, 58, 44, 0] {
                    for seed in 0..8 {
                        let packet = outer(next_header, inner_len, seed);
                        let keepers: Vec<_> = (0..count).filter(|i| run(&programs[*i], &packet, 3)).collect();
                        assert_eq!(
                            keepers,
                            [shard_of(&packet, 77, count)],
                            "{count} {inner_len} {next_header}"
                        );
                    }
                }
            }
        }
    }

    /// Programs take every second port, and servers have one: no shard may stay empty for that.
    #[test]
    fn flows_spread_evenly_whatever_the_step_of_their_ports() {
        for step in [1u16, 2, 4, 8, 256] {
            let mut counts = [0; 4];
            for n in 0..64u16 {
                let mut packet = outer(6, 100, 1);
                packet[60..62].copy_from_slice(&(40_000 + n * step).to_be_bytes());
                counts[shard_of(&packet, 0x1234_5677, 4)] += 1;
            }
            assert!(
                counts.iter().all(|count| (6..=28).contains(count)),
                "step {step}: {counts:?}"
            );
        }
    }

    #[test]
    fn ports_spread_flows_and_fragments_stay_together() {
        let shard = |next_header, port: u8| {
            let mut packet = outer(next_header, 100, 1);
            packet[63] = port;
            shard_of(&packet, 5, 4)
        };
        let tcp: std::collections::HashSet<_> = (0..64).map(|port| shard(6, port)).collect();
        assert_eq!(tcp.len(), 4);
        let fragments: std::collections::HashSet<_> = (0..64).map(|port| shard(44, port)).collect();
        assert_eq!(fragments.len(), 1);
    }

    /// REQUIREMENTS D2: a locator counts only on its own interface; other destinations are for the verdict to count.
    #[test]
    fn a_locator_is_bound_to_its_interface() {
        let locator = Locator {
            addr: Ipv4Addr::new(10, 0, 0, 1),
            if_index: 3,
        };
        let program = receive_filter(
            &Shard {
                index: 0,
                count: 1,
                key: 1,
            },
            &[locator],
        );
        let ours = outer(6, 60, 1);
        assert!(run(&program, &ours, 3));
        assert!(!run(&program, &ours, 4));
        let mut other = ours.clone();
        other[19] = 2;
        assert!(run(&program, &other, 4));
    }

    /// The steering program passes the kernel's verifier where programs may be loaded at all.
    #[test]
    fn the_kernel_accepts_the_steering_program() {
        match load_tun_steering() {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        }
    }
}
