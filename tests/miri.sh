#!/bin/sh
# The modules of the engine that touch no system call, run by Miri: undefined behaviour, reads of bytes that nobody wrote,
# pointers that outlive what they point to. Arguments: which tests; by default all of those modules, the long ones left out.
set -eu
cd "$(dirname "$0")/.."

# A hundred times slower than a machine: few cases of each property.
export PROPTEST_CASES="${PROPTEST_CASES:-4}"
# A property that fails is told; nothing is written down.
export PROPTEST_FAILURE_PERSISTENCE=off
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"

exec "${CARGO:-cargo}" +nightly miri test --target-dir target/miri -p isatap-engine --lib -- \
	--skip keys_of_any_pattern ${*:-buf:: fib:: isatap:: offload:: path:: stats:: wire::}
