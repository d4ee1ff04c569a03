/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The headers of both sides, and what an address is (`engine/src/wire`, `isatap::classify`, `isatap::iid`). */
#pragma once

#include "kernel.h"

#define PROTO_IPV4 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_GRE 47
#define PROTO_ICMPV6 58

#define OUTER_LEN 20
#define INNER_LEN 40

/* Ethernet (IEEE 802.3): destination, source, and the type. */
struct link {
	__u8 bytes[ETH_HLEN];
};

/* IPv4 without options (RFC 791 3.1). */
struct outer {
	__u8 version_ihl;
	__u8 tos;
	__u16 total_len;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 src;
	__u32 dst;
};

/* IPv6 (RFC 8200 3), as it lies in the packet. */
struct inner {
	__u8 version_class;
	__u8 class_label;
	__u16 label;
	__u16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	__u64 src_high;
	__u64 src_low;
	__u64 dst_high;
	__u64 dst_low;
};

/* An IPv6 address as numbers. */
struct address {
	__u64 high;
	__u64 low;
};

/* Reads `place` from `at` bytes behind the network header, which is `link_len` bytes behind the begin of the packet: 0, or an error
 * and zeros. What lies in one piece is read where it is; the helper, which costs more than all of the reading, is for what does not, and
 * for processors that read no number from just anywhere. */
#ifdef UNALIGNED
#define READ(skb, link_len, at, place)                                                                          \
	({                                                                                                      \
		void *from = (void *)(long)(skb)->data + (link_len) + (at);                                     \
		long error = 0;                                                                                 \
		if (!UNLIKELY(from + sizeof(place) > (void *)(long)(skb)->data_end))                            \
			(place) = *(typeof(place) *)from;                                                       \
		else                                                                                            \
			error = bpf_skb_load_bytes(skb, (link_len) + (at), &(place), sizeof(place));            \
		error;                                                                                          \
	})
#else
#define READ(skb, link_len, at, place) bpf_skb_load_bytes(skb, (link_len) + (at), &(place), sizeof(place))
#endif

#define FRAGMENT_BITS 0x3fff /* MF, and the offset */
#define DONT_FRAGMENT 0x4000

ALWAYS_INLINE struct address source_of(const struct inner *inner)
{
	return (struct address){ ntoh64(inner->src_high), ntoh64(inner->src_low) };
}

ALWAYS_INLINE struct address destination_of(const struct inner *inner)
{
	return (struct address){ ntoh64(inner->dst_high), ntoh64(inner->dst_low) };
}

ALWAYS_INLINE __u8 traffic_class(const struct inner *inner)
{
	return inner->version_class << 4 | inner->class_label >> 4;
}

/* The sum of a header without options, as an Internet checksum adds it up: 0xffff when the checksum in it is right. */
ALWAYS_INLINE __u32 outer_sum(const struct outer *outer)
{
	const __u32 *words = (const __u32 *)outer;
	__u64 sum = 0;

	/* Two at once: what they carry over is added below. */
#pragma unroll
	for (int i = 0; i < OUTER_LEN / 4; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Kinds of addresses: those of sources, then those of destinations. */
enum kind { UNSPECIFIED, FORBIDDEN, LINK_LOCAL, GLOBAL, MULTICAST };

ALWAYS_INLINE int is_link_local(const struct address *address)
{
	return address->high >> 54 == 0xfe80 >> 6;
}

ALWAYS_INLINE int is_multicast(const struct address *address)
{
	return address->high >> 56 == 0xff;
}

ALWAYS_INLINE enum kind kind_of(const struct address *address)
{
	/* 2000::/3, nearly all there is. */
	if (address->high >> 61 == 1)
		return GLOBAL;
	if (is_multicast(address))
		return MULTICAST;
	if (address->high == 0) {
		if (address->low == 0)
			return UNSPECIFIED;
		/* ::/96 and ::ffff:0:0/96 */
		if (address->low >> 32 == 0 || address->low >> 32 == 0xffff)
			return FORBIDDEN;
	}
	if (is_link_local(address))
		return address->high == 0xfe80ULL << 48 ? LINK_LOCAL : FORBIDDEN;
	return GLOBAL;
}

/* 0/8, 127/8, 224/4 and 240/4. */
ALWAYS_INLINE int is_no_host(__u32 v4)
{
	__u32 first = v4 >> 24;
	return first == 0 || first == 127 || first >= 224;
}

/* Whether the address embeds an IPv4 address in ISATAP's format (RFC 5214 6.1): its lower half is that, then. */
ALWAYS_INLINE int is_isatap(const struct address *address)
{
	return ((__u32)(address->low >> 32) & ~0x02000000U) == 0x00005efe;
}

ALWAYS_INLINE int is_6to4(const struct address *address)
{
	return address->high >> 48 == 0x2002;
}

/* Most packets: no other header follows, and ports are first in this one. */
ALWAYS_INLINE int has_ports(__u8 next_header)
{
	return next_header == PROTO_TCP || next_header == PROTO_UDP;
}

/* Whether the chain goes on behind a header of this number (`wire::ext::is_extension`). */
ALWAYS_INLINE int is_extension(__u8 next_header)
{
	return next_header == 0 || next_header == 43 || next_header == 44 || next_header == 51 || next_header == 60;
}

ALWAYS_INLINE int is_tunnel(__u8 next_header)
{
	return next_header == PROTO_IPV4 || next_header == PROTO_IPV6 || next_header == PROTO_GRE;
}

/* Router solicitation to redirect (RFC 4861 4): neighbour discovery is a worker's, and control's. */
ALWAYS_INLINE int is_discovery(__u8 type)
{
	return type >= 133 && type <= 137;
}
