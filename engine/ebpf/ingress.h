/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Whether an outer packet may enter: `engine/src/path/decap.rs` and `isatap::{ingress, loops, ecn}`, check by check and in their order.
 *
 * What needs an answer, control, or a closer look is left to a worker, which decides by the same rules.
 */
#pragma once

#include "count.h"
#include "flows.h"
#include "header.h"
#include "tables.h"

#define ECN_NONE 0xff /* left to a worker: RFC 6040 4.2 calls the pair dangerous, so that it is logged */

/* Indexed by inner << 2 | outer, both as they are in the header; the table of `isatap::ecn`. */
ALWAYS_INLINE __u8 ecn_of(__u8 inner, __u8 outer)
{
	inner &= 3;
	outer &= 3;
	if (inner == 0)
		return outer == 0 ? 0 : ECN_NONE;
	if (inner == 3)
		return outer == 1 ? ECN_NONE : 3;
	if (outer == 3)
		return 3;
	/* ECT(1) in either header is the more severe one. */
	return inner == 1 || outer == 1 ? 1 : 2;
}

/* `isatap::ingress::check_outer`, for a destination that is one of our locators. */
FUNCTION int check_sender(struct config *config, __u32 src)
{
	if (!config)
		return LEAVE(CAUSE_RULES);
	if (is_no_host(src) || is_locator(config, src) || is_broadcast(config, src))
		return DROP(REASON_OUTER_FORBIDDEN);
	/* Not a rule of ours: the kernel would not let it through to a worker. */
	if (contains(config, TAG_OWN_V4, src, 0))
		return LEAVE(CAUSE_MARTIAN);
	if (!is_site_host(config, src) && !is_router(config, src))
		return DROP(REASON_NOT_SITE);
	return 0;
}

/* Why an inner source is believed. */
enum voucher { EMBEDDED = 1, BY_ROUTE, BY_ROUTER };

/* `isatap::ingress::check_source`: a voucher, or what to do with the packet. */
FUNCTION int check_source(struct config *config, __u32 sender, struct address *src)
{
	struct found route = {}, member = {};

	if (!config || !src)
		return LEAVE(CAUSE_RULES);
	enum kind kind = kind_of(src);

	if (kind == FORBIDDEN || kind == MULTICAST)
		return DROP(REASON_SRC_FORBIDDEN);
	if (kind == UNSPECIFIED && !is_router(config, sender))
		return DROP(REASON_SRC_FORBIDDEN);
	int embedded = is_isatap(src) && (__u32)src->low == sender;

	if ((!embedded || config->flags & FLAG_OWNS_FOREIGN) && is_own(config, src))
		return DROP(REASON_SRC_FORBIDDEN);
	if (embedded && !(config->flags & FLAG_STRICT))
		return EMBEDDED;
	route_of(config, src, &route);
	if (embedded && (route.extra == HOP_ON_LINK || contains(config, TAG_OWN_PREFIX, src->high, 0)))
		return EMBEDDED;
	if (route.extra == HOP_VIA && route.value == sender)
		return BY_ROUTE;
	if (route.extra == HOP_GROUP && find(config, TAG_MEMBER, route.value, sender, &member))
		return BY_ROUTE;
	if (is_router(config, sender))
		return BY_ROUTER;
	return embedded ? DROP(REASON_SRC_PREFIX) : DROP(REASON_SRC_MISMATCH);
}

/* Whether packets that go this way go to `sender`, or from one router of the link to another (`fib::Rulebook::leads_back`). */
FUNCTION int leads_back(struct config *config, struct found *route, __u32 sender, struct address *dst)
{
	struct found found = {};
	__u32 hop;

	if (!config || !route || !dst)
		return 0;
	if (route->extra == HOP_GROUP) {
		if (find(config, TAG_MEMBER, route->value, sender, &found))
			return 1;
		return contains(config, TAG_GROUP, route->value, 0) && is_router(config, sender);
	}
	if (route->extra == HOP_VIA)
		hop = route->value;
	else if (route->extra == HOP_ON_LINK && is_isatap(dst))
		hop = dst->low;
	else
		return 0;
	return hop == sender || (is_router(config, hop) && is_router(config, sender));
}

