//! Who is connected to whom: veth pairs, an IPv4 site on a bridge, and the offload settings of their ends.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use crate::netns::Netns;

/// Name of a site member's IPv4 interface.
pub const UNDERLAY: &str = "eth0";

/// Connects two namespaces by a veth pair, both ends up. Only IPv4 runs on it, so nothing but the test's own
/// packets and ARP is seen there.
pub fn connect(a: &Netns, a_device: &str, b: &Netns, b_device: &str) {
    a.ip(&format!(
        "link add {a_device} type veth peer name {b_device} netns {}",
        b.name()
    ));
    for (ns, device) in [(a, a_device), (b, b_device)] {
        ns.sysctl(&format!("ipv6/conf/{device}/disable_ipv6"), "1");
        ns.ip(&format!("link set {device} up"));
    }
}

/// Connects two namespaces by a veth pair that carries IPv6 with the given addresses (`address/length`) and no
/// duplicate address detection.
pub fn connect_v6(a: &Netns, a_device: &str, a_addr: &str, b: &Netns, b_device: &str, b_addr: &str) {
    a.ip(&format!(
        "link add {a_device} type veth peer name {b_device} netns {}",
        b.name()
    ));
    for (ns, device, addr) in [(a, a_device, a_addr), (b, b_device, b_addr)] {
        ns.sysctl(&format!("ipv6/conf/{device}/accept_dad"), "0");
        ns.sysctl(&format!("ipv6/conf/{device}/accept_ra"), "0");
        ns.ip_batch(&format!(
            "addr add {addr} dev {device} nodad\nlink set {device} up\n"
        ));
    }
}

/// An IPv4 site: one bridge in a namespace of its own; members hang on it by veth.
///
/// ```text
///   member         member         member
///    eth0           eth0           eth0        10.0.0.x/24
///      |              |              |
///   ---+----- br0 ----+--------------+---      namespace of the switch
/// ```
#[derive(Debug)]
pub struct Site {
    switch: Netns,
    ports: AtomicU32,
}

impl Site {
    /// An empty site.
    pub fn new() -> Self {
        let switch = Netns::new("switch");
        switch.ip("link add br0 type bridge");
        switch.sysctl("ipv6/conf/br0/disable_ipv6", "1");
        switch.sysctl("ipv6/conf/default/disable_ipv6", "1");
        switch.ip("link set br0 up");
        Self {
            switch,
            ports: AtomicU32::new(0),
        }
    }

    /// A new namespace on the site with `10.0.0.<last>/24` on [`UNDERLAY`].
    pub fn member(&self, label: &str, last: u8) -> Netns {
        self.member_at(label, Ipv4Addr::new(10, 0, 0, last), 24)
    }

    /// A new namespace on the site with any address.
    pub fn member_at(&self, label: &str, address: Ipv4Addr, prefix_len: u8) -> Netns {
        let ns = Netns::new(label);
        self.attach(&ns, UNDERLAY);
        ns.ip(&format!("addr add {address}/{prefix_len} brd + dev {UNDERLAY}"));
        ns
    }

    /// Gives a namespace a further interface on the site, without an address.
    pub fn attach(&self, ns: &Netns, device: &str) {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        connect(ns, device, &self.switch, &format!("port{port}"));
        self.switch.ip(&format!("link set port{port} master br0"));
    }

    /// Has the switch take only packets of up to `mtu` bytes from the member that was attached as number `port` (from 0), and tell
    /// nobody: the member's device finds out.
    pub fn narrow(&self, port: u32, mtu: u16) {
        self.switch.ip(&format!("link set port{port} mtu {mtu}"));
    }

    /// Sets up both directions of the interface that was attached as number `port` (from 0): single packets travel, and the member's
    /// end merges what comes, or does not.
    pub fn set_gro(&self, port: u32, ns: &Netns, device: &str, gro: Gro) {
        let port = format!("port{port}");
        set_gro(&self.switch, &port, ns, device, gro);
        set_gro(ns, device, &self.switch, &port, Gro::Off);
    }

    /// Takes a member's interface away and puts another one in its place, with the same name, number, Ethernet address and
    /// IPv4 address.
    pub fn replace(&self, ns: &Netns, device: &str, address: Ipv4Addr) {
        let index = ns.enter(|| if_nametoindex(device)).expect("a device");
        let mac = mac(ns, device).map(|byte| format!("{byte:02x}")).join(":");
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        ns.ip(&format!("link del {device}"));
        ns.ip_batch(&format!(
            "link add {device} index {index} address {mac} type veth peer name port{port} netns {}\n",
            self.switch.name()
        ));
        self.switch.ip(&format!("link set port{port} master br0 up"));
        ns.ip_batch(&format!(
            "addr add {address}/24 brd + dev {device}\nlink set {device} up\n"
        ));
    }

    /// A further port as a tap device, for a machine whose network card is a program; the switch's namespace and the
    /// device's name in it.
    pub fn attach_tap(&self) -> (&Netns, String) {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        let tap = format!("port{port}");
        self.switch.ip(&format!("tuntap add dev {tap} mode tap"));
        self.switch.ip(&format!("link set {tap} master br0 up"));
        (&self.switch, tap)
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the receiving end of a veth pair merges what it receives, as a real NIC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gro {
    /// Nothing is merged: every outer packet arrives alone.
    Off,
    /// Threaded NAPI with a flush timeout, so that packets wait for each other and merging really happens.
    On,
}

/// Sets up one direction of a veth pair: the sender's end leaves segmentation to nobody (`tso off`), so single
/// packets travel, and the receiver's end merges them or does not.
pub fn set_gro(sender: &Netns, sender_device: &str, receiver: &Netns, receiver_device: &str, gro: Gro) {
    sender.run(&format!("ethtool -K {sender_device} tso off gso off"));
    match gro {
        Gro::Off => {
            receiver.run(&format!("ethtool -K {receiver_device} gro off"));
            receiver.set_device_attribute(receiver_device, "gro_flush_timeout", "0");
            receiver.set_device_attribute(receiver_device, "napi_defer_hard_irqs", "0");
        }
        Gro::On => {
            receiver.run(&format!("ethtool -K {receiver_device} gro on"));
            receiver.set_device_attribute(receiver_device, "threaded", "1");
            receiver.set_device_attribute(receiver_device, "gro_flush_timeout", "200000");
            receiver.set_device_attribute(receiver_device, "napi_defer_hard_irqs", "2");
        }
    }
}

/// The Ethernet address of an interface.
///
/// # Panics
/// When there is no such interface.
pub fn mac(ns: &Netns, device: &str) -> [u8; 6] {
    let found = ns.enter(|| {
        let mut all = getifaddrs().expect("getifaddrs");
        all.find_map(|entry| {
            let link = entry.address.as_ref()?.as_link_addr()?;
            if entry.interface_name == device {
                link.addr()
            } else {
                None
            }
        })
    });
    found.unwrap_or_else(|| panic!("{} has no interface {device}", ns.name()))
}
