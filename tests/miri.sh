#!/bin/sh
# The modules of the engine that touch no system call, run by Miri: undefined behaviour, reads of bytes that nobody wrote,
# pointers that outlive what they point to. Arguments: which modules, or which tests; by default all of those modules.
set -eu
cd "$(dirname "$0")/.."

# A thousand times slower than a machine: few cases of each property, and of each loop that has many (engine/src/miri.rs).
export PROPTEST_CASES="${PROPTEST_CASES:-4}"
# A property that fails is told; nothing is written down.
export PROPTEST_FAILURE_PERSISTENCE=off
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"

# One process for all tests: to start one takes Miri longer than most of them.
# shellcheck disable=SC2046,SC2086
exec ${CARGO:-cargo} +nightly miri test --target-dir target/miri -p isatap-engine --lib -- \
	-Z unstable-options --report-time ${*:-$(printf '%s:: ' buf fib isatap offload path stats wire)}
