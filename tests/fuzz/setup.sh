#!/bin/sh
# Installs what `make fuzz`, `make asan`, `make tsan` and `make miri` need beside the compiler that builds isatapd, if missing: a nightly
# compiler with the components named as arguments, cargo-fuzz when `cargo-fuzz` is among them, and for `llvm-tools` those of the compiler
# that builds isatapd, by which coverage is read.
set -eu

fail() {
	echo "setup.sh: $1" >&2
	exit 69
}

command -v rustup >/dev/null || fail "rustup is needed to install a nightly compiler: https://rustup.rs"

rustc +nightly --version >/dev/null 2>&1 ||
	rustup toolchain install nightly --profile minimal ||
	fail "no nightly compiler, and none can be installed: is there a network, and may this machine reach static.rust-lang.org?"

for part in "$@"; do
	if [ "$part" = cargo-fuzz ]; then
		command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked ||
			fail "cargo-fuzz is not there, and cannot be installed: is there a network, and may this machine reach crates.io?"
	elif [ "$part" = llvm-tools ]; then
		rustup component list --installed 2>/dev/null | grep -q "^$part" || rustup component add "$part" ||
			fail "the compiler has no $part, and it cannot be installed: is there a network?"
	elif ! rustup component list --toolchain nightly --installed 2>/dev/null | grep -q "^$part"; then
		rustup component add --toolchain nightly "$part" ||
			fail "the nightly compiler has no $part, and it cannot be installed: is there a network? Not every nightly has every part: rustup update nightly takes a newer one"
	fi
done
