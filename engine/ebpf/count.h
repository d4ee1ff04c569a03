/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is counted: packets carried, packets left to a worker by cause, packets dropped by reason. */
#pragma once

#include "maps.h"

/* What the checks say of a packet: 0 (go on), or one of these with a number. */
#define LEAVE(cause) (0x200 | (cause))
#define DROP(reason) (0x100 | (reason))
#define IS_LEFT(verdict) ((verdict)&0x200)
#define NUMBER(verdict) ((verdict)&0xff)

/* Which generation counts, and what else each packet asks first. */
ALWAYS_INLINE struct generation *generation_here(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&isatap_gen, &zero);
}

/* Where no packet interrupts another's a CPU ends with one before it begins the next, and only it writes its counters. An atomic addition
 * would wait until all that was written before, the headers for example, is in the cache: two fifths of what encapsulation took besides its
 * look-ups. */
#define ADD(preemptible, place, count)                            \
	do {                                                      \
		if (UNLIKELY(preemptible))                        \
			__sync_fetch_and_add(&(place), (count));  \
		else                                              \
			ONCE(place) += (count);                   \
	} while (0)

ALWAYS_INLINE struct counters *counters_here(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	return bpf_map_lookup_elem(&isatap_counts, &cpu);
}

/* What is read afterwards is not read earlier: an atomic operation on memory of our own keeps them apart. Only one whose result is
 * used does so. */
ALWAYS_INLINE void keep_order(void)
{
#ifdef WEAKLY_ORDERED
	struct counters *counters = counters_here();

	if (counters) {
		__u64 before = __sync_fetch_and_add(&counters->packets[0], 0);

		__asm__ volatile("" ::"r"(before) : "memory");
	}
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* Leaves the packet to a worker, as it is, or drops it. Apart, so that what carries packets is half as long. */
FUNCTION int refuse(__u32 direction, __u32 verdict)
{
	struct generation *generation = generation_here();
	struct counters *counters = counters_here();
	__u32 number = NUMBER(verdict);

	if (direction >= DIRECTIONS || !generation || !counters)
		return TC_ACT_UNSPEC;
	if (IS_LEFT(verdict)) {
		if (number < CAUSES)
			ADD(generation->preemptible, counters->passed[direction][number], 1);
		return TC_ACT_UNSPEC;
	}
	if (number < REASONS)
		ADD(generation->preemptible, counters->drops[direction][number], 1);
	return TC_ACT_SHOT;
}

/* When the work on a packet began, in nanoseconds, for one in SAMPLE of those carried here; 0 for the others, whose time nobody
 * takes. A flood of packets that are refused has the clock read no more often. */
ALWAYS_INLINE __u64 begun(struct counters *counters, __u32 direction)
{
	if (!UNLIKELY(counters->packets[direction] / SAMPLE >= counters->sampled[direction]))
		return 0;
	counters->sampled[direction]++;
	return bpf_ktime_get_ns();
}

/* Where a time is counted: STAY_STEPS places for each power of two, as in an HdrHistogram (`layout::stay_nanos`). */
FUNCTION __u32 place_of(__u64 nanos)
{
	__u32 octave = 0;

	for (; octave < STAY_OCTAVES; octave++) {
		if (nanos < 2 * STAY_STEPS)
			return octave * STAY_STEPS + (__u32)nanos;
		nanos >>= 1;
	}
	return nanos < 2 * STAY_STEPS ? octave * STAY_STEPS + (__u32)nanos : STAYS - 1;
}

/* Counts a packet; `begin` is what `begun` has said of it. */
ALWAYS_INLINE void carried(struct generation *generation, struct counters *counters, __u32 direction, __u32 bytes,
			   __u32 segments, __u64 begin)
{
	__u32 preemptible = generation->preemptible;

	if (UNLIKELY(begin)) {
		__u32 place = place_of(bpf_ktime_get_ns() - begin);

		if (place < STAYS)
			ADD(preemptible, counters->stays[direction][place], 1);
	}
	ADD(preemptible, counters->packets[direction], 1);
	ADD(preemptible, counters->bytes[direction], bytes);
	if (segments > 1) {
		ADD(preemptible, counters->superpackets[direction], 1);
		ADD(preemptible, counters->segments[direction], segments);
	}
}
