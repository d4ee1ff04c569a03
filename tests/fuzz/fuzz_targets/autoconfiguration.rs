//! [`isatap_fuzz::discovery::autoconfiguration`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| isatap_fuzz::discovery::autoconfiguration(data));
