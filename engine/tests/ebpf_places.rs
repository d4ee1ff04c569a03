//! Where the programs of the `ebpf` lane count how long a packet took: their own function, compiled for this machine and asked for times
//! that no packet takes.

mod compiled;

use isatap_engine::ebpf::layout::stay_nanos;
use isatap_engine::ebpf::numbers::{STAY_OCTAVES, STAY_STEPS, STAYS};

/// Prints the place of each time that it is given.
const ASKED: &str = r#"
#include "count.h"
unsigned long long strtoull(const char *, char **, int);
int printf(const char *, ...);

int main(int count, char **words)
{
	for (int i = 1; i < count; i++)
		printf("%u\n", place_of(strtoull(words[i], NULL, 10)));
	return 0;
}
"#;

/// Whoever reads the places takes the middle of each for what was counted there.
#[test]
fn times_are_counted_where_they_are_read() {
    let steps = u64::from(STAY_STEPS);
    // The first time that has no place of its own.
    let end = (2 * steps) << STAY_OCTAVES;
    let near = (0..u64::BITS).map(|bit| 1 << bit).flat_map(|nanos: u64| {
        let quarters = (4..8).map(move |quarter| nanos / 4 * quarter);
        quarters.flat_map(|nanos| [nanos.saturating_sub(1), nanos, nanos + 1])
    });
    let nanos: Vec<_> = (0..10 * steps).chain(near).chain([u64::MAX]).collect();
    let Some(text) = compiled::output(ASKED, nanos.iter().map(u64::to_string)) else {
        return;
    };
    let places: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(places.len(), nanos.len());
    let last = usize::try_from(STAYS).expect("a few hundred") - 1;
    for (nanos, place) in nanos.into_iter().zip(places) {
        if nanos < end {
            let error = stay_nanos(place).abs_diff(nanos);
            assert!(error <= nanos / (2 * steps), "{nanos} in place {place}");
        } else {
            assert_eq!(place, last, "{nanos}");
        }
    }
}
