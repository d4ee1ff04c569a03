//! Which device the kernel takes to an IPv4 address, by our reading of its tables and by its own word (`ip route get`).
//!
//! ```text
//!   namespace [ eth0 10.0.0.1/24 ]  [ eth1 10.1.0.1/16 ]  [ slip0 10.2.0.1/24: no Ethernet ]  [ is0: the tunnel ]
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use isatap_engine::ebpf::Egress;
use isatap_tests::netns::Netns;
use isatap_tests::topology::mac;
use isatapd::link::underlay::{Unusual, ethernet, ways};
use isatapd::link::{Netlink, WaysWatch};
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
        self.asked(async |netlink| {
            let dump = netlink.dump_underlay().await.expect("a dump");
            ways(&dump, tunnel)
        })
    }

    /// What the kernel says in this namespace.
    fn asked<T: Send>(&self, question: impl AsyncFnOnce(Netlink) -> T + Send) -> T {
        self.ns.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let question = async { question(Netlink::open().expect("a netlink socket")).await };
            runtime.expect("a runtime").block_on(question)
        })
    }

    /// The longest network of `ways`, as the programs look it up.
    fn way(ways: &[Egress], addr: Ipv4Addr) -> Option<Egress> {
        let holding = ways.iter().filter(|way| way.network.contains(addr));
        holding.max_by_key(|way| way.network.len()).copied()
    }

    /// The device and what it takes by that.
    fn device(ways: &[Egress], addr: Ipv4Addr) -> (u32, u16) {
        Self::way(ways, addr).map_or((0, 0), |way| (way.device, way.mtu))
    }

    /// The Ethernet devices, by name.
    fn ethernet(&self) -> BTreeMap<String, Option<[u8; 6]>> {
        let tunnel = self.index("is0");
        let devices = self.asked(async |netlink| {
            let dump = netlink.dump_underlay().await.expect("a dump");
            ethernet(&dump, tunnel)
        });
        let devices = devices.into_values();
        devices.map(|device| (device.name, device.link)).collect()
    }

    /// Device and gateway by the kernel; `None` when there is no way, or the way is to this machine itself.
    fn by_the_kernel(&self, addr: Ipv4Addr) -> Option<(String, Ipv4Addr)> {
        let output = self.ns.try_run(&format!("ip route get {addr}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let elsewhere = ["local", "broadcast", "multicast"];
        if !output.status.success() || elsewhere.iter().any(|kind| text.starts_with(kind)) {
            return None;
        }
        let behind = |name| {
            text.split_whitespace()
                .skip_while(move |word| *word != name)
                .nth(1)
        };
        let via = behind("via").map_or(Ipv4Addr::UNSPECIFIED, |via| via.parse().expect("a gateway"));
        Some((behind("dev")?.to_owned(), via))
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
            let by_the_kernel = machine.by_the_kernel(addr);
            let by_the_kernel = by_the_kernel.map(|(name, via)| (machine.index(&name), via));
            let via = Machine::way(&ways, addr).map(|way| way.via);
            assert_eq!(by_the_kernel, Some(device).zip(via), "{addr}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} addresses had a device");
}

/// Behind a gateway of IPv6 the kernel alone knows the neighbour (RFC 5549).
#[test]
fn a_gateway_of_ipv6_is_nobody_of_ipv4() {
    let machine = Machine::new();
    machine.ns.ip("route add 10.10.0.0/16 via inet6 fe80::1 dev eth0");
    let ways = machine.ways().expect("ways");
    let way = Machine::way(&ways, Ipv4Addr::new(10, 10, 0, 1)).expect("a way");
    assert_eq!(
        (way.device, way.via),
        (machine.index("eth0"), Ipv4Addr::BROADCAST)
    );
}

/// Frames are for devices that do nothing but pass them on.
#[test]
fn not_every_device_takes_frames() {
    let machine = Machine::new();
    for line in [
        "link add br0 type bridge",
        "link set br0 up",
        "tuntap add dev tap0 mode tap",
        "link set tap0 up",
    ] {
        machine.ns.ip(line);
    }
    let devices = machine.ethernet();
    let takes = |name: &str| devices.get(name).copied().expect("a device");
    for name in ["eth0", "eth1", "br0"] {
        assert_eq!(takes(name), Some(mac(&machine.ns, name)), "{name}");
    }
    assert_eq!(takes("tap0"), None);
    assert!(!devices.contains_key("slip0") && !devices.contains_key("is0"));
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

/// Of a nexthop object that goes the kernel tells, and not of the routes that go with it.
#[test]
fn routes_that_go_with_their_nexthop_are_missed() {
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 9);
    let machine = Machine::new();
    machine.ns.ip("nexthop add id 5 via 10.1.0.9 dev eth1");
    machine.ns.ip("route add 10.0.9.0/24 nhid 5");
    let (tunnel, eth1) = (machine.index("is0"), machine.index("eth1"));
    machine.asked(async |netlink| {
        let mut watch = WaysWatch::open(netlink, tunnel).expect("a netlink socket");
        // Devices that have just been set up are news for a while.
        let quiet = Duration::from_millis(300);
        while tokio::time::timeout(quiet, watch.changed()).await.is_ok() {}
        let device = async |watch: &WaysWatch| {
            let ways = watch.look().await.expect("a dump");
            Machine::device(&ways.egress.expect("usual routing"), THERE).0
        };
        assert_eq!(device(&watch).await, eth1);
        machine.ns.ip("nexthop del id 5");
        let news = tokio::time::timeout(Duration::from_secs(5), watch.changed());
        news.await.expect("word of it");
        assert_eq!(device(&watch).await, 0);
    });
}
