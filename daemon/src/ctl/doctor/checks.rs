//! The traps, one function each. Pure: a [`Sight`] goes in, a finding comes out, nothing where the trap cannot be.

use isatap_engine::isatap::mtu::TUNNEL_MTU_MIN;
use isatap_engine::reason::DropReason;

use super::sight::{Sight, device_of, is_on};
use super::{Finding, Grade, filters, machine};
use crate::ctl::share;
use crate::link::inet6_table::isatap_interfaces;
use crate::link::raw_table::inodes_of_protocol_41;
use crate::ops::status::Status;

/// Bytes of the outer header.
const OVERHEAD: u32 = 20;

/// Every check.
pub(super) fn all(sight: &Sight) -> Vec<Finding> {
    let checks: [fn(&Sight) -> Option<Finding>; 25] = [
        daemon,
        engines,
        readiness,
        machine::capabilities,
        machine::tun,
        machine::uring,
        machine::ebpf,
        machine::memlock,
        machine::neighbours,
        machine::sandbox,
        machine::clock,
        other_tunnels,
        other_receivers,
        same_locator,
        forwarding,
        router_address,
        radvd,
        rp_filter,
        underlay_mtu,
        udp_gro,
        machine::segmentation,
        filters::firewall,
        filters::translation,
        kernel_drops,
        unsent,
    ];
    checks.iter().filter_map(|check| check(sight)).collect()
}

pub(super) fn running(sight: &Sight) -> Option<&Status> {
    sight.status.as_ref().ok()
}

fn router(sight: &Sight) -> Option<&Status> {
    running(sight).filter(|status| status.role == "router")
}

fn is_set(status: &Status, name: &str, value: &str) -> bool {
    let mut lines = status.configuration.iter();
    lines.any(|line| line.name == name && line.value == value)
}

fn daemon(sight: &Sight) -> Option<Finding> {
    Some(match &sight.status {
        Ok(status) => Finding::fine(
            "daemon",
            format!(
                "version {}, pid {}, lane {}",
                status.version,
                status.pid,
                share::lane(status)
            ),
        ),
        Err(why) => Finding::new(
            Grade::Obstacle,
            "daemon",
            why.as_str(),
            "start isatapd; what follows is about the machine alone",
        ),
    })
}

/// The tunnel goes on when an engine dies, so that nobody may have noticed.
fn engines(sight: &Sight) -> Option<Finding> {
    let restarts = running(sight)?.control.engine_restarts.iter();
    let restarts = restarts.filter(|(_, count)| **count > 0);
    let ended: Vec<_> = restarts
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    Some(if ended.is_empty() {
        Finding::fine("engine", "never ended by itself")
    } else {
        Finding::new(
            Grade::Warning,
            "engine",
            format!("ended and was started again: {}", ended.join(", ")),
            "the log says what ended it (journalctl -u isatapd); more memory if the kernel did (dmesg), a report to us otherwise",
        )
    })
}

fn readiness(sight: &Sight) -> Option<Finding> {
    let status = running(sight)?;
    Some(if status.ready {
        Finding::fine("ready", "packets can be carried")
    } else {
        // Without these no router could answer.
        let stands = status.interface.up && status.locator.present && !status.interface.addresses.is_empty();
        let remedy = if status.routers.is_empty() || !stands {
            "isatapctl status shows interface and address"
        } else {
            "isatapctl routers shows whether they answer; protocol 41 must pass between here and there"
        };
        Finding::new(Grade::Obstacle, "ready", status.not_ready.join("; "), remedy)
    })
}

/// D3, FAULTS 36: another handler of protocol 41 in the kernel answers for us, or takes packets twice.
fn other_tunnels(sight: &Sight) -> Option<Finding> {
    const HANDLERS: [&str; 5] = ["sit", "tunnel4", "ipip", "ip_vti", "xfrm4_tunnel"];
    let loaded: Vec<&str> = sight
        .modules
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|module| HANDLERS.contains(module))
        .collect();
    let devices: Vec<&str> = sight
        .tools
        .sit_links
        .as_deref()
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|name| name.trim_end_matches(':'))
        .collect();
    Some(match (devices.is_empty(), loaded.is_empty()) {
        (false, _) => Finding::new(
            Grade::Warning,
            "kernel tunnels",
            format!("there are sit devices: {}", devices.join(", ")),
            "a sit device with our address takes each packet a second time; ip link del them, and rmmod sit",
        ),
        (true, false) => Finding::new(
            Grade::Warning,
            "kernel tunnels",
            format!("loaded: {}", loaded.join(", ")),
            "the kernel answers packets of protocol 41 with \"port unreachable\" beside us; rmmod them",
        ),
        (true, true) => Finding::fine("kernel tunnels", "no other handler of protocol 41 in the kernel"),
    })
}

