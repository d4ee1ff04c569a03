/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Where an inner packet goes, and under which header: `engine/src/path/encap.rs` with `isatap::{egress, loops, mtu, tos, mark}`.
 *
 * Whatever `path` would not send is left to a worker, which drops it with its reason or tells the sender.
 */
#pragma once

#include "count.h"
#include "flows.h"
#include "header.h"
#include "tables.h"

/* The halves of the product of two numbers, one xor the other (`isatap::mark::fold`). */
ALWAYS_INLINE __u64 fold(__u64 a, __u64 b)
{
	__u64 a0 = (__u32)a, a1 = a >> 32, b0 = (__u32)b, b1 = b >> 32;
	__u64 low = a0 * b0, left = a1 * b0, right = a0 * b1, high = a1 * b1;
	__u64 middle = (low >> 32) + (__u32)left + (__u32)right;

	return (high + (left >> 32) + (right >> 32) + (middle >> 32)) ^ (a * b);
}

/* The identification of packets with DF (`isatap::mark::Mark::identification`). */
ALWAYS_INLINE __u16 marked(struct config *config, __u32 src, __u32 dst)
{
	__u64 pair = (__u64)src << 32 | dst;
	__u64 mixed = fold(fold(pair ^ config->mark[0], config->mark[1] | 1), 0x9e3779b97f4a7c15ULL);
	__u16 id = (__u16)(mixed >> 48) ^ (__u16)(mixed >> 32);

	return id ? id : 1;
}

/* The identification of packets that may be fragmented: none twice between two addresses until 65536 have passed. Each
 * segment gets one (RFC 6864 4.2); the kernel counts on from the first when it cuts a superpacket. */
ALWAYS_INLINE __u16 counted(const struct generation *generation, __u32 src, __u32 dst, __u32 segments)
{
	__u64 hash = mix(generation->key ^ ((__u64)src << 32 | dst));
	__u32 at = hash % IDENTS;
	__u32 *place = bpf_map_lookup_elem(&isatap_idents, &at);
	__u32 next = place ? __sync_fetch_and_add(place, segments) : 0;

	return next + (hash >> 32);
}

/* The hash of a flow (`path::flow::hash`). */
ALWAYS_INLINE __u64 flow_hash(const struct address *src, const struct address *dst, __u32 ports)
{
	__u64 hash = mix(src->high);

	hash = mix(hash ^ src->low);
	hash = mix(hash ^ dst->high);
	hash = mix(hash ^ dst->low);
	return mix(hash ^ ports);
}

/* `path::encap::next_hop`: 0 and the IPv4 address in `flow->peer`, or what to do with the packet. */
FUNCTION int next_hop(struct config *config, struct address *src, struct address *dst, __u32 ports,
		      struct flow *flow)
{
	struct found found = {};
	__u32 configured = 1, hop;

	if (!config || !src || !dst || !flow)
		return LEAVE(CAUSE_RULES);
	if (!route_of(config, dst, &found)) {
		found.extra = config->default_kind;
		found.value = config->default_hop;
	}
	flow->by_ports = found.extra == HOP_GROUP;
	if (found.extra == HOP_GROUP) {
		__u64 slot = flow_hash(src, dst, ports) >> 32;

		if (!find(config, TAG_GROUP_SLOT, found.value, slot % GROUP_SLOTS, &found))
			return LEAVE(CAUSE_REFUSED);
	} else if (found.extra == HOP_ON_LINK) {
		if (!is_isatap(dst))
			return LEAVE(CAUSE_REFUSED);
		found.value = dst->low;
		configured = 0;
	} else if (found.extra != HOP_VIA) {
		return LEAVE(CAUSE_REFUSED);
	}
	hop = found.value;
	if (is_no_host(hop) || is_locator(config, hop) || is_broadcast(config, hop))
		return LEAVE(CAUSE_REFUSED);
	if (!configured && !is_site_host(config, hop) && !is_router(config, hop))
		return LEAVE(CAUSE_REFUSED);
	flow->peer = hop;
	return 0;
}

/* `fib::Rulebook::source_for`: the locator that the source embeds, else the preferred one; 0 without any. */
FUNCTION int source_for(struct config *config, struct address *src, __u32 *locator)
{
	if (!config || !src || !locator || config->locator_count == 0)
		return 0;
	*locator = config->locators[0].addr;
	if (config->locator_count > 1 && is_isatap(src) && is_locator(config, src->low))
		*locator = src->low;
	return 1;
}

/* `isatap::mtu::MtuPolicy::decide_on_path`: how large a packet to `flow->peer` may be, and whether DF is set. */
FUNCTION int limit_size(struct config *config, __u32 peer, __u32 device_mtu, struct flow *flow)
{
	struct found path = {};

	if (!config || !flow)
		return LEAVE(CAUSE_RULES);
	if (!find(config, TAG_PATH, flow->peer, 0, &path))
		path.value = config->other_paths;
	__u32 limit = config->mtu, link = path.value & 0xffff, dont_fragment = 0;

	if (peer & PEER_DYNAMIC) {
		__u32 path_mtu = path.value >> 16;
		__u32 room = path_mtu > OUTER_LEN ? path_mtu - OUTER_LEN : 0;

		dont_fragment = 1;
		if (room < MIN_MTU) {
			limit = MIN_MTU;
			dont_fragment = 0;
		} else if (room < limit) {
			limit = room;
		}
	}
	if (device_mtu < link)
		link = device_mtu;
	flow->limit = limit;
	flow->link_limit = link > OUTER_LEN ? link - OUTER_LEN : 0;
	flow->dont_fragment = dont_fragment;
	return 0;
}

