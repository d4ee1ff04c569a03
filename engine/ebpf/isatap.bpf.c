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

/* The rules that count now; their generation, with that of the neighbours, goes to `now`. */
ALWAYS_INLINE struct config *rules(union now *now)
{
	__u32 zero = 0, half;
	struct generation *generation = bpf_map_lookup_elem(&isatap_gen, &zero);

	if (!generation)
		return NULL;
	now->both = ONCE(*(__u64 *)generation);
	half = now->rules & 1;
	return now->rules ? bpf_map_lookup_elem(&isatap_config, &half) : NULL;
}

/* Whether the half of the maps that a verdict was read from is being written anew: two generations have come since. */
ALWAYS_INLINE int is_outdated(union now now)
{
	__u32 zero = 0;
	struct generation *generation = bpf_map_lookup_elem(&isatap_gen, &zero);

	keep_order();
	return !generation || (__s32)(ONCE(generation->writing) - now.rules) >= 2;
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

SEC("classifier")
int isatap_decap(struct __sk_buff *skb)
{
	struct {
		struct outer outer;
		struct inner inner;
	} headers;
	union now now = {};
	__u32 len;
	__u8 type = 0, ecn;
	int verdict;

	if (UNLIKELY(skb->protocol != hton16(ETH_P_IP)))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(READ(skb, ETH_HLEN, 0, headers.outer)))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(headers.outer.protocol != PROTO_IPV6))
		return TC_ACT_UNSPEC;
	struct config *config = rules(&now);

	if (UNLIKELY(!config))
		return TC_ACT_UNSPEC;
	__u32 src = ntoh32(headers.outer.src), dst = ntoh32(headers.outer.dst);

	__u32 locator = is_locator(config, dst), device;

	/* Not ours: another tunnel's, or on its way to another machine. */
	if (UNLIKELY(skb->pkt_type != PACKET_HOST || !locator))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(!(config->flags & FLAG_CARRY_IN)))
		return refuse(DECAP, LEAVE(CAUSE_HELD));
	__u64 begin = begun(DECAP);

	device = config->locators[(locator - 1) & (MAX_LOCATORS - 1)].device;
	if (UNLIKELY(device && device != skb->ifindex))
		return refuse(DECAP, LEAVE(CAUSE_DEVICE));
	if (UNLIKELY(headers.outer.version_ihl != 0x45))
		return refuse(DECAP, LEAVE(CAUSE_OPTIONS));
	if (UNLIKELY(outer_sum(&headers.outer) != 0xffff))
		return refuse(DECAP, LEAVE(CAUSE_CHECKSUM));
	if (UNLIKELY(headers.outer.fragment & hton16(FRAGMENT_BITS)))
		return refuse(DECAP, LEAVE(CAUSE_FRAGMENT));
	len = ntoh16(headers.outer.total_len);
	/* Neither padding of the link nor bytes that are missing. */
	if (UNLIKELY(skb->len - len != ETH_HLEN))
		return refuse(DECAP, LEAVE(CAUSE_LENGTH));

	int cut = READ(skb, ETH_HLEN, OUTER_LEN, headers.inner) != 0;
	struct flow *flow = flow_of(config, DECAP, &headers.inner);

	if (UNLIKELY(!flow))
		return refuse(DECAP, LEAVE(CAUSE_RULES));
	int known = !cut && flow->peer == src && is_of(flow, now.rules, &headers.inner);

	verdict = admit_packet(config, src, &headers.inner, len - OUTER_LEN, cut, known, flow);
	if (UNLIKELY(verdict))
		goto refused;
	if (UNLIKELY(headers.inner.next_header == PROTO_ICMPV6 &&
	    (READ(skb, ETH_HLEN, OUTER_LEN + INNER_LEN, type) || is_discovery(type))))
		return refuse(DECAP, LEAVE(CAUSE_CONTROL));
	ecn = ecn_of(traffic_class(&headers.inner), headers.outer.tos);
	if (UNLIKELY(ecn == ECN_NONE))
		return refuse(DECAP, LEAVE(CAUSE_ECN));
	/* Datagrams that somebody merged without saying how: a worker finds out. */
	if (UNLIKELY(headers.inner.next_header == PROTO_UDP && len - OUTER_LEN > config->mtu && !skb->gso_size))
		return refuse(DECAP, LEAVE(CAUSE_MERGED));
	if (UNLIKELY(is_outdated(now)))
		return refuse(DECAP, LEAVE(CAUSE_OUTDATED));
	if (UNLIKELY(!known))
		remember(flow, now.rules, &headers.inner);

	__u32 segments = skb->gso_segs;

	verdict = strip(skb, headers.inner.next_header);
	if (UNLIKELY(verdict))
		return refuse(DECAP, verdict);
	if (ecn != (traffic_class(&headers.inner) & 3)) {
		__u8 byte = (headers.inner.class_label & 0xcf) | ecn << 4;

		if (UNLIKELY(bpf_skb_store_bytes(skb, ETH_HLEN + 1, &byte, 1, BPF_F_RECOMPUTE_CSUM)))
			return refuse(DECAP, DROP(REASON_TUN_ERROR));
	}
	carried(DECAP, len - OUTER_LEN, segments, begin);
	return bpf_redirect(tunnel, BPF_F_INGRESS);

