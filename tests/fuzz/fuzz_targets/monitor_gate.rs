//! [`isatap_fuzz::monitor::monitor_gate`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::monitor::monitor_gate(data));
