/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs use of the kernel: types, the context of a classifier, helpers by their numbers (linux/bpf.h).
 *
 * Written out here, as far as needed, so that the programs are compiled by clang alone: no header of the kernel or of
 * libbpf need be installed, and none of another version can be in the way. All of this is the kernel's stable interface.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* Verified once by itself, wherever it is called from: that keeps the work of the verifier small. */
#define FUNCTION __attribute__((noinline))
/* So that the compiler lays what is done for most packets in one row. */
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define NULL ((void *)0)

/* Definitions of maps are types: the loader reads them from BTF. */
#define UINT(name, value) int (*name)[value]
#define TYPE(name, type) typeof(type) *name

#define BPF_MAP_TYPE_ARRAY 2
#define BPF_F_MMAPABLE 1024

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_HLEN 14
#define VLAN_ID 0x0fff /* of a tag: which VLAN */
#define PACKET_HOST 0

/* Verdicts of a classifier: on to whoever is next, away, elsewhere. */
#define TC_ACT_UNSPEC (-1)
#define TC_ACT_SHOT 2

/* What helpers answer to flags that they do not know. */
#define EINVAL 22
/* What bpf_skb_adjust_room answers to one header more around a packet that is said to have one. */
#define EALREADY 114

#define AF_INET6 10
#define BPF_FIB_LKUP_RET_UNSUPP_LWT 6

#define BPF_F_INGRESS 1
#define BPF_F_RECOMPUTE_CSUM 1

#define BPF_ADJ_ROOM_MAC 1
#define BPF_F_ADJ_ROOM_FIXED_GSO 1
#define BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 2
/* Linux 6.3. */
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV4 128
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV6 256

/* The context of a classifier, as far as it is read. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/* A question about routing, and the answer: where would the kernel forward a packet that came in by `ifindex`? Numbers of the packet as
 * they lie in it. */
struct bpf_fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__u16 sport;
	__u16 dport;
	__u16 tot_len;
	__u32 ifindex;
	__u32 flowinfo;
	__u64 src_high;
	__u64 src_low;
	__u64 dst_high;
	__u64 dst_low;
	__u32 vlan;
	__u8 smac[6];
	__u8 dmac[6];
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 at, const void *from, __u32 len,
				   __u64 flags) = (void *)9;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 at, void *to, __u32 len) = (void *)26;
static long (*bpf_skb_change_proto)(struct __sk_buff *skb, __u16 proto, __u64 flags) = (void *)31;
static long (*bpf_skb_change_head)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)43;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 len_diff, __u32 mode, __u64 flags) = (void *)50;
static long (*bpf_fib_lookup)(struct __sk_buff *skb, struct bpf_fib_lookup *about, int len, __u32 flags) = (void *)69;
static long (*bpf_check_mtu)(struct __sk_buff *skb, __u32 ifindex, __u32 *mtu, __s32 len_diff, __u64 flags) = (void *)163;
static long (*bpf_redirect_neigh)(__u32 ifindex, void *params, int plen, __u64 flags) = (void *)152;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ntoh16(x) __builtin_bswap16(x)
#define ntoh32(x) __builtin_bswap32(x)
#define ntoh64(x) __builtin_bswap64(x)
#else
#define ntoh16(x) (x)
#define ntoh32(x) (x)
#define ntoh64(x) (x)
#endif
#define hton16 ntoh16
#define hton32 ntoh32

/* Read once, and now. */
#define ONCE(place) (*(volatile typeof(place) *)&(place))
