/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The kernel's own lane: ISATAP (RFC 5214) by two classifiers that never copy a packet, nor cut a superpacket.
 *
 *   out:  TUN interface, egress    -> verdict -> outer header, link header -> neighbour of the underlay
 *   in :  underlay device, ingress -> verdict -> outer header off          -> TUN interface, ingress
 *
 * The rules are those of the engine (`path`), in the same order, and a test compares the two packet by packet. A program either
 * carries a packet, or leaves it exactly as it is to whoever comes next: in the end to a worker, which reads it from the TUN
 * queue or the raw socket as if there were no programs. Only what a worker would drop without a word is dropped here, and only
 * when nobody else on this machine listens to protocol 41.
 *
 * | file | answers the question |
 * |---|---|
 * | kernel.h | what is used of the kernel? |
 * | maps.h | what is shared with the engine? |
 * | count.h | what is counted? |
 * | header.h | what do the bytes say, and what is an address? |
 * | tables.h | what do the rules know? |
 * | flows.h | what is remembered of the packets before? |
 * | ingress.h, egress.h | what happens to this packet? |
 */
#include "count.h"
#include "egress.h"
#include "flows.h"
#include "header.h"
#include "ingress.h"
#include "maps.h"
#include "tables.h"

/* The interface index of the TUN interface: who loads the programs says it, and no rule another one. */
volatile const __u32 tunnel;

/* What a packet is decided by. */
union now {
	__u64 both;
	struct {
		__u32 rules; /* as in `struct generation` */
		__u32 neighbours;
	};
};

/* The rules of a generation. */
ALWAYS_INLINE struct config *rules_of(union now now)
{
	__u32 half = now.rules & 1;

	return bpf_map_lookup_elem(&isatap_config, &half);
}

/* Whether the half of the maps that a verdict was read from is being written anew: two generations have come since. */
ALWAYS_INLINE int is_outdated(const struct generation *generation, union now now)
{
	keep_order();
	return (__s32)(ONCE(generation->writing) - now.rules) >= 2;
}

/* Takes the outer header off: 0, or what to do with the packet.
 *
 * Before Linux 6.3 the kernel does not learn that the packet is IPv6 then. There the helper that makes IPv6 of IPv4 says so; it
 * puts 20 bytes before the header for that, which go with it.
 */
