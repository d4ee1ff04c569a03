/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs and the engine share: the rules of two generations, and counters. The engine has all of it mapped into its
 * memory, writes and reads there, and makes no system call for it.
 *
 * A Rulebook becomes one `config` and the entries of one hash table, in the half of the maps that is not in use; then
 * `active` names it. Layouts are those of `engine/src/ebpf/layout.rs`; numbers come from there as `numbers.h`.
 */
#pragma once

#include "header.h"
#include "numbers.h"

/* Which generation of the rules counts, and which one of the neighbours: both together, as a packet reads them, are `now`. What is
 * being written runs ahead: `writing` while the other half is, `neighbours_writing` while places change. And what each packet has to
 * know before it knows of which flow it is. */
struct generation {
	__u32 active; /* 0: there are no rules yet */
	__u32 neighbours;
	__u32 writing;
	__u32 neighbours_writing;
	__u32 link_len; /* bytes of link header that packets of the TUN interface have: none, but where packets are tried out */
	__u32 preemptible; /* packets of one CPU may interrupt each other's: a PREEMPT_RT kernel */
	__u64 key; /* of the hash of flows */
};

/* An IPv4 address of ours that the tunnel ends at. */
struct locator {
	__u32 addr;
	__u32 device; /* where packets for it arrive; 0: anywhere */
};

/* Prefix lengths in use in one of the tables, longest first. */
struct levels {
	__u32 count;
	__u8 lens[MAX_LEVELS];
};

/* The fixed part of the rules. */
struct config {
	__u32 flags;
	__u32 mtu; /* largest inner packet */
	__u32 ttl; /* 0: the inner hop limit */
	__u32 dscp; /* as a TOS octet; DSCP_INHERIT: the inner one */
	__u32 locator_count;
	__u32 padding;
	__u64 key; /* of the hash */
	struct locator locators[MAX_LOCATORS]; /* the preferred one first */
	__u64 mark[2];
	__u32 peers; /* PEER_ flags of those in no network of their own */
	__u32 other_paths; /* path MTU << 16 | link MTU of those not known by address */
	__u32 default_kind; /* HOP_, of what no route covers */
	__u32 default_hop;
	__u32 base; /* of this generation's half of the table */
	__u32 mask; /* its length - 1 */
	struct levels levels[PREFIX_TABLES]; /* by tag, from TAG_ROUTE on */
} __attribute__((aligned(64)));

/* One entry of the table: under a tag (which set or table, and which prefix length) and up to 128 bits of key. */
struct slot {
	__u64 high;
	__u64 low;
	__u32 tag; /* 0: empty */
	__u32 value;
	__u32 extra;
	__u32 more;
};

/* A host, or a gateway, that the kernel would send to, and what frames to it begin with. All zero: there is none. */
struct neighbour {
	__u32 addr;
	__u32 device;
	struct link link;
	__u8 doubted; /* the kernel asks it once it has a packet for it, and not before */
	__u8 unused[9];
};

/* What the rules of one generation said of packets between two addresses: where they go, or that they may enter, and how. One CPU
 * remembers it, so that the next packet reads one or two lines of memory and no rules. */
struct flow {
	__u64 src_high; /* as they lie in the packet */
	__u64 src_low;
	__u64 dst_high;
	__u64 dst_low;
	__u64 now; /* generation of the rules, and of neighbours where packets leave; 0: nothing is remembered here */
	__u32 peer; /* the IPv4 address at the other end ... */
	__u32 locator; /* ... and at ours */
	__u32 device; /* where packets are redirected to */
	union {
		__u32 ports; /* of packets that leave, where `by_ports` */
		__u32 from; /* the device that packets come from */
	};
	__u16 limit; /* largest inner packet, or segment, that is not too big */
	__u8 nested; /* inner tunnel packets are carried */
	union {
		__u8 by_ports; /* of packets that leave: the next hop is a member of a group */
		__u8 to_segmenter; /* of packets that come in: the last superpacket was to go on by a device that cuts tunnelled ones itself */
	};
	/* The rest is of packets that leave. */
	__u16 link_limit; /* largest that the device takes whole */
	__u8 dont_fragment;
	__u8 has_link; /* the neighbour is known ... */
	__u16 id; /* the identification, where `dont_fragment` */
	__u16 dscp; /* as in `config` */
	__u8 ttl; /* as in `config` */
	__u8 compat; /* the outer ECN field is cleared */
	__u8 doubted; /* ... but the first packet to it is for the kernel to send */
	__u8 unused;
	struct link link;
	__u32 taken; /* a packet is at it, on a kernel where another one may come in between */
} __attribute__((aligned(64)));

/* Of one CPU, so that no two write to the same line. */
struct counters {
	__u64 packets[DIRECTIONS];
	__u64 bytes[DIRECTIONS];
	__u64 sampled[DIRECTIONS]; /* packets whose time was taken, carried or not: one for SAMPLE of `packets` */
	__u64 superpackets[DIRECTIONS]; /* of the packets, those that stand for several */
	__u64 segments[DIRECTIONS]; /* of the superpackets */
	__u64 passed[DIRECTIONS][CAUSES];
	__u64 drops[DIRECTIONS][REASONS];
	__u64 stays[DIRECTIONS][STAYS]; /* of the packets carried whose time was taken, by how long it took: see count.h */
} __attribute__((aligned(64)));

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE);
	UINT(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct generation);
} isatap_gen SEC(".maps");

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE);
	UINT(max_entries, 2);
	TYPE(key, __u32);
	TYPE(value, struct config);
} isatap_config SEC(".maps");

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE);
	UINT(max_entries, 2); /* the loader says how many */
	TYPE(key, __u32);
	TYPE(value, struct slot);
} isatap_slots SEC(".maps");

struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE);
	UINT(max_entries, 1); /* the loader says how many */
	TYPE(key, __u32);
	TYPE(value, struct counters);
} isatap_counts SEC(".maps");

/* Identifications of packets that may be fragmented, counted apart for groups of addresses (RFC 6864 4.2). */
struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(max_entries, IDENTS);
	TYPE(key, __u32);
	TYPE(value, __u32);
} isatap_idents SEC(".maps");

/* Neighbours, each in the one place that its address and device hash to: of two for one place the later one has it, and packets to the
 * other go the longer way. */
struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE);
	UINT(max_entries, NEIGHBOURS);
	TYPE(key, __u32);
	TYPE(value, struct neighbour);
} isatap_neighbours SEC(".maps");

/* For each CPU FLOWS places for each direction. Nobody but the programs reads or writes them. */
struct {
	UINT(type, BPF_MAP_TYPE_ARRAY);
	UINT(map_flags, BPF_F_MMAPABLE); /* nobody maps it; but then places begin where lines of memory do */
	UINT(max_entries, 1); /* the loader says how many */
	TYPE(key, __u32);
	TYPE(value, struct flow);
} isatap_flows SEC(".maps");
