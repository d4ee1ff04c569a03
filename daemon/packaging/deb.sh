#!/bin/sh
# Makes the Debian package in a folder of its own, so that the source tree stays as it is: `deb.sh BUILT DOCS OUT`.
#
# BUILT has the programs, DOCS what `make docs` writes, OUT gets the package and what it was made in.
set -eu
built=$(realpath -e "$1") docs=$(realpath -e "$2")
mkdir -p "$3"
out=$(realpath -e "$3")
cd "$(dirname "$0")/../.."

if ! command -v dh >/dev/null 2>&1; then
    echo "debhelper is not installed: apt-get install debhelper" >&2
    exit 1
fi
rm -rf "$out/tree"
mkdir "$out/tree"
cp -a debian daemon doc perf README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$out/tree"
cd "$out/tree"
# What is built goes in as it is: rules would build it otherwise.
if ! BUILT=$built DOCS=$docs OUT=$out debian/rules binary >"$out/log" 2>&1; then
    cat "$out/log" >&2
    exit 1
fi
rm -rf "$out/tree"
ls "$out"/*.deb