ALWAYS_INLINE int strip(struct __sk_buff *skb, __u8 next_header)
{
	long error = bpf_skb_adjust_room(skb, -OUTER_LEN, BPF_ADJ_ROOM_MAC,
					 BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV6);

	if (!error)
		return 0;
	/* Superpackets of other kinds would be refused halfway. */
	if (error != -EINVAL || (skb->gso_size && next_header != PROTO_TCP && next_header != PROTO_UDP) ||
	    bpf_skb_change_proto(skb, hton16(ETH_P_IPV6), 0))
		return LEAVE(CAUSE_ROOM);
	if (bpf_skb_adjust_room(skb, -2 * OUTER_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return DROP(REASON_TUN_ERROR);
	return 0;
}

/* Makes room for the outer header of a packet that has come in by this tunnel and goes out by it again. What GRO has put together on the
 * way in is still said to be encapsulated, in IPv4, with inner headers that are where they were: all that is to be said of it. The kernel
 * refuses to say it twice, but room alone it gives. What is missing is that this is IPv4 from now on; taking a header off can say so
 * (Linux 6.3), and so there is one more.
 */
FUNCTION int make_room_again(struct __sk_buff *skb)
{
	if (bpf_skb_adjust_room(skb, 2 * OUTER_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return LEAVE(CAUSE_ROOM);
	if (!bpf_skb_adjust_room(skb, -OUTER_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV4))
		return 0;
	/* As it was. */
	if (bpf_skb_adjust_room(skb, -2 * OUTER_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return DROP(REASON_SEND_ERROR);
	return LEAVE(CAUSE_ROOM);
}

/* Whether a superpacket that is taken out of the tunnel goes on by a device that cuts tunnelled ones itself. What GRO has put together is
 * still marked as tunnelled then, no helper takes that mark off, and such a device looks for the outer header. The kernel's own routing
 * says where it goes: to this machine, and by this tunnel again, it does no harm.
 */
FUNCTION int goes_to_segmenter(struct __sk_buff *skb, __u32 rules, struct inner *inner)
{
	struct {
		__u16 sport, dport;
	} ports = {};
	struct bpf_fib_lookup way = {};
	__u32 half = rules & 1;
	struct config *config = bpf_map_lookup_elem(&isatap_config, &half);

	if (!config || !inner || !(config->flags & FLAG_SEGMENTERS))
		return 0;
	if (READ(skb, ETH_HLEN, OUTER_LEN + INNER_LEN, ports))
		return 1;
	way.family = AF_INET6;
	way.l4_protocol = inner->next_header;
	way.sport = ports.sport;
	way.dport = ports.dport;
	way.ifindex = tunnel;
	way.flowinfo = *(__u32 *)inner;
	way.src_high = inner->src_high;
	way.src_low = inner->src_low;
	way.dst_high = inner->dst_high;
	way.dst_low = inner->dst_low;
	long answer = bpf_fib_lookup(skb, &way, sizeof(way), 0);

	if (answer < 0 || answer == BPF_FIB_LKUP_RET_UNSUPP_LWT)
		return 1;
	/* Where there is no way on, it is still the tunnel. */
	if (way.ifindex == tunnel)
		return 0;
	return config->flags & FLAG_ANY_SEGMENTER || contains(config, TAG_SEGMENTER, way.ifindex, 0);
}

/* Whether a frame is of a VLAN (IEEE 802.1Q): the kernel has taken the tag off by now, and nothing else tells it from others. A tag with
 * number 0 names none, and the kernel passes it over. */
ALWAYS_INLINE int is_of_vlan(struct __sk_buff *skb)
{
	return skb->vlan_present && skb->vlan_tci & VLAN_ID;
}

/* The flags of these rules. Asked for seldom, and so not in everybody's way. */
FUNCTION __u32 flags_of(__u32 rules)
{
	__u32 half = rules & 1;
	struct config *config = bpf_map_lookup_elem(&isatap_config, &half);

	return config ? config->flags : 0;
}

/* What becomes of an outer packet. It may have a place for flows afterwards that is to be given back. */
ALWAYS_INLINE int decap(struct __sk_buff *skb, __u32 *mine)
{
	struct {
		struct outer outer;
		struct inner inner;
	} headers = {};
	struct generation *generation;
	struct counters *counters;
	struct flow *flow = NULL;
	union now now = {};
	__u32 room, src, dst;
	__u8 type = 0, ecn;
	int verdict, known = 0, cut = 1;

	if (UNLIKELY(skb->protocol != hton16(ETH_P_IP)))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(READ(skb, ETH_HLEN, 0, headers.outer)))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(headers.outer.protocol != PROTO_IPV6))
		return TC_ACT_UNSPEC;
	generation = generation_here();
	counters = counters_here();
	if (UNLIKELY(!generation || !counters))
		return TC_ACT_UNSPEC;
	now.rules = ONCE(generation->active);
	if (UNLIKELY(!now.rules))
		return TC_ACT_UNSPEC;
	__u64 begin = begun(counters, DECAP);

	src = ntoh32(headers.outer.src);
	dst = ntoh32(headers.outer.dst);
	room = skb->len - ETH_HLEN - OUTER_LEN;
	int odd = is_odd(&headers.outer, skb->len - ETH_HLEN) != 0;

	if (!UNLIKELY(odd)) {
		cut = READ(skb, ETH_HLEN, OUTER_LEN, headers.inner) != 0;
		flow = flow_of(generation, DECAP, &headers.inner, mine);
		/* PACKET_HOST is 0, and so is the tag of a frame without one. */
		known = flow && !(cut | skb->pkt_type | skb->vlan_tci | (flow->peer ^ src) | (flow->locator ^ dst) | (flow->from ^ skb->ifindex) |
				  difference(flow, now.both, &headers.inner));
	}
	if (UNLIKELY(!known)) {
		struct config *config = rules_of(now);
		__u32 locator = config ? is_locator(config, dst) : 0, device;

		/* Not ours: another tunnel's, on its way to another machine, or of a VLAN, whose device comes after this one. */
		if (!config || !locator || skb->pkt_type != PACKET_HOST || is_of_vlan(skb))
			return TC_ACT_UNSPEC;
		if (!(config->flags & FLAG_CARRY_IN))
			return refuse(DECAP, LEAVE(CAUSE_HELD));
		device = config->locators[(locator - 1) & (MAX_LOCATORS - 1)].device;
		if (device && device != skb->ifindex)
			return refuse(DECAP, LEAVE(CAUSE_DEVICE));
		if (odd)
			return refuse(DECAP, judge_form(&headers.outer));
		if (!flow)
			return refuse(DECAP, LEAVE(CAUSE_RULES));
		verdict = admit_packet(config, src, &headers.inner, room, cut, flow);
		if (verdict)
			goto refused;
		flow->locator = dst;
		flow->from = skb->ifindex;
		flow->device = tunnel;
	}
	if (!flow)
		return TC_ACT_UNSPEC;
	if (UNLIKELY(!has_length(&headers.inner, room))) {
		verdict = check_length(&headers.inner, room);
		goto refused;
	}
	if (UNLIKELY(!has_ports(headers.inner.next_header))) {
		verdict = check_next_header(flow, headers.inner.next_header, DROP(REASON_NESTED));
		if (verdict)
			goto refused;
		if (headers.inner.next_header == PROTO_ICMPV6 &&
		    (READ(skb, ETH_HLEN, OUTER_LEN + INNER_LEN, type) || is_discovery(type)))
			return refuse(DECAP, LEAVE(CAUSE_CONTROL));
	}
	ecn = traffic_class(&headers.inner) & 3;
	if (UNLIKELY(ecn != (headers.outer.tos & 3)))
		ecn = ecn_of(ecn, headers.outer.tos);
	if (UNLIKELY(ecn == ECN_NONE))
		return refuse(DECAP, LEAVE(CAUSE_ECN));
	/* Datagrams that somebody merged without saying how: a worker finds out. */
	if (UNLIKELY(headers.inner.next_header == PROTO_UDP && room > flow->limit && !skb->gso_size))
		return refuse(DECAP, LEAVE(CAUSE_MERGED));
	if (UNLIKELY(!known)) {
		if (is_outdated(generation, now))
			return refuse(DECAP, LEAVE(CAUSE_OUTDATED));
		remember(flow, now.both, &headers.inner);
	}
	if (skb->gso_size)
		flow->to_segmenter = goes_to_segmenter(skb, now.rules, &headers.inner);
	/* What nobody has merged goes the way of the superpacket before it: it must not overtake that one. */
	if (UNLIKELY(flow->to_segmenter))
		return refuse(DECAP, LEAVE(CAUSE_SEGMENTATION));
	__u32 segments = skb->gso_segs, device = flow->device;

	verdict = strip(skb, headers.inner.next_header);
	if (UNLIKELY(verdict))
		return refuse(DECAP, verdict);
	if (ecn != (traffic_class(&headers.inner) & 3)) {
		__u8 byte = (headers.inner.class_label & 0xcf) | ecn << 4;

		if (UNLIKELY(bpf_skb_store_bytes(skb, ETH_HLEN + 1, &byte, 1, BPF_F_RECOMPUTE_CSUM)))
			return refuse(DECAP, DROP(REASON_TUN_ERROR));
	}
	carried(generation, counters, DECAP, room, segments, begin);
	return bpf_redirect(device, BPF_F_INGRESS);

refused:
	if (!known && is_outdated(generation, now))
		return refuse(DECAP, LEAVE(CAUSE_OUTDATED));
	/* Others who listen to protocol 41 hear what we refuse, as they would without us. */
	return refuse(DECAP, IS_LEFT(verdict) || flags_of(now.rules) & FLAG_ALONE ? verdict : LEAVE(CAUSE_REFUSED));
}

/* What becomes of an inner packet; places as above. */
ALWAYS_INLINE int encap(struct __sk_buff *skb, __u32 *mine)
{
	struct {
		__u8 before[2]; /* so that both are where numbers may be read */
		struct link link;
		struct outer outer;
	} headers = {};
	struct inner inner;
	struct generation *generation = generation_here();
	struct counters *counters = counters_here();
	union now now;
	__u32 len, gso_size = skb->gso_size, ports = 0, largest, segments = 1;
	int verdict;

	if (UNLIKELY(!generation || !counters))
		return TC_ACT_UNSPEC;
	now.both = ONCE(*(__u64 *)generation);
	if (UNLIKELY(!now.rules))
		return TC_ACT_UNSPEC;
	__u64 begin = begun(counters, ENCAP);
	__u32 link_len = generation->link_len & 0xff;

	verdict = LEAVE(CAUSE_REFUSED);
	if (UNLIKELY(skb->protocol != hton16(ETH_P_IPV6) || READ(skb, link_len, 0, inner) ||
	    inner.version_class >> 4 != 6 || inner.payload_len == 0))
		goto odd;
	len = INNER_LEN + ntoh16(inner.payload_len);
	verdict = LEAVE(CAUSE_LENGTH);
	if (UNLIKELY(skb->len - len != link_len || len > 0xffff - OUTER_LEN))
		goto odd;

	__u8 next_header = inner.next_header;

	if (UNLIKELY(!has_ports(next_header)) && next_header == PROTO_ICMPV6) {
		__u8 type = 0;

		verdict = LEAVE(CAUSE_CONTROL);
		if (READ(skb, link_len, INNER_LEN, type) || is_discovery(type))
			goto odd;
	}
	largest = len;
	if (gso_size) {
		__u32 header_len = INNER_LEN + 8;

		verdict = LEAVE(CAUSE_OFFLOAD);
		if (next_header == PROTO_TCP) {
			__u8 offset = 0;

			if (UNLIKELY(READ(skb, link_len, INNER_LEN + 12, offset)))
				goto odd;
			header_len = INNER_LEN + (offset >> 4) * 4;
		} else if (UNLIKELY(next_header != PROTO_UDP)) {
			goto odd;
		}
		if (header_len + gso_size < len) {
			largest = header_len + gso_size;
			segments = skb->gso_segs;
			/* The kernel has not counted those of a guest's superpacket. */
			if (UNLIKELY(!segments))
				segments = (len - header_len + gso_size - 1) / gso_size;
		}
	} else if (UNLIKELY(len > MAX_ALONE)) {
		/* The kernel may have room for the outer header and then none for the other one, when there is no way back. */
		verdict = LEAVE(CAUSE_ROOM);
		goto odd;
	}
	struct flow *flow = flow_of(generation, ENCAP, &inner, mine);

	verdict = LEAVE(CAUSE_RULES);
	if (UNLIKELY(!flow))
		goto odd;
	int known = !difference(flow, now.both, &inner);

	if (UNLIKELY(!known || flow->by_ports)) {
		verdict = LEAVE(CAUSE_LENGTH);
		if (has_ports(next_header) && len >= INNER_LEN + 4 && READ(skb, link_len, INNER_LEN, ports))
			goto odd;
		ports = ntoh32(ports);
		known = known && ports == flow->ports;
	}
	if (UNLIKELY(!known)) {
		struct config *config = rules_of(now);

		if (!config)
			return TC_ACT_UNSPEC;
		verdict = config->flags & FLAG_CARRY_OUT ? route_packet(config, &inner, ports, flow) : LEAVE(CAUSE_HELD);
		if (verdict)
			return refuse(ENCAP, verdict);
	}
	if (UNLIKELY(!has_ports(next_header))) {
		verdict = check_next_header(flow, next_header, LEAVE(CAUSE_REFUSED));
		if (verdict)
			return refuse(ENCAP, verdict);
	}
	/* A worker fragments what our own link does not take, or is told that it is too big. */
	if (UNLIKELY((largest > flow->limit) | (largest > flow->link_limit)))
		return refuse(ENCAP, largest > flow->limit ? LEAVE(CAUSE_TOO_BIG) : LEAVE(CAUSE_LINK_MTU));
	/* What the device takes at this moment: the rules may be a moment old, and it would drop what is too long without a word. */
	__u32 mtu = 0, device = flow->device;

	if (UNLIKELY(bpf_check_mtu(skb, device, &mtu, 0, 0) < 0))
		return refuse(ENCAP, LEAVE(CAUSE_ROUTE));
	if (UNLIKELY(largest + OUTER_LEN > mtu))
		return refuse(ENCAP, LEAVE(CAUSE_LINK_MTU));
	write_outer(generation, &inner, len, segments, flow, &headers.outer);
	headers.link = flow->link;
	if (UNLIKELY(!known)) {
		if (is_outdated(generation, now))
			return refuse(ENCAP, LEAVE(CAUSE_OUTDATED));
		remember(flow, now.both, &inner);
	}
	/* By the first packet the kernel begins to ask a neighbour that it doubts, and sends it where the others go. */
	__u32 by_kernel = !flow->has_link || (!known && flow->doubted);

	long error = bpf_skb_adjust_room(skb, OUTER_LEN, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);

	if (UNLIKELY(error)) {
		verdict = error == -EALREADY && skb->ingress_ifindex == skb->ifindex ? make_room_again(skb) : LEAVE(CAUSE_ROOM);
		if (verdict)
			return refuse(ENCAP, verdict);
	}
	/* From here on there is no way back. */
	if (UNLIKELY((link_len == 0 && bpf_skb_change_head(skb, ETH_HLEN, 0)) ||
	    bpf_skb_store_bytes(skb, 0, &headers.link, ETH_HLEN + OUTER_LEN, 0))) {
		/* This may have been the packet that the kernel was to ask for. */
		flow->now = 0;
		return refuse(ENCAP, DROP(REASON_SEND_ERROR));
	}
	carried(generation, counters, ENCAP, len, segments, begin);
	if (!UNLIKELY(by_kernel))
		return bpf_redirect(device, 0);
	/* The kernel's IPv4 finds the neighbour, and looks the route up again. It could be told the neighbour. But then the packet would
	 * keep the route it had as an IPv6 packet, and a neighbour that does not answer would be reported by that: to an address that is
	 * read out of the IPv4 header. */
	return bpf_redirect_neigh(device, NULL, 0, 0);

odd:
	return refuse(ENCAP, flags_of(now.rules) & FLAG_CARRY_OUT ? verdict : LEAVE(CAUSE_HELD));
}

SEC("classifier")
int isatap_decap(struct __sk_buff *skb)
{
	__u32 mine = NOWHERE;
	int verdict = decap(skb, &mine);

	give_back(mine);
	return verdict;
}

SEC("classifier")
int isatap_encap(struct __sk_buff *skb)
{
	__u32 mine = NOWHERE;
	int verdict = encap(skb, &mine);

	give_back(mine);
	return verdict;
}

/* `bpf_fib_lookup` asks for the GPL; what loads the programs shows it to people. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
