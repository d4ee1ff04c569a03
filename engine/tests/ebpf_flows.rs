//! What the programs of the `ebpf` lane remember where packets of one CPU may interrupt each other (PREEMPT_RT): their own functions,
//! compiled for this machine, in the order in which packets would call them.

mod compiled;

/// Prints 1 for each packet that has a place, and 0 for each that has none.
const ASKED: &str = r#"
#include "flows.h"
int printf(const char *, ...);

static struct generation generation = { .active = 1, .key = 7 };
static struct flow flows[DIRECTIONS * FLOWS];

static void *look_up(void *map, const void *key)
{
	__u32 at = *(const __u32 *)key;

	if (map == &isatap_gen)
		return &generation;
	return map == &isatap_flows && at < DIRECTIONS * FLOWS ? &flows[at] : NULL;
}

static __u32 this_cpu(void)
{
	return 0;
}

static __u32 begin(__u32 direction, __u64 dst)
{
	struct inner inner = { .src_low = 1, .dst_low = dst };
	__u32 mine = NOWHERE;

	printf("%d", flow_of(&generation, direction, &inner, &mine) != NULL);
	return mine;
}

int main(void)
{
	bpf_map_lookup_elem = look_up;
	bpf_get_smp_processor_id = this_cpu;
	for (generation.preemptible = 0; generation.preemptible < 2; generation.preemptible++) {
		/* One is interrupted by one of its flow, by one that goes the other way, and by one of another flow ... */
		__u32 first = begin(ENCAP, 2), same = begin(ENCAP, 2), back = begin(DECAP, 2), other = begin(ENCAP, 3);

		/* ... which go before it, as one more does that comes meanwhile. */
		give_back(other);
		give_back(back);
		give_back(same);
		give_back(begin(ENCAP, 2));
		give_back(first);
		/* The next finds everything as it was. */
		give_back(begin(ENCAP, 2));
		give_back(begin(ENCAP, 2));
		printf("\n");
	}
	return 0;
}
"#;

/// A packet that is interrupted would write where another is, and either be sent to the other's peer, or be let in for its sender.
#[test]
fn a_place_is_one_packets_at_a_time_where_they_interrupt_each_other() {
    let Some(text) = compiled::output(ASKED, []) else {
        return;
    };
    assert_eq!(text, "1111111\n1011011\n");
}