/// FAULTS 36: another program with a protocol-41 socket, that is not the daemon of another address's tunnel.
fn other_receivers(sight: &Sight) -> Option<Finding> {
    let sockets = inodes_of_protocol_41(&sight.raw_sockets).count();
    let status = running(sight);
    // Each worker has two, and control has one.
    let ours = status.map_or(0, |status| 2 * status.workers.len() + 1);
    let own = status.map(|status| status.interface.name.as_str());
    let mut beside = isatap_interfaces(&sight.ipv6_addresses).map(|(name, _)| name);
    let found = format!(
        "{} socket(s) for protocol 41 that are not this daemon's",
        sockets.saturating_sub(ours)
    );
    Some(if sockets <= ours {
        Finding::fine("protocol 41", "no other program receives it")
    } else if let Some(name) = beside.find(|name| Some(*name) != own) {
        // Of one at the same address `same_locator` tells.
        Finding::fine("protocol 41", format!("{found}: of the tunnel interface {name}"))
    } else {
        Finding::new(
            Grade::Warning,
            "protocol 41",
            found,
            "a second tunnel program gets a copy of each packet, and may answer it: ss -0wp shows whose they are",
        )
    })
}

/// FAULTS 36: another ISATAP interface at the same address.
fn same_locator(sight: &Sight) -> Option<Finding> {
    let locator = &running(sight)?.locator;
    Some(if locator.shared_with.is_empty() {
        Finding::fine("locator", "no other tunnel interface has it")
    } else {
        let others = locator.shared_with.join(", ");
        Finding::new(
            Grade::Obstacle,
            "locator",
            format!("{others} has it as well: of what arrives each has a copy, or one has all"),
            format!(
                "stop the isatapd of {others} (a tunnel of the kernel's goes with ip link del {others}), or give each its own BindAddress"
            ),
        )
    })
}

fn forwarding(sight: &Sight) -> Option<Finding> {
    router(sight)?;
    Some(match sight.forwarding.as_deref() {
        Some("1") => Finding::fine("forwarding", "the kernel forwards IPv6"),
        Some(_) => Finding::new(
            Grade::Obstacle,
            "forwarding",
            "this is a router, but the kernel does not forward IPv6",
            "sysctl -w net.ipv6.conf.all.forwarding=1, and in /etc/sysctl.d to keep it",
        ),
        None => Finding::new(
            Grade::Obstacle,
            "forwarding",
            "this kernel has no IPv6",
            "boot without ipv6.disable=1",
        ),
    })
}

fn router_address(sight: &Sight) -> Option<Finding> {
    let status = router(sight)?;
    let name = &status.interface.name;
    let has_global = status
        .interface
        .addresses
        .iter()
        .any(|address| !address.starts_with("fe80:"));
    Some(if has_global {
        Finding::fine("router's address", status.interface.addresses.join(" "))
    } else {
        Finding::new(
            Grade::Warning,
            "router's address",
            format!("{name} has no address of a prefix: hosts with one are refused (src_prefix)"),
            "AdvertisePrefix PREFIX/64 on-link; or by hand, ip -6 addr add PREFIX::5efe:IPV4/64 dev INTERFACE",
        )
    })
}

/// FAULTS 59.
fn radvd(sight: &Sight) -> Option<Finding> {
    let status = router(sight)?;
    let interface = &status.interface.name;
    if is_set(status, "Advertise", "yes") {
        return Some(Finding::fine("advertisements", "by the daemon itself"));
    }
    let section = sight
        .radvd
        .as_deref()
        .and_then(|text| section_of(text, interface));
    Some(match section {
        None => Finding::new(
            Grade::Warning,
            "advertisements",
            format!(
                "nobody answers solicitations: Advertise is off, and radvd.conf does not name {interface}"
            ),
            "Advertise yes with AdvertisePrefix; or radvd with the shipped snippet",
        ),
        Some(section) if !has_option(&section, "UnicastOnly", "on") => Finding::new(
            Grade::Note,
            "advertisements",
            format!("radvd.conf: interface {interface} lacks UnicastOnly"),
            "what it says to all nodes reaches the hosts that asked lately; with UnicastOnly on; only those who ask now",
        ),
        Some(section) if !has_option(&section, "AdvSendAdvert", "on") => Finding::new(
            Grade::Warning,
            "advertisements",
            format!("radvd.conf: interface {interface} lacks AdvSendAdvert"),
            "AdvSendAdvert on;",
        ),
        Some(_) => Finding::fine("advertisements", "by radvd, to those who ask"),
    })
}

/// The braces behind `interface NAME` of a radvd.conf, without comments.
fn section_of(text: &str, interface: &str) -> Option<String> {
    let text: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let name_of = |word: &str| {
        word.split('{')
            .next()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let at = words
        .windows(2)
        .position(|pair| pair[0] == "interface" && name_of(pair[1]) == interface)?;
    let rest = words[at..].join(" ");
    let (mut depth, mut section) = (0, String::new());
    for character in rest.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        section.push(character);
        if character == '}' && depth == 0 {
            break;
        }
    }
    Some(section)
}