/* `isatap::loops::check_received`. */
FUNCTION int check_loop(struct config *config, __u32 voucher, __u32 sender, struct address *dst)
{
	struct found route = {};
	int to_tunnel_end = 0;

	if (!config || !dst)
		return LEAVE(CAUSE_RULES);
	/* An address may name two: an ISATAP link can have a prefix of 6to4. */
	if (is_isatap(dst))
		to_tunnel_end = (__u32)dst->low == sender || is_locator(config, dst->low);
	if (is_6to4(dst) && !to_tunnel_end) {
		__u32 end = dst->high >> 16;
		to_tunnel_end = end == sender || is_locator(config, end);
	}
	if (voucher == EMBEDDED && !to_tunnel_end)
		return 0;
	if (is_link_local(dst) || is_multicast(dst) || is_own(config, dst))
		return 0;
	route_of(config, dst, &route);
	if (route.extra != HOP_ON_LINK && embeds_ours(config, dst))
		return DROP(REASON_LOOP);
	if (route.extra == HOP_ON_LINK && is_isatap(dst) && (__u32)dst->low == sender)
		return DROP(REASON_LOOP);
	if (voucher != EMBEDDED && leads_back(config, &route, sender, dst))
		return DROP(REASON_LOOP);
	return 0;
}

/* Whether the inner header is one of IPv6, and says the length that the packet has: `room`. */
ALWAYS_INLINE int has_length(const struct inner *inner, __u32 room)
{
	return !((inner->version_class >> 4 ^ 6) | (INNER_LEN + ntoh16(inner->payload_len) ^ room)) && room != INNER_LEN;
}

/* The length that the inner header says, and the `room` there is: 0, or what to do with the packet. */
ALWAYS_INLINE int check_length(const struct inner *inner, __u32 room)
{
	if (inner->version_class >> 4 != 6 || inner->payload_len == 0)
		return DROP(REASON_MALFORMED);
	__u32 len = INNER_LEN + ntoh16(inner->payload_len);

	if (len > room)
		return DROP(REASON_TRUNCATED);
	/* What is behind the packet has to be cut off. */
	return len < room ? LEAVE(CAUSE_LENGTH) : 0;
}

/* Both inner addresses: 0, or what to do with the packet. */
FUNCTION int check_addresses(struct config *config, __u32 sender, struct inner *inner)
{
	struct address src, dst;
	int verdict;

	if (!config || !inner)
		return LEAVE(CAUSE_RULES);
	dst = destination_of(inner);
	switch (kind_of(&dst)) {
	case MULTICAST:
		return LEAVE(CAUSE_MULTICAST);
	case UNSPECIFIED:
	case FORBIDDEN:
		return DROP(REASON_DST_FORBIDDEN);
	default:
		break;
	}
	src = source_of(inner);
	verdict = check_source(config, sender, &src);
	if (verdict & ~0xff)
		return verdict;
	return config->flags & FLAG_LOOP_CHECKS ? check_loop(config, verdict, sender, &dst) : 0;
}

/* Whether anything is odd about an outer packet of `len` bytes before any rule is asked. */
ALWAYS_INLINE __u32 is_odd(const struct outer *outer, __u32 len)
{
	return (outer->version_ihl ^ 0x45) | (outer_sum(outer) ^ 0xffff) | (outer->fragment & hton16(FRAGMENT_BITS)) |
	       (len ^ ntoh16(outer->total_len));
}

/* What to do with one that is odd, by the first thing that is. */
ALWAYS_INLINE int judge_form(const struct outer *outer)
{
	if (outer->version_ihl != 0x45)
		return LEAVE(CAUSE_OPTIONS);
	if (outer_sum(outer) != 0xffff)
		return LEAVE(CAUSE_CHECKSUM);
	if (outer->fragment & hton16(FRAGMENT_BITS))
		return LEAVE(CAUSE_FRAGMENT);
	/* Padding of the link, or bytes that are missing. */
	return LEAVE(CAUSE_LENGTH);
}

/* What the rules say of a packet from `sender`, of whose inner part `room` bytes are there, the header among them unless it is `cut`: 0,
 * and `flow` is about packets like it; or what to do with the packet. */
ALWAYS_INLINE int admit_packet(struct config *config, __u32 sender, struct inner *inner, __u32 room, int cut,
			       struct flow *flow)
{
	int verdict;

	flow->now = 0;
	flow->peer = sender;
	flow->nested = (config->flags & FLAG_NESTED) != 0;
	flow->limit = config->mtu;
	flow->to_segmenter = 0;
	verdict = check_sender(config, sender);
	if (verdict)
		return verdict;
	verdict = cut ? DROP(REASON_TRUNCATED) : check_length(inner, room);
	if (verdict)
		return verdict;
	return check_addresses(config, sender, inner);
}
