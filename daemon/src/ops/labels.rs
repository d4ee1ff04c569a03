//! The values of labels on metrics, each shown from the start, also at 0.

/// Why options of accepted advertisements were left out.
pub const IGNORED_OPTIONS: [&str; 8] = [
    "unknown",
    "link_layer",
    "prefix",
    "route",
    "mtu",
    "server",
    "name",
    "excess",
];
/// What became of an ICMPv4 error for the sender of the packet it is about.
pub const ICMP_TRANSLATIONS: [&str; 7] = [
    "failed",
    "foreign",
    "kept",
    "limited",
    "short",
    "translated",
    "unanswerable",
];
/// What became of what this host says to all routers.
pub const ALL_ROUTERS_RESULTS: [&str; 4] = ["failed", "not_ready", "rate_limited", "sent"];
/// What became of a redirect that reached control.
pub const REDIRECT_RESULTS: [&str; 3] = ["accepted", "malformed", "rate_limited"];
/// What became of a router advertisement that reached control.
pub const ADVERTISEMENT_RESULTS: [&str; 6] = [
    "accepted",
    "compared",
    "ignored",
    "malformed",
    "rate_limited",
    "unknown_router",
];
/// What became of a reload.
pub const RELOAD_RESULTS: [&str; 2] = ["failure", "success"];
/// What was heard about paths: believed from a router or our own link, or why not.
pub const PATH_MESSAGES: [&str; 8] = [
    "foreign",
    "fragmentable",
    "implausible",
    "link",
    "outdated",
    "router",
    "static",
    "unmarked",
];
/// What became of what is known about paths.
pub const PATH_CHANGES: [&str; 3] = ["evicted", "lowered", "raised"];
/// Kinds of ICMPv4 error that concern the tunnel.
pub const ICMP_ERROR_KINDS: [&str; 4] = ["frag_needed", "other", "time_exceeded", "unreachable"];
