#!/bin/sh
# The engine's and the daemon's own tests, built with ThreadSanitizer, the standard library as well: memory that two threads touch without
# an order between them. Arguments: which tests; by default all. A report ends the process that earned it, and so fails the test.
set -eu
cd "$(dirname "$0")/.."

TARGET=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=thread"
export RUSTUP_TOOLCHAIN=nightly
export TSAN_OPTIONS="halt_on_error=1"
CARGO="${CARGO:-cargo}"
# A standard library that was not built with it tells the sanitizer nothing of what it orders.
FLAGS="-Z build-std --target $TARGET --target-dir target/tsan"

# shellcheck disable=SC2086
$CARGO test $FLAGS -p isatap-engine --lib --tests -- "$@"
# shellcheck disable=SC2086
$CARGO test $FLAGS -p isatapd --lib -- "$@"