/* What is asked of the destination: 0 and the next hop, or what to do with the packet. */
FUNCTION int find_hop(struct config *config, struct inner *inner, __u32 ports, struct flow *flow)
{
	struct address src, dst;

	if (!config || !inner || !flow)
		return LEAVE(CAUSE_RULES);
	src = source_of(inner);
	dst = destination_of(inner);
	switch (kind_of(&dst)) {
	case MULTICAST:
		return LEAVE(CAUSE_MULTICAST);
	case UNSPECIFIED:
	case FORBIDDEN:
		return LEAVE(CAUSE_REFUSED);
	default:
		break;
	}
	switch (kind_of(&src)) {
	case UNSPECIFIED:
	case FORBIDDEN:
	case MULTICAST:
		return LEAVE(CAUSE_REFUSED);
	default:
		break;
	}
	return next_hop(config, &src, &dst, ports, flow);
}

/* Where neighbours are: `layout::NeighbourPlace::of`. Nobody is harmed by one who chooses addresses that meet in one place: the way by the
 * kernel's own tables is only longer. */
ALWAYS_INLINE void find_neighbour(__u32 addr, struct flow *flow)
{
	__u32 zero = 0, at = mix((__u64)addr << 32 | flow->device) & (NEIGHBOURS - 1);
	struct neighbour *neighbour = bpf_map_lookup_elem(&isatap_neighbours, &at);
	struct generation *generation = bpf_map_lookup_elem(&isatap_gen, &zero);

	flow->has_link = 0;
	flow->doubted = 0;
	flow->link = (struct link){};
	if (!neighbour || !generation || neighbour->addr != addr || neighbour->device != flow->device)
		return;
	flow->link = neighbour->link;
	flow->doubted = neighbour->doubted;
	/* Not while places change: this one may be half written. */
	keep_order();
	flow->has_link = ONCE(generation->neighbours_writing) == ONCE(generation->neighbours);
}

/* What is asked of the source, and of the way to the next hop: 0, or what to do with the packet. */
FUNCTION int find_way(struct config *config, struct inner *inner, struct flow *flow)
{
	struct found peer = {}, egress = {};
	struct address src;
	__u32 locator = 0, hop;

	if (!config || !inner || !flow)
		return LEAVE(CAUSE_RULES);
	src = source_of(inner);
	hop = flow->peer;
	if (config->flags & FLAG_LOOP_CHECKS && embeds_ours(config, &src) && !is_own(config, &src)) {
		struct found route = {};

		route_of(config, &src, &route);
		if (route.extra != HOP_ON_LINK)
			return LEAVE(CAUSE_REFUSED);
	}
	if (!source_for(config, &src, &locator))
		return LEAVE(CAUSE_REFUSED);
	/* Which device leads there is known for some IPv4 networks; the others are a worker's, that is, the kernel's to route. */
	if (!prefix_of(config, TAG_EGRESS, hop, &egress) || !egress.value)
		return LEAVE(CAUSE_ROUTE);
	if (!prefix_of(config, TAG_PEER, hop, &peer))
		peer.value = config->peers;
	flow->locator = locator;
	flow->device = egress.value;
	flow->dscp = config->dscp;
	flow->ttl = config->ttl;
	flow->id = marked(config, locator, hop);
	flow->compat = (peer.value & PEER_COMPAT) != 0;
	find_neighbour(egress.more ? egress.more : hop, flow);
	return limit_size(config, peer.value, egress.extra, flow);
}

/* What the rules say of a packet whose ports, if any, are these: 0, and `flow` is about packets like it; or what to do with the packet. */
ALWAYS_INLINE int route_packet(struct config *config, struct inner *inner, __u32 ports, struct flow *flow)
{
	int verdict;

	flow->now = 0;
	flow->ports = ports;
	flow->nested = (config->flags & FLAG_NESTED) != 0;
	verdict = find_hop(config, inner, ports, flow);
	if (verdict)
		return verdict;
	verdict = check_next_header(flow, inner->next_header, LEAVE(CAUSE_REFUSED));
	if (verdict)
		return verdict;
	return find_way(config, inner, flow);
}

/* The outer header of a packet of `len` bytes. */
ALWAYS_INLINE void write_outer(const struct generation *generation, struct inner *inner, __u32 len, __u32 segments,
			       struct flow *flow, struct outer *outer)
{
	__u32 locator = flow->locator, hop = flow->peer, dont_fragment = flow->dont_fragment;
	__u8 class = traffic_class(inner);
	__u8 ttl = flow->ttl ? flow->ttl : inner->hop_limit;
	__u8 dscp = flow->dscp == DSCP_INHERIT ? class & 0xfc : flow->dscp;

	outer->version_ihl = 0x45;
	outer->tos = dscp | (flow->compat ? 0 : class & 3);
	outer->total_len = hton16(OUTER_LEN + len);
	outer->id = hton16(dont_fragment ? flow->id : counted(generation, locator, hop, segments));
	outer->fragment = dont_fragment ? hton16(DONT_FRAGMENT) : 0;
	outer->ttl = ttl ? ttl : 1;
	outer->protocol = PROTO_IPV6;
	outer->checksum = 0;
	outer->src = hton32(locator);
	outer->dst = hton32(hop);
	outer->checksum = ~outer_sum(outer);
}