fn has_option(section: &str, name: &str, value: &str) -> bool {
    let words: Vec<&str> = section
        .split(|c: char| c.is_whitespace() || matches!(c, ';' | '{' | '}'))
        .filter(|word| !word.is_empty())
        .collect();
    words.windows(2).any(|pair| pair == [name, value])
}

fn rp_filter(sight: &Sight) -> Option<Finding> {
    let strict: Vec<&str> = sight
        .rp_filter
        .iter()
        .filter(|(_, value)| value == "1")
        .map(|(device, _)| device.as_str())
        .collect();
    Some(if strict.is_empty() {
        Finding::fine("rp_filter", "not strict")
    } else {
        Finding::new(
            Grade::Note,
            "rp_filter",
            format!("strict for {}", strict.join(", ")),
            "fine while answers go out where packets came in; otherwise the kernel drops them: rp_filter=2",
        )
    })
}

fn underlay_mtu(sight: &Sight) -> Option<Finding> {
    let status = running(sight)?;
    let addresses = sight.tools.addresses.as_deref().ok()?;
    let device = device_of(addresses, &status.locator.address.to_string())?;
    let links = sight.tools.links.as_deref().ok()?;
    let mtu = mtu_of(links, &device)?;
    let needed = u32::from(status.interface.tunnel_mtu) + OVERHEAD;
    Some(if mtu < needed {
        Finding::new(
            Grade::Warning,
            "MTU",
            format!("{device} takes {mtu} bytes, a full tunnel packet has {needed}: each is fragmented"),
            match mtu.saturating_sub(OVERHEAD) {
                inner if inner < u32::from(TUNNEL_MTU_MIN) => {
                    format!("a larger MTU of {device}: no Mtu is below {TUNNEL_MTU_MIN}")
                }
                inner => format!("Mtu {inner}, or a larger MTU of {device}"),
            },
        )
    } else {
        Finding::fine(
            "MTU",
            format!("{device} takes {mtu} bytes, the tunnel needs {needed}"),
        )
    })
}

/// The MTU of a device in the output of `ip -o link show`.
fn mtu_of(links: &str, device: &str) -> Option<u32> {
    let line = links.lines().find(|line| {
        let name = line.split_whitespace().nth(1).unwrap_or_default();
        name.trim_end_matches(':').split('@').next() == Some(device)
    })?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1)?.parse().ok()
}

/// DESIGN D3: of UDP merged by the underlay the kernel says how, or it is lost.
fn udp_gro(sight: &Sight) -> Option<Finding> {
    let features = sight.tools.features.as_deref().ok()?;
    let lost = running(sight).and_then(|status| status.total.decap.drops.get("merged"));
    Some(if let Some(lost) = lost {
        Finding::new(
            Grade::Warning,
            "GRO",
            format!(
                "{lost} merged UDP packets were dropped: where their datagrams ended is known since Linux 6.2, with CAP_BPF"
            ),
            "ethtool -K DEVICE rx-udp-gro-forwarding off rx-gro-list off; gro off, if programs here ask for merged datagrams",
        )
    } else if is_on(features, "generic-receive-offload") {
        Finding::fine("GRO", "on, and dealt with")
    } else {
        Finding::fine("GRO", "off")
    })
}

fn kernel_drops(sight: &Sight) -> Option<Finding> {
    let dropped: u64 = running(sight)?.kernel_drops.values().sum();
    Some(if dropped > 0 {
        Finding::new(
            Grade::Note,
            "kernel's drops",
            format!("{dropped} packet(s) were dropped before a worker saw them"),
            "if it grows: more Workers, or larger net.core.rmem_max",
        )
    } else {
        Finding::fine("kernel's drops", "none")
    })
}

/// What was to be sent and was refused, also what leaves no trace among the drops: programs in the kernel hear of no refusal, and what
/// control says itself is no worker's packet.
fn unsent(sight: &Sight) -> Option<Finding> {
    let status = running(sight)?;
    let told = status.control.advertisements_sent.get("failed").copied();
    let refused = status
        .total
        .encap
        .drops
        .get(DropReason::SendError.name())
        .copied();
    let places = [
        (
            refused.unwrap_or(0),
            "packet(s) of the tunnel (isatapctl workers has the errors)",
        ),
        (told.unwrap_or(0), "advertisement(s)"),
        (
            status.device_drops,
            "packet(s) of anybody by the devices of the IPv4 network",
        ),
    ];
    let places = places.into_iter().filter(|(count, _)| *count > 0);
    let found: Vec<_> = places.map(|(count, what)| format!("{count} {what}")).collect();
    Some(if found.is_empty() {
        Finding::fine("sending", "nothing was refused")
    } else {
        Finding::new(
            Grade::Note,
            "sending",
            format!("refused: {}", found.join(", ")),
            "if it grows: the kernel may know no more IPv4 neighbours than it does (\"neighbor table overflow\" in its log: net.ipv4.neigh.default.gc_thresh3 \
             above the number of hosts on this machine's own networks, gc_thresh2 half of it), a rule for what goes out may refuse protocol 41 (nft list ruleset, ip rule), \
             or a device is down or full (ip -s link)",
        )
    })
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
