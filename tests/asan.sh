#!/bin/sh
# The engine's and the daemon's own tests, and tests that run a daemon in namespaces, all built with AddressSanitizer. Arguments: which
# tests of isatap-tests; by default those that send what nobody should, and those in which memory changes hands. A report of the
# sanitizer ends the process that earned it, and so fails the test.
set -eu
cd "$(dirname "$0")/.."

TARGET=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address"
export RUSTUP_TOOLCHAIN=nightly
# What is still held when a process ends is no fault here; and the check needs ptrace, which no sandbox allows.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1"
CARGO="${CARGO:-cargo}"
FLAGS="--target $TARGET --target-dir target/asan"

# The names are words of their own.
# shellcheck disable=SC2086
$CARGO test $FLAGS -p isatap-engine --lib --tests
# shellcheck disable=SC2086
$CARGO test $FLAGS -p isatapd --lib
# shellcheck disable=SC2086
$CARGO build $FLAGS -p isatapd --bins
for test in ${*:-malformed fragments gro mutations crash upgrade hostile_clients advertisement_nonsense ebpf_lane}; do
	# shellcheck disable=SC2086
	$CARGO test $FLAGS -p isatap-tests --test "$test" -- --test-threads 1
done
