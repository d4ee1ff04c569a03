//! [`isatap_fuzz::control::known_hosts`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::control::known_hosts(data));
