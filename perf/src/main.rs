//! `isatap-perf`: throughput, packet rate and latency in namespaces.

fn main() {}
