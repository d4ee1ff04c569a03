//! What a look at the machine yields: texts as the kernel and its tools write them, read in one place so that the checks
//! need no machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use isatap_engine::io::probe;
use isatap_engine::io::restrict::RingScope;

use crate::launch::{confine, require};
use crate::ops::status::Status;

/// Everything the checks ask.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// The daemon's status, or why there is none.
    pub(super) status: Result<Status, String>,
    /// Whether `/dev/net/tun` can be opened, or why not.
    pub(super) tun: Result<(), String>,
    /// What the kernel offers of io_uring, or why nothing.
    pub(super) uring: Result<String, String>,
    /// What the kernel offers the `ebpf` lane, or why nothing; `None` where a daemon runs, which knows better.
    pub(super) ebpf: Option<Result<String, String>>,
    /// `/proc/modules`.
    pub(super) modules: String,
    /// `/proc/self/net/raw`.
    pub(super) raw_sockets: String,
    /// `/proc/self/net/if_inet6`.
    pub(super) ipv6_addresses: String,
    /// `/proc/sys/net/ipv6/conf/all/forwarding`, `None` without IPv6.
    pub(super) forwarding: Option<String>,
    /// `/proc/sys/net/ipv4/conf/{all,DEVICE}/rp_filter` by device.
    pub(super) rp_filter: Vec<(String, String)>,
    /// `/etc/radvd.conf`, if it is there.
    pub(super) radvd: Option<String>,
    /// What tools say; an error when they are not there or may not look.
    pub(super) tools: Tools,
    /// Capabilities a start needs that no process started here can get, by name.
    pub(super) capabilities_missing: Vec<String>,
    /// Whether it is later than when this program was made.
    pub(super) clock_is_plausible: bool,
    /// Layers of the sandbox that this machine does not have, and why.
    pub(super) missing_layers: Vec<(&'static str, String)>,
    /// `Max locked memory` of the daemon in bytes, if it has a limit.
    pub(super) memlock: Option<u64>,
    /// The kernel's table of IPv4 neighbours, which is one for all namespaces; `None` where another namespace shows nothing of it.
    pub(super) neighbours: Option<NeighbourTable>,
}

/// How full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourTable {
    /// Neighbours in it.
    pub(super) entries: u64,
    /// How many it takes (`gc_thresh3`).
    pub(super) limit: u64,
    /// How often there was no room for one since the machine started.
    pub(super) refused: u64,
}

/// Outputs of programs.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    /// `ip -o link show type sit`.
    pub(super) sit_links: Result<String, String>,
    /// `ip -o -4 addr show`.
    pub(super) addresses: Result<String, String>,
    /// `ip -o link show`.
    pub(super) links: Result<String, String>,
    /// `nft list ruleset`.
    pub(super) ruleset: Result<String, String>,
    /// `ethtool -k DEVICE` of the locator's device.
    pub(super) features: Result<String, String>,
    /// `ethtool -k DEVICE` of each device that is hardware, by name.
    pub(super) hardware: Vec<(String, String)>,
}

impl Sight {
    pub(super) fn of_this_machine(status: Result<Status, String>) -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let addresses = output("ip", &["-o", "-4", "addr", "show"]);
        let device = match (&status, &addresses) {
            (Ok(status), Ok(text)) => device_of(text, &status.locator.address.to_string()),
            _ => None,
        };
        let devices = ["all".to_owned()].into_iter().chain(device.clone());
        let rp_filter = devices.filter_map(|name| {
            let value = read(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"))?;
            Some((name, value.trim().to_owned()))
        });
        let features = match &device {
            Some(device) => output("ethtool", &["-k", device]),
            None => Err("the device of the locator is not known".to_owned()),
        };
        Self {
            tun: open_tun(),
            uring: probe::uring(RingScope::Lane),
            ebpf: status.is_err().then(probe::ebpf),
            modules: read("/proc/modules").unwrap_or_default(),
            raw_sockets: read("/proc/self/net/raw").unwrap_or_default(),
            ipv6_addresses: read("/proc/self/net/if_inet6").unwrap_or_default(),
            forwarding: read("/proc/sys/net/ipv6/conf/all/forwarding").map(|text| text.trim().to_owned()),
            rp_filter: rp_filter.collect(),
            radvd: read("/etc/radvd.conf"),
            capabilities_missing: require::out_of_reach(),
            clock_is_plausible: clock_is_plausible(),
            memlock: status.as_ref().ok().and_then(|status| locked_memory(status.pid)),
            missing_layers: confine::missing(),
            neighbours: neighbour_table(
                read("/proc/net/stat/arp_cache").as_deref(),
                read("/proc/sys/net/ipv4/neigh/default/gc_thresh3").as_deref(),
            ),
            tools: Tools {
                sit_links: output("ip", &["-o", "link", "show", "type", "sit"]),
                addresses,
                links: output("ip", &["-o", "link", "show"]),
                ruleset: output("nft", &["list", "ruleset"]),
                features,
                hardware: hardware(),
            },
            status,
        }
    }
}

/// Each device with a driver of its own, and its features; without `ethtool` none.
fn hardware() -> Vec<(String, String)> {
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let driven = devices.filter(|device| device.path().join("device").exists());
    let names = driven.filter_map(|device| device.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter_map(|name| output("ethtool", &["-k", &name]).ok().map(|text| (name, text)))
        .collect();
    found.sort_unstable();
    found
}

/// Whether a feature is on in the output of `ethtool -k`.
pub(super) fn is_on(features: &str, name: &str) -> bool {
    features.lines().any(|line| {
        line.trim()
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(": on"))
    })
}

fn clock_is_plausible() -> bool {
    let made = std::env::current_exe().and_then(|path| fs::metadata(path)?.modified());
    made.map_or(true, |made| SystemTime::now() >= made)
}

fn open_tun() -> Result<(), String> {
    let path = Path::new("/dev/net/tun");
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!(
            "{}: {}",
            shown(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{}: {error}", shown())),
    }
}

/// What `/proc/net/stat/arp_cache` (a line of hexadecimal numbers for each CPU under one of names) and `gc_thresh3` say.
pub(super) fn neighbour_table(counts: Option<&str>, limit: Option<&str>) -> Option<NeighbourTable> {
    let mut lines = counts?.lines().map(|line| line.split_whitespace());
    let names: Vec<&str> = lines.next()?.collect();
    let column = |name| names.iter().position(|shown| *shown == name);
    let (entries, refused) = (column("entries")?, column("table_fulls")?);
    let rows: Option<Vec<Vec<u64>>> = lines
        .map(|numbers| {
            numbers
                .map(|number| u64::from_str_radix(number, 16).ok())
                .collect()
        })
        .collect();
    let rows = rows?;
    Some(NeighbourTable {
        // All rows say the same of the table.
        entries: *rows.first()?.get(entries)?,
        limit: limit?.trim().parse().ok()?,
        refused: rows.iter().filter_map(|row| row.get(refused)).sum(),
    })
}

/// The device of an address in the output of `ip -o -4 addr show`.
pub(super) fn device_of(addresses: &str, address: &str) -> Option<String> {
    let line = addresses
        .lines()
        .find(|line| line.contains(&format!(" inet {address}/")))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// `None` without a limit.
fn locked_memory(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
