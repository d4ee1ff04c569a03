#!/bin/sh
# The modules of the engine that touch no system call, run by Miri: undefined behaviour, reads of bytes that nobody wrote,
# pointers that outlive what they point to. Arguments: which modules; by default all of those.
set -eu
cd "$(dirname "$0")/.."

# A hundred times slower than a machine: few cases of each property.
export PROPTEST_CASES="${PROPTEST_CASES:-4}"
# A property that fails is told; nothing is written down.
export PROPTEST_FAILURE_PERSISTENCE=off
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"

modules=${*:-buf fib isatap offload path stats wire}
run="${CARGO:-cargo} +nightly miri"
options="--target-dir target/miri -p isatap-engine --lib"
# One test is too long for it.
long=keys_of_any_pattern
# Miri runs on one processor; cargo-nextest runs as many tests at once as there are.
# shellcheck disable=SC2086
if command -v cargo-nextest >/dev/null; then
	any=$(echo $modules | tr ' ' '|')
	exec $run nextest run $options --no-fail-fast -E "test(/^($any)::/) - test($long)"
else
	exec $run test $options -- --skip $long $(for module in $modules; do echo "$module::"; done)
fi
