#!/bin/sh
# Installs what the tests, the demo and CI call, on Debian 12; does nothing where everything is there already.
# Prepares the guest of the tests against the kernel's own ISATAP as well, unless called with --no-guest.
set -eu
cd "$(dirname "$0")"

missing=
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

need ip iproute2
need ping iputils-ping
need ps procps
need ethtool ethtool
need nft nftables
need radvd radvd
need rdisc6 ndisc6
need radvdump radvdump
need iperf3 iperf3
need tcpdump tcpdump
need dnsmasq dnsmasq-base
need bird bird2
need promtool prometheus
need chromium "chromium fonts-dejavu-core"
need cc gcc
# The programs of the ebpf lane.
need clang clang
# The Debian package, its man pages, its completions, and what systemd says of the unit.
need dh debhelper
need mandoc mandoc
need man man-db
need strace strace
# Makes every system call there is, under the daemon's own filters.
need perl perl-base
need zsh zsh
need fish fish
need systemd-analyze systemd

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "not installed, and no apt-get here to install it with:$missing" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "not installed (run this as root, or install by hand):$missing" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # radvd, iperf3 and BIRD must not start as services of this machine: a policy that refuses, for this one run.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    # shellcheck disable=SC2086 # a list of words
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    rm -f "$log"
    echo "installed:$missing"
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is not in PATH; install Rust from https://rustup.rs" >&2
    exit 1
fi

# The tunnel device: present on every Debian machine, not always in a container.
if [ "$(id -u)" -eq 0 ] && [ ! -e /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200
fi

# A test waits for it if this fails here, and tells why there can be none.
if [ "${1-}" != --no-guest ]; then
    ./kernel-peer/build >/dev/null || true
fi
