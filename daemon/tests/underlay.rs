//! Which device the kernel takes to an IPv4 address, by our reading of its tables and by its own word (`ip route get`).
//!
//! ```text
//!   namespace [ eth0 10.0.0.1/24 ]  [ eth1 10.1.0.1/16 ]  [ slip0 10.2.0.1/24: no Ethernet ]  [ is0: the tunnel ]
//! ```

use std::net::Ipv4Addr;

use isatap_engine::ebpf::Egress;
use isatap_tests::netns::Netns;
use isatapd::link::Netlink;
use isatapd::link::underlay::{Unusual, ways};
use nix::net::if_::if_nametoindex;

struct Machine {
    ns: Netns,
}

impl Machine {
    fn new() -> Self {
        let ns = Netns::new("ways");
        for device in ["eth0", "eth1"] {
            ns.ip(&format!("link add {device} type veth peer name far-{device}"));
            ns.ip(&format!("link set far-{device} up"));
            ns.ip(&format!("link set {device} up"));
        }
        for device in ["slip0", "is0"] {
            ns.ip(&format!("tuntap add dev {device} mode tun"));
            ns.ip(&format!("link set {device} up"));
        }
        ns.ip("link set eth1 mtu 1400");
        for (device, address) in [
            ("eth0", "10.0.0.1/24"),
            ("eth1", "10.1.0.1/16"),
            ("slip0", "10.2.0.1/24"),
        ] {
            ns.ip(&format!("addr add {address} brd + dev {device}"));
        }
        Self { ns }
    }

    fn index(&self, device: &str) -> u32 {
        let index = self.ns.enter(|| if_nametoindex(device));
        index.unwrap_or_else(|error| panic!("{device}: {error}"))
    }

    fn ways(&self) -> Result<Vec<Egress>, Unusual> {
        let tunnel = self.index("is0");
        self.ns.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let netlink = Netlink::open().expect("a netlink socket");
                ways(&netlink.dump_underlay().await.expect("a dump"), tunnel)
            })
        })
    }

    /// The device by the longest network of `ways`, as the programs look it up.
    fn device(ways: &[Egress], addr: Ipv4Addr) -> (u32, u16) {
        let holding = ways.iter().filter(|way| way.network.contains(addr));
        let longest = holding.max_by_key(|way| way.network.len());
        longest.map_or((0, 0), |way| (way.device, way.mtu))
    }

    /// The device by the kernel; `None` when there is no way, or the way is to this machine itself.
    fn by_the_kernel(&self, addr: Ipv4Addr) -> Option<String> {
        let output = self.ns.try_run(&format!("ip route get {addr}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let elsewhere = ["local", "broadcast", "multicast"];
        if !output.status.success() || elsewhere.iter().any(|kind| text.starts_with(kind)) {
            return None;
        }
        let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
        words.nth(1).map(str::to_owned)
    }
}

/// What a program is told is what the kernel would do, or nothing.
#[test]
fn ways_are_the_kernels() {
    let machine = Machine::new();
    for line in [
        "default via 10.0.0.254",
        "10.3.0.0/16 via 10.1.0.254",
        "10.3.7.0/24 via 10.0.0.254 mtu 1300",
        "10.3.7.128/25 dev slip0",
        "10.4.0.0/16 via 10.0.0.254 metric 20",
        "10.4.0.0/16 via 10.1.0.254 metric 10",
        "10.5.0.0/16 nexthop via 10.0.0.254 nexthop via 10.1.0.254",
        "blackhole 10.6.0.0/16",
        "unreachable 10.6.1.0/24",
        "10.7.0.0/16 via 10.0.0.254",
        "10.7.0.0/16 via 10.1.0.254 tos 0x10",
        "10.8.0.0/16 dev is0",
        "10.8.1.0/24 via 10.0.0.254",
        "10.9.0.0/16 via 10.1.0.254 table 100",
    ] {
        machine.ns.ip(&format!("route add {line}"));
    }
    let ways = machine.ways().expect("ways");
    let (eth0, eth1) = (machine.index("eth0"), machine.index("eth1"));
    for (addr, expected) in [
        ("10.0.0.9", (eth0, 1500)),
        ("198.51.100.1", (eth0, 1500)),
        ("10.1.9.9", (eth1, 1400)),
        ("10.3.0.1", (eth1, 1400)),
        ("10.3.7.1", (eth0, 1300)),
        ("10.4.0.1", (eth1, 1400)),
        ("10.8.1.1", (eth0, 1500)),
        ("10.9.0.1", (eth0, 1500)),
    ] {
        let addr = addr.parse().expect("an address");
        assert_eq!(Machine::device(&ways, addr), expected, "{addr}");
    }
    for addr in [
        "10.0.0.1",
        "10.0.0.255",
        "10.1.0.1",
        "10.2.0.9",
        "10.3.7.200",
        "10.5.0.1",
        "10.6.0.1",
        "10.6.1.1",
        "10.7.0.1",
        "10.8.0.1",
        "127.0.0.1",
    ] {
        let addr = addr.parse().expect("an address");
        assert_eq!(Machine::device(&ways, addr).0, 0, "{addr}");
    }
    let mut compared = 0;
    for number in 0..400u32 {
        let addr = Ipv4Addr::from_bits(0x0a00_0000 | number.wrapping_mul(0x9e37_79b1) >> 12);
        let (device, _) = Machine::device(&ways, addr);
        if device != 0 {
            let by_the_kernel = machine.by_the_kernel(addr).map(|name| machine.index(&name));
            assert_eq!(by_the_kernel, Some(device), "{addr}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} addresses had a device");
}

/// Devices come and go: what is down leads nowhere.
#[test]
fn what_is_down_leads_nowhere() {
    let machine = Machine::new();
    machine.ns.ip("route add default via 10.0.0.254");
    let addr = Ipv4Addr::new(10, 1, 0, 9);
    let device = |machine: &Machine| Machine::device(&machine.ways().expect("ways"), addr).0;
    assert_eq!(device(&machine), machine.index("eth1"));
    machine.ns.ip("link set eth1 down");
    // The kernel has taken the network away, and the default route goes on.
    assert_eq!(device(&machine), machine.index("eth0"));
    machine.ns.ip("link set eth0 down");
    assert_eq!(device(&machine), 0);
}

/// What the main table alone does not decide is left to the kernel, and said.
#[test]
fn unusual_routing_is_named() {
    let machine = Machine::new();
    for (add, remove, expected) in [
        ("rule add fwmark 1 table 100", "rule del fwmark 1", Unusual::Rules),
        (
            "rule add from 10.0.0.1 table main",
            "rule del from 10.0.0.1",
            Unusual::Rules,
        ),
        (
            "rule add table main suppress_prefixlength 0 pref 5",
            "rule del pref 5",
            Unusual::Rules,
        ),
        ("rule add blackhole pref 5", "rule del pref 5", Unusual::Rules),
        (
            "route add 10.9.0.0/16 dev eth0 table default",
            "route flush table default",
            Unusual::Tables,
        ),
    ] {
        machine.ns.ip(add);
        assert_eq!(machine.ways(), Err(expected), "{add}");
        machine.ns.ip(remove);
        assert!(machine.ways().is_ok(), "{remove}");
    }
}