refused:
	if (is_outdated(now))
		verdict = LEAVE(CAUSE_OUTDATED);
	/* Others who listen to protocol 41 hear what we refuse, as they would without us. */
	else if (!IS_LEFT(verdict) && !(config->flags & FLAG_ALONE))
		verdict = LEAVE(CAUSE_REFUSED);
	return refuse(DECAP, verdict);
}

SEC("classifier")
int isatap_encap(struct __sk_buff *skb)
{
	struct sending sending = {};
	struct {
		__u8 before[2]; /* so that both are where numbers may be read */
		struct link link;
		struct outer outer;
	} headers = {};
	struct inner inner;
	union now now = {};
	__u32 len, gso_size = skb->gso_size;
	int verdict;

	struct config *config = rules(&now);

	if (UNLIKELY(!config))
		return TC_ACT_UNSPEC;
	if (UNLIKELY(!(config->flags & FLAG_CARRY_OUT)))
		return refuse(ENCAP, LEAVE(CAUSE_HELD));
	__u64 begin = begun(ENCAP);
	__u32 link_len = config->link_len & 0xff;

	if (UNLIKELY(skb->protocol != hton16(ETH_P_IPV6) || READ(skb, link_len, 0, inner) ||
	    inner.version_class >> 4 != 6 || inner.payload_len == 0))
		return refuse(ENCAP, LEAVE(CAUSE_REFUSED));
	len = INNER_LEN + ntoh16(inner.payload_len);
	if (UNLIKELY(skb->len - len != link_len || len > 0xffff - OUTER_LEN))
		return refuse(ENCAP, LEAVE(CAUSE_LENGTH));

	__u8 next_header = inner.next_header;

	if ((next_header == PROTO_TCP || next_header == PROTO_UDP) && len >= INNER_LEN + 4) {
		if (UNLIKELY(READ(skb, link_len, INNER_LEN, sending.ports)))
			return refuse(ENCAP, LEAVE(CAUSE_LENGTH));
		sending.ports = ntoh32(sending.ports);
	} else if (next_header == PROTO_ICMPV6) {
		__u8 type = 0;

		if (UNLIKELY(READ(skb, link_len, INNER_LEN, type) || is_discovery(type)))
			return refuse(ENCAP, LEAVE(CAUSE_CONTROL));
	}
	sending.largest = len;
	sending.segments = 1;
	if (gso_size) {
		__u32 header_len = INNER_LEN + 8;

		if (next_header == PROTO_TCP) {
			__u8 offset = 0;

			if (UNLIKELY(READ(skb, link_len, INNER_LEN + 12, offset)))
				return refuse(ENCAP, LEAVE(CAUSE_OFFLOAD));
			header_len = INNER_LEN + (offset >> 4) * 4;
		} else if (next_header != PROTO_UDP) {
			return refuse(ENCAP, LEAVE(CAUSE_OFFLOAD));
		}
		if (header_len + gso_size < len)
			sending.largest = header_len + gso_size;
		if (skb->gso_segs)
			sending.segments = skb->gso_segs;
	}
	struct flow *flow = flow_of(config, ENCAP, &inner);

	if (UNLIKELY(!flow))
		return refuse(ENCAP, LEAVE(CAUSE_RULES));
	int known = is_of(flow, now.both, &inner) && (!flow->by_ports || flow->ports == sending.ports);

	verdict = route_packet(config, &inner, &sending, known, flow);
	if (UNLIKELY(verdict))
		return refuse(ENCAP, verdict);
	/* What the device takes at this moment: the rules may be a moment old, and it would drop what is too long without a word. */
	__u32 mtu = 0, device = flow->device;

	if (UNLIKELY(bpf_check_mtu(skb, device, &mtu, 0, 0) < 0))
		return refuse(ENCAP, LEAVE(CAUSE_ROUTE));
	if (UNLIKELY(sending.largest + OUTER_LEN > mtu))
		return refuse(ENCAP, LEAVE(CAUSE_LINK_MTU));
	write_outer(config, &inner, len, sending.segments, flow, &headers.outer);
	headers.link = flow->link;
	if (UNLIKELY(is_outdated(now)))
		return refuse(ENCAP, LEAVE(CAUSE_OUTDATED));
	if (UNLIKELY(!known))
		remember(flow, now.both, &inner);

	if (UNLIKELY(bpf_skb_adjust_room(skb, OUTER_LEN, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)))
		return refuse(ENCAP, LEAVE(CAUSE_ROOM));
	/* From here on there is no way back. */
	if (UNLIKELY((link_len == 0 && bpf_skb_change_head(skb, ETH_HLEN, 0)) ||
	    bpf_skb_store_bytes(skb, 0, &headers.link, ETH_HLEN + OUTER_LEN, 0)))
		return refuse(ENCAP, DROP(REASON_SEND_ERROR));
	carried(ENCAP, len, sending.segments, begin);
	if (flow->has_link)
		return bpf_redirect(device, 0);
	/* The kernel's IPv4 finds the neighbour, and looks the route up again. It could be told the neighbour. But then the packet would
	 * keep the route it had as an IPv6 packet, and a neighbour that does not answer would be reported by that: to an address that is
	 * read out of the IPv4 header. */
	return bpf_redirect_neigh(device, NULL, 0, 0);
}

/* None of the helpers in use asks for it; what loads the programs shows it to people. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
