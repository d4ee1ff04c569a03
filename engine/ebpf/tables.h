/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Looking things up: one hash table holds every set and every prefix table of a generation (`engine/src/ebpf/table.rs`).
 *
 * A look-up reads at most MAX_PROBES entries: the engine places them so, and nobody who chooses addresses can make it longer.
 */
#pragma once

#include "header.h"
#include "maps.h"

struct found {
	__u32 value;
	__u32 extra;
	__u32 more;
};

/* A bijection of 64 bits (the finaliser of MurmurHash3), as `fib::group::mix`. */
ALWAYS_INLINE __u64 mix(__u64 bits)
{
	bits ^= bits >> 33;
	bits *= 0xff51afd7ed558ccdULL;
	bits ^= bits >> 33;
	bits *= 0xc4ceb9fe1a85ec53ULL;
	return bits ^ bits >> 33;
}

FUNCTION int find(struct config *config, __u32 tag, __u64 high, __u64 low, struct found *found)
{
	if (!config || !found)
		return 0;
	__u64 home = mix(mix(config->key ^ tag ^ high) ^ low);

	for (__u32 probe = 0; probe < MAX_PROBES; probe++) {
		__u32 at = config->base + ((home + probe) & config->mask);
		struct slot *slot = bpf_map_lookup_elem(&isatap_slots, &at);

		if (!slot || slot->tag == 0)
			return 0;
		if (slot->tag == tag && slot->high == high && slot->low == low) {
			found->value = slot->value;
			found->extra = slot->extra;
			found->more = slot->more;
			return 1;
		}
	}
	return 0;
}

ALWAYS_INLINE int contains(struct config *config, __u32 tag, __u64 high, __u64 low)
{
	struct found found = {};
	return find(config, tag, high, low, &found);
}

/* The longest route for an address: HOP_ in `extra`, which router or group in `value`; HOP_NONE without one. */
FUNCTION int route_of(struct config *config, struct address *address, struct found *found)
{
	if (!config || !address || !found)
		return 0;
	for (__u32 level = 0; level < MAX_ROUTE_LEVELS; level++) {
		if (level >= config->route_levels)
			break;
		__u32 len = config->route_lens[level];
		__u64 high = address->high, low = 0;

		if (len == 0)
			high = 0;
		else if (len < 64)
			high &= ~0ULL << ((64 - len) & 63);
		else if (len > 64)
			low = len >= 128 ? address->low : address->low & ~0ULL << ((128 - len) & 63);
		if (find(config, TAG_ROUTE | len << 8, high, low, found))
			return 1;
	}
	found->extra = HOP_NONE;
	found->value = 0;
	return 0;
}

/* The longest prefix of one of the tables of IPv4 prefixes. */
FUNCTION int prefix_of(struct config *config, __u32 tag, __u32 v4, struct found *found)
{
	if (!config || !found)
		return 0;
	__u32 levels = tag == TAG_SITE ? config->site_levels : tag == TAG_PEER ? config->peer_levels :
										    config->egress_levels;

	for (__u32 level = 0; level < MAX_V4_LEVELS; level++) {
		if (level >= levels)
			break;
		__u32 len = tag == TAG_SITE ? config->site_lens[level] : tag == TAG_PEER ? config->peer_lens[level] :
											       config->egress_lens[level];
		__u32 masked = len == 0 ? 0 : v4 & (~0U << ((32 - len) & 31));

		if (find(config, tag | len << 8, masked, 0, found))
			return 1;
	}
	return 0;
}

/* Which of our locators an address is, counted from 1; 0: none. */
FUNCTION int is_locator(struct config *config, __u32 v4)
{
	if (!config)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MAX_LOCATORS; i++) {
		if (i >= config->locator_count)
			break;
		if (config->locators[i].addr == v4)
			return i + 1;
	}
	return 0;
}

ALWAYS_INLINE int is_router(struct config *config, __u32 v4)
{
	return contains(config, TAG_ROUTER, v4, 0);
}

ALWAYS_INLINE int is_broadcast(struct config *config, __u32 v4)
{
	return contains(config, TAG_BROADCAST, v4, 0);
}

ALWAYS_INLINE int is_own(struct config *config, struct address *address)
{
	return contains(config, TAG_OWN, address->high, address->low);
}

ALWAYS_INLINE int is_site_host(struct config *config, __u32 v4)
{
	struct found found = {};
	return config->flags & FLAG_ANY_SITE || prefix_of(config, TAG_SITE, v4, &found);
}

/* Whether an address embeds one of our locators in a tunnel's format: ISATAP's, or that of 6to4 unless this machine is the 6to4
 * router that it names (`isatap::loops::embeds_ours`). */
FUNCTION int embeds_ours(struct config *config, struct address *address)
{
	if (!config || !address)
		return 0;
	if (is_isatap(address) && is_locator(config, address->low))
		return 1;
	if (is_6to4(address)) {
		__u32 end = address->high >> 16;
		return is_locator(config, end) && !contains(config, TAG_OWN_6TO4, end, 0);
	}
	return 0;
}
