//! What must hold for any bytes, whoever sent them (FAULTS 4-6, 9-13, 18, 25, 31, 45-47, 49, 62-65, 72, 75).
//!
//! Each target is a function that takes bytes and panics when a promise is broken: not only that nothing crashes, but
//! what an accepted packet looks like, that a splitter loses no byte, that a bound is a bound. They are written once,
//! here, and run in two ways: by `make fuzz` under libFuzzer with AddressSanitizer, and by `make test`, which replays the
//! corpora in `corpus/<target>/` on a stable compiler.
//!
//! | module | reads |
//! |---|---|
//! | [`packets`] | outer and inner packets, as both `decide` functions see them |
//! | [`offload`] | superpackets with their vnet headers, and runs of segments |
//! | [`discovery`] | neighbour discovery messages and their options, advertisements over time |
//! | [`errors`] | ICMPv4 errors and what they quote |
//! | [`control`] | configuration, what an engine leaves behind, control protocol, addresses of routers over time |
//! | [`dns`] | messages of name servers, and whom to ask for what |
//! | [`http`] | conversations with the HTTP port |
//! | [`monitor`] | messages across a border of privilege, and what the monitor carries out |
//! | [`ring`] | what a kernel may do with a ring |
#![forbid(unsafe_code)]

pub mod control;
pub mod discovery;
pub mod dns;
pub mod errors;
pub mod http;
pub mod monitor;
pub mod offload;
pub mod packets;
pub mod ring;
mod site;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics when the bytes break a promise.
    pub run: fn(&[u8]),
    /// The files of which it is to reach every line that any bytes can reach.
    pub about: &'static [&'static str],
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! targets {
    ($($module:ident :: $name:ident: [$($file:literal),+ $(,)?];)+) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$name, about: &[$($file),+] }),+
        ];
    };
}

targets! {
    packets::decap: [
        "engine/src/path/decap.rs",
        "engine/src/path/nd_gate.rs",
        "engine/src/isatap/ingress.rs",
        "engine/src/offload/merged.rs",
    ];
    packets::encap: ["engine/src/path/encap.rs", "engine/src/isatap/egress.rs"];
    packets::headers: ["engine/src/wire/ipv4.rs", "engine/src/wire/ipv6.rs", "engine/src/wire/ext.rs"];
    offload::split: ["engine/src/offload/split.rs", "engine/src/wire/vnet.rs"];
    offload::merge: ["engine/src/offload/merge.rs"];
    offload::checksum: ["engine/src/offload/csum.rs"];
    discovery::nd_messages: ["engine/src/wire/nd/mod.rs", "engine/src/wire/nd/options.rs"];
    discovery::advertisement: [
        "daemon/src/slaac/advert.rs",
        "daemon/src/slaac/dnssl.rs",
        "daemon/src/advertise/consistency.rs",
    ];
    discovery::autoconfiguration: [
        "daemon/src/slaac/machine.rs",
        "daemon/src/slaac/prefixes.rs",
        "daemon/src/slaac/router.rs",
    ];
    errors::icmp_quote: ["engine/src/path/quoted.rs"];
    errors::path_claim: ["daemon/src/pmtu/claim.rs"];
    control::configuration: [
        "daemon/src/config/file.rs",
        "daemon/src/config/lines.rs",
        "daemon/src/config/values.rs",
    ];
    control::kept_configuration: ["daemon/src/config/kept.rs", "daemon/src/config/resolve.rs"];
    control::known_hosts: ["daemon/src/advertise/clients.rs", "daemon/src/advertise/record.rs", "daemon/src/advertise/order.rs"];
    control::control_request: ["daemon/src/ops/protocol.rs"];
    control::name_answers: ["daemon/src/prl/names.rs"];
    dns::dns_message: ["daemon/src/prl/resolver/dns.rs"];
    dns::resolv_conf: ["daemon/src/prl/resolver/dns.rs"];
    http::http: ["daemon/src/ops/http.rs"];
    monitor::monitor_messages: ["daemon/src/monitor/wire.rs"];
    monitor::monitor_gate: ["daemon/src/monitor/gate.rs", "daemon/src/link/change/message.rs"];
    ring::ring_states: [
        "engine/src/io/uring.rs",
        "engine/src/io/uring/answers.rs",
        "engine/src/io/uring/calls.rs",
        "engine/src/io/outgoing.rs",
        "engine/src/io/writes.rs",
        "engine/src/io/bufring.rs",
        "engine/src/buf/pool.rs",
    ];
    monitor::helper_message: ["daemon/src/link/dns/message.rs"];
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
