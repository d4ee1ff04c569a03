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

/* The bits of an address that a prefix of 0 to 128 bits has, in either half. By arithmetic alone: the verifier follows each branch of the
 * loop below through all that is left of it. */
ALWAYS_INLINE __u64 high_mask(__u32 len)
{
	return ~(~0ULL >> (len & 63)) | -(__u64)(((len >> 6) + 1) >> 1);
}

ALWAYS_INLINE __u64 low_mask(__u32 len)
{
	return (~(~0ULL >> (len & 63)) & -(__u64)(len >> 6 & 1)) | -(__u64)(len >> 7);
}

/* The longest prefix of a table that covers an address; `found` is left as it is without one. */
FUNCTION int longest(struct config *config, __u32 tag, struct address *address, struct found *found)
{
	if (!config || !address || !found)
		return 0;
	struct levels *levels = &config->levels[(tag - 1) & (PREFIX_TABLES - 1)];

	for (__u32 level = 0; level < MAX_LEVELS; level++) {
		if (level >= levels->count)
			break;
		__u32 len = levels->lens[level];

		if (find(config, tag | len << 8, address->high & high_mask(len), address->low & low_mask(len), found))
			return 1;
	}
	return 0;
}

/* The longest route for an address: HOP_ in `extra`, which router or group in `value`; HOP_NONE without one. */
ALWAYS_INLINE int route_of(struct config *config, struct address *address, struct found *found)
{
	found->extra = HOP_NONE;
	found->value = 0;
	return longest(config, TAG_ROUTE, address, found);
}

/* The longest prefix of one of the tables of IPv4 prefixes. */
ALWAYS_INLINE int prefix_of(struct config *config, __u32 tag, __u32 v4, struct found *found)
{
	struct address address = { (__u64)v4 << 32, 0 };
	return longest(config, tag, &address, found);
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
