/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What a CPU remembers of the last packets, so that most are decided without a look into the rules.
 *
 * Only what depends on addresses is remembered, and only that a packet passes; it counts in the generations (of rules and neighbours)
 * that said it and in no other. So there is no rule here, and nothing to take back when rules change. What a generation said of
 * addresses stays true of it: whoever finds it here need not ask whether the rules are being written anew.
 */
#pragma once

#include "count.h"
#include "header.h"
#include "maps.h"
#include "tables.h"

#define NOWHERE (~0U)

/* The place for packets between these addresses. Where packets of one CPU may interrupt each other it belongs to one at a time, who gives it
 * back by its number, `mine`, and others have none: what one is about to write would be another's, which would be sent elsewhere, or let in
 * for a sender that is not its own. */
ALWAYS_INLINE struct flow *flow_of(const struct generation *generation, __u32 direction, const struct inner *inner, __u32 *mine)
{
	__u64 hash = mix((inner->src_low ^ generation->key) * 0x9e3779b97f4a7c15ULL +
			 (inner->dst_low ^ inner->src_high) * 0xc2b2ae3d27d4eb4fULL + inner->dst_high);
	__u32 at = (bpf_get_smp_processor_id() * DIRECTIONS + direction) * FLOWS + (hash & (FLOWS - 1));
	struct flow *flow = bpf_map_lookup_elem(&isatap_flows, &at);

	if (UNLIKELY(generation->preemptible) && flow) {
		if (__sync_lock_test_and_set(&flow->taken, 1))
			return NULL;
		*mine = at;
	}
	return flow;
}

/* Asked of the map and not of the number, which the verifier would follow through all that is between. */
ALWAYS_INLINE void give_back(__u32 mine)
{
	struct generation *generation = generation_here();

	if (UNLIKELY(generation && generation->preemptible)) {
		struct flow *flow = bpf_map_lookup_elem(&isatap_flows, &mine);

		if (flow)
			ONCE(flow->taken) = 0;
	}
}

/* 0 when the place is about packets between these addresses, in the generation of now: one branch for all that has to agree. */
ALWAYS_INLINE __u64 difference(const struct flow *flow, __u64 now, const struct inner *inner)
{
	return (flow->now ^ now) | (flow->src_low ^ inner->src_low) | (flow->dst_low ^ inner->dst_low) |
	       (flow->src_high ^ inner->src_high) | (flow->dst_high ^ inner->dst_high);
}

/* From now on the place is about these packets. */
ALWAYS_INLINE void remember(struct flow *flow, __u64 now, const struct inner *inner)
{
	flow->src_high = inner->src_high;
	flow->src_low = inner->src_low;
	flow->dst_high = inner->dst_high;
	flow->dst_low = inner->dst_low;
	flow->now = now;
}

/* What the inner packet carries: 0, or what to do with it; `refusal` is for tunnel packets that are not to be carried. */
ALWAYS_INLINE int check_next_header(const struct flow *flow, __u8 next_header, int refusal)
{
	if (is_extension(next_header))
		return LEAVE(CAUSE_EXTENSION);
	return is_tunnel(next_header) && !flow->nested ? refusal : 0;
}
