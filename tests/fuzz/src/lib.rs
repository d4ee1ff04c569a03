//! What must hold for any bytes, whoever sent them (FAULTS 9-13, 18, 31, 45, 49, 62-65, 72).
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
//! | [`control`] | configuration, control protocol, answers of name servers |
#![forbid(unsafe_code)]

pub mod control;
pub mod discovery;
pub mod errors;
pub mod offload;
pub mod packets;
mod site;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Panics when the bytes break a promise.
    pub run: fn(&[u8]),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! targets {
    ($($module:ident :: $name:ident),+ $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$name }),+
        ];
    };
}

targets! {
    packets::decap,
    packets::encap,
    packets::headers,
    offload::split,
    offload::merge,
    offload::checksum,
    discovery::nd_messages,
    discovery::advertisement,
    discovery::autoconfiguration,
    errors::icmp_quote,
    errors::path_claim,
    control::configuration,
    control::control_request,
    control::name_answers,
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
